"""The plain ViT: sizes of the published models, scaled options, errors, and numbers that may not drift."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench import registry
from bench.declare import RECIPE_FIELDS
from bench.errors import UserError
from bench.method import Context, Method, Spec
from methods.vit import make_vit

CLASSES = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
QUICK = {"patch_size": 8, "dim": 48, "depth": 2, "heads": 3}
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 8, "epochs": 1, "input_size": 48, "label_smoothing": 0.1,
}  # fmt: skip


def build(options: dict[str, Any], backbone: str = "vit_tiny_patch16", pretraining: str = "none") -> Method:
    torch.manual_seed(0)
    context = Context(CLASSES, 48, 10, torch.device("cpu"))
    return registry.find("method", "vit").load()(Spec("test", backbone, pretraining, options), RECIPE, context)


@pytest.mark.parametrize(("size", "total"), [("tiny", 5_525_767), ("small", 21_668_359), ("base", 85_804_039)])
def test_parameter_counts_at_224_pixels_and_seven_classes(size: str, total: int) -> None:
    with torch.device("meta"):
        net = make_vit(f"vit_{size}_patch16", {}, 224, 7)
    assert sum(parameter.numel() for parameter in net.parameters()) == total


def test_options_scale_the_network() -> None:
    net = build(QUICK).net
    assert net.pos_embed.shape == (1, 1 + 36, 48)
    assert len(net.blocks) == 2
    assert net.blocks[0].attn.num_heads == 3
    assert net(torch.randn(2, 3, 48, 48)).shape == (2, len(CLASSES))


def test_gradient_reaches_every_parameter() -> None:
    net = build(QUICK).net
    torch.nn.functional.cross_entropy(net(torch.randn(7, 3, 48, 48)), torch.arange(7)).backward()
    assert [name for name, parameter in net.named_parameters() if not parameter.grad.abs().max() > 0] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"depht": 3},), "unknown option of vit 'depht'\n  -> did you mean depth"),
        (({}, "vit_smal_patch16"), "unknown backbone of vit 'vit_smal_patch16'\n  -> did you mean vit_small_patch16"),
        (({"patch_size": 10},), "patches of 10 pixels do not divide images of 48"),
        (({}, "vit_tiny_patch16", "imagenet1k"), "unknown pretraining of vit 'imagenet1k'"),
    ],
)
def test_wrong_entries_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(*arguments)
    assert message in str(error.value)


# Losses of three seeded float64 steps and the version they belong to; if they change, raise it in methods/vit.py.
GOLDEN_VERSION, GOLDEN = 1, [1.95772, 1.961668, 1.953982]


def test_golden_losses() -> None:
    assert registry.find("method", "vit").version == GOLDEN_VERSION, "record the losses of the new version"
    assert golden() == pytest.approx(GOLDEN, abs=1e-4), "numbers changed: raise the method's version"


def golden() -> list[float]:
    method = build(QUICK)
    method.net.double()
    losses = []
    for step in range(3):
        images = torch.randn(7, 3, 48, 48, generator=torch.Generator().manual_seed(step)).double()
        losses.append(float(method.update(images, torch.arange(7))["loss"]))
    return losses
