"""Training steps of masked pretraining: the miniature of profile quick and ViT-T on one CPU thread; a GPU's share.

What hiding three quarters saves is a ratio to the same network with next to nothing hidden. Times depend on the
machine, their ratios hardly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from gpu_peak import share_of_peak
from torch import Tensor

from bench import declare
from bench.method import Context
from bench.recipe import RECIPE_FIELDS
from methods.mae import Pretraining
from methods.mae.model import MAE
from methods.mae.sizes import size_of

QUICK = declare.load().recipe("mae-code").values("quick")
# backbone, scale, pixels, batch
CASES = {
    "quick": ("vit_base_patch16", "quick", QUICK["input_size"], QUICK["batch_size"]),
    "vit-t": ("vit_tiny_patch16", "full", 224, 4),
}
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adamw", "learning_rate": 1e-4, "betas": [0.9, 0.95], "weight_decay": 0.05, "batch_size": 8,
    "epochs": 1, "loss": "masked-pixels",
}  # fmt: skip


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(backbone: str, scale: str, pixels: int, mask_ratio: float, precision: str, device: str = "cpu") -> Pretraining:
    torch.manual_seed(0)
    net = MAE(size_of(backbone, scale, pixels), pixels, mask_ratio)
    method = Pretraining(
        net, RECIPE | {"input_size": pixels}, Context((), pixels, 100, torch.device(device), precision)
    )
    method.train()
    return method


def seconds(step: Callable[[], object], rounds: int) -> float:
    """The shortest of some rounds, behind one to warm up."""
    found = []
    for _ in range(1 + rounds):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return min(found[1:])


@pytest.mark.parametrize("case", CASES)
def test_training_step(benchmark, case: str, one_thread: None) -> None:
    """`extra_info` has images/s, and the times of one patch hidden and of bf16 as ratios to this step's."""
    backbone, scale, pixels, batch = CASES[case]
    images, targets = torch.randn(batch, 3, pixels, pixels), torch.zeros(batch)

    def step(mask_ratio: float, precision: str) -> Callable[[], dict[str, Tensor]]:
        method = make(backbone, scale, pixels, mask_ratio, precision)
        return lambda: method.update(images, targets)

    benchmark.group = f"step of masked pretraining, {case}, batch {batch} at {pixels} pixels"
    losses = benchmark.pedantic(step(0.75, "fp32"), rounds=3, warmup_rounds=1)
    assert losses["loss"].isfinite()
    if benchmark.stats:
        ours, patches = benchmark.stats.stats.min, make(backbone, scale, pixels, 0.75, "fp32").net.encoder.side ** 2
        benchmark.extra_info["images_per_second"] = round(batch / ours, 1)
        benchmark.extra_info["times_with_one_hidden"] = round(seconds(step(1 / patches, "fp32"), 3) / ours, 2)
        benchmark.extra_info["times_in_bf16"] = round(seconds(step(0.75, "bf16"), 3) / ours, 2)


@pytest.mark.parametrize("case", CASES)
def test_encoder(benchmark, case: str, one_thread: None) -> None:
    """Forward passes of the encoder on a quarter of the patches; `extra_info` has the ratio for all of them."""
    backbone, scale, pixels, batch = CASES[case]
    encoder = make(backbone, scale, pixels, 0.75, "fp32").net.encoder.eval()
    images, patches = torch.randn(batch, 3, pixels, pixels), encoder.side**2
    kept = torch.rand(batch, patches).argsort(dim=1)[:, : patches // 4]

    @torch.inference_mode()
    def masked() -> Tensor:
        found: Tensor = encoder(images, kept)
        return found

    @torch.inference_mode()
    def whole() -> None:
        encoder(images)

    benchmark.group = f"masked encoder, {case}, batch {batch} at {pixels} pixels"
    assert benchmark.pedantic(masked, rounds=5, warmup_rounds=1).shape[1] == 1 + patches // 4
    if benchmark.stats:
        benchmark.extra_info["times_with_all_patches"] = round(seconds(whole, 5) / benchmark.stats.stats.min, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_share_of_a_gpus_peak(benchmark, size: str) -> None:
    """Full size, 224 pixels, bfloat16, the released command's batch; `extra_info` has the share of the peak."""
    method = make(f"vit_{size}_patch16", "full", 224, 0.75, "bf16", "cuda")
    images, targets = torch.randn(128, 3, 224, 224, device="cuda"), torch.zeros(128, device="cuda")
    benchmark.group = "step of masked pretraining on a GPU, batch 128 at 224 pixels, bf16"
    found = benchmark.pedantic(lambda: share_of_peak(lambda: method.update(images, targets)), rounds=1)
    benchmark.extra_info |= {name: round(value, 3) for name, value in found.items()}
    benchmark.extra_info["images_per_second"] = round(128 / found["seconds"])
    assert found["seconds"] > 0
