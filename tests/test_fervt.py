"""FER-VT: sizes against the paper's tables, the readings of its equations, and numbers that may not drift."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_fervt import CLASSES, SMALL, build, faces
from torch import Tensor, nn
from torch.nn import functional as F

from bench import registry
from bench.errors import UserError
from bench.figure import Faces
from methods.fervt.backbone import Backbone
from methods.fervt.figures import feature_maps, mosaic
from methods.fervt.gwa import to_grids
from methods.fervt.model import FERVT, Options
from methods.fervt.tokens import side


def small(**options: Any) -> FERVT:
    return build(options).net


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "total"), [(96, 26_678_670), (192, 26_903_310)])
def test_parameter_counts_of_the_paper_configuration(size: int, total: int) -> None:
    with torch.device("meta"):
        net = FERVT(classes=7, input_size=size)
    assert count(net.gwa.attention.local) == 585
    assert count(net.gwa) == 1_031
    assert count(net.backbone) == 21_284_672
    # The VTA's 4,733,952 are the twelve encoder layers; class token, positions, norm and head come on top.
    assert count(net.fusion.transformer.blocks) == 4_733_952
    assert count(net) == total


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)])
def test_backbones_are_torchvisions_without_their_head(backbone: str, channels: int) -> None:
    import torchvision

    with torch.device("meta"):
        ours, theirs = Backbone(backbone), getattr(torchvision.models, backbone)()
    reference = {name: tensor.shape for name, tensor in theirs.state_dict().items() if not name.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == reference
    assert ours.channels[-1] == channels


@pytest.mark.parametrize("size", [48, 96, 192])
def test_shapes_at_every_input_size(size: int) -> None:
    net = build({}, input_size=size).net
    images = faces(2, size)
    resized = net.fusion.embedding.resize(net.backbone(net.gwa(images)))
    assert [tuple(level.shape) for level in resized] == [(2, 16, side(size), side(size))] * 3
    assert side(size) == {48: 2, 96: 3, 192: 6}[size]
    assert net.fusion.embedding(net.backbone(images)).shape == (2, 3, 32)
    assert net(images).shape == (2, len(CLASSES))
    assert [level.shape[-1] * stride for level, stride in zip(net.feature_maps(images).values(), (2, 4, 8))] == [
        size
    ] * 3


# --- initialisation and gradients ------------------------------------------------------------------------------------


def test_initialisation_follows_section_422() -> None:
    torch.manual_seed(0)
    net = FERVT(classes=8, input_size=96, options=Options(width=32))
    bound = 0.1 * (6 / (27 + 27)) ** 0.5
    for module in net.gwa.fusion.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.25)
            assert module.bias.abs().max() == 0
    for convolution in (net.backbone.layer2[1].conv1, net.fusion.embedding.resize[0][0], net.gwa.attention.local.down):
        fan_in = convolution.weight[0].numel()
        assert convolution.weight.abs().max().item() <= (6 / fan_in) ** 0.5
        assert convolution.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    for linear in (net.fusion.transformer.blocks[3].attention.qkv, net.fusion.embedding.embed[3]):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.fusion.transformer.positions.std().item() == pytest.approx(0.02, rel=0.1)
    assert net.backbone.layer3[0].bn2.weight.min() == 1


# A bias in front of BatchNorm is subtracted again, and a constant in front of a softmax cancels.
WITHOUT_GRADIENT = {
    "ibn": {"gwa.attention.local.up.bias", "gwa.attention.local.down.bias"},
    "bottleneck": set(),
    "local_relation": {"gwa.attention.local.prior.2.bias", "gwa.attention.local.mix.bias"},
} | {
    "fusion": {f"gwa.fusion.{name}.bias" for name in ("image.0", "weighted.0", "inner.0.0", "inner.1.0")},
    "vta": {f"fusion.embedding.resize.{level}.0.bias" for level in range(3)},
    "asff": {f"fusion.resize.{level}.0.bias" for level in range(3)},
    "fc": set(),
}


@pytest.mark.parametrize(("local", "fusion"), [("ibn", "vta"), ("bottleneck", "fc"), ("local_relation", "asff")])
def test_gradient_reaches_every_parameter_but_the_cancelled_biases(local: str, fusion: str) -> None:
    torch.manual_seed(0)
    options = Options.parse(SMALL | {"local": local, "fusion": fusion, "dropout": 0.0})
    net = FERVT(len(CLASSES), 96, "resnet18", options).double()
    F.cross_entropy(net(faces(8, 96).double()), torch.arange(8)).backward()
    silent = {name for name, parameter in net.named_parameters() if parameter.grad.abs().max() < 1e-13}
    assert silent == WITHOUT_GRADIENT[local] | WITHOUT_GRADIENT["fusion"] | WITHOUT_GRADIENT[fusion]


# --- combinations ----------------------------------------------------------------------------------------------------


def test_components_and_fusion_alternatives() -> None:
    plain, gwa = small(gwa=False, fusion="fc"), small(gwa=True, fusion="fc")
    vta, both = small(gwa=False, fusion="vta"), small(gwa=True, fusion="vta")
    assert count(gwa) - count(plain) == count(both) - count(vta) == 1_031
    assert isinstance(plain.gwa, nn.Identity)
    assert isinstance(vta.gwa, nn.Identity)
    images = faces(3)
    head = plain.eval().fusion.head
    pooled = plain.backbone(images)[-1].mean((-2, -1))
    torch.testing.assert_close(plain(images), F.linear(pooled, head.weight, head.bias))


def test_adaptive_fusion_averages_levels_per_position() -> None:
    fusion = small(fusion="asff").fusion.eval()
    seen = {}
    fusion.expand.register_forward_pre_hook(lambda _, inputs: seen.update(fused=inputs[0]))
    pyramid = [torch.randn(2, channels, size, size) for channels, size in ((16, 6), (32, 3), (64, 2))]
    assert fusion(pyramid).shape == (2, len(CLASSES))
    levels = torch.stack(fusion.resize(pyramid))
    assert (seen["fused"] <= levels.amax(0) + 1e-6).all()
    assert (seen["fused"] >= levels.amin(0) - 1e-6).all()
    nn.init.zeros_(fusion.score.weight)
    fusion(pyramid)
    torch.testing.assert_close(seen["fused"], levels.mean(0))


def test_label_order_is_only_an_order() -> None:
    permutation = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    one = build({})
    other = build({}, classes=tuple(CLASSES[i] for i in permutation))
    for name, tensor in one.net.state_dict().items():
        assert torch.equal(tensor, other.net.state_dict()[name]), name
    images = faces(3)
    for method in (one, other):
        method.train(False)
    head = other.net.fusion.transformer.head
    head.load_state_dict({"weight": head.weight[permutation], "bias": head.bias[permutation]})
    torch.testing.assert_close(other.predict(images), one.predict(images)[:, permutation])


def test_state_dict_round_trip() -> None:
    one, other = build({}), build({}, seed=5)
    targets = torch.arange(8)
    one.update(faces(8), targets)
    other.load_state_dict(copy.deepcopy(one.state_dict()))  # as from a file: optimizers keep the tensors they are given
    losses = []
    for method in (one, other):
        torch.manual_seed(3)
        losses.append(method.update(faces(8, seed=4), targets)["loss"])
        method.train(False)
    assert torch.equal(*losses)
    assert torch.equal(one.predict(faces(3)), other.predict(faces(3)))


def test_channels_last_changes_layout_only() -> None:
    one, other = build({}), build({}, channels_last=True)
    for method in (one, other):
        method.train(False)
    images = faces(4)
    laid_out = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(one.predict(images), other.predict(laid_out), atol=1e-5, rtol=1e-4)


# --- errors and pretrained weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fussion": "vta"}, "unknown option of fervt 'fussion'\n  -> did you mean fusion"),
        ({"fusion": "asf"}, "unknown fusion of fervt 'asf'\n  -> did you mean asff"),
        ({"local": "ibm"}, "unknown local feature network of fervt 'ibm'\n  -> did you mean ibn"),
        ({"softmax": "grids"}, "unknown softmax axis of fervt 'grids'\n  -> did you mean grid"),
        ({"grid": [5, 3]}, "input_size 48 is not divisible by grid 5 x 3"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(options)
    assert message in str(error.value)


def test_wrong_backbone_pretraining_and_image_size_are_named() -> None:
    with pytest.raises(UserError, match="did you mean resnet34"):
        build({}, backbone="resnet43")
    with pytest.raises(UserError, match="unknown pretraining of fervt 'imagenet'"):
        build({}, pretraining="imagenet")
    with pytest.raises(UserError, match="grid 3 x 3 does not divide images of 50 x 48 pixels"):
        to_grids(torch.zeros(1, 3, 50, 48), 3, 3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_pretrained_weights_load_strictly_without_their_head(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    def write(name: str, tensors: dict[str, Tensor]) -> Path:
        path = tmp_path / (name + suffix)
        save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
        return path

    torch.manual_seed(9)
    source = Backbone("resnet18", width=8).state_dict()
    full = source | {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}
    role = "resnet18-imagenet1k"
    path = write("good", {name: value for name, value in full.items() if not name.endswith("num_batches_tracked")})
    net = build({}, pretraining="imagenet1k", weights={role: path}).net
    assert all(torch.equal(value, source[name]) for name, value in net.backbone.state_dict().items())

    with pytest.raises(UserError, match=role):
        build({}, pretraining="imagenet1k")
    path = write("short", {name: value for name, value in full.items() if name != "layer3.1.bn2.bias"})
    with pytest.raises(UserError, match=r"short.*1 missing: layer3\.1\.bn2\.bias"):
        build({}, pretraining="imagenet1k", weights={role: path})
    with pytest.raises(UserError, match="of another shape"):
        build({"width": 16}, pretraining="imagenet1k", weights={role: path})
    with pytest.raises(UserError, match="no such weights file"):
        build({}, pretraining="imagenet1k", weights={role: tmp_path / "absent.pth"})


# --- figures ---------------------------------------------------------------------------------------------------------


def test_mosaic_places_and_scales_maps() -> None:
    maps = torch.arange(18.0).view(18, 1, 1) + torch.arange(6.0).view(1, 2, 3) * 100
    picture = mosaic(maps)
    assert picture.shape == (3 * 3, 6 * 4)
    torch.testing.assert_close(picture[3:5, 8:11], torch.arange(6.0).view(2, 3) / 5)
    assert (picture[2] == 1).all()


@pytest.mark.parametrize("shape", [(1, 48, 48), (1, 48, 48, 3)])
def test_feature_maps_are_drawn_for_grey_and_colour(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nets = {"FER-VT": build({}).net, "ResNet": build({"gwa": False, "fusion": "fc"}).net}
    path = tmp_path / "figures" / "maps.png"
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    shown = Faces(("anger",), np.zeros(1, np.int64), lambda at: pixels[at], lambda title, at: faces(1))
    feature_maps(nets, shown, path)
    drawn = path.read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) > 10_000
    assert [p.name for p in path.parent.iterdir()] == ["maps.png"]


# --- numbers ---------------------------------------------------------------------------------------------------------

# Losses of three seeded steps per variant, and the method version they belong to. If one changes, results of earlier
# runs no longer come from this code: raise `version` in methods/fervt/__init__.py and record the new numbers here.
GOLDEN_VERSION = 1
GOLDEN: dict[str, tuple[dict[str, Any], list[float]]] = {
    "resnet": ({"gwa": False, "fusion": "fc"}, [2.213181, 2.212042, 2.3743]),
    "gwa": ({"fusion": "fc"}, [2.181162, 2.085623, 2.13396]),
    "vta": ({"gwa": False}, [2.091872, 2.082741, 2.094308]),
    "both": ({}, [2.101094, 2.122355, 2.111756]),
    "bottleneck": ({"local": "bottleneck"}, [2.087348, 2.091168, 2.12256]),
    "local_relation": ({"local": "local_relation"}, [2.045938, 2.087858, 2.120096]),
    "asff": ({"fusion": "asff"}, [2.151002, 2.217122, 2.1796]),
    "grid-3x2": ({"grid": [3, 2]}, [2.103273, 2.118651, 2.100828]),
    "softmax-literal": ({"softmax": "literal"}, [2.101505, 2.12177, 2.105213]),
    "softmax-channel": ({"softmax": "channel"}, [2.102578, 2.120507, 2.105259]),
}


@pytest.mark.parametrize("variant", GOLDEN)
def test_golden_losses(variant: str) -> None:
    options, expected = GOLDEN[variant]
    assert registry.find("method", "fervt").version == GOLDEN_VERSION, "record the losses of the new version"
    assert golden(options) == pytest.approx(expected, abs=1e-4), "numbers changed: raise the method's version"


def golden(options: dict[str, Any]) -> list[float]:
    """In float64, where rounding tips no ReLU or pooling tie: thread count and instruction set do not matter."""
    method = build(options)
    method.net.double()
    targets = torch.arange(8)
    return [float(method.update(faces(8, seed=10 + step).double(), targets)["loss"]) for step in range(3)]
