"""Batched augmentation: every image has its own draw, and each transform does what its name says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import registry
from bench.data.augment import affine, erase, flip, jitter


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 64, size: int = 12, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=generator(99))


def test_a_batch_does_not_share_a_flip() -> None:
    images = batch()
    flipped = flip(images, generator())
    mirrored = images.flip(-1)
    is_mirror = (flipped - mirrored).abs().amax(dim=(1, 2, 3)) < 1e-4
    is_same = (flipped - images).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (is_mirror ^ is_same).all()  # a flip is a flip and nothing else
    assert 16 <= int(is_mirror.sum()) <= 48


@pytest.mark.parametrize("size", [12, 13])
def test_a_certain_flip_mirrors_left_and_right(size: int) -> None:
    images = batch(size=size)
    assert torch.allclose(affine(images, generator(), flip=1.0), images.flip(-1), atol=1e-4)


def test_no_range_is_the_identity() -> None:
    images = batch(channels=3)
    assert torch.allclose(affine(images, generator()), images, atol=1e-4)
    assert torch.equal(erase(images, generator(), 0.0, (0.1, 0.2)), images)
    assert torch.allclose(jitter(images, generator(), 0.0, 0.0), images, atol=1e-6)
    assert torch.equal(registry.find("augmentation", "none").load()(images, generator()), images)


@pytest.mark.parametrize("name", sorted(registry.available("augmentation")))
def test_every_augmentation_keeps_shape_and_range_and_follows_its_generator(name: str) -> None:
    augment = registry.find("augmentation", name).load()
    for channels in (1, 3):
        images = batch(16, channels=channels)
        kept = images.clone()
        torch.manual_seed(1)
        one = augment(images, generator(5))
        torch.manual_seed(2)  # the global generator plays no part
        assert torch.equal(augment(images, generator(5)), one)
        assert one.shape == images.shape
        assert float(one.min()) >= -1e-5
        assert float(one.max()) <= 1 + 1e-5
        assert torch.equal(images, kept)
        if name != "none":
            assert not torch.equal(augment(images, generator(6)), one)


def test_equal_images_come_out_different() -> None:
    images = batch(1).expand(32, -1, -1, -1)
    for augmented in (
        registry.find("augmentation", "fervt-common").load()(images, generator()),
        jitter(images, generator(), 0.3, 0.3),
        erase(images, generator(), 1.0, (0.05, 0.3)),
    ):
        assert len(augmented.flatten(1).unique(dim=0)) == 32


def dot(size: int = 33) -> torch.Tensor:
    """A soft dot right of the middle, many times."""
    axis = torch.arange(size) - size // 2
    image = torch.exp(-((axis[None, :] - 8.0) ** 2 + axis[:, None] ** 2) / 8.0)
    return image.expand(200, 1, -1, -1)


def centre(images: torch.Tensor) -> torch.Tensor:
    """(B, 2): x and y of the centre of mass, from the middle."""
    size = images.shape[-1]
    axis = torch.arange(size, dtype=torch.float32) - size // 2
    mass = images.sum(dim=(1, 2, 3))
    x = (images[:, 0].sum(dim=1) * axis).sum(dim=1) / mass
    return torch.stack([x, (images[:, 0].sum(dim=2) * axis).sum(dim=1) / mass], dim=1)


def test_rotation_goes_both_ways_and_no_further_than_asked() -> None:
    x, y = centre(affine(dot(), generator(), rotation=30.0)).T
    angle = torch.rad2deg(torch.atan2(y, x))
    assert 27 < float(angle.max()) < 31
    assert -31 < float(angle.min()) < -27
    assert torch.allclose(torch.hypot(x, y), torch.tensor(8.0), atol=0.1)


def test_shift_is_a_fraction_of_the_side() -> None:
    moved = centre(affine(dot(), generator(), shift=0.1)) - torch.tensor([8.0, 0.0])
    assert 2.9 < float(moved.abs().max()) < 3.4  # a tenth of 33 pixels
    assert float(moved.min(dim=0).values.max()) < -2.5
    assert float(moved.max(dim=0).values.min()) > 2.5
    assert torch.corrcoef(moved.T)[0, 1].abs() < 0.25  # the axes are drawn apart


def test_zoom_above_one_magnifies() -> None:
    x = centre(affine(dot(), generator(), scale=(1.25, 1.25)))[:, 0]
    assert torch.allclose(x, torch.tensor(10.0), atol=0.1)


@settings(max_examples=25, deadline=None)
@given(low=st.floats(0.02, 0.25), width=st.floats(0.0, 0.1), seed=st.integers(0, 2**32))
def test_erased_area_is_the_area_asked_for(low: float, width: float, seed: int) -> None:
    images = torch.zeros(32, 1, 64, 64)
    erased = erase(images, generator(seed), 1.0, (low, low + width))
    hole = erased[:, 0] == 0.5
    assert set(erased.unique().tolist()) <= {0.0, 0.5}
    rows, columns = hole.any(dim=2).sum(dim=1), hole.any(dim=1).sum(dim=1)
    assert torch.equal(hole.sum(dim=(1, 2)), rows * columns)  # one whole rectangle
    # each side of the rectangle is rounded to pixels
    assert bool(((rows - 1) * (columns - 1) <= (low + width) * 64 * 64).all())
    assert bool(((rows + 1) * (columns + 1) >= low * 64 * 64).all())


def test_erasing_has_its_probability() -> None:
    erased = erase(torch.zeros(1000, 1, 16, 16), generator(), 0.3, (0.1, 0.2))
    assert 240 < int((erased > 0).any(dim=(1, 2, 3)).sum()) < 360


def test_jitter_changes_brightness_and_contrast_within_bounds() -> None:
    images = (torch.rand(1, 1, 16, 16, generator=generator()) * 0.2 + 0.4).expand(200, -1, -1, -1)
    changed = jitter(images, generator(), 0.2, 0.5)
    light = changed.mean(dim=(1, 2, 3)) / images.mean(dim=(1, 2, 3))
    gain = changed.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert 0.8 - 1e-4 <= float(light.min()) < 0.83
    assert 1.17 < float(light.max()) <= 1.2 + 1e-4
    assert 0.5 - 1e-4 <= float(gain.min()) < 0.55
    assert 1.45 < float(gain.max()) <= 1.5 + 1e-4
