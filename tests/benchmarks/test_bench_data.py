"""Speed of decoding, of the decode-once cache and of reading labels (`make bench`); nothing here asserts a time."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ferplus_protocol, write_official

from bench.data.cache import Pixels, open_pixels
from bench.data.ferplus.adapter import FERPlus

IMAGES = 1000
BATCH = 64


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> FERPlus:
    """A made-up copy of 1,000 images."""
    generator = np.random.default_rng(0)
    votes = [8, 2, 0, 0, 0, 0, 0, 0, 0, 0]
    splits = ("train",) * 8 + ("val", "test")
    images = [
        (splits[i % 10], f"fer{i:07d}.png", votes, generator.integers(0, 256, (48, 48), dtype=np.uint8))
        for i in range(IMAGES)
    ]
    return FERPlus(write_official(tmp_path_factory.mktemp("bench"), images), ferplus_protocol())


@pytest.fixture(scope="module")
def pixels(copy: FERPlus, tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    return open_pixels(copy, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def batch(copy: FERPlus) -> list[str]:
    order = np.random.default_rng(1).permutation(IMAGES)[:BATCH]
    return [copy.names()[i] for i in order]


def test_decode(benchmark, copy: FERPlus, batch: list[str]) -> None:  # type: ignore[no-untyped-def]
    """A shuffled batch of 64 images from their PNG files."""
    images = benchmark(lambda: np.stack(list(copy.pixels(batch))))
    assert images.shape == (BATCH, 48, 48)


def test_cache_gather(benchmark, copy: FERPlus, pixels: Pixels, batch: list[str]) -> None:  # type: ignore[no-untyped-def]
    """The same batch from the memory map; `extra_info` has how many times faster than decoding it is."""
    rows = pixels.rows(batch)
    images = benchmark(lambda: pixels.array[rows])
    start = time.perf_counter()
    decoded = np.stack(list(copy.pixels(batch)))
    seconds = time.perf_counter() - start
    assert (images == decoded).all()
    if benchmark.stats:  # absent with --benchmark-disable
        benchmark.extra_info["times_faster_than_decoding"] = round(seconds / benchmark.stats.stats.min)


def test_cache_build(benchmark, copy: FERPlus, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Decoding 1,000 images into a new cache."""
    count = iter(range(10**6))
    result = benchmark.pedantic(lambda: open_pixels(copy, tmp_path / str(next(count))), rounds=3)
    assert len(result.names) == IMAGES


def test_cache_open(benchmark, copy: FERPlus, pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    """Opening a cache that is there, its hash checked."""
    again = benchmark(lambda: open_pixels(copy, pixels.path.parent.parent))
    assert again.sha256 == pixels.sha256


def test_index_of_the_real_set(benchmark, ferplus_official: Path) -> None:  # type: ignore[no-untyped-def]
    """Labels of 35,710 images, three label.csv read anew each time."""
    protocol = ferplus_protocol()
    frame = benchmark(lambda: FERPlus(ferplus_official, protocol).index(protocol))
    assert len(frame) == 31373
