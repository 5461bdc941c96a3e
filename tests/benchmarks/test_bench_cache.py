"""Speed of the decode cache at AffectNet's size of image: decoding, hashing, checking, reading; asserts no time.

`full_size.py` beside this file measures a whole data set.
"""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from helpers_cache import Toy

from bench.data import cache_check
from bench.data.cache import Pixels, open_pixels
from bench.data.image import decode
from bench.data.listed import in_threads

IMAGES, BATCH = 256, 128


class Faces(Toy):
    """Colour images of 224x224."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, count=IMAGES)
        self.shape = (224, 224, 3)

    def image(self, name: str) -> np.ndarray:
        return np.full(self.shape, int(name.split(".")[0]), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faces")


@pytest.fixture(scope="module")
def pixels(folder: Path) -> Pixels:
    return open_pixels(Faces(folder), folder / "cache")


@pytest.fixture(scope="module")
def jpegs() -> dict[str, bytes]:
    """64 pictures of 224x224 with smooth shades and grain, quality 90: about 20 kB each, as AffectNet's."""
    from PIL import Image

    draw, found = np.random.default_rng(0), {}
    for number in range(64):
        shades = Image.fromarray(draw.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((224, 224))
        grain = draw.integers(-14, 15, (224, 224, 1))
        stream = io.BytesIO()
        Image.fromarray((np.asarray(shades) + grain).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        found[str(number)] = stream.getvalue()
    return found


@pytest.mark.parametrize("threads", [1, 2])
def test_decode_64_jpegs(benchmark, jpegs: dict[str, bytes], threads: int) -> None:  # type: ignore[no-untyped-def]
    """From bytes to arrays, as the build does it."""
    names = list(jpegs)
    found = benchmark(lambda: list(in_threads(lambda name: decode(jpegs[name], name), names, threads)))
    assert len(found) == 64


def test_build_without_decoding(benchmark, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """What hashing, writing and reading back add to decoding, 256 images."""
    count = iter(range(10**6))
    benchmark.pedantic(lambda: open_pixels(Faces(folder), tmp_path / str(next(count))), rounds=3)


@pytest.mark.parametrize("large", [False, True], ids=["whole", "samples"])
def test_open(benchmark, folder: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:  # type: ignore[no-untyped-def]
    """Opening 38 MB hashed whole, and by samples of a megabyte."""
    if large:
        monkeypatch.setattr(cache_check, "WHOLE_BYTES", 0)
        monkeypatch.setattr(cache_check, "SAMPLE_BYTES", 1 << 20)
        open_pixels(Faces(folder), folder / "cache")  # leaves the stamp
    assert benchmark(lambda: open_pixels(Faces(folder), folder / "cache")).sha256 == pixels.sha256


def test_read_a_batch(benchmark, pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    """128 images at random from the file; `extra_info` has the time the memory map takes."""
    rows = np.random.default_rng(0).integers(0, IMAGES, BATCH)
    found = benchmark(lambda: pixels.array.file.read(rows))
    begun = time.perf_counter()
    mapped = np.asarray(pixels.array[rows])
    seconds = time.perf_counter() - begun
    assert np.array_equal(found, mapped)
    if benchmark.stats:  # absent with --benchmark-disable
        benchmark.extra_info["memory_map_ms"] = round(1e3 * seconds, 2)
