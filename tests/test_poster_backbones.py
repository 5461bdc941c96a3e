"""POSTER's backbones: how their maps become tokens, whose files they load, and O-Net in place of the landmark net."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from helpers_poster import STEPS, faces, full, small
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from methods.poster.ir50 import IR50, Unit, to_map, to_tokens
from methods.poster.mobilefacenet import InvertedBottleneck, MobileFaceNet
from methods.poster.onet import MEAN, STD, ONet


def changed(before: Tensor, after: Tensor) -> set[int]:
    """Tokens (dimension 1) that differ."""
    return set((before != after).any(-1)[0].nonzero().flatten().tolist())


# ------------------------------------------------------------------------------------------------------------- networks
def shaken(module: nn.Module) -> nn.Module:
    """With parameters and statistics none of which is what it was built with."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "running_var" in name else 0.3 * torch.randn_like(value))
    return module.eval()


def normed(state: dict[str, Tensor], name: str, maps: Tensor) -> Tensor:
    numbers = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(maps, *numbers)


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 4, 2), (4, 8, 2)])
def test_a_unit_of_ir50(inputs: int, outputs: int, stride: int) -> None:
    torch.manual_seed(0)
    unit, maps = shaken(Unit(inputs, outputs, stride)), torch.randn(2, inputs, 8, 8)
    state = unit.state_dict()
    found = F.conv2d(normed(state, "res_layer.0", maps), state["res_layer.1.weight"], padding=1)
    found = F.conv2d(F.prelu(found, state["res_layer.2.weight"]), state["res_layer.3.weight"], None, stride, 1)
    if inputs == outputs:
        shortcut = F.max_pool2d(maps, 1, stride)
    else:
        shortcut = normed(state, "shortcut_layer.1", F.conv2d(maps, state["shortcut_layer.0.weight"], None, stride))
    torch.testing.assert_close(unit(maps), normed(state, "res_layer.4", found) + shortcut)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_bottleneck_of_the_landmark_net(stride: int) -> None:
    torch.manual_seed(0)
    block, maps = shaken(InvertedBottleneck(4, 8, 4, stride)), torch.randn(2, 4, 8, 8)
    state = block.state_dict()
    found = normed(state, "conv.bn", F.conv2d(maps, state["conv.conv.weight"]))
    found = F.conv2d(F.prelu(found, state["conv.prelu.weight"]), state["conv_dw.conv.weight"], None, stride, 1, 1, 8)
    found = F.prelu(normed(state, "conv_dw.bn", found), state["conv_dw.prelu.weight"])
    found = normed(state, "project.bn", F.conv2d(found, state["project.conv.weight"]))
    torch.testing.assert_close(block(maps), found if stride == 2 else found + maps)


