"""The super-resolution stage: sizes, planes, where it starts, what it learns, what its numbers mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench import loop, registry
from bench.data.augment import none
from bench.data.synthfer import facts, images
from bench.errors import UserError
from bench.method import Context, Method, Spec
from bench.recipe import RECIPE_FIELDS
from methods.superres.degrade import DEGRADATIONS, blur, pairs, shrink
from methods.superres.network import SuperResolution, bicubic, from_state

SMALL = {"width": 8, "blocks": 1, "scale": 2}
SIZE = 48
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 4e-3, "batch_size": 16, "epochs": 4, "input_size": SIZE, "loss": "l1",
}  # fmt: skip


def build(options: dict[str, Any] = SMALL, backbone: str = "edsr", pretraining: str = "none", **recipe: Any) -> Method:
    torch.manual_seed(0)
    context = Context((), SIZE, 10, torch.device("cpu"))
    method: Method = registry.find("method", "superres").load()(
        Spec("test", backbone, pretraining, options), {**RECIPE, **recipe}, context
    )
    return method


def network(width: int = 8, blocks: int = 1, scale: int = 2) -> SuperResolution:
    """One that does not start at bicubic."""
    torch.manual_seed(0)
    net = SuperResolution(width, blocks, scale)
    torch.nn.init.normal_(net.tail.weight, std=0.02)
    return net


@pytest.fixture(scope="module")
def faces() -> Tensor:
    """48 rendered grey faces, uint8 (48, 48, 48)."""
    return torch.from_numpy(images(facts("ferplus", 0, range(48))))


def train(method: Method, pixels: Tensor, numbers: range) -> list[float]:
    """Losses of steps on 16 images each, seeded as the loop seeds them: by their number."""
    method.train()
    found = []
    for number in numbers:
        torch.manual_seed(number)
        part = pixels[(torch.arange(16) + 16 * number) % len(pixels)]
        found.append(float(method.update(loop.prepare(part, RECIPE, none), torch.zeros(16))["loss"]))
    return found


# ---- the network


@pytest.mark.parametrize(("width", "blocks", "scale"), [(8, 1, 2), (12, 0, 4), (16, 3, 8)])
def test_a_network_comes_back_from_its_tensors(width: int, blocks: int, scale: int) -> None:
    net = network(width, blocks, scale)
    found = from_state(net.state_dict(), "the stage")
    pictures = torch.rand(2, 3, 6, 5)
    assert found.scale == scale
    assert torch.equal(found(pictures), net(pictures))
    assert {parameter.device.type for parameter in found.parameters()} == {"cpu"}


def test_sizes_of_the_network() -> None:
    head, block, tail = 64 * 9 + 64, 2 * (64 * 64 * 9 + 64), 64 * 64 * 9 + 64
    count = sum(parameter.numel() for parameter in SuperResolution(64, 8, 8).parameters())
    assert count == head + 8 * block + tail


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_enlarged_one_by_one(channels: int) -> None:
    net, pictures = network(scale=4), torch.rand(2, channels, 6, 5)
    found = net(pictures)
    assert found.shape == (2, channels, 24, 20)
    for channel in range(channels):
        alone = net(pictures[:, channel : channel + 1])
        assert torch.allclose(found[:, channel : channel + 1], alone, atol=1e-6)


def test_grey_in_three_channels_stays_grey() -> None:
    found = network()(torch.rand(2, 1, 6, 6).expand(-1, 3, -1, -1))
    assert torch.allclose(found[:, :1].expand(-1, 3, -1, -1), found, atol=1e-6)


def test_values_stay_between_0_and_1() -> None:
    net = network()
    torch.nn.init.normal_(net.tail.weight, std=5.0)
    found = net(torch.rand(2, 1, 6, 6))
    assert (found.min(), found.max()) == (0, 1)


def test_it_starts_at_bicubic_enlargement() -> None:
    """That of Pillow, whose kernel is the one usual in super-resolution."""
    picture = torch.rand(1, 1, 12, 12)
    found = SuperResolution(8, 2, 2)(picture)
    there = Image.fromarray(picture[0, 0].numpy()).resize((24, 24), Image.Resampling.BICUBIC)
    assert np.allclose(found[0, 0].detach().numpy(), np.clip(np.asarray(there), 0, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("tail.weight"), "the file holds no network of method superres"),
        (lambda state: state.update({"tail.weight": torch.zeros(9, 8, 3, 3)}), "the file enlarges by none of 2, 4, 8"),
        (lambda state: state.pop("body.0.first.bias"), "body.0.first.bias"),
        (lambda state: state.update({"extra": torch.zeros(1)}), "extra"),
    ],
)
def test_tensors_of_another_network_are_refused(change: Any, message: str) -> None:
    state = dict(network().state_dict())
    change(state)
    with pytest.raises(UserError, match=message):
        from_state(state, "the file")


# ---- pairs


def test_shrinking_keeps_a_mean_and_leaves_no_alias() -> None:
    board = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).float()[None, None]
    small = shrink(board, 4)
    assert small.shape == (1, 1, 8, 8)
    assert torch.allclose(small, torch.full_like(small, 0.5), atol=0.02)


def test_without_degradation_the_small_picture_is_the_large_one_shrunk() -> None:
    planes = torch.rand(64, 1, 8, 8)
    small, large = pairs(planes, 2, "none")
    assert torch.equal(small, shrink(large, 2))
    mirrored = (large == planes.flip(-1)).flatten(1).all(dim=1)
    assert torch.equal(torch.where(mirrored[:, None, None, None], planes.flip(-1), planes), large)
    assert 10 < int(mirrored.sum()) < 54


def test_degradation_changes_both_and_stays_in_range() -> None:
    torch.manual_seed(1)
    planes = torch.rand(32, 1, 16, 16)
    small, large = pairs(planes, 2, "light")
    assert small.min() >= 0
    assert small.max() <= 1
    assert (large - planes).abs().flatten(1).mean(dim=1).min() > 0.005, "contrast of the large picture"
    apart = (small - shrink(large, 2)).abs().flatten(1).mean(dim=1)
    assert 0.005 < float(apart.mean()) < 0.06, "blur and noise of the small one"


def test_blur_spreads_a_point_over_its_neighbours() -> None:
    point = torch.zeros(1, 1, 5, 5)
    point[0, 0, 2, 2] = 1.0
    found = blur(point, torch.full((1, 1, 1, 1), 0.2))[0, 0]
    tap = torch.tensor([0.0, 0.1, 0.8, 0.1, 0.0])
    assert torch.allclose(found, tap[:, None] * tap)


# ---- what is measured and learnt


def test_validate_is_the_psnr_of_bicubic_before_training() -> None:
    picture = torch.zeros(2, 48, 48, dtype=torch.uint8)
    picture[1, :, 24:] = 255
    method = build()
    method.train(False)
    with torch.inference_mode():
        found = method.validate(loop.prepare(picture, RECIPE), torch.zeros(2))
    assert set(found) == {"psnr", "psnr_bicubic"}
    assert torch.allclose(found["psnr"], found["psnr_bicubic"], atol=0.01)
    large = picture[1].numpy().astype(np.float32) / 255
    small = Image.fromarray(large).resize((24, 24), Image.Resampling.BICUBIC)
    plain = np.asarray(small).clip(0, 1).astype(np.float32)
    back = np.clip(np.asarray(Image.fromarray(plain).resize((48, 48), Image.Resampling.BICUBIC)), 0, 1)
    expected = -10 * math.log10(float(((back - large) ** 2).mean()))
    assert float(found["psnr"][1]) == pytest.approx(expected, abs=0.01)
    assert float(found["psnr"][0]) == pytest.approx(100, abs=1), "nothing is lost of a black picture"


def test_validate_takes_the_mean_of_the_channels() -> None:
    method, colour = build(), torch.randint(0, 256, (2, 48, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found = method.validate(loop.prepare(colour, RECIPE), torch.zeros(2))["psnr"]
        grey = method.validate(loop.prepare(colour.float().mean(dim=3), RECIPE), torch.zeros(2))["psnr"]
    assert found.shape == (2,)
    assert torch.allclose(found, grey, atol=1e-3)


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_it_learns_more_than_bicubic(faces: Tensor, degradation: str) -> None:
    method = build(SMALL | {"degradation": degradation})
    losses = train(method, faces[:32], range(60))
    assert sum(losses[-10:]) < sum(losses[:10])
    method.train(False)
    with torch.inference_mode():
        found = method.validate(loop.prepare(faces[32:], RECIPE), torch.zeros(16))
    gain = float((found["psnr"] - found["psnr_bicubic"]).mean())
    assert gain > {"none": 0.3, "light": 0.0}[degradation], gain


def test_continued_training_is_the_same_training(faces: Tensor) -> None:
    whole, first, second = build(), build(), build()
    expected = train(whole, faces, range(6))
    train(first, faces, range(3))
    second.load_state_dict(first.state_dict())
    assert train(second, faces, range(3, 6)) == expected[3:]


def test_the_stage_gives_a_network_that_loads() -> None:
    net = from_state(build(SMALL | {"scale": 8}).net.state_dict(), "the stage")
    assert net.scale == 8
    assert torch.equal(net(torch.ones(1, 1, 2, 2)), bicubic(torch.ones(1, 1, 2, 2), 8).clamp(0, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"witdh": 3}}, "unknown option of superres 'witdh'\n  -> did you mean width"),
        ({"options": {"scale": 3}}, "unknown scale of superres '3'"),
        ({"options": {"blocks": 2.5}}, "blocks of superres is 2.5, not a whole number"),
        ({"options": {"width": 0}}, "width of superres is 0, less than 1"),
        ({"options": {"degradation": "ligth"}}, "unknown degradation of superres 'ligth'\n  -> did you mean light"),
        ({"backbone": "resnet18"}, "unknown backbone of superres 'resnet18'"),
        ({"pretraining": "ms1m"}, "unknown pretraining of superres 'ms1m'"),
        ({"loss": "cross-entropy"}, "unknown loss 'cross-entropy'"),
        ({"options": {"scale": 8}, "input_size": 100}, "input_size 100 is not a multiple of scale 8"),
    ],
)
def test_wrong_entries_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(**arguments)
    assert message in str(error.value)
