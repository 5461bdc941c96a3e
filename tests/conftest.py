"""Shared by all tests: an environment of their own, the real FERPlus where it is present, small made-up copies."""

from __future__ import annotations

import csv
import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from bench.data.ferplus.labels import EMOTIONS
from bench.declare import Protocol

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
FOLDERS = {"train": "FER2013Train", "val": "FER2013Valid", "test": "FER2013Test"}
USAGES = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
FER2013NEW = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"

Image = tuple[str, str, Sequence[int], np.ndarray]  # split, name, 10 votes, pixels


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's data root or cache."""
    monkeypatch.delenv("FERBENCH_DATA", raising=False)
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def ferplus_source() -> Path:
    """The compact real FERPlus: label files and images.parquet."""
    return _present(SHARED_DATA / "ferplus", "images.parquet")


@pytest.fixture(scope="session")
def ran_lists() -> Path:
    """RAN's published lists of occluded and turned faces."""
    return _present(SHARED_DATA / "ran-subsets", "FERplus_dir")


@pytest.fixture(scope="session")
def ferplus_official(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real FERPlus in its official layout, written once per test session and shared by all workers.

    FERBENCH_TEST_FERPLUS may name a folder that holds it already. Tests must not change it.
    """
    ready = os.environ.get("FERBENCH_TEST_FERPLUS")
    if ready:
        return Path(ready)
    source: Path = request.getfixturevalue("ferplus_source")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "ferplus-official"
    with FileLock(shared / "ferplus-official.lock"):
        if not (folder / "complete").exists():
            _expand(source, folder)
            (folder / "complete").touch()
    return folder


@pytest.fixture
def ferplus_images() -> list[Image]:
    """Twelve images, most with a clear majority: 6 train, 3 val, 3 test, pixels all different."""
    generator = np.random.default_rng(0)
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    images: list[Image] = []
    for number, split in enumerate(splits):
        votes = [0] * 10
        votes[number % 8] = 8
        votes[8] = 2
        images.append((split, f"fer{number:07d}.png", votes, generator.integers(0, 256, (48, 48), dtype=np.uint8)))
    return images


def ferplus_protocol(rule: str = "majority", **fields: Any) -> Protocol:
    """A protocol for small copies: counts are checked only where given."""
    return Protocol(id=f"small@{rule}", dataset="ferplus", classes=EMOTIONS, rule=rule, **fields)


def write_official(root: Path, images: Sequence[Image]) -> Path:
    """Folders with label.csv and PNG files."""
    for split, folder in FOLDERS.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        own = [image for image in images if image[0] == split]
        with (root / folder / "label.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [name, "(0, 0, 48, 48)", *votes] for _, name, votes, _ in own
            )
        for _, name, _, pixels in own:
            (root / folder / name).write_bytes(png(pixels))
    return root


def write_csvs(root: Path, images: Sequence[Image], header: str = "emotion,pixels,Usage") -> Path:
    """fer2013.csv with the given header and fer2013new.csv, row by row."""
    root.mkdir(parents=True, exist_ok=True)
    votes, pixels = [FER2013NEW], [header]
    for split, name, counts, image in images:
        votes.append(",".join([USAGES[split], name, *map(str, counts)]))
        cells = {"emotion": "0", "usage": USAGES[split], "pixels": " ".join(map(str, image.ravel()))}
        pixels.append(",".join(cells[column.strip().lower()] for column in header.split(",")))
    (root / "fer2013new.csv").write_text("\n".join(votes) + "\n")
    (root / "fer2013.csv").write_text("\n".join(pixels) + "\n")
    return root


def png(pixels: np.ndarray) -> bytes:
    """An 8-bit PNG file of (H, W) or (H, W, 3), not compressed, as the published ones are; quicker than a library."""
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    rows = np.zeros((height, 1 + pixels[0].size), dtype=np.uint8)  # a zero before each row: no filter
    rows[:, 1:] = pixels.reshape(height, -1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 0)),
        (b"IEND", b""),
    )
    parts = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _present(folder: Path, needed: str) -> Path:
    if not (folder / needed).exists():
        pytest.skip(f"{folder} is not on this machine")
    return folder


def _expand(source: Path, folder: Path) -> None:
    """What expand.py beside the data does, with a faster PNG writer."""
    import pyarrow.parquet as pq
    from PIL import Image as Pil

    for name in ("Train", "Valid", "Test"):
        (folder / f"FER2013{name}").mkdir(parents=True, exist_ok=True)
        (folder / f"FER2013{name}" / "label.csv").write_bytes((source / f"label_{name}.csv").read_bytes())
    (folder / "fer2013new.csv").write_bytes((source / "fer2013new.csv").read_bytes())
    for batch in pq.ParquetFile(source / "images.parquet").iter_batches(2000):
        for row in batch.to_pylist():
            with Pil.open(io.BytesIO(row["webp"])) as image:
                data = png(np.asarray(image.convert("L")))
            with open(f"{folder}/{row['folder']}/{row['name']}", "wb", buffering=0) as file:
                file.write(data)
