"""How fast SynthFER draws: images a second of one thread are `rounds x 256 / time`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.data.synthfer import facts, images

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

IMAGES = 256


@pytest.mark.parametrize("variant", ["affectnet8", "ferplus", "rafdb"])
def test_draw(benchmark: BenchmarkFixture, variant: str) -> None:
    known = facts(variant, 0, range(IMAGES))
    made = benchmark.pedantic(images, (known,), rounds=3, warmup_rounds=1)
    if benchmark.stats:  # absent under --benchmark-disable
        benchmark.extra_info["images_per_second"] = round(IMAGES / benchmark.stats.stats.min)
    assert len(made) == IMAGES


def test_facts(benchmark: BenchmarkFixture) -> None:
    known = benchmark(facts, "affectnet8", 0, range(IMAGES))
    assert len(known.label) == IMAGES
