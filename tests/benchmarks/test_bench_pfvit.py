"""A training step of PF-ViT against its plain baseline's, on one CPU thread; what generating once saves; GPU's share.

Small sizes, pixels and batch are those of profile quick. Times depend on the machine, their ratios hardly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from gpu_peak import share_of_peak

from bench import declare, registry
from bench.declare import RECIPE_FIELDS
from bench.method import Context, Spec

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
RECIPES = {profile: declare.load().recipe("pfvit-paper").values(profile) for profile in ("paper", "quick")}
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 2e-5, "epochs": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(method: str, size: str, profile: str = "quick", device: str = "cpu") -> tuple[Any, ...]:
    """A method from random weights, images and targets; pixels and batch as PF-ViT's recipe says."""
    sizes = {name: RECIPES[profile][name] for name in ("input_size", "batch_size")}
    side, batch, place = sizes["input_size"], sizes["batch_size"], torch.device(device)
    precision = "fp32" if device == "cpu" else "bf16"
    context = Context(CLASSES, side, 100, place, precision)
    torch.manual_seed(0)
    spec = Spec(method, f"vit_{size}_patch16", "none", {"scale_down": "quick" if profile == "quick" else "full"})
    built = registry.find("method", method).load()(spec, RECIPE | sizes | {"precision": precision}, context)
    images = torch.randn(batch, 3, side, side, device=place)
    return built, images, torch.randint(0, len(CLASSES), (batch,), device=place)


def seconds(step: Callable[[], object], rounds: int) -> float:
    """The shortest of some rounds, behind one to warm up."""
    found = []
    for _ in range(1 + rounds):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return min(found[1:])


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_training_step(benchmark, size: str) -> None:
    """`extra_info` has images/s of PF-ViT and of its baseline, the ratio of their steps, and what generating the faces
    of a step once saves: a step that generated them again for the discriminator would take `once_more` times as long.
    """
    method, images, targets = made("pfvit", size)
    baseline, _, _ = made("pfvit-baseline", size)
    batch, _, _, side = images.shape
    benchmark.group = f"PF-ViT's training step, batch {batch}, {side} pixels, miniature of ViT-{size}"
    losses = benchmark.pedantic(lambda: method.update(images, targets), rounds=5, warmup_rounds=2)
    assert losses["loss"].isfinite()
    if benchmark.stats:

        @torch.no_grad()
        def generate() -> None:
            separated = method.net.separate(images)
            method.net.generate((separated.whole, separated.rest))

        ours, plain = benchmark.stats.stats.min, seconds(lambda: baseline.update(images, targets), 5)
        benchmark.extra_info["images_per_second"] = round(batch / ours, 1)
        benchmark.extra_info["images_per_second_of_baseline"] = round(batch / plain, 1)
        benchmark.extra_info["times_baseline"] = round(ours / plain, 2)
        benchmark.extra_info["once_more"] = round(1 + seconds(generate, 5) / ours, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_share_of_the_gpu(benchmark, size: str) -> None:
    """Full size, 224 pixels, bfloat16, the paper's batch; `extra_info` has the share of the device's peak."""
    method, images, targets = made("pfvit", size, "paper", "cuda")
    benchmark.group = f"PF-ViT's training step on a GPU, batch {len(images)}, 224 pixels, ViT-{size}"
    found = benchmark.pedantic(lambda: share_of_peak(lambda: method.update(images, targets)), rounds=1)
    benchmark.extra_info.update({name: round(value, 4) for name, value in found.items()})
    benchmark.extra_info["images_per_second"] = round(len(images) / found["seconds"], 1)
    assert 0 < found["share_of_reachable"] < 1.2
