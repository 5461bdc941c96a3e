"""The decode-once cache: whole or absent, never half; damage is seen, said and repaired."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Image, ferplus_protocol, write_official

from bench.data import cache
from bench.data.base import Dataset
from bench.data.cache import open_pixels
from bench.data.ferplus import FERPlus
from bench.declare import Protocol
from bench.errors import UserError


class Toy(Dataset):
    """40 images of 8x8 made from their number; notes every decoding in a file, and may be slow."""

    shape = (8, 8)

    def __init__(self, root: Path, pause: float = 0.0, version: str = "1") -> None:
        super().__init__(root, Protocol(id="toy", dataset="toy"))
        self.folder, self.pause, self.version = root, pause, version

    @classmethod
    def detect(cls, root: Path) -> str | None:
        return None

    def fingerprint(self) -> str:
        return self.version

    def index(self, protocol: Protocol) -> object:  # type: ignore[override]
        raise NotImplementedError

    def names(self) -> list[str]:
        return [f"{i}.png" for i in range(40)]

    def pixels(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        with (self.folder / "decoded").open("a") as file:
            file.write("x")
        for name in names:
            time.sleep(self.pause)
            yield np.full((8, 8), int(name.split(".")[0]), dtype=np.uint8)


def decodings(root: Path) -> int:
    path = root / "decoded"
    return len(path.read_text()) if path.exists() else 0


def files(root: Path) -> list[str]:
    """Files of the cache other than locks."""
    folder = root / "pixels"
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock") if folder.exists() else []


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
    assert files(store) == sorted(Path(pixels.path).with_suffix(s).name for s in (".u8", ".json"))


def test_decodes_once(root: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = open_pixels(Toy(root), store)
    again = open_pixels(Toy(root), store)
    assert decodings(root) == 1
    assert first.sha256 == again.sha256
    assert (again.array[:, 0, 0] == np.arange(40)).all()
    assert capsys.readouterr().err == ""


def test_the_hash_does_not_depend_on_the_chunk(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_pixels(Toy(root), store / "a").sha256
    monkeypatch.setattr(cache, "CHUNK_BYTES", 7 * 64)
    assert open_pixels(Toy(root), store / "b").sha256 == whole


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[1000] ^= 4
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def spoil_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_text('{"format": 1, ')


def sidecar_without_hash(path: Path) -> None:
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps({k: v for k, v in json.loads(sidecar.read_text()).items() if k != "pixels_sha256"}))


def lose_pixels(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, spoil_sidecar, sidecar_without_hash, lose_pixels])
def test_damage_is_repaired_and_said(
    root: Path, store: Path, capsys: pytest.CaptureFixture[str], damage: object
) -> None:
    first = open_pixels(Toy(root), store)
    damage(first.path)  # type: ignore[operator]
    again = open_pixels(Toy(root), store)
    assert again.sha256 == first.sha256
    assert (again.array[:, 0, 0] == np.arange(40)).all()
    assert decodings(root) == 2
    assert "building it again" in capsys.readouterr().err


def test_another_copy_state_is_built_again(root: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_pixels(Toy(root), store)
    open_pixels(Toy(root, version="2"), store)
    assert decodings(root) == 2
    assert "fingerprint changed" in capsys.readouterr().err
    assert len(files(store)) == 2


def test_a_damaged_image_leaves_nothing(root: Path, store: Path, ferplus_images: list[Image]) -> None:
    ds = FERPlus(write_official(root, ferplus_images), ferplus_protocol())
    picture = root / "FER2013Test" / "fer0000010.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:500])
    with pytest.raises(UserError, match=r"FER2013Test/fer0000010.png is not a readable PNG: truncated"):
        open_pixels(ds, store)
    assert files(store) == []
    picture.write_bytes(whole)
    assert (open_pixels(ds, store).array[10] == ferplus_images[10][3]).all()


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
    assert decodings(root) == 0


def child(root: Path, store: Path, before: str = "", pause: float = 0.0) -> subprocess.Popen[str]:
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
from test_cache import Toy
from bench.data.cache import open_pixels
from bench.errors import UserError
{before}
try:
    print(open_pixels(Toy(Path({str(root)!r}), pause={pause}), Path({str(store)!r})).sha256)
except UserError as error:
    print(error)
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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
    assert decodings(root) == 1
    assert all("waiting for another process" in err or not err for _, err in results)


def test_a_killed_build_is_never_opened(root: Path, store: Path) -> None:
    process = child(root, store, pause=0.05)
    deadline = time.monotonic() + 60
    while not any(name.endswith(".tmp") for name in files(store)) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert [Path(name).suffix for name in files(store)] == [".tmp"]
    pixels = open_pixels(Toy(root), store)
    assert (pixels.array[:, 0, 0] == np.arange(40)).all()
    assert sorted(Path(name).suffix for name in files(store)) == [".json", ".u8"]


def test_long_builds_report_time_left(
    root: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(cache, "REPORT_SECONDS", 0.0)
    open_pixels(Toy(root), store)
    assert "decoding toy: 20 of 40 images, about 0 s left" in capsys.readouterr().err
