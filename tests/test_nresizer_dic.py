"""DIC, the super-resolution in front of the Neural Resizer: the released network, name by name and number by number."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import weights_add
from bench.errors import UserError
from bench.method import macs
from bench.weight_files import read_state
from methods.nresizer.dic import DIC, STEPS, facial_parts, from_state

# SHA-256 of the sorted lines "name<TAB>shape" (48x3x3x3) of the released network's state dict
NAMES = "f7f2b17f310e55198d772698a605973623b4dba522c192ddfbe4fbee477bdc85"
# What the released code finds with `invented_state` in `faces`, step by step: of the images (not clamped, the mean
# colour added again) and of the heat maps the deviation, and the numbers in row 5, column 7
RELEASED = {
    "images": [
        (0.260792, 0.755951, 0.633813, 0.28397),
        (0.351241, 0.676316, 0.398991, 0.0578285),
        (0.351209, 0.708806, 0.512722, 0.18717),
        (0.358226, 0.712942, 0.47271, 0.227041),
    ],
    "heat maps": [
        (1.76628, -0.793299, -1.02108, 2.73159),
        (3.49037, -3.12887, -3.62868, 4.07024),
        (8.20382, -2.99785, -12.0951, 7.87061),
        (18.5337, -10.5736, -21.1373, 20.7231),
    ],
}
SHOWN_LANDMARKS = (0, 40, 67)


def empty_net() -> DIC:
    """The released network, without memory for its numbers."""
    with torch.device("meta"):
        return DIC()


def size_of(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@cache
def invented_state() -> dict[str, Tensor]:
    """Numbers of a kind that keeps every layer's output alive, drawn name by name."""
    generator = torch.Generator().manual_seed(20)
    state = {}
    for name, value in sorted(empty_net().state_dict().items()):
        drawn = torch.randn(value.shape, generator=generator)
        spread = 0.6 if name.startswith("HG.") else 1.2
        state[name] = spread * drawn / value[0].numel() ** 0.5 if value.dim() > 1 else 0.2 + 0.05 * drawn
    return state


def faces(count: int = 1, height: int = 8, width: int = 16) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(21))


@cache
def found() -> tuple[list[Tensor], list[Tensor]]:
    with torch.no_grad():
        return from_state(invented_state(), "invented").steps(faces())


def shown(found: list[Tensor], channels: tuple[int, ...] = (0, 1, 2)) -> list[list[float]]:
    """The deviation of each step's result and its numbers in one place."""
    return [[float(one.std()), *(float(one[0, channel, 5, 7]) for channel in channels)] for one in found]


class AllSteps(nn.Module):
    """With the landmarks in the last image, as published figures have it."""

    def __init__(self, net: DIC) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        pictures, heatmaps = self.net.steps(images)
        return pictures + heatmaps


# ------------------------------------------------------------------------------------------------------ what is printed
def test_names_and_shapes_are_the_released_ones() -> None:
    state = empty_net().state_dict()
    lines = sorted(f"{name}\t{'x'.join(map(str, value.shape))}" for name, value in state.items())
    assert len(lines) == 296
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == NAMES


def test_parameters_are_those_published() -> None:
    net = empty_net()
    assert (size_of(net), size_of(net.HG)) == (21_803_849, 11_999_172)


@pytest.mark.parametrize(("side", "published"), [(16, "45.3"), (48, "408")])
def test_multiply_accumulates_are_those_published(side: int, published: str) -> None:
    assert f"{macs(AllSteps(empty_net()), side) / 1e9:.3g}" == published


def test_the_last_image_costs_no_landmarks() -> None:
    net = empty_net()
    assert f"{macs(net, 16) / 1e9:.1f} {macs(net, 48) / 1e9:.1f}" == "42.5 382.1"


