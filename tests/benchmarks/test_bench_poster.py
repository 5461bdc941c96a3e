"""Training steps of POSTER on one CPU thread: the released code's (two passes, SAM) against the paper's text (one pass).

The small size is that of profile quick; the full size is slow. Times depend on the machine, the ratio of the two hardly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench import declare
from bench.method import Context
from methods.poster.model import POSTER
from methods.poster.options import Options
from methods.poster.training import Training

SIZES = ["quick", pytest.param("paper", marks=pytest.mark.slow)]
BATCH = {"quick": 32, "paper": 8}
STREAMS = {"streams": "both", "cross_fusion": True, "pyramid": True}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def training(recipe_id: str, profile: declare.ProfileName) -> tuple[Training, dict[str, Any]]:
    """The method as declared; the landmark net, whose weights do not matter for speed, stays random."""
    recipe = declare.load(None).recipe(recipe_id)
    values = recipe.values(profile)
    options = {name.removeprefix("method."): f.value for name, f in recipe.fields.items() if name.startswith("method.")}
    context = Context(tuple("abcdefg"), values["input_size"], 100, torch.device("cpu"), values["precision"])
    torch.manual_seed(0)
    net = POSTER(7, Options.parse(options | recipe.override(profile).options | STREAMS), values["colour"])
    return Training(net, values, context), values


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("recipe", ["poster-code", "poster-paper"])
def test_training_step(benchmark, recipe: str, size: declare.ProfileName) -> None:
    method, values = training(recipe, size)
    batch, side = BATCH[size], values["input_size"]
    layout = torch.channels_last if values["channels_last"] else torch.contiguous_format
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=layout)
    targets = torch.randint(0, 7, (batch,))
    benchmark.group = f"training step, batch {batch} at {side} pixels, {size} size"
    losses = benchmark.pedantic(method.update, (images, targets), rounds=5 if size == "quick" else 2, warmup_rounds=1)
    benchmark.extra_info["passes"] = 1 if method.sam is None else 2
    benchmark.extra_info["images_per_second"] = batch / benchmark.stats["min"] if benchmark.stats else None
    assert losses["loss"].isfinite()


def test_sam_costs_a_second_pass_and_little_else(benchmark) -> None:
    """What climbing and coming back cost beside the two passes, as a share of the step."""
    method, values = training("poster-code", "quick")
    side = values["input_size"]
    images, targets = torch.randn(8, 3, side, side), torch.randint(0, 7, (8,))
    method.update(images, targets)

    def climb_and_back() -> None:
        assert method.sam is not None
        for parameter in method.net.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.ones_like(parameter)
        method.sam.climb()
        method.sam.descend()

    benchmark.group = "SAM without its passes"
    benchmark.pedantic(climb_and_back, rounds=10, warmup_rounds=2)
