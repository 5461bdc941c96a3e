"""What makes the cache hold for hundreds of thousands of images, with small limits in place of the large ones.

Builds that continue, samples instead of whole checks, bad images left out, memory that does not grow.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from helpers_cache import FINISHED, NAMES, UNFINISHED, Toy, child, decoded, files, flip_a_byte, until
from hypothesis import given, settings
from hypothesis import strategies as st
from test_listed import PROTOCOL, Small, copy  # noqa: F401 (a fixture)

from bench.data import cache_build, cache_check, pixel_file
from bench.data.cache import Pixels, open_pixels
from bench.data.pixel_file import PixelFile
from bench.errors import UserError

EVERY_IMAGE = "cache_build.FLUSH_BYTES = 1"  # for a child: a killed build loses no image
ROW = 64  # bytes of an image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_build, "FLUSH_BYTES", 1)


def assert_whole(pixels: Pixels, bad: tuple[int, ...] = ()) -> None:
    """Rows, hash and digests are those of the dataset, zeros for bad images."""
    wanted = [0 if number in bad else number for number in range(40)]
    assert pixels.array[:, 0, 0].tolist() == wanted
    assert (pixels.array == pixels.array[:, :1, :1]).all()
    assert pixels.sha256 == hashlib.sha256(pixels.array.tobytes()).hexdigest()
    for number, (image, digest) in enumerate(zip(pixels.array, pixels.digests, strict=True)):
        text = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest()[:16]
        assert digest.tobytes() == (bytes(16) if number in bad else text)
    assert list(pixels.bad) == [NAMES[number] for number in bad]
    assert files(pixels.path.parent.parent) == list(FINISHED)


def stopped_at(root: Path, store: Path, number: int) -> Path:
    """A build that stopped before image `number`; gives the path of the unfinished pixels."""
    (root / "spoiled").write_text(NAMES[number])
    with pytest.raises(UserError, match=f"{NAMES[number]} is spoiled"):
        open_pixels(Toy(root), store)
    (root / "spoiled").unlink()
    (root / "decoded").unlink()
    assert files(store) == list(UNFINISHED)
    return next((store / "pixels").glob("*.partial"))


# ------------------------------------------------------------------------------------------------ builds that continue


def test_killed_at_random_moments_it_ends_with_the_same_bytes(root: Path, store: Path) -> None:
    draw, killed = random.Random(0), 0
    for _ in range(20):
        before = len(decoded(root))
        process = child(root, store, EVERY_IMAGE, pause=0.01)
        if killed < 3:
            until(lambda before=before, process=process: len(decoded(root)) > before or process.poll() is not None)
            time.sleep(draw.uniform(0.0, 0.1))
            process.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
        killed += 1
    assert killed == 3
    assert "continuing at" in err
    assert_whole(open_pixels(Toy(root), store))
    assert out.strip() == open_pixels(Toy(root), store).sha256
    assert len(decoded(root)) <= len(NAMES) + killed  # at most one image is decoded again after each kill


def test_the_process_that_waits_takes_over_from_a_killed_one(root: Path, store: Path) -> None:
    first = child(root, store, EVERY_IMAGE, pause=0.05)
    until(lambda: len(decoded(root)) > 5)
    second = child(root, store, EVERY_IMAGE)
    time.sleep(0.2)
    first.kill()
    first.communicate(timeout=60)
    out, err = second.communicate(timeout=60)
    assert f"waiting for process {first.pid} on " in err or "continuing" in err
    assert_whole(open_pixels(Toy(root), store))
    assert out.strip() == open_pixels(Toy(root), store).sha256


def nothing(partial: Path) -> None:
    pass


def half_an_image(partial: Path) -> None:
    os.truncate(partial, 12 * ROW + 5)


def wrong_byte(partial: Path) -> None:
    flip_a_byte(partial, 7 * ROW + 3)


def wrong_digest(partial: Path) -> None:
    flip_a_byte(partial.with_suffix(".digests"), 9 * 16 + 1)


def short_digests(partial: Path) -> None:
    os.truncate(partial.with_suffix(".digests"), 3 * 16 + 15)


def no_digests(partial: Path) -> None:
    partial.with_suffix(".digests").unlink()


def no_pixels(partial: Path) -> None:
    partial.unlink()


def no_journal(partial: Path) -> None:
    partial.with_suffix(".journal").unlink()


def broken_journal(partial: Path) -> None:
    partial.with_suffix(".journal").write_text("[1, ")


def long_files(partial: Path) -> None:
    for suffix in (".partial", ".digests"):
        with partial.with_suffix(suffix).open("ab") as file:
            file.write(bytes(100 * ROW))


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (nothing, 20), (half_an_image, 12), (wrong_byte, 7), (wrong_digest, 9), (short_digests, 3), (no_digests, 0),
        (no_pixels, 0), (no_journal, 0), (broken_journal, 0), (long_files, 20),
    ],
)  # fmt: skip
def test_what_is_right_of_an_unfinished_build_is_kept(
    root: Path, store: Path, capsys: pytest.CaptureFixture[str], damage: object, kept: int
) -> None:
    damage(stopped_at(root, store, 20))  # type: ignore[operator]
    assert_whole(open_pixels(Toy(root), store))
    assert decoded(root) == NAMES[kept:]
    assert (f"continuing at {kept} of 40 images" in capsys.readouterr().err) == bool(kept)


def test_an_unfinished_build_of_something_else_is_left(root: Path, store: Path) -> None:
    stopped_at(root, store, 20)
    assert_whole(open_pixels(Toy(root, version="2"), store))
    assert decoded(root) == NAMES


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_while_it_finishes(
    root: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    """Each of the last calls in turn; nothing is decoded again once all images are on the disk."""
    for moment in range(1, 8):
        real, calls = getattr(os, call), iter(range(moment))

        def struck(*arguments: object, real: object = real, calls: object = calls) -> object:
            if next(calls, None) is None:  # type: ignore[call-overload]
                raise KeyboardInterrupt
            return real(*arguments)  # type: ignore[operator]

        with monkeypatch.context() as patch:
            patch.setattr(os, call, struck)
            try:
                open_pixels(Toy(root), store)
                break
            except KeyboardInterrupt:
                assert ".u8" not in files(store) or ".json" in files(store)
    assert moment > 2
    assert_whole(open_pixels(Toy(root), store))
    assert decoded(root) == NAMES
    assert "continuing at 40 of 40 images" in capsys.readouterr().err


def test_a_full_disk_removes_what_an_earlier_build_left(root: Path, store: Path) -> None:
    stopped_at(root, store, 20)
    limit = f"{EVERY_IMAGE}\nimport resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    out, err = child(root, store, limit).communicate(timeout=60)
    assert "continuing at 20 of 40" in err
    assert "cannot write the decoded images into" in out, err
    assert files(store) == []
    assert_whole(open_pixels(Toy(root), store))


def test_space_is_asked_for_what_is_missing_only(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_at(root, store, 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 20 * ROW))
    assert_whole(open_pixels(Toy(root), store))


# ---------------------------------------------------------------------------------------------------------- bad images


def test_bad_images_are_left_out_where_that_is_asked_for(root: Path, store: Path) -> None:
    (root / "spoiled").write_text("3.png 39.png")
    pixels = open_pixels(Toy(root, skip_bad=True), store)
    assert_whole(pixels, bad=(3, 39))
    assert pixels.bad["3.png"] == "3.png is spoiled"
    assert_whole(open_pixels(Toy(root, skip_bad=True), store), bad=(3, 39))
    assert decoded(root) == NAMES + ["3.png", "39.png"] * 2  # tried again after the build and when opening


def test_a_strict_opening_refuses_a_cache_with_bad_images_and_keeps_it(root: Path, store: Path) -> None:
    (root / "spoiled").write_text("3.png 39.png")
    open_pixels(Toy(root, skip_bad=True), store)
    (root / "decoded").unlink()
    with pytest.raises(UserError, match=r"^3.png is spoiled \(and 1 more images cannot be used\)") as caught:
        open_pixels(Toy(root), store)
    assert "--skip-bad" in caught.value.hint
    assert decoded(root) == ["3.png", "39.png"]
    assert_whole(open_pixels(Toy(root, skip_bad=True), store), bad=(3, 39))


@pytest.mark.parametrize("skip_bad", [False, True])
def test_an_image_that_was_mended_is_noticed(
    root: Path, store: Path, capsys: pytest.CaptureFixture[str], skip_bad: bool
) -> None:
    (root / "spoiled").write_text("3.png 39.png")
    open_pixels(Toy(root, skip_bad=True), store)
    (root / "spoiled").write_text("39.png" if skip_bad else "")
    assert_whole(open_pixels(Toy(root, skip_bad=skip_bad), store), bad=(39,) if skip_bad else ())
    assert "image '3.png' could not be used and can be now; building it again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("skip_bad", "still", "kept", "bad"),
    [(True, "3.png", 20, (3,)), (True, "", 3, ()), (False, "", 3, ()), (True, "3.png 8.png", 20, (3,))],
)
def test_a_build_with_bad_images_continues(
    root: Path, store: Path, skip_bad: bool, still: str, kept: int, bad: tuple[int, ...]
) -> None:
    """Killed at image 20 having left out number 3; image 8 was right when it was decoded."""
    (root / "spoiled").write_text("3.png")

    class Dies(Toy):
        def image(self, name: str) -> np.ndarray:
            if name == "20.png":
                raise KeyboardInterrupt
            return super().image(name)

    with pytest.raises(KeyboardInterrupt):
        open_pixels(Dies(root, skip_bad=True), store)
    (root / "decoded").unlink()
    (root / "spoiled").write_text(still)
    assert_whole(open_pixels(Toy(root, skip_bad=skip_bad), store), bad=bad)
    assert list(dict.fromkeys(name for name in decoded(root) if name not in still.split())) == NAMES[kept:]


def test_a_set_of_bad_images_alone_is_refused(root: Path, store: Path) -> None:
    (root / "spoiled").write_text(" ".join(NAMES))
    for _ in range(2):
        with pytest.raises(UserError, match=r"none of 40 images can be used; the first: 0\.png is spoiled"):
            open_pixels(Toy(root, skip_bad=True), store)
    (root / "spoiled").unlink()
    assert_whole(open_pixels(Toy(root, skip_bad=True), store))


def test_a_damaged_file_of_a_listed_dataset(copy: Path, store: Path) -> None:
    """The threads' order, the first bad file in a strict build, and the same cache for both ways of opening."""
    whole = open_pixels(Small(copy, PROTOCOL), store / "whole")
    (copy / "c.png").write_bytes((copy / "c.png").read_bytes()[:300])
    with pytest.raises(UserError, match=r"c\.png is not a readable image"):
        open_pixels(Small(copy, PROTOCOL), store)
    lenient = Small(copy, PROTOCOL)
    lenient.skip_bad = True
    pixels = open_pixels(lenient, store)
    assert list(pixels.bad) == ["c.png"]
    good = pixels.rows(["a.png", "b.png", "d.png"])
    assert (pixels.array[good] == whole.array[good]).all()
    assert (pixels.digests[good] == whole.digests[good]).all()
    assert not pixels.array[pixels.rows(["c.png"])].any()


