"""Pairs to learn super-resolution from: a picture, and the same picture small.

Everything is drawn from torch's global generator, which the loop seeds before every step. Planes are (B, 1, S, S) with
values in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

DEGRADATIONS = ("none", "light")
CONTRAST = (0.8, 2.0)  # of the picture about its mean, large and small alike; upwards, since drawn skin is smooth
BRIGHTNESS = 0.15  # at most, the same way
BLUR = 0.1  # weight that a small picture's pixel gives to its neighbours along each axis, at most
NOISE = 0.01  # standard deviation in the small picture, at most


def shrink(planes: Tensor, scale: int) -> Tensor:
    """1 / `scale` of the side, by the antialiased bicubic kernel usual in super-resolution."""
    size = [side // scale for side in planes.shape[-2:]]
    return F.interpolate(planes, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


def pairs(planes: Tensor, scale: int, degradation: str) -> tuple[Tensor, Tensor]:
    """Small and large pictures of a batch, mirrored by chance.

    `light` stands for what drawn pictures lack and photographs have: other contrast (of both), and blur and noise of
    the small one, which the network is to undo.
    """
    planes = torch.where(uniform(planes, 0.0, 1.0) < 0.5, planes.flip(-1), planes)
    if degradation == "none":
        return shrink(planes, scale), planes
    middle = planes.mean(dim=(1, 2, 3), keepdim=True)
    light = uniform(planes, -BRIGHTNESS, BRIGHTNESS)
    planes = ((planes - middle) * uniform(planes, *CONTRAST) + middle + light).clamp(0, 1)
    small = blur(shrink(planes, scale), uniform(planes, 0.0, BLUR))
    noise = uniform(planes, 0.0, NOISE) * torch.randn_like(small)
    return (small + noise).clamp(0, 1), planes


def blur(planes: Tensor, weight: Tensor) -> Tensor:
    """Three taps along both axes; each pixel keeps 1 - weight, (B, 1, 1, 1), and the border repeats."""
    for last, pad in ((3, (1, 1, 0, 0)), (2, (0, 0, 1, 1))):
        wide = F.pad(planes, pad, mode="replicate")
        around = wide.narrow(last, 0, planes.shape[last]) + wide.narrow(last, 2, planes.shape[last])
        planes = planes * (1 - weight) + around * (weight / 2)
    return planes


def uniform(like: Tensor, low: float, high: float) -> Tensor:
    """(B, 1, 1, 1) draws between `low` and `high`, on the device of `like`."""
    return torch.rand(len(like), 1, 1, 1, device=like.device, dtype=like.dtype) * (high - low) + low
