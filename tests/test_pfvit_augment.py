"""PF-ViT's augmentations against torchvision's functions, image by image with the drawn numbers.

torchvision gets float tensors: PIL's images, which the released code has, are rounded to 8 bits after each change.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomErasing, RandomResizedCrop
from torchvision.transforms import functional as T

from bench import registry
from bench.data.pfvit_augment import crops, mae, magnify, pfvit_code, pfvit_paper, recolour, turn_hue

CHANGES = (T.adjust_brightness, T.adjust_contrast, T.adjust_saturation, T.adjust_hue)
ORDERS = list(itertools.permutations(range(4)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, channels: int = 3, height: int = 40, width: int = 40) -> Tensor:
    return torch.rand(count, channels, height, width, generator=generator(9))


def draws(count: int, low: float, high: float, source: torch.Generator) -> Tensor:
    return torch.rand(count, generator=source) * (high - low) + low


def smooth(count: int, channels: int = 1, size: int = 64) -> Tensor:
    """Pictures without sharp edges, so that resampling twice changes little."""
    coarse = torch.rand(count, channels, 6, 6, generator=generator(9))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True).clamp(0, 1)


def gap(one: Tensor, other: Tensor) -> float:
    """Kolmogorov-Smirnov distance of two samples."""
    values = torch.cat([one, other]).sort().values
    ranks = [torch.searchsorted(sample.sort().values, values, right=True) / len(sample) for sample in (one, other)]
    return float((ranks[0] - ranks[1]).abs().max())


# --- the paper's reading ----------------------------------------------------------------------------------------------


def test_paper_is_a_flip_and_a_zoom_of_each_image() -> None:
    images = smooth(40)
    found = pfvit_paper(images, generator(2))
    source = generator(2)
    source_draws = [torch.rand(40, generator=source) for _ in range(3)]  # an angle, of nothing; zoom; flip
    zoom, flips = source_draws[1] * 0.25 + 1, source_draws[2] < 0.5
    assert 10 < int(flips.sum()) < 30
    for image, one, scale, flipped in zip(images, found, zoom, flips, strict=True):
        expected = T.hflip(image) if flipped else image
        expected = T.affine(expected, 0, [0, 0], float(scale), [0.0], InterpolationMode.BILINEAR)
        assert float((one - expected)[:, 2:-2, 2:-2].abs().max()) < 1e-4


# --- the released script ----------------------------------------------------------------------------------------------


def literally(images: Tensor, seed: int) -> Tensor:
    """The released transforms one by one, with the same draws."""
    source, count = generator(seed), len(images)
    height, width = images.shape[-2:]
    flips, chosen = (draws(count, 0, 1, source) < 0.5 for _ in range(2))
    factors = [draws(count, 0.75, 1.25, source) for _ in range(3)] + [draws(count, -0.25, 0.25, source)]
    orders = torch.rand(count, 4, generator=source).argsort(1)
    dx = draws(count, -0.1 * width, 0.1 * width, source).round()
    dy = draws(count, -0.1 * height, 0.1 * height, source).round()
    zoom = draws(count, 1, 1.25, source)
    done = []
    for i, image in enumerate(images):
        image = T.hflip(image) if flips[i] else image
        if chosen[i]:
            for change in orders[i].tolist():
                image = CHANGES[change](image, float(factors[change][i]))
            image = T.affine(image, 0, [int(dx[i]), int(dy[i])], float(zoom[i]), [0.0])
        done.append(image)
    return torch.stack(done)


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 40, 40), (1, 40, 40), (3, 33, 48)])
def test_code_is_torchvisions_chain_image_by_image(channels: int, height: int, width: int) -> None:
    images = noise(48, channels, height, width)

    def differing(expected: Tensor) -> float:
        return float(((found - expected).abs() > 1e-5).any(1).float().mean())

    found = pfvit_code(images, generator(3))
    assert differing(literally(images, 3)) < 2e-3  # a position half-way between two pixels may go to either
    assert differing(literally(images, 4)) > 0.4
    same = (found == images).flatten(1).all(1) | (found == images.flip(-1)).flatten(1).all(1)
    assert 14 < int(same.sum()) < 34  # the other half has its colours and place changed


def test_magnified_images_move_by_whole_pixels_and_leave_black() -> None:
    images = noise(2, 1) + 0.1
    moved = magnify(images, torch.ones(2), torch.tensor([3.0, 0]), torch.tensor([-2.0, 0]))
    assert torch.equal(moved[1], images[1])
    assert torch.equal(moved[0, :, :-2, 3:], images[0, :, 2:, :-3])
    assert int((moved[0] == 0).sum()) == 40 * 40 - 38 * 37


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_torchvisions_in_every_order(channels: int) -> None:
    images = noise(len(ORDERS), channels)
    factors = torch.rand(len(ORDERS), 4, generator=generator()) * 0.5 + 0.75
    factors[:, 3] -= 1
    found = recolour(images, factors, torch.tensor(ORDERS))
    for i, order in enumerate(ORDERS):
        expected = images[i]
        for change in order:
            expected = CHANGES[change](expected, float(factors[i, change]))
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=0)


def test_hue_goes_round_and_leaves_grey_alone() -> None:
    images = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.2, 0.2, 0.2], [1, 1, 1]])[:, :, None, None]
    turned = turn_hue(images, torch.full((4, 1, 1, 1), 1 / 3))[:, :, 0, 0]
    expected = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0.2, 0.2, 0.2], [1, 1, 1]])
    torch.testing.assert_close(turned, expected, atol=1e-6, rtol=0)


def test_grey_images_have_no_saturation_and_no_hue() -> None:
    images = noise(len(ORDERS), channels=1)
    strong = torch.tensor([[1.0, 1.0, 1.25, 0.25]]).expand(len(ORDERS), 4)
    assert torch.equal(recolour(images, strong, torch.tensor(ORDERS)), images)


def test_code_erases_as_torchvision_after_normalisation() -> None:
    size, count = 48, 3000
    erased = pfvit_code.after(torch.ones(2 * count, 3, size, size), generator())  # type: ignore[attr-defined]
    hole = (erased == 0).all(dim=1)
    hit = hole.flatten(1).any(1)
    assert float(hit.float().mean()) == pytest.approx(0.5, abs=0.033)
    torch.manual_seed(0)
    eraser, image = RandomErasing(scale=(0.02, 0.25)), torch.ones(1, size, size)
    theirs = torch.tensor([eraser.get_params(image, eraser.scale, eraser.ratio, [0.0])[:4] for _ in range(count)])
    limit = 1.95 * math.sqrt(1 / int(hit.sum()) + 1 / count)  # one in a thousand by chance
    rows, columns = hole[hit].any(dim=2), hole[hit].any(dim=1)
    measured = [(rows.sum(1), theirs[:, 2]), (columns.sum(1), theirs[:, 3]), (rows.float().argmax(1), theirs[:, 0])]
    for ours, expected in measured:
        assert gap(ours, expected) < limit


# --- masked pretraining -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 40, 40), (1, 48, 48), (3, 33, 48)])
def test_mae_is_torchvisions_resized_crop_image_by_image(channels: int, height: int, width: int) -> None:
    images = noise(24, channels, height, width)
    found = mae(images, generator(3))
    source = generator(3)
    left, top, wide, high = (part.int().tolist() for part in crops(24, height, width, images, source))
    flips = torch.rand(24, generator=source) < 0.5
    for i, image in enumerate(images):
        expected = T.resized_crop(
            image, top[i], left[i], high[i], wide[i], [height, width], InterpolationMode.BICUBIC, antialias=True
        ).clamp(0, 1)
        expected = T.hflip(expected) if flips[i] else expected
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (40, 52)])
def test_mae_draws_torchvisions_crops(height: int, width: int) -> None:
    count = 4000
    left, top, wide, high = crops(count, height, width, torch.zeros(1), generator(1))
    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    drawn = [RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    theirs = torch.tensor(drawn, dtype=torch.float32).T
    limit = 1.95 * math.sqrt(2 / count)  # one in a thousand by chance
    for ours, expected in zip((top, left, high, wide), theirs, strict=True):
        assert gap(ours, expected) < limit
    assert gap(wide * high, theirs[2] * theirs[3]) < limit
    assert gap(wide / high, theirs[3] / theirs[2]) < limit
    assert bool((left >= 0).all() & (top >= 0).all() & (left + wide <= width).all() & (top + high <= height).all())


def test_pictures_in_which_no_crop_fits_give_their_middle() -> None:
    left, top, wide, high = crops(50, 4, 200, torch.zeros(1), generator())  # at least 0.2 x 800 pixels, 4 high: 40 wide
    assert set(zip(*(part.int().tolist() for part in (left, top, wide, high)), strict=True)) == {(97, 0, 5, 4)}


# --- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pfvit-paper", "pfvit-code", "mae"])
@pytest.mark.parametrize("channels", [1, 3])
def test_they_are_registered_and_each_image_has_draws_of_its_own(name: str, channels: int) -> None:
    augment = registry.find("augmentation", name).load()
    images = noise(1, channels).expand(32, -1, -1, -1)
    before = images.clone()
    found = augment(images, generator(1))
    assert torch.equal(found, augment(images, generator(1)))
    assert len(found.flatten(1).unique(dim=0)) >= (32 if name != "pfvit-code" else 12)  # half of it is only flipped
    assert torch.equal(images, before)
    # on meta tensors there are no values, so whatever would read one, and make the host wait, fails
    parts = torch.zeros(2, device="meta")
    assert magnify(images[:2].to("meta"), parts, parts, parts).shape == (2, channels, 40, 40)
