"""POSTER's augmentation against its description and against torchvision's random erasing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomErasing

from bench import loop, registry
from bench.data.augment import erase_to_mean, poster_code
from bench.declare import RECIPE_FIELDS, REQUIRED

RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if value is not REQUIRED} | {"input_size": 64}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramps(count: int, level: float = 128.0, channels: int = 3, size: int = 32) -> torch.Tensor:
    """Images at `level` (of 255), one brighter half: a flip is seen in spite of noise."""
    images = torch.full((count, channels, size, size), level / 255)
    images[..., : size // 2] += 40 / 255
    return images


def noisy_ones(images: torch.Tensor, augmented: torch.Tensor) -> torch.Tensor:
    """Which images (B,) are neither themselves nor their mirror image."""
    unchanged = (augmented == images).flatten(1).all(1) | (augmented == images.flip(-1)).flatten(1).all(1)
    return ~unchanged


# --- noise and flip --------------------------------------------------------------------------------------------------


def test_noise_for_a_quarter_and_flip_for_half_independently() -> None:
    images = ramps(4000)
    augmented = poster_code(images, generator())
    noisy = noisy_ones(images, augmented)
    flipped = augmented[..., :16].mean(dim=(1, 2, 3)) < augmented[..., 16:].mean(dim=(1, 2, 3))
    # four standard deviations of the shares
    assert float(noisy.float().mean()) == pytest.approx(0.25, abs=0.028)
    assert float(flipped.float().mean()) == pytest.approx(0.5, abs=0.032)
    assert float(flipped[noisy].float().mean()) == pytest.approx(0.5, abs=0.064)


def test_the_share_of_flips_is_that_of_the_two_flips_of_the_code() -> None:
    """Literally: either flip or noise for one half, then a flip for one half."""
    draw = np.random.default_rng(0)
    changed, which, again = draw.random((3, 200_000)) < 0.5
    flipped, noisy = (changed & which) ^ again, changed & ~which
    table = [
        [np.mean(flipped & noisy), np.mean(flipped & ~noisy)],
        [np.mean(~flipped & noisy), np.mean(~flipped & ~noisy)],
    ]
    np.testing.assert_allclose(table, [[0.125, 0.375], [0.125, 0.375]], atol=0.005)


def test_noise_has_variance_30_and_is_cut_to_whole_levels() -> None:
    images = torch.full((400, 3, 32, 32), 128 / 255)
    augmented = poster_code(images, generator())
    levels = augmented[noisy_ones(images, augmented)] * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert float(levels.mean()) == pytest.approx(127.5, abs=0.05)  # cutting takes half a level
    assert float(levels.var()) == pytest.approx(30 + 1 / 12, rel=0.02)  # and adds the variance of a uniform level


def test_noise_against_numpy() -> None:
    """The same distribution of levels as clipping and converting to bytes, near black, where clipping matters."""
    level = 3
    images = torch.full((400, 3, 32, 32), level / 255)
    augmented = poster_code(images, generator())
    found = (augmented[noisy_ones(images, augmented)] * 255).round().to(torch.int64).flatten()
    noise = np.random.default_rng(0).normal(0, math.sqrt(30), len(found))
    expected = np.clip(level + noise, 0, 255).astype(np.uint8)
    shares = np.bincount(found.numpy(), minlength=64) / len(found)
    np.testing.assert_allclose(shares, np.bincount(expected, minlength=64) / len(expected), atol=0.005)
    assert shares[0] > 0.3


def test_white_stays_in_range() -> None:
    augmented = poster_code(torch.ones(64, 3, 16, 16), generator())
    assert float(augmented.max()) == 1.0
    assert float(augmented.min()) > 0.8


def test_every_stored_channel_has_its_own_noise() -> None:
    images = torch.full((64, 3, 32, 32), 0.5)
    augmented = poster_code(images, generator())
    first, second, _ = (augmented[noisy_ones(images, augmented)] - 0.5).unbind(1)
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.05


def test_a_grey_plane_has_the_same_noise_in_all_three_channels() -> None:
    pixels = torch.full((64, 64, 64), 128, dtype=torch.uint8)
    scale = torch.tensor(RECIPE["std"])[:, None, None]
    shift = torch.tensor(RECIPE["mean"])[:, None, None]
    images = loop.prepare(pixels, RECIPE, poster_code, generator()) * scale + shift
    assert float((images - 128 / 255).abs().max()) > 10 / 255
    kept = images != shift  # where nothing was erased
    torch.testing.assert_close(images[:, 0][kept[:, 0]], images[:, 2][kept[:, 2]], atol=1e-5, rtol=0)


# --- random erasing --------------------------------------------------------------------------------------------------


def holes(images: torch.Tensor) -> torch.Tensor:
    """(k, 4) top, left, height and width of the rectangles of zeros in images that have one."""
    empty = (images == 0).all(dim=1)
    rows, columns = empty.any(dim=2), empty.any(dim=1)
    has = rows.any(dim=1)
    assert torch.equal(empty.sum(dim=(1, 2)), rows.sum(1) * columns.sum(1))  # one whole rectangle
    place = [rows.int().argmax(1), columns.int().argmax(1), rows.sum(1), columns.sum(1)]
    return torch.stack(place, dim=1)[has]


def largest_gap(one: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two samples."""
    values = np.union1d(one, other)
    ranks = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(ranks[0] - ranks[1]).max())


