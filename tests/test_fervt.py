"""FER-VT: sizes against the paper's tables, the readings of its equations, and numbers that may not drift."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bench import registry
from bench.declare import RECIPE_FIELDS
from bench.errors import UserError
from bench.figure import Faces
from bench.method import Context, Method, Spec
from methods.fervt.backbone import Backbone
from methods.fervt.convolution import SmallMapConv2d
from methods.fervt.figures import feature_maps, mosaic
from methods.fervt.gwa import GWA, GridAttention, from_grids, to_grids
from methods.fervt.local import InvertedBottleneck, LocalRelation
from methods.fervt.model import FERVT, Options
from methods.fervt.tokens import side

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
SMALL = {"width": 8, "depth": 2, "dim": 32, "heads": 2, "head_dim": 8, "mlp_dim": 64, "c1": 16}
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 8, "epochs": 1, "input_size": 48, "label_smoothing": 0.1,
}  # fmt: skip


def build(options: dict[str, Any], backbone: str = "resnet18", seed: int = 0, **changes: Any) -> Method:
    """The registered method with a small network."""
    context = Context(CLASSES, 48, 10, torch.device("cpu"), seed=seed)
    context = replace(context, **{name: changes[name] for name in changes if hasattr(context, name)})
    torch.manual_seed(seed)
    spec = Spec("test", backbone, changes.get("pretraining", "none"), SMALL | options)
    recipe = RECIPE | {"input_size": context.input_size, "channels_last": changes.get("channels_last", False)}
    return registry.find("method", "fervt").load()(spec, recipe, context)


def small(**options: Any) -> FERVT:
    return build(options).net


def faces(count: int, size: int = 48, seed: int = 1) -> Tensor:
    """Smooth random images, about normalised."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, size // 4, size // 4, generator=generator)
    return F.interpolate(coarse, size, mode="bilinear") + 0.2 * torch.randn(count, 3, size, size, generator=generator)


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


