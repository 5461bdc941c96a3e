"""Training steps of POSTER on one CPU thread: two passes as in the released code, one as in the paper's text.

The small size is that of profile quick; the full size is slow. Times depend on the machine, their ratios hardly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from bench import declare
from bench.declare import ProfileName
from bench.method import Context
from methods.poster.model import POSTER
from methods.poster.options import Options
from methods.poster.training import Training

BATCH: dict[ProfileName, int] = {"quick": 32, "paper": 8}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def step_of(recipe_id: str, profile: ProfileName) -> Callable[[], dict[str, torch.Tensor]]:
    """A training step as declared; the landmark net, whose weights do not matter for speed, stays random."""
    recipe = declare.load(None).recipe(recipe_id)
    values = recipe.values(profile)
    options = {name.removeprefix("method."): f.value for name, f in recipe.fields.items() if name.startswith("method.")}
    batch, side = BATCH[profile], values["input_size"]
    context = Context(tuple("abcdefg"), side, 100, torch.device("cpu"), values["precision"])
    torch.manual_seed(0)
    net = POSTER(7, Options.parse(options | recipe.override(profile).options), values["colour"])
    method = Training(net, values, context)
    layout = torch.channels_last if values["channels_last"] else torch.contiguous_format
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=layout)
    targets = torch.randint(0, 7, (batch,))
    return lambda: method.update(images, targets)


def seconds(step: Callable[[], object], rounds: int) -> float:
    """The shortest of some rounds, behind one to warm up."""
    found = []
    for _ in range(1 + rounds):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return min(found[1:])


@pytest.mark.parametrize("size", ["quick", pytest.param("paper", marks=pytest.mark.slow)])
def test_training_step(benchmark, size: ProfileName) -> None:
    """The released code's step; `extra_info` has images/s of it and of the paper's, and the ratio of their times."""
    rounds = 5 if size == "quick" else 2
    code, paper = step_of("poster-code", size), step_of("poster-paper", size)
    benchmark.group = f"POSTER's training step, batch {BATCH[size]}, {size} size"
    losses = benchmark.pedantic(code, rounds=rounds, warmup_rounds=1)
    assert losses["loss"].isfinite()
    if benchmark.stats:
        ours, plain = benchmark.stats.stats.min, seconds(paper, rounds)
        benchmark.extra_info["images_per_second"] = round(BATCH[size] / ours, 1)
        benchmark.extra_info["images_per_second_of_the_papers"] = round(BATCH[size] / plain, 1)
        benchmark.extra_info["times_the_papers"] = round(ours / plain, 2)
