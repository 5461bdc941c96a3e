"""Augmentation of the Neural Resizer's released code: every image turned twice, and its colours changed.

Arguments and results are as in bench.data.augment.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.augment import uniform
from bench.registry import augmentation

ROTATION, SECOND_ROTATION = 45.0, 15.0  # degrees, at most, both ways
ZOOM = 1.2
JITTER = 0.4  # brightness, contrast and saturation change by factors of 1 - JITTER to 1 + JITTER
LUMA = (0.2989, 0.587, 0.114)  # torchvision's
BRIGHTNESS, CONTRAST, SATURATION = range(3)


@augmentation("nresizer-code", version=1)
def nresizer_code(images: Tensor, generator: torch.Generator) -> Tensor:
    """The Neural Resizer's released code: flip for half, rotation, rotation with zoom, colour jitter.

    With torchvision's defaults: the two rotations take the nearest pixel, one after the other, what comes from outside
    is black, and each image has its changes of colour in an order of its own. Values stay floats, while the code rounds
    to 8 bits after every change.
    """
    count = len(images)
    mirror = 1 - 2 * (uniform(count, 0, 1, images, generator) < 0.5).float()
    angle = uniform(count, -ROTATION, ROTATION, images, generator)
    images = turn(images, angle, mirror=mirror)
    angle = uniform(count, -SECOND_ROTATION, SECOND_ROTATION, images, generator)
    # torchvision's `affine` turns clockwise where its `rotate` turns the other way
    images = turn(images, -angle, zoom=ZOOM)
    factors = torch.stack([uniform(count, 1 - JITTER, 1 + JITTER, images, generator) for _ in range(3)], dim=1)
    order = torch.rand(count, 3, generator=generator, device=images.device).argsort(1)
    return recolour(images, factors, order)


def turn(images: Tensor, angle: Tensor, zoom: float = 1.0, mirror: Tensor | None = None) -> Tensor:
    """Turn images (B, C, H, W) about their middle, nearest pixel, black outside.

    Args:
        angle: (B,) in degrees, counterclockwise.
        zoom: above 1 magnifies.
        mirror: (B,), -1 for images to be mirrored before they are turned, else 1.
    """
    count, _, height, width = images.shape
    radians = angle[:, None, None] * (math.pi / 180)
    cosine, sine = torch.cos(radians) / zoom, torch.sin(radians) / zoom
    # pixels from the middle; written out since a matrix product may run in TF32, coarser than a pixel
    x = torch.arange(width, device=images.device)[None, None, :] - (width - 1) / 2
    y = torch.arange(height, device=images.device)[None, :, None] - (height - 1) / 2
    side = width / 2 if mirror is None else width / 2 * mirror[:, None, None]
    grid = images.new_empty(count, height, width, 2)
    torch.sub(cosine * x / side, sine * y / side, out=grid[..., 0])
    torch.add(sine * x / (height / 2), cosine * y / (height / 2), out=grid[..., 1])
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def recolour(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast and saturation of each image; those of one grey plane have no saturation.

    Args:
        factors: (B, 3), one for each change: 0 leaves black, the mean grey, and the grey image; 1 the image itself.
        order: int64 (B, 3), which change is first, second and third.
    """
    if images.shape[1] == 1:
        factors = torch.where(torch.arange(3, device=factors.device) == SATURATION, 1.0, factors)
    for kind in order.unbind(1):
        factor = factors.gather(1, kind[:, None])[:, :, None, None]
        grey = luma(images)
        mean = grey.mean(dim=(1, 2, 3), keepdim=True)
        kind = kind[:, None, None, None]
        other = torch.where(kind == SATURATION, grey, torch.where(kind == CONTRAST, mean, 0.0))
        images = torch.addcmul((1 - factor) * other, factor, images).clamp_(0, 1)
    return images


def luma(images: Tensor) -> Tensor:
    """(B, 1, H, W) grey of images (B, 3, H, W); those of one plane are grey."""
    if images.shape[1] == 1:
        return images
    return LUMA[0] * images[:, :1] + LUMA[1] * images[:, 1:2] + LUMA[2] * images[:, 2:]
