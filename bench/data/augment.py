"""Batched augmentation on the device, with a random draw for every image.

torchvision's v2 transforms draw once per call, so a whole batch would share one flip; here each image has its own.
Inputs and outputs are float (B, C, H, W) in [0, 1]; `generator` lives on the images' device. An augmentation may have
an attribute `after`, called in the same way on the resized and normalised images (B, 3, S, S).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.registry import augmentation


def uniform(count: int, low: float, high: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """(count,) uniform draws in [low, high)."""
    return torch.rand(count, generator=generator, device=like.device) * (high - low) + low


def affine(
    images: Tensor,
    generator: torch.Generator,
    flip: float = 0.0,
    rotation: float = 0.0,
    shift: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """Flip, rotate, scale and shift each image by its own draw, in one bilinear resampling.

    Args:
        images: (B, C, H, W).
        generator: source of the draws.
        flip: probability of a horizontal flip.
        rotation: largest angle in degrees, both ways.
        shift: largest shift as a fraction of the side, both ways and on both axes.
        scale: range of the zoom factor (above 1 magnifies).
    """
    count = images.shape[0]
    angle = uniform(count, -rotation, rotation, images, generator) * (math.pi / 180)
    zoom = 1.0 / uniform(count, *scale, images, generator)
    mirror = 1.0 - 2.0 * (uniform(count, 0, 1, images, generator) < flip).float()
    # grid_sample's coordinates run over [-1, 1], so a shift of one side is 2
    dx, dy = (uniform(count, -2 * shift, 2 * shift, images, generator) for _ in range(2))
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack([cos * mirror, -sin, dx, sin * mirror, cos, dy], dim=1).view(count, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def erase(images: Tensor, generator: torch.Generator, probability: float, area: tuple[float, float]) -> Tensor:
    """Replace one rectangle of each chosen image by grey (random erasing); `area` is its range as a fraction."""
    count, _, height, width = images.shape
    size = uniform(count, *area, images, generator)
    aspect = torch.exp(uniform(count, math.log(0.3), math.log(1 / 0.3), images, generator))
    tall = (torch.sqrt(size * aspect) * height).clamp(max=height)
    wide = (torch.sqrt(size / aspect) * width).clamp(max=width)
    top = uniform(count, 0, 1, images, generator) * (height - tall)
    left = uniform(count, 0, 1, images, generator) * (width - wide)
    chosen = uniform(count, 0, 1, images, generator) < probability
    rows = torch.arange(height, device=images.device)[None, :]
    columns = torch.arange(width, device=images.device)[None, :]
    inside_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    hole = inside_rows[:, None, :, None] & inside_columns[:, None, None, :] & chosen[:, None, None, None]
    return torch.where(hole, torch.full_like(images, 0.5), images)


def erase_to_mean(images: Tensor, generator: torch.Generator, area: tuple[float, float] = (0.02, 0.1)) -> Tensor:
    """Random erasing of normalised images, in the geometry of torchvision's `RandomErasing(p=0.5, scale=area)`.

    With probability one half a rectangle of whole pixels, `area` as a fraction of the image's and 0.3 to 3.3 times as
    high as wide, is set to zero: the mean. torchvision draws again where a rectangle does not fit; none of these is too
    large up to an area of 0.3.
    """
    count, _, height, width = images.shape
    pixels = uniform(count, *area, images, generator) * (height * width)
    aspect = torch.exp(uniform(count, math.log(0.3), math.log(3.3), images, generator))
    tall, wide = torch.sqrt(pixels * aspect).round(), torch.sqrt(pixels / aspect).round()
    top = (uniform(count, 0, 1, images, generator) * (height - tall + 1)).floor()
    left = (uniform(count, 0, 1, images, generator) * (width - wide + 1)).floor()
    chosen = uniform(count, 0, 1, images, generator) < 0.5
    rows = torch.arange(height, device=images.device)[None, :]
    columns = torch.arange(width, device=images.device)[None, :]
    inside_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None]) & chosen[:, None]
    inside_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    return images.masked_fill(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], 0.0)


def jitter(images: Tensor, generator: torch.Generator, brightness: float, contrast: float) -> Tensor:
    """Scale brightness and contrast of each image by its own factors in [1 - x, 1 + x]."""
    count = images.shape[0]
    gain = uniform(count, 1 - contrast, 1 + contrast, images, generator)[:, None, None, None]
    light = uniform(count, 1 - brightness, 1 + brightness, images, generator)[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * gain + mean * light).clamp(0, 1)


@augmentation("none", version=1)
def none(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images as they are."""
    return images


@augmentation("flip", version=1)
def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Horizontal flip with probability one half."""
    return affine(images, generator, flip=0.5)


@augmentation("fervt-common", version=1)
def fervt_common(images: Tensor, generator: torch.Generator) -> Tensor:
    """FER-VT says "common" techniques (section 4.2.2); our reading: flip, 10 degrees, 8 % shift, 10 % zoom."""
    return affine(images, generator, flip=0.5, rotation=10.0, shift=0.08, scale=(0.9, 1.1))


@augmentation("poster-code", version=1)
def poster_code(images: Tensor, generator: torch.Generator) -> Tensor:
    """POSTER's released code: noise for a quarter of the images, flip for half, random erasing after normalisation.

    The code first applies, with probability one half, either a flip or the noise, and later a flip with probability one
    half, which leaves of the first flip nothing that could be told. The noise has variance 30 in units of 1/255; the
    result is clipped and cut to whole units, so it is also half a unit darker. Every stored channel has noise of its
    own: an image stored as one grey plane gets the same noise in all three channels of the network's input.
    """
    count = images.shape[0]
    noise = torch.randn(images.shape, generator=generator, device=images.device) * math.sqrt(30)
    noisy = (images * 255 + noise).clamp_(0, 255).floor_() / 255
    chosen, mirrored = (uniform(count, 0, 1, images, generator)[:, None, None, None] for _ in range(2))
    images = torch.where(chosen < 0.25, noisy, images)
    return torch.where(mirrored < 0.5, images.flip(-1), images)


poster_code.after = erase_to_mean  # type: ignore[attr-defined]