def test_erasing_draws_torchvisions_rectangles() -> None:
    size, count = 48, 6000
    ours = holes(erase_to_mean(torch.ones(2 * count, 1, size, size), generator())).numpy()
    torch.manual_seed(0)
    eraser = RandomErasing(scale=(0.02, 0.1))
    image = torch.ones(1, size, size)
    theirs = np.array([eraser.get_params(image, eraser.scale, eraser.ratio, [0.0])[:4] for _ in range(count)])
    limit = 1.95 * math.sqrt(1 / len(ours) + 1 / count)  # one in a thousand by chance
    measured = {
        "top": lambda found: found[:, 0],
        "left": lambda found: found[:, 1],
        "height": lambda found: found[:, 2],
        "width": lambda found: found[:, 3],
        "area": lambda found: found[:, 2] * found[:, 3],
        "ratio": lambda found: found[:, 2] / found[:, 3],
        "bottom": lambda found: found[:, 0] + found[:, 2],
    }
    for name, measure in measured.items():
        assert largest_gap(measure(ours), measure(theirs)) < limit, name
    assert ours[:, 0].min() == 0
    assert (ours[:, 0] + ours[:, 2]).max() == size


def test_erasing_hits_half_of_the_images_and_sets_all_channels_to_the_mean() -> None:
    images = torch.randn(3000, 3, 24, 24, generator=generator(1)) + 5
    erased = erase_to_mean(images, generator())
    hole = (erased == 0).all(dim=1, keepdim=True)
    assert float(hole.flatten(1).any(1).float().mean()) == pytest.approx(0.5, abs=0.037)
    assert torch.equal(erased, torch.where(hole, 0.0, images))


# --- in the loop -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 48, 48), (40, 100, 100, 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_prepare_erases_after_resize_and_normalisation(shape: tuple[int, ...], channels_last: bool) -> None:
    recipe = RECIPE | {"channels_last": channels_last}
    pixels = torch.randint(1, 100, shape, dtype=torch.uint8, generator=generator(3))
    draws = generator(7)
    expected = erase_to_mean(loop.prepare(pixels, recipe, _without_after, draws), draws)
    found = loop.prepare(pixels, recipe, poster_code, generator(7))
    assert torch.equal(found, expected)
    assert len(holes(found)) > 10
    assert found.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert torch.equal(loop.prepare(pixels, recipe, poster_code, generator(7)), found)
    assert not torch.equal(loop.prepare(pixels, recipe, poster_code, generator(8)), found)


def test_nothing_is_drawn_at_evaluation() -> None:
    pixels = torch.randint(1, 100, (8, 48, 48), dtype=torch.uint8, generator=generator(3))
    plain = loop.prepare(pixels, RECIPE)
    assert torch.equal(plain, loop.prepare(pixels, RECIPE, poster_code))
    assert len(holes(plain)) == 0


def test_other_augmentations_have_nothing_after_them() -> None:
    names = registry.available("augmentation")
    found = [name for name in sorted(names) if hasattr(registry.find("augmentation", name).load(), "after")]
    assert found == ["pfvit-code", "poster-code"]


def _without_after(images: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    return poster_code(images, draws)
