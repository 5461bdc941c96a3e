"""Augmentation of faces together with their landmarks, so that a network trained on drawn faces can find real ones.

Everything is drawn from torch's global generator, which the loop seeds before every step. Images are (B, 3, S, S) with
values in [0, 1], points (B, 68, 2) fractions of the image side.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# Place of each iBUG-68 point in the mirrored face: jaw, brows, nose, eyes, outer and inner mouth.
MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip

ROTATION = 25.0  # degrees, at most
SCALE = (0.75, 1.5)  # of the face
ASPECT = 1.15  # of its height to its width, or the other way round, at most
SHIFT = 0.12  # of the image side, at most
LUMA = (0.299, 0.587, 0.114)
GREY = 0.4  # share of pictures without colour, as all of FERPlus
COARSE = 32  # pixels of the coarsest pictures, before they are enlarged again
COARSE_GROUPS = 4  # parts of a batch with a resolution each


def geometric(images: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Turn, scale, stretch, shift and mirror each face; what comes from outside a picture repeats its border."""
    count = len(images)
    angle = uniform(images, count, -ROTATION, ROTATION) * (math.pi / 180)
    size = uniform(images, count, math.log(SCALE[0]), math.log(SCALE[1])).exp()
    aspect = uniform(images, count, -math.log(ASPECT) / 2, math.log(ASPECT) / 2).exp()
    shift = uniform(images, count * 2, -2 * SHIFT, 2 * SHIFT).view(count, 2, 1)  # grid coordinates: 2 is the side
    mirrored = uniform(images, count) < 0.5
    wide, high = (1.0 - 2.0 * mirrored) * size / aspect, size * aspect
    cosine, sine = angle.cos(), angle.sin()
    move = torch.stack([cosine * wide, -sine * high, sine * wide, cosine * high], dim=1).view(count, 2, 2)
    back = torch.stack([cosine / wide, sine / wide, -sine / high, cosine / high], dim=1).view(count, 2, 2)
    grid = F.affine_grid(torch.cat([back, -back @ shift], dim=2), list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    moved = ((points * 2 - 1) @ move.transpose(1, 2) + shift.transpose(1, 2) + 1) / 2
    other = moved[:, constant(MIRROR, moved.device)]
    return turned, torch.where(mirrored[:, None, None], other, moved)


def photometric(images: Tensor) -> Tensor:
    """Colours, light, resolution, occlusion and noise of each picture; values stay in [0, 1]."""
    images = recolour(images)
    images = relight(images)
    images = cover(images)
    images = coarsen(images)
    noise = uniform(images, len(images), 0.0, 0.03)[:, None, None, None]
    return (images + noise * torch.randn_like(images[:, :1])).clamp_(0, 1)


def recolour(images: Tensor) -> Tensor:
    """Grey, or red and blue exchanged: POSTER's recipes differ in the order of channels."""
    draw = uniform(images, len(images))[:, None, None, None]
    luma = (images * constant(LUMA, images.device)[:, None, None]).sum(dim=1, keepdim=True)
    coloured = torch.where(draw < (1 + GREY) / 2, images.flip(1), images)
    return torch.where(draw < GREY, luma, coloured)


def relight(images: Tensor) -> Tensor:
    """Contrast, brightness and tint of the picture, and a light that is uneven over it, smoothly and in spots."""
    count = len(images)
    contrast = uniform(images, count, math.log(0.5), math.log(1.6)).exp()[:, None, None, None]
    brightness = uniform(images, count, -0.2, 0.2)[:, None, None, None]
    tint = uniform(images, 3 * count, 0.85, 1.15).view(count, 3, 1, 1)
    field = images.new_zeros(count, 1, *images.shape[2:])
    for cells, strength in ((3, 0.25), (9, 0.1), (28, 0.08)):
        amount = uniform(images, count, 0.0, strength)[:, None, None, None]
        coarse = torch.randn(count, 1, cells, cells, device=images.device, dtype=images.dtype)
        field += amount * F.interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=False)
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images * tint * (1 + field) - middle) * contrast + middle + brightness).clamp_(0, 1)


def cover(images: Tensor) -> Tensor:
    """A rectangle of one colour over a part of every third picture."""
    count, side = len(images), images.shape[-1]
    half = uniform(images, 2 * count, 0.05, 0.2).view(count, 2, 1)
    centre = uniform(images, 2 * count).view(count, 2, 1)
    at = (torch.arange(side, device=images.device, dtype=images.dtype) + 0.5) / side
    inside = (at - centre).abs() < half
    hidden = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
    chosen = (uniform(images, count) < 1 / 3)[:, None, None, None]
    colour = uniform(images, 3 * count).view(count, 3, 1, 1)
    return torch.where(hidden & chosen, colour, images)


def coarsen(images: Tensor) -> Tensor:
    """Each part of the batch shrunk to a resolution of its own and enlarged again, as crops of small faces are."""
    side = images.shape[-1]
    found = []
    for part in images.chunk(COARSE_GROUPS):
        low = int(torch.randint(min(COARSE, side), side + 1, ()))  # drawn on the CPU: the device need not be asked
        small = F.interpolate(part, (low, low), mode="bilinear", align_corners=False, antialias=True)
        found.append(F.interpolate(small, (side, side), mode="bilinear", align_corners=False))
    return torch.cat(found)


def uniform(like: Tensor, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """(count,) draws between `low` and `high`, on the device of `like`."""
    return torch.rand(count, device=like.device, dtype=like.dtype) * (high - low) + low


@lru_cache(maxsize=16)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers put on the device once: a copy in every step would make the host wait."""
    return torch.tensor(values, device=device)
