"""Training steps of the Neural Resizer on one CPU thread, against those of its backbone alone; and its loss.

The small size is that of profile quick; the full size (Swin-S, 384 pixels) is slow. What is ahead of the network does
not count: super-resolved images are kept. Times depend on the machine, their ratios hardly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch.nn import functional as F

from bench import declare, registry
from bench.declare import ProfileName
from bench.method import Context, Spec
from methods.nresizer.losses import prior_weighted
from methods.nresizer.prior import for_classes

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
BATCH: dict[ProfileName, int] = {"quick": 32, "paper": 2}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def step_of(name: str, profile: ProfileName) -> Callable[[], dict[str, torch.Tensor]]:
    """A training step as declared, from random weights and behind no super-resolution, which change no time of it."""
    declared = declare.load(None)
    experiment = declared.experiment(name)
    recipe = declared.recipe(experiment.recipe)
    values = recipe.values(profile)
    options = {key.removeprefix("method."): f.value for key, f in recipe.fields.items() if key.startswith("method.")}
    options |= experiment.options | ({} if profile == "paper" else recipe.override(profile).options) | {"up": "none"}
    batch, side = BATCH[profile], values["input_size"]
    context = Context(CLASSES, side, 100, torch.device("cpu"), values["precision"])
    torch.manual_seed(0)
    build = registry.find("method", experiment.method).load()
    method = build(Spec(experiment.id, experiment.backbone, "none", options), values, context)
    layout = torch.channels_last if values["channels_last"] else torch.contiguous_format
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=layout)
    targets = torch.randint(0, len(CLASSES), (batch,))
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
    """A step of setting (d); `extra_info` has images/s of it and of Swin-S alone, and the ratio of their times."""
    rounds = 5 if size == "quick" else 2
    proposed, vanilla = step_of("nresizer-swin-s", size), step_of("nresizer-swin-s-vanilla", size)
    benchmark.group = f"Neural Resizer's training step, batch {BATCH[size]}, {size} size"
    losses = benchmark.pedantic(proposed, rounds=rounds, warmup_rounds=1)
    assert losses["loss"].isfinite()
    if benchmark.stats:
        ours, alone = benchmark.stats.stats.min, seconds(vanilla, rounds)
        benchmark.extra_info["images_per_second"] = round(BATCH[size] / ours, 2)
        benchmark.extra_info["images_per_second_of_vanilla"] = round(BATCH[size] / alone, 2)
        benchmark.extra_info["times_vanilla"] = round(ours / alone, 2)


def test_loss(benchmark) -> None:
    """F-PDLS of 64 images with its gradient; `extra_info` has the ratio to cross-entropy."""
    torch.manual_seed(0)
    logits, targets = torch.randn(64, len(CLASSES), requires_grad=True), torch.randint(0, len(CLASSES), (64,))
    prior = torch.tensor(for_classes(CLASSES), dtype=torch.float32)

    def f_pdls() -> torch.Tensor:
        (gradient,) = torch.autograd.grad(prior_weighted(logits, targets, prior, 0.8, 2.0), logits)
        return gradient

    def cross_entropy() -> None:
        torch.autograd.grad(F.cross_entropy(logits, targets), logits)

    benchmark.group = "F-PDLS and its gradient, 64 images"
    assert benchmark.pedantic(f_pdls, rounds=300, warmup_rounds=20).isfinite().all()
    if benchmark.stats:
        benchmark.extra_info["times_cross_entropy"] = round(benchmark.stats.stats.min / seconds(cross_entropy, 300), 1)