# ----------------------------------------------------------------------------------------------------- what it computes
def test_every_step_has_an_image_and_68_heat_maps() -> None:
    pictures, heatmaps = found()
    assert [tuple(one.shape) for one in pictures] == [(1, 3, 64, 128)] * STEPS == [(1, 3, 64, 128)] * 4
    assert [tuple(one.shape) for one in heatmaps] == [(1, 68, 16, 32)] * STEPS


@pytest.mark.parametrize("what", RELEASED)
def test_numbers_are_those_of_the_released_code(what: str) -> None:
    pictures, heatmaps = found()
    mine = shown(pictures) if what == "images" else shown(heatmaps, SHOWN_LANDMARKS)
    for own, released in zip(mine, RELEASED[what], strict=True):
        assert own == pytest.approx(released, rel=1e-4, abs=1e-4 * released[0])


def test_the_last_image_comes_out_between_0_and_1() -> None:
    net = from_state(invented_state(), "invented")
    last = found()[0][-1]
    assert last.min() < 0
    assert last.max() > 1
    assert torch.equal(net(faces()), last.clamp(0, 1))


def test_a_grey_image_is_three_equal_planes_and_images_do_not_mix() -> None:
    net = from_state(invented_state(), "invented")
    grey = faces(2, 8, 8)[:, :1]
    both = net(grey)
    assert both.shape == (2, 3, 64, 64)
    torch.testing.assert_close(both[1:], net(grey[1:].repeat(1, 3, 1, 1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 12, 16), (3, 16, 20), (2, 16, 16), (3, 0, 8)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="x".join(map(str, shape))):
        empty_net()(torch.zeros(1, *shape))


def test_facial_parts_are_sums_of_landmarks_with_their_maximum_at_one() -> None:
    heatmaps = torch.zeros(1, 68, 4, 4)
    for landmark, height in {36: 2.0, 41: 0.5, 47: 0.01, 30: 7.0, 67: -1.0, 16: 1.0, 26: 3.0}.items():
        heatmaps[0, landmark, 1, 2] = height
    parts = facial_parts(heatmaps)
    assert parts.shape == (1, 5, 4, 4)  # left eye, right eye, nose, mouth, outline
    torch.testing.assert_close(parts[0, :, 1, 2], torch.tensor([2.0, 0.2, 1.0, -20.0, 2.0]))
    assert parts.count_nonzero() == 5


# ------------------------------------------------------------------------------------------------------------ its file
def test_a_trainers_file_loads_whole_and_frozen(tmp_path: Path) -> None:
    file = tmp_path / "best_ckp.pth"
    state = invented_state()
    torch.save({"step": 3, "epoch": 1, "state_dict": state, "optimizer": {"state": {}}, "best_pred": 27.1}, file)
    read = read_state(file)
    assert weights_add.verify("dic-helen", file, read) == (296, 0)
    net = from_state(read, str(file))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_another_file_is_named_with_what_does_not_fit() -> None:
    state = dict(invented_state())
    del state["HG.compress_in.bias"]
    with pytest.raises(UserError, match=r"mine\.pth \(dic-helen\).*1 missing: HG\.compress_in\.bias"):
        from_state(state, "mine.pth (dic-helen)")
    with pytest.raises(UserError, match=r"1 left over: netD\.weight"):
        from_state({**invented_state(), "netD.weight": torch.zeros(1)}, "mine.pth")


def test_the_trainers_file_of_dicgan_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "step_0100000_ckp.pth"
    one = {"conv_in.0.weight": torch.zeros(192, 3, 3, 3)}
    torch.save({"step": 3, "netG": one, "netD": one}, file)
    with pytest.raises(UserError, match="holds no tensors by name"):
        read_state(file)


@pytest.mark.slow
def test_48_pixels_become_384() -> None:
    with torch.inference_mode():
        large = from_state(invented_state(), "invented")(faces(1, 48, 48))
    assert large.shape == (1, 3, 384, 384)
    assert 0 <= large.min() < large.max() <= 1
