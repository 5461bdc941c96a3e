"""What brings images to the backbone's size: the learnable resizer of Talebi & Milanfar, or an interpolation."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
SLOPE = 0.2  # of LeakyReLU below zero


def resized_side(side: int, factor: float) -> int:
    """Pixels that are left of `side` pixels: floor(factor x side), 224 of 384 with 0.584."""
    return math.floor(side * factor)


def rescale(images: Tensor, factor: float, mode: str = "bilinear") -> Tensor:
    """T of Equation 1: float (B, C, H, W) to (B, C, floor(factor H), floor(factor W)), not antialiased.

    Sample positions follow from the factor itself, not from the sizes: the released code gives PyTorch the factor.
    """
    align_corners = None if mode == "nearest" else False
    return F.interpolate(images, scale_factor=factor, mode=mode, align_corners=align_corners)


class Interpolation(nn.Module):
    """`rescale` as a module: what stands in the resizer's place in setting (c) of Table 2."""

    def __init__(self, factor: float, mode: str) -> None:
        super().__init__()
        self.factor, self.mode = factor, mode

    def forward(self, images: Tensor) -> Tensor:
        return rescale(images, self.factor, self.mode)


class ResidualBlock(nn.Module):
    """conv 3x3 - BN - LeakyReLU - conv 3x3 - BN, plus what goes in; (B, n, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.leaky_relu(self.bn1(self.conv1(maps)), SLOPE)
        return maps + self.bn2(self.conv2(inner))


class Resizer(nn.Module):
    """Images (B, 3, H, W) to (B, 3, floor(factor H), floor(factor W)): what is learnt, plus the interpolated image.

    Args:
        factor: of the size.
        channels: n of the maps inside.
        blocks: residual blocks r behind the interpolation.

    Names are the released ones. 12,083 parameters with n = 16 and r = 1.
    """

    def __init__(self, factor: float = 0.584, channels: int = 16, blocks: int = 1) -> None:
        super().__init__()
        self.factor = factor
        self.conv1 = nn.Conv2d(3, channels, 7, padding=3)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.resblock = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, 3, 7, padding=3)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.leaky_relu(self.conv1(images), SLOPE)
        maps = self.bn1(F.leaky_relu(self.conv2(maps), SLOPE))
        small = rescale(maps, self.factor)
        maps = small + self.bn2(self.conv3(self.resblock(small)))
        return self.conv4(maps) + rescale(images, self.factor)
