"""The Neural Resizer's network: the sizes of the facts, the resizer and the STN against plain versions, what learns."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_nresizer import SETTINGS, SIZE, faces, full, small, still
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from bench.method import macs, parameter_counts
from methods.nresizer.options import Options
from methods.nresizer.resizer import Interpolation, Resizer, rescale, resized_side
from methods.nresizer.stn import STN, affine_grid

TABLE = Path(__file__).resolve().parents[2] / "shared" / "facts" / "state-dicts" / "nresizer-swin-b-stn.tsv"
# Tensors, SHA-256 of the sorted lines "name<TAB>shape" (100x100x2; nothing for a scalar).
TENSORS, DIGEST = 376, "36b7a9e41d79997e85427653112fc109318eee5ade46bc3fa9ee41602b36dd1f"


# ---------------------------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    ("backbone", "size", "options", "parameters", "gmacs"),
    [
        ("swin_base", 384, {}, 89_997_139, 16.52),
        ("swin_small", 384, {"stn": False}, 49_248_197, 9.59),
        ("swin_small", 224, {"stn": False, "down": "none"}, 49_236_114, 8.74),
        ("swin_base", 224, {"stn": False, "down": "none"}, 87_273_152, 15.43),
        pytest.param("swin_tiny_patch4_window7_224", 384, {}, 30_642_197, 5.58, marks=pytest.mark.slow),
        pytest.param("swin_large", 384, {}, 198_511_535, 35.56, marks=pytest.mark.slow),
    ],
    ids=["e", "d", "vanilla-s", "vanilla-b", "tiny", "large"],
)
def test_networks_have_the_published_size(
    backbone: str, size: int, options: dict[str, Any], parameters: int, gmacs: float
) -> None:
    net = full(backbone, size, **options)
    assert parameter_counts(net) == (parameters, parameters)
    assert macs(net, size) / 1e9 == pytest.approx(gmacs, abs=0.005)


def test_parts_have_the_published_size() -> None:
    with torch.device("meta"):
        stn, resizer = STN(384), Resizer()
    assert parameter_counts(stn)[0] == 2_711_904
    assert parameter_counts(resizer)[0] == 12_083
    assert macs(resizer, 384) / 1e9 == pytest.approx(0.85, abs=0.005)


def test_a_processor_counts_the_same_as_no_device_at_all() -> None:
    with torch.device("meta"):
        empty = small()
    assert macs(small(), SIZE) == macs(empty, SIZE)


def test_names_and_shapes_are_the_released_ones() -> None:
    state = full("swin_base", 384).state_dict()
    listed = sorted(f"{name}\t{'x'.join(map(str, value.shape))}" for name, value in state.items())
    if TABLE.exists():  # names what differs; the digest says only that something does
        assert listed == sorted(TABLE.read_text().splitlines()[1:])
    assert len(listed) == TENSORS
    assert hashlib.sha256("\n".join(listed).encode()).hexdigest() == DIGEST


# -------------------------------------------------------------------------------------------------------------- resizer
@pytest.mark.parametrize(("side", "factor", "left"), [
    (384, 0.584, 224), (96, 0.584, 56), (97, 0.584, 56), (144, 0.584, 84), (48, 0.584, 28), (40, 0.5, 20),
    (24, 2.0, 48),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["ltr", "bilinear", "bicubic", "nearest"])
def test_every_resizer_leaves_the_floor_of_the_factor(mode: str, side: int, factor: float, left: int) -> None:
    module = Resizer(factor, channels=2) if mode == "ltr" else Interpolation(factor, mode)
    assert resized_side(side, factor) == left
    assert module(torch.zeros(2, 3, side, side)).shape == (2, 3, left, left)


def test_interpolation_samples_at_the_positions_of_the_factor() -> None:
    """Pixel i comes from (i + 0.5) / 0.584 - 0.5, not from where 96 / 56 would put it; nothing is antialiased."""
    ramp = torch.arange(96.0).expand(1, 1, 96, 96)
    wanted = (torch.arange(56) + 0.5) / 0.584 - 0.5
    torch.testing.assert_close(rescale(ramp, 0.584)[0, 0, 0], wanted)
    stripes = (torch.arange(96.0) % 2).expand(1, 1, 96, 96)
    assert float(rescale(stripes, 0.584).std()) > 0.2


def resized_by_hand(state: dict[str, Tensor], images: Tensor, factor: float, blocks: int, training: bool) -> Tensor:
    """The learnable resizer written out."""

    def convolved(maps: Tensor, name: str) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(maps, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def normed(maps: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        if training:
            mean, var = maps.mean((0, 2, 3)), maps.var((0, 2, 3), unbiased=False)
        standard = (maps - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return standard * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    def leaky(maps: Tensor) -> Tensor:
        return torch.where(maps > 0, maps, 0.2 * maps)

    def smaller(maps: Tensor) -> Tensor:
        return F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)

    first = smaller(normed(leaky(convolved(leaky(convolved(images, "conv1")), "conv2")), "bn1"))
    maps = first
    for block in (f"resblock.{number}" for number in range(blocks)):
        inner = leaky(normed(convolved(maps, f"{block}.conv1"), f"{block}.bn1"))
        maps = maps + normed(convolved(inner, f"{block}.conv2"), f"{block}.bn2")
    return convolved(first + normed(convolved(maps, "conv3"), "bn2"), "conv4") + smaller(images)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("blocks", [1, 2])
def test_the_learnable_resizer_against_a_plain_one(blocks: int, training: bool) -> None:
    torch.manual_seed(0)
    net = Resizer(0.584, 4, blocks).double().train(training)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "running_var" in name else torch.randn_like(value))
    images = torch.randn(2, 3, 48, 48, dtype=torch.double)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    torch.testing.assert_close(net(images), resized_by_hand(state, images, 0.584, blocks, training))


# ------------------------------------------------------------------------------------------------------------------ STN
def test_the_stn_starts_as_the_identity() -> None:
    images = faces(3)
    net = STN(SIZE)
    identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(3, 2, 3)
    assert torch.equal(net.theta(images), identity)
    torch.testing.assert_close(net(images), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [18, 48, 97, 384])
def test_the_localiser_fits_every_size(size: int) -> None:
    with torch.device("meta"):
        assert STN(size)(torch.zeros(2, 3, size, size)).shape == (2, 3, size, size)


def test_images_too_small_for_the_stn_are_refused() -> None:
    with pytest.raises(UserError, match="input_size 17 is too small for the STN"):
        STN(17)


def test_views_are_pytorchs_with_aligned_corners() -> None:
    torch.manual_seed(0)
    theta, images = torch.randn(3, 2, 3, dtype=torch.double), faces(3, dtype=torch.double)
    grid = affine_grid(theta, SIZE)
    torch.testing.assert_close(grid, F.affine_grid(theta, [3, 3, SIZE, SIZE], align_corners=True))
    net = STN(SIZE).double()
    with torch.no_grad():
        net.fc_loc[2].bias.copy_(theta[0].flatten())
    torch.testing.assert_close(net(images), F.grid_sample(images, grid[:1].expand(3, -1, -1, -1), align_corners=True))
    half = torch.tensor([[[0.5, 0, 0.5], [0, 0.5, 0.5]]])  # the lower right quarter, between its corners
    corners = affine_grid(half, 5)[0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist()
    assert corners == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_views_keep_their_place_under_bf16() -> None:
    images, net = faces(2, 384), STN(384)
    with torch.autocast("cpu", torch.bfloat16):
        views = net(images)
    assert views.dtype == torch.float32
    torch.testing.assert_close(views, images, atol=1e-3, rtol=0)


def test_small_moves_are_not_lost_under_bf16() -> None:
    images, net = faces(2, 96), STN(96)
    with torch.no_grad():
        net.fc_loc[2].bias[0] = 1.003  # bf16 has 1 and 1.0078 here
    wanted = net(images)
    with torch.autocast("cpu", torch.bfloat16):
        views = net(images)
    torch.testing.assert_close(views, wanted, atol=1e-5, rtol=0)
    assert (views - images).abs().max() > 1e-3


# ---------------------------------------------------------------------------------------------------------- the network
@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_table_2_are_chains_of_their_parts(setting: str) -> None:
    backbone, size, options = SETTINGS[setting]
    net = full(backbone, size, scale_down="quick", **options)
    has_stn, learns = setting == "e", setting in "bde"
    assert (type(net.stn), type(net.res)) == (
        STN if has_stn else nn.Identity,
        Resizer if learns else Interpolation if setting == "c" else nn.Identity,
    )
    assert net.resized(torch.zeros(1, 3, size, size, device="meta")).shape == (1, 3, 224, 224)
    parts = {"model", *["stn"] * has_stn, *["res"] * learns}
    assert {name.partition(".")[0] for name in net.state_dict()} == parts


@pytest.mark.parametrize("backbone", ["swin_small", "swin_base"])
def test_gradients_reach_every_parameter(backbone: str) -> None:
    net = still(small(backbone)).double()
    with torch.no_grad():
        nn.init.normal_(net.stn.fc_loc[2].weight, std=0.01)  # zero at the start: nothing in front of it learns then
    net(faces(dtype=torch.double)).square().sum().backward()
    largest = {name: 0.0 if p.grad is None else float(p.grad.abs().max()) for name, p in net.named_parameters()}
    # batch normalisation takes away what biases ahead of it add
    resizer = {"res.resblock.0.conv1.bias", "res.resblock.0.conv2.bias", "res.conv3.bias"}
    cancelled = {*resizer, "model.norm.bias", "model.head.fc.0.bias"}
    assert cancelled <= largest.keys()
    assert {name for name, size in largest.items() if size < 1e-9} == cancelled


def test_the_stn_learns_from_its_second_step_on() -> None:
    net = still(small())
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    found = []
    for _ in range(2):
        net.zero_grad()
        F.cross_entropy(net(faces()), torch.arange(8)).backward()
        found.append(float(net.stn.localization[0].weight.grad.abs().max()))
        sgd.step()
    assert found[0] == 0
    assert found[1] > 0


def test_the_backbone_sees_what_the_resizer_leaves() -> None:
    net, seen = small().eval(), []
    net.model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    logits = net(faces())
    assert logits.shape == (8, 8)
    assert torch.equal(seen[0], net.resized(faces()))
    assert seen[0].shape == (8, 3, 28, 28)


# -------------------------------------------------------------------------------------------------------------- options
def test_defaults_are_the_released_best_run() -> None:
    assert Options() == Options(
        stn=True, up="sr", down="ltr", alpha=0.8, gamma=2.0, probability="softmax", prior="ferplus-train-votes",
        resize_factor=0.584, resizer_channels=16, resizer_blocks=1, head_hidden=512, head_dropout=0.5, sr_input=48,
    )  # fmt: skip


@pytest.mark.parametrize(("options", "message"), [
    ({"steps": 1}, "unknown option of nresizer 'steps'"),
    ({"donw": "ltr"}, "unknown option of nresizer 'donw'\n  -> did you mean down"),
    ({"up": "srr"}, "unknown up of nresizer 'srr'\n  -> did you mean sr"),
    ({"loss": "fpdls"}, "unknown loss of nresizer 'fpdls'\n  -> did you mean f-pdls"),
    ({"stn": 1}, "stn of nresizer is 1, not true or false"),
    ({"resizer_blocks": 1.5}, "resizer_blocks of nresizer is 1.5, not a whole number"),
    ({"gamma": -1}, "gamma of nresizer is -1, less than 0"),
    ({"alpha": 1.1}, "alpha of nresizer is 1.1, more than 1"),
    ({"alpha": float("nan")}, "alpha of nresizer is nan, not a number"),
    ({"head_dropout": 1}, "head_dropout of nresizer is 1: nothing would be left"),
    ({"resize_factor": 0}, "resize_factor of nresizer is 0"),
])  # fmt: skip
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        Options.parse(options)
    assert message in str(error.value)