# --------------------------------------------------------------------------------------------- large files, by samples


@pytest.fixture
def large(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Pixels:
    """A cache that counts as large; stretches of two images are looked at."""
    monkeypatch.setattr(cache_check, "WHOLE_BYTES", 100)
    monkeypatch.setattr(cache_check, "SAMPLE_BYTES", 2 * ROW)
    monkeypatch.setattr(pixel_file, "PIECE_BYTES", 3 * ROW)
    return open_pixels(Toy(root), store)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """Rows that were checked, in order."""
    seen: list[range] = []
    real = cache_check.first_wrong

    def watched(file: PixelFile, digests: np.ndarray, first: int, last: int, progress: object) -> int | None:
        seen.append(range(first, last))
        return real(file, digests, first, last)

    monkeypatch.setattr(cache_check, "first_wrong", watched)
    return seen


def test_a_checked_file_is_sampled(root: Path, store: Path, large: Pixels, looked_at: list[range]) -> None:
    drawn: set[int] = set()
    for _ in range(20):
        looked_at.clear()
        open_pixels(Toy(root), store)
        assert looked_at[0] == range(0, 2)
        assert looked_at[-1] == range(38, 40)
        assert 2 <= len(looked_at) <= 6
        assert all(len(rows) == 2 for rows in looked_at)
        drawn |= {row for rows in looked_at for row in rows}
    assert len(drawn) > 25  # of 40: other stretches every time
    assert decoded(root) == NAMES


@pytest.mark.parametrize("change", ["touch", "copy", "forget", "spoil"])
def test_a_file_that_may_have_changed_is_checked_whole(
    root: Path, store: Path, large: Pixels, looked_at: list[range], change: str
) -> None:
    stamp = large.path.with_suffix(".checked")
    if change == "touch":
        os.utime(large.path)
    elif change == "copy":
        shutil.copy2(large.path, large.path.with_suffix(".copy"))
        os.replace(large.path.with_suffix(".copy"), large.path)
    elif change == "forget":
        stamp.unlink()
    else:
        stamp.write_text("{")
    open_pixels(Toy(root), store)
    assert looked_at == [range(0, 40)]
    looked_at.clear()
    open_pixels(Toy(root), store)
    assert looked_at[0] == range(0, 2)  # and that is remembered
    assert decoded(root) == NAMES


@pytest.mark.parametrize("row", [0, 17, 39])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_wrong_byte_is_found_and_repaired(
    root: Path, store: Path, large: Pixels, capsys: pytest.CaptureFixture[str], row: int, hidden: bool
) -> None:
    """With the time of the file as it was, the first and last stretch still tell; any other by chance only."""
    before = large.path.stat()
    flip_a_byte(large.path, row * ROW + 11)
    if hidden:
        os.utime(large.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(1000):
        again = open_pixels(Toy(root), store)
        if decoded(root) != NAMES or row in (0, 39) or not hidden:
            break
    assert decoded(root) == 2 * NAMES
    assert again.array[:, 0, 0].tolist() == list(range(40))
    assert again.sha256 == large.sha256
    assert f"damaged: image {row + 1} of 40 is not the one that was written; building it again" in (
        capsys.readouterr().err
    )


def test_large_and_small_files_have_the_same_hash(root: Path, store: Path, large: Pixels, tmp_path: Path) -> None:
    assert large.sha256 == hashlib.sha256(b"".join(bytes([number]) * ROW for number in range(40))).hexdigest()
    sidecar = json.loads(large.path.with_suffix(".json").read_text())
    assert sidecar["pixels_sha256"] == large.sha256
    assert files(store) == sorted([*FINISHED, ".checked"])


# -------------------------------------------------------------------------------------------------- reading the file


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.integers(0, 39), max_size=50), piece=st.integers(1, 500))
def test_rows_read_from_the_file_are_those_of_the_map(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], piece: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.u8"
    wanted = np.random.default_rng(0).integers(0, 256, (40, 3, 5), dtype=np.uint8)
    path.write_bytes(wanted.tobytes())
    file = PixelFile(path, (40, 3, 5))
    at = np.asarray(rows, dtype=np.int64)
    assert np.array_equal(file.read(at), wanted[at])
    assert np.array_equal(file.map(), wanted)
    assert file.map().file is file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_file, "PIECE_BYTES", piece)
        parts = [(start, part.copy()) for start, part in file.pieces(4, 33)]
    assert np.array_equal(np.concatenate([part for _, part in parts]), wanted[4:33].reshape(29, 15))
    assert [start for start, _ in parts] == list(np.cumsum([4] + [len(part) for _, part in parts[:-1]]))


