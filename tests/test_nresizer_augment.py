"""The Neural Resizer's augmentation against torchvision's functions, image by image with the drawn numbers.

torchvision gets float tensors: PIL's images, which the released code has, are rounded to 8 bits after each change.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as T

from bench import registry
from bench.data.nresizer_augment import nresizer_code, recolour, turn

CHANGES = (T.adjust_brightness, T.adjust_contrast, T.adjust_saturation)
ORDERS = list(itertools.permutations(range(3)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, channels: int = 3, height: int = 40, width: int = 40) -> Tensor:
    return torch.rand(count, channels, height, width, generator=generator(9))


def differing(found: Tensor, expected: Tensor) -> float:
    """Share of pixels that differ: a position half-way between two pixels may go to either."""
    return float(((found - expected).abs() > 1e-5).any(1).float().mean())


def literally(images: Tensor, seed: int) -> Tensor:
    """The released transforms one by one, with the same draws."""
    draw = generator(seed)
    count = len(images)
    flips = torch.rand(count, generator=draw) < 0.5
    first = torch.rand(count, generator=draw) * 90 - 45
    second = torch.rand(count, generator=draw) * 30 - 15
    factors = torch.stack([torch.rand(count, generator=draw) * 0.8 + 0.6 for _ in range(3)], 1)
    orders = torch.rand(count, 3, generator=draw).argsort(1)
    done = []
    for i, image in enumerate(images):
        image = T.hflip(image) if flips[i] else image
        image = T.rotate(image, float(first[i]))
        image = T.affine(image, float(second[i]), translate=[0, 0], scale=1.2, shear=[0.0])
        for change in orders[i].tolist():
            image = CHANGES[change](image, float(factors[i, change]))
        done.append(image)
    return torch.stack(done)


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 40, 40), (1, 40, 40), (3, 33, 48), (1, 96, 96)])
def test_it_is_torchvisions_chain_image_by_image(channels: int, height: int, width: int) -> None:
    images = noise(48, channels, height, width)
    found = nresizer_code(images, generator(3))
    assert found.shape == images.shape
    assert differing(found, literally(images, 3)) < 2e-3
    assert differing(found, literally(images, 4)) > 0.5
    assert differing(found, literally(images.flip(-1), 3)) > 0.5


@pytest.mark.parametrize("angle", [-44.0, -20.0, 7.5, 44.0])
def test_turning_is_torchvisions(angle: float) -> None:
    images = noise(3)
    angles = torch.full((3,), angle)
    assert differing(turn(images, angles), T.rotate(images, angle)) < 2e-3
    expected = T.affine(images, angle, translate=[0, 0], scale=1.2, shear=[0.0])
    assert differing(turn(images, -angles, zoom=1.2), expected) < 2e-3
    mirrored = T.rotate(T.hflip(images[1:2]), angle)
    found = turn(images, angles, mirror=torch.tensor([1.0, -1.0, 1.0]))
    assert differing(found[1:2], mirrored) < 2e-3
    assert differing(found[::2], T.rotate(images[::2], angle)) < 2e-3


def test_turning_takes_whole_pixels_and_leaves_black() -> None:
    images = torch.full((1, 3, 40, 40), 0.7)
    turned = turn(images, torch.tensor([45.0]))
    assert torch.equal(turned.unique(), torch.tensor([0, 0.7]))
    assert turned[0, :, 0, 0].tolist() == [0, 0, 0]
    assert torch.equal(turn(images, torch.zeros(1)), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_torchvisions_in_every_order(channels: int) -> None:
    images = noise(len(ORDERS), channels)
    factors = torch.rand(len(ORDERS), 3, generator=generator()) * 0.8 + 0.6
    found = recolour(images, factors, torch.tensor(ORDERS))
    for i, order in enumerate(ORDERS):
        expected = images[i]
        for change in order:
            expected = CHANGES[change](expected, float(factors[i, change]))
        torch.testing.assert_close(found[i], expected, atol=1e-6, rtol=0)
    assert found.min() >= 0
    assert found.max() <= 1


def test_grey_images_have_no_saturation() -> None:
    images = noise(6, channels=1)
    strong = torch.tensor([[1.0, 1.0, 1.4]]).expand(6, 3)
    assert torch.equal(recolour(images, strong, torch.tensor(ORDERS)), images)


def test_every_image_has_draws_of_its_own_over_the_whole_range(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Tensor]] = {"angle": [], "mirror": []}

    def spy(images: Tensor, angle: Tensor, zoom: float = 1.0, mirror: Tensor | None = None) -> Tensor:
        seen["angle"].append(angle)
        seen["mirror"] += [] if mirror is None else [mirror]
        return images

    def colours(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
        seen["factors"], seen["order"] = [factors], [order]
        return images

    monkeypatch.setattr("bench.data.nresizer_augment.turn", spy)
    monkeypatch.setattr("bench.data.nresizer_augment.recolour", colours)
    nresizer_code(torch.zeros(6000, 1, 1, 1), generator())
    first, second = seen["angle"]
    draws = (first / 45, second / 15, *((seen["factors"][0] - 1) / 0.4).unbind(1))
    for draw in draws:  # uniform over [-1, 1]: its mean and its spread, to five standard deviations
        assert draw.abs().max() <= 1
        assert draw.abs().max() > 0.99
        assert float(draw.mean()) == pytest.approx(0, abs=0.04)
        assert float(draw.square().mean()) == pytest.approx(1 / 3, abs=0.02)
    assert abs(torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))).max() < 0.07
    assert float((seen["mirror"][0] == -1).float().mean()) == pytest.approx(0.5, abs=0.033)
    for order in ORDERS:
        share = (seen["order"][0] == torch.tensor(order)).all(1).float().mean()
        assert float(share) == pytest.approx(1 / 6, abs=0.025)


def test_the_same_generator_gives_the_same_images() -> None:
    images = noise(4)
    before = images.clone()
    assert torch.equal(nresizer_code(images, generator(1)), nresizer_code(images, generator(1)))
    assert torch.equal(images, before)


def test_it_is_registered_and_runs_without_waiting_for_the_device() -> None:
    found = registry.find("augmentation", "nresizer-code")
    assert found.load() is nresizer_code
    # on meta tensors there are no values, so whatever would read one fails
    factors, order = torch.ones(2, 3, device="meta"), torch.zeros(2, 3, dtype=torch.int64, device="meta")
    images = turn(torch.zeros(2, 3, 8, 8, device="meta"), torch.zeros(2, device="meta"))
    assert recolour(images, factors, order).shape == (2, 3, 8, 8)
