"""Builds of the decode cache that were stopped and go on, and images that cannot be used."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import png
from helpers_cache import FINISHED, NAMES, UNFINISHED, Toy, child, decoded, files, flip_a_byte, until
from test_listed import PROTOCOL, Small

from bench.data import cache_build
from bench.data.cache import Pixels, open_pixels
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


def test_a_damaged_file_of_a_listed_dataset(root: Path, store: Path) -> None:
    """Decoded by threads; a strict build stops at it, a lenient one continues."""
    draw = np.random.default_rng(0)
    for name in "abcd":
        (root / f"{name}.png").write_bytes(png(draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)))
    (root / "rows.txt").write_text("".join(f"{name}.png anger train\n" for name in "abcd"))
    whole = open_pixels(Small(root, PROTOCOL), store / "whole")
    (root / "c.png").write_bytes((root / "c.png").read_bytes()[:300])
    with pytest.raises(UserError, match=r"c\.png is not a readable image"):
        open_pixels(Small(root, PROTOCOL), store)
    lenient = Small(root, PROTOCOL)
    lenient.skip_bad = True
    pixels = open_pixels(lenient, store)
    assert list(pixels.bad) == ["c.png"]
    good = pixels.rows(["a.png", "b.png", "d.png"])
    assert (pixels.array[good] == whole.array[good]).all()
    assert (pixels.digests[good] == whole.digests[good]).all()
    assert not pixels.array[pixels.rows(["c.png"])].any()