def test_a_file_cut_short_under_a_reader_is_said(root: Path, store: Path) -> None:
    pixels = open_pixels(Toy(root), store)
    os.truncate(pixels.path, 10 * ROW)
    assert len(pixels.array.file.read(np.arange(10))) == 10
    with pytest.raises(UserError, match=r"\.u8 has become shorter while it was in use"):
        pixels.array.file.read(np.arange(9, 11))


def test_an_open_cache_stays_as_it_was_when_it_is_built_again(root: Path, store: Path) -> None:
    pixels = open_pixels(Toy(root), store)
    flip_a_byte(pixels.path.with_suffix(".digests"), 5)
    open_pixels(Toy(root), store)
    assert pixels.array.file.read(np.arange(40))[:, 0, 0].tolist() == list(range(40))
    assert pixels.array[:, 0, 0].tolist() == list(range(40))


def test_memory_does_not_grow_with_the_file(root: Path, store: Path) -> None:
    """Built, checked whole and by samples, and read at random: 150 MB of pixels in less than 60 MB of memory."""
    before = f"""
import numpy as np, resource
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
began = peak()
ds = Toy(Path({str(root)!r}), count=3000, side=224)
for whole in (1 << 30, 0, 0):
    cache_check.WHOLE_BYTES = whole
    pixels = open_pixels(ds, Path({str(store)!r}))
for _ in range(40):
    pixels.array.file.read(np.random.default_rng(0).integers(0, 3000, 128))
print("grew", round(peak() - began))
"""
    out, err = child(root, store, f"cache_build.FLUSH_BYTES = 8 << 20\n{before}", version="2").communicate(timeout=120)
    assert "grew" in out, err
    assert int(out.split()[1]) < 60, out
