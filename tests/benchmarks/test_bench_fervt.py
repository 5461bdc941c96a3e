"""Training steps of FER-VT's variants at 48 pixels, batch 32, on one CPU thread.

All variants run in one session: the factors in the table's parentheses compare them; times depend on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.declare import RECIPE_FIELDS
from bench.method import Context, Supervised
from methods.fervt.convolution import SmallMapConv2d
from methods.fervt.model import FERVT, Options

BATCH, SIZE = 32, 48
VARIANTS = {
    "resnet34": {"gwa": False, "fusion": "fc"},
    "+gwa": {"gwa": True, "fusion": "fc"},
    "+vta": {"gwa": False, "fusion": "vta"},
    "both": {"gwa": True, "fusion": "vta"},
}
CASES = [*((name, "bf16", True) for name in VARIANTS), ("resnet34", "fp32", False), ("both", "fp32", False)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("variant", "precision", "channels_last"), CASES)
def test_training_step(benchmark, variant: str, precision: str, channels_last: bool) -> None:
    recipe = RECIPE_FIELDS | {
        "optimizer": "adam", "learning_rate": 1e-3, "batch_size": BATCH, "epochs": 1, "input_size": SIZE,
        "label_smoothing": 0.1, "precision": precision, "channels_last": channels_last,
    }  # fmt: skip
    context = Context(tuple("abcdefgh"), SIZE, 100, torch.device("cpu"), precision)
    torch.manual_seed(0)
    method = Supervised(FERVT(8, SIZE, options=Options.parse(VARIANTS[variant])), recipe, context)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=layout)
    targets = torch.randint(0, 8, (BATCH,))
    benchmark.group = f"training step, batch {BATCH} at {SIZE} pixels"
    losses = benchmark.pedantic(method.update, (images, targets), rounds=5, warmup_rounds=1)
    benchmark.extra_info["images_per_second"] = BATCH / benchmark.stats["min"] if benchmark.stats else None
    assert losses["loss"].isfinite()


@pytest.mark.parametrize("kind", [nn.Conv2d, SmallMapConv2d])
@pytest.mark.parametrize(("channels", "side"), [(512, 2), (256, 3)])
def test_small_map_convolution(benchmark, kind: type[nn.Conv2d], channels: int, side: int) -> None:
    """Forward and backward of the 3x3 convolution ResNet-34 spends most of its time in at 48 pixels."""
    layer = kind(channels, channels, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    maps = torch.randn(BATCH, channels, side, side).bfloat16().contiguous(memory_format=torch.channels_last)
    maps.requires_grad_()

    def step() -> None:
        layer.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(maps)
        out.backward(torch.ones_like(out))

    benchmark.group = f"3x3 convolution of {channels} channels on {side}x{side} maps"
    benchmark.pedantic(step, rounds=10, warmup_rounds=2)
    with torch.autocast("cpu", torch.bfloat16):
        reference = F.conv2d(maps, layer.weight, padding=1)
        torch.testing.assert_close(layer(maps), reference, atol=0.05, rtol=0.05)
