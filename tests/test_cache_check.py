"""Checking and reading decode caches too large to be hashed at every opening, with small limits for large ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers_cache import FINISHED, NAMES, Toy, child, decoded, files, flip_a_byte
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import cache_check, pixel_file
from bench.data.cache import Pixels, open_pixels
from bench.data.pixel_file import PixelFile
from bench.errors import UserError

ROW = 64  # bytes of an image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache"


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


@pytest.mark.parametrize("error", [PermissionError("no"), UserError("the disk is full")])
def test_a_check_that_cannot_be_remembered_is_no_damage(
    root: Path, store: Path, large: Pixels, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*arguments: object) -> None:
        raise error

    large.path.with_suffix(".checked").unlink()
    monkeypatch.setattr(cache_check, "write_json", refuse)
    assert open_pixels(Toy(root), store).sha256 == large.sha256
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
    out, err = child(root, store / "small", before).communicate(timeout=120)
    assert "grew" in out, err
    assert int(out.split()[1]) < 60, out
