"""The decode-once cache: whole or absent, never half; damage is seen, said and repaired."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import Image, ferplus_protocol, write_official
from helpers_cache import FINISHED, NAMES, UNFINISHED, Toy, child, decoded, files, flip_a_byte, until

from bench.data import cache_build, progress
from bench.data.cache import open_pixels
from bench.data.ferplus.adapter import FERPlus
from bench.errors import UserError

WAITING = r"waiting for (process \d+ on .+ \(since .+\)|another process), which builds .+\.u8\n$"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_pixels_are_those_of_the_dataset(root: Path, store: Path, ferplus_images: list[Image]) -> None:
    ds = FERPlus(write_official(root, ferplus_images), ferplus_protocol())
    pixels = open_pixels(ds, store)
    assert pixels.array.shape == (12, 48, 48)
    assert pixels.array.dtype == np.uint8
    assert not pixels.array.flags.writeable
    for image in ferplus_images:
        (row,) = pixels.rows([image[1]])
        assert (pixels.array[row] == image[3]).all()
    assert pixels.names == ds.names()
    assert files(store) == list(FINISHED)
    assert pixels.bad == {}


def test_decodes_once(root: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = open_pixels(Toy(root), store)
    again = open_pixels(Toy(root), store)
    assert decoded(root) == NAMES
    assert first.sha256 == again.sha256
    assert (again.array[:, 0, 0] == np.arange(40)).all()
    assert capsys.readouterr().err == ""


def test_the_hash_does_not_depend_on_the_chunk(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_pixels(Toy(root), store / "a").sha256
    monkeypatch.setattr(cache_build, "FLUSH_BYTES", 7 * 64)
    assert open_pixels(Toy(root), store / "b").sha256 == whole


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def spoil_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_text('{"format": 1, ')


def sidecar_without_hash(path: Path) -> None:
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps({k: v for k, v in json.loads(sidecar.read_text()).items() if k != "pixels_sha256"}))


def lose_pixels(path: Path) -> None:
    path.unlink()


def spoil_digests(path: Path) -> None:
    flip_a_byte(path.with_suffix(".digests"), 100)


def lose_digests(path: Path) -> None:
    path.with_suffix(".digests").unlink()


@pytest.mark.parametrize(
    "damage",
    [flip_a_byte, truncate, spoil_sidecar, sidecar_without_hash, lose_pixels, spoil_digests, lose_digests],
)
def test_damage_is_repaired_and_said(
    root: Path, store: Path, capsys: pytest.CaptureFixture[str], damage: object
) -> None:
    first = open_pixels(Toy(root), store)
    damage(first.path)  # type: ignore[operator]
    again = open_pixels(Toy(root), store)
    assert again.sha256 == first.sha256
    assert (again.array[:, 0, 0] == np.arange(40)).all()
    assert decoded(root) == 2 * NAMES
    assert "building it again" in capsys.readouterr().err


def test_another_copy_state_is_built_again(root: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_pixels(Toy(root), store)
    open_pixels(Toy(root, version="2"), store)
    assert decoded(root) == 2 * NAMES
    assert "fingerprint changed" in capsys.readouterr().err
    assert files(store) == list(FINISHED)


def test_a_damaged_image_leaves_what_the_next_build_continues(
    root: Path, store: Path, ferplus_images: list[Image], capsys: pytest.CaptureFixture[str]
) -> None:
    ds = FERPlus(write_official(root, ferplus_images), ferplus_protocol())
    picture = root / "FER2013Test" / "fer0000010.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:500])
    with pytest.raises(UserError, match=r"FER2013Test/fer0000010.png is not a readable .*: truncated"):
        open_pixels(ds, store)
    assert files(store) == list(UNFINISHED)
    picture.write_bytes(whole)
    pixels = open_pixels(ds, store)
    assert capsys.readouterr().err.startswith("continuing at 10 of 12 images")
    for image, found in zip(ferplus_images, pixels.array, strict=True):
        assert (found == image[3]).all()


def test_an_image_of_another_shape_is_refused(root: Path, store: Path) -> None:
    ds = Toy(root)
    ds.shape = (8, 9)
    with pytest.raises(UserError, match=r"image '0.png' is \(8, 8\) uint8, expected \(8, 9\)"):
        open_pixels(ds, store)
    assert files(store) == []


def test_too_little_space_is_said_before_decoding(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 100))
    with pytest.raises(UserError, match=r"cache/pixels: 2,560 bytes are needed, 100 are free"):
        open_pixels(Toy(root), store)
    assert files(store) == []
    assert decoded(root) == []


def test_a_disk_that_fills_up_leaves_nothing(root: Path, store: Path) -> None:
    """A file-size limit makes the write fail half way, as a full disk does."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    out, err = child(root, store, limit).communicate(timeout=60)
    assert "cannot write the decoded images into" in out, err
    assert "2,560 bytes are needed" in out
    assert files(store) == []
    assert (open_pixels(Toy(root), store).array[:, 0, 0] == np.arange(40)).all()


def test_processes_that_ask_together_build_once(root: Path, store: Path) -> None:
    children = [child(root, store, pause=0.02) for _ in range(3)]
    results = [process.communicate(timeout=60) for process in children]
    assert len({out for out, _ in results}) == 1, results
    assert decoded(root) == NAMES
    assert all(not err or re.match(WAITING, err) for _, err in results), results


def test_a_killed_build_is_never_opened(root: Path, store: Path) -> None:
    process = child(root, store, pause=0.05)
    until(lambda: ".partial" in files(store))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert set(files(store)) <= set(UNFINISHED)
    pixels = open_pixels(Toy(root), store)
    assert (pixels.array[:, 0, 0] == np.arange(40)).all()
    assert files(store) == list(FINISHED)


def test_long_builds_report_time_left(
    root: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.0)
    open_pixels(Toy(root), store)
    assert "decoding toy: 20 of 40 images, about 0 s left" in capsys.readouterr().err