def test_maps_shrink_where_the_released_ones_do() -> None:
    """Sides and channels of published size, for faces of 112 pixels."""
    net, sides = full(), []
    for part in (net.image_net, net.landmark_net):
        for name, module in part.named_children():
            module.register_forward_hook(lambda _, __, out, name=name: sides.append((name, *out.shape[1:3])))
    for number in (0, 3, 7):
        hook = partial(lambda name, _, __, out: sides.append((name, *out.shape[1:3])), f"unit {number}")
        net.image_net.body[number].register_forward_hook(hook)
    images = torch.empty(1, 3, 112, 112, device="meta")
    net.image_net(images)
    assert sides == [("input_layer", 64, 112), ("unit 0", 64, 56), ("unit 3", 128, 28), ("unit 7", 256, 14),
                     ("body", 256, 14)]  # fmt: skip
    sides.clear()
    assert net.landmark_net.eval()(images).shape == (1, 136)
    assert sides == [
        ("conv1", 64, 56), ("conv2_dw", 64, 56), ("conv_23", 64, 28), ("conv_3", 64, 28), ("conv_34", 128, 14),
        ("conv_4", 128, 14), ("conv_45", 128, 7), ("conv_5", 128, 7), ("conv_6_sep", 512, 7), ("output_layer", 136),
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- tokens
def touched(how: str, place: tuple[Any, ...]) -> set[int]:
    """Image tokens that change with part of the map (256, 14, 14)."""
    maps = torch.zeros(1, 256, 14, 14)
    before = to_tokens(maps, how).clone()  # may be a view of the map
    assert before.shape == (1, 49, 1024)
    maps[(0, *place)] = 1
    return changed(before, to_tokens(maps, how))


def test_released_image_tokens_are_channels() -> None:
    everywhere = slice(None)
    for row, column in ((0, 0), (5, 8), (13, 13)):
        assert touched("channels", (everywhere, row, column)) == set(range(49))
    groups = [touched("channels", (channel,)) for channel in range(256)]
    assert {len(group) for group in groups} == {1, 2}
    assert groups[0] == {0}
    assert groups[5] == {0, 1}
    assert groups[255] == {48}


def test_patch_tokens_are_places() -> None:
    for row, column in product(range(14), range(14)):
        assert touched("patches", (slice(None), row, column)) == {row // 2 * 7 + column // 2}
    assert touched("patches", (100,)) == set(range(49))


@pytest.mark.parametrize("how", ["channels", "patches"])
def test_tokens_lead_back_to_the_map(how: str) -> None:
    maps = torch.randn(2, 6, 8, 8)
    torch.testing.assert_close(to_map(to_tokens(maps, how), how), maps, rtol=0, atol=0)
    strided = maps.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(to_tokens(strided, how), to_tokens(maps, how), rtol=0, atol=0)


# -------------------------------------------------------------------------------------------------------------- loading
def test_a_whole_ir50_file_loads_without_its_fourth_stage() -> None:
    net = full()
    state = dict(net.image_net.state_dict())
    file = state | {f"body.{unit}.res_layer.1.weight": torch.empty(512, 256, 3, 3) for unit in (21, 23)}
    assert net.load_image_backbone(file) == 304
    assert net.image_net.surplus(file) == sorted(file.keys() - state.keys())
    assert full(released_extras=False).load_image_backbone(file) == 304 - 12  # without the head
    del file["body.20.res_layer.3.weight"]
    with pytest.raises(UserError, match=r"1 missing: body\.20\.res_layer\.3\.weight"):
        net.load_image_backbone(file)
    with pytest.raises(UserError, match=r"1 left over: fc\.weight"):
        net.load_image_backbone(state | {"fc.weight": torch.empty(1)})


def test_loaded_backbones_hold_the_file_s_numbers() -> None:
    net, torso, landmarks = small(), IR50(8, (1, 1, 1), 32), MobileFaceNet(8, 32, 32)
    assert net.load_landmark_net(landmarks.state_dict()) == len(landmarks.state_dict())
    assert net.load_image_backbone(torso.state_dict()) == len(torso.state_dict())
    net.eval(), torso.eval(), landmarks.eval()
    torch.testing.assert_close(net.image_map(faces()), torso(faces()))
    torch.testing.assert_close(net.landmark_tokens(faces()), landmarks.features(faces()).flatten(2).transpose(1, 2))


def test_weights_for_a_stream_that_is_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="no image stream"):
        small(**STEPS["landmark"]).load_image_backbone({})
    with pytest.raises(UserError, match="no landmark stream"):
        small(**STEPS["image"]).load_landmark_net({})


def test_the_landmark_net_points_at_every_landmark() -> None:
    net = MobileFaceNet(width=8, channels=16, inner_size=48, points=5)
    assert net(faces(2, 48)).shape == (2, 10)
    assert net.features(faces(2, 48)).shape == (2, 16, 3, 3)


# ---------------------------------------------------------------------------------------------------------------- O-Net
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_o_net_gets_the_pixels_it_was_trained_on(colour: str) -> None:
    rgb = torch.randint(0, 256, (2, 3, 8, 8)).float()
    stored = rgb.flip(1) if colour == "bgr" else rgb
    normalised = (stored / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(ONet(3, colour).pixels(normalised), (rgb - 127.5) / 128, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="unknown colour"):
        ONet(3, "gray")


def test_o_net_is_facenet_pytorch_s() -> None:
    mtcnn = pytest.importorskip("facenet_pytorch.models.mtcnn", reason="facenet-pytorch is not installed")
    whole = mtcnn.ONet().eval()  # its weights come with the package
    state = whole.state_dict()
    ours = small(landmark="onet", inner_size=48)
    assert ours.load_landmark_net(state) == 12
    seen: list[Tensor] = []
    whole.prelu4.register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = faces(2, 48)
    whole(ours.landmark_net.pixels(images))
    torch.testing.assert_close(ours.landmark_net.features(images), seen[0])
    assert ONet(7).features(faces(1, 112)).shape == (1, 128, 7, 7)