# --- grids and attention ---------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_grid_and_ungrid_are_inverse(h: int, w: int, rows: int, columns: int, channels: int) -> None:
    images = torch.arange(2 * channels * h * rows * w * columns).view(2, channels, h * rows, w * columns)
    grids = to_grids(images, h, w)
    for i, j in itertools.product(range(h), range(w)):
        cell = images[:, :, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        assert torch.equal(grids[:, i * w + j], cell)
    assert torch.equal(from_grids(grids, h, w), images)
    assert torch.equal(to_grids(from_grids(grids, h, w), h, w), grids)


@pytest.mark.parametrize("grid", [(3, 3), (3, 2), (4, 4)])
def test_the_literal_softmax_axis_makes_attention_a_constant(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = GridAttention(grid, "ibn", "literal")
    weights = attention.weights(faces(4))
    torch.testing.assert_close(weights, torch.full_like(weights, grid[0] / 48), atol=1e-7, rtol=0)
    attention.weights(faces(4)).square().sum().backward()
    assert max(parameter.grad.abs().max() for parameter in attention.parameters()) < 1e-7


def test_over_grids_and_channels_the_weights_compete() -> None:
    torch.manual_seed(0)
    over_grids = GridAttention((3, 3), "ibn", "grid").weights(faces(4))
    torch.testing.assert_close(over_grids.sum(1), torch.ones(4, 3))
    assert over_grids.mean().item() == pytest.approx(1 / 9)
    assert over_grids.std(1).min() > 1e-3
    over_channels = GridAttention((3, 3), "ibn", "channel").weights(faces(4))
    torch.testing.assert_close(over_channels.sum(2), torch.ones(4, 9))


@pytest.mark.parametrize("grid", [(3, 3), (3, 2)])
def test_grid_attention_against_a_plain_reference(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = GridAttention(grid, "ibn", "grid").double().eval()
    images = faces(2).double()
    (h, w), rows, columns = grid, 48 // grid[0], 48 // grid[1]
    cells = [
        images[:, :, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        for i, j in itertools.product(range(h), range(w))
    ]
    features = [attention.local(cell) for cell in cells]
    scores = torch.stack([torch.einsum("bcpx,bcqx->bcpq", cell, cell) / columns for cell in features])
    shares = scores.exp() / scores.exp().sum(0)
    weighted = torch.zeros_like(images)
    for index, (i, j) in enumerate(itertools.product(range(h), range(w))):
        scalar = shares[index].mean((-2, -1))[..., None, None]
        weighted[:, :, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns] = scalar * cells[index]
    torch.testing.assert_close(attention(images), weighted)


def test_residual_fusion_against_the_equation() -> None:
    torch.manual_seed(0)
    fusion = GWA().fusion.eval()
    images, weighted = faces(2), faces(2, seed=2)
    total = fusion.image(images) + fusion.weighted(weighted)
    chain = fusion.inner[1](fusion.inner[0](total))
    torch.testing.assert_close(fusion(images, weighted), torch.sigmoid(fusion.last(chain + total)))
    assert not torch.equal(fusion.image[0].weight, fusion.weighted[0].weight)


def test_gwa_and_stem_keep_full_precision_and_layout() -> None:
    """GWA's output is one half plus a faint image: bfloat16 would round most of it away."""
    net = build({}, channels_last=True).net.eval()
    images = faces(2).contiguous(memory_format=torch.channels_last)
    expected = net.gwa(images), net.backbone.stem(images)
    with torch.autocast("cpu", torch.bfloat16):
        enhanced, stem = net.gwa(images), net.backbone.stem(images)
        assert net(images).dtype == torch.bfloat16
    assert torch.equal(enhanced, expected[0])
    assert torch.equal(stem, expected[1].bfloat16())
    assert all(parameter.is_contiguous() for parameter in net.gwa.parameters())


# --- local feature networks and the small-map convolution ------------------------------------------------------------


def test_the_folded_inverted_bottleneck_equals_plain_layers() -> None:
    torch.manual_seed(0)
    ours = InvertedBottleneck(3).double()
    up = [nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.1)]
    down = [nn.Conv2d(64, 3, 1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1)]
    plain = nn.Sequential(*up, *down).double()
    for target, source in zip((plain[0], plain[1], plain[3], plain[4]), ours.children()):
        target.load_state_dict(source.state_dict())
    grids = torch.randn(18, 3, 16, 24, dtype=torch.double) * 2 + 1
    upstream = torch.randn_like(grids)
    for _ in range(2):
        for module in (ours, plain):
            module.zero_grad()
            (module(grids) * upstream).sum().backward()
    torch.testing.assert_close(ours(grids), plain(grids))
    torch.testing.assert_close(ours.up.weight.grad, plain[0].weight.grad)
    torch.testing.assert_close(ours.up_norm.weight.grad, plain[1].weight.grad)
    torch.testing.assert_close(ours.down.weight.grad, plain[3].weight.grad)
    for ours_norm, plain_norm in ((ours.up_norm, plain[1]), (ours.down_norm, plain[4])):
        for name, value in plain_norm.state_dict().items():
            torch.testing.assert_close(ours_norm.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(grids), plain.eval()(grids))


def test_local_relation_against_a_plain_reference() -> None:
    torch.manual_seed(0)
    layer = LocalRelation(2, window=3).double()
    grids = torch.randn(1, 2, 4, 5, dtype=torch.double)
    query, key, prior = layer.query(grids), layer.key(grids), layer.prior(layer.positions)
    expected = torch.zeros_like(grids)
    for channel, row, column in itertools.product(range(2), range(4), range(5)):
        window = [
            (i, j) for i, j in itertools.product((-1, 0, 1), repeat=2) if 0 <= row + i < 4 and 0 <= column + j < 5
        ]
        keys = torch.stack([key[0, channel, row + i, column + j] for i, j in window])
        priors = torch.stack([prior[0, channel, i + 1, j + 1] for i, j in window])
        logits = priors - (query[0, channel, row, column] - keys) ** 2
        values = torch.stack([grids[0, channel, row + i, column + j] for i, j in window])
        expected[0, channel, row, column] = (logits.softmax(0) * values).sum()
    torch.testing.assert_close(layer.aggregate(grids), expected)


@given(
    kernel=st.sampled_from([1, 3, 7]), stride=st.integers(1, 4), rows=st.integers(1, 7), columns=st.integers(1, 7),
    bias=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_small_map_convolution_equals_conv2d(kernel: int, stride: int, rows: int, columns: int, bias: bool) -> None:
    torch.manual_seed(0)
    ours = SmallMapConv2d(3, 4, kernel, stride, padding=kernel // 2, bias=bias).double()
    maps = torch.randn(2, 3, rows, columns, dtype=torch.double, requires_grad=True)
    found = ours(maps)
    expected = F.conv2d(maps, ours.weight, ours.bias, stride, kernel // 2)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    inputs = (maps, ours.weight)
    for a, b in zip(torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream)):
        torch.testing.assert_close(a, b)


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
