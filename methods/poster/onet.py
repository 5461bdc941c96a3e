"""Landmark features of MTCNN's O-Net: a stand-in where the MobileFaceNet of POSTER's authors is not at hand.

Zhang et al., Joint face detection and alignment using multitask cascaded convolutional networks (2016), Figure 2. The
parameter names are those of facenet-pytorch's file onet.pt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import unknown

CHANNELS = 128  # of the features
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, with which POSTER's input is normalised
UNUSED = ("dense", "prelu5")  # beginnings of names in onet.pt behind the convolutions


class ONet(nn.Module):
    """The convolutions of O-Net over a whole face, averaged to the cells that POSTER takes its landmark tokens from.

    Built for faces of 48 pixels, where it ends in 3x3 cells; larger faces give more, which are averaged (ours).

    Args:
        side: cells down and across.
        colour: rgb | bgr, the order of the input's channels. O-Net knows RGB.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, side: int, colour: str = "rgb") -> None:
        super().__init__()
        if colour not in ("rgb", "bgr"):
            raise unknown("colour", colour, ("rgb", "bgr"))
        self.side, self.bgr = side, colour == "bgr"
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, CHANNELS, 2), nn.PReLU(CHANNELS)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def pixels(self, images: Tensor) -> Tensor:
        """ImageNet-normalised images as O-Net wants them: RGB, (x - 127.5) / 128 for x from 0 to 255."""
        pixels = (images * self.std + self.mean) * 255  # the statistics go by position, whatever the channel there is
        pixels = pixels.flip(1) if self.bgr else pixels
        return (pixels - 127.5) / 128

    def features(self, images: Tensor) -> Tensor:
        """Maps (B, 128, side, side) of images (B, 3, S, S)."""
        maps = self.prelu1(self.conv1(self.pixels(images)))
        maps = self.prelu2(self.conv2(F.max_pool2d(maps, 3, 2, ceil_mode=True)))
        maps = self.prelu3(self.conv3(F.max_pool2d(maps, 3, 2, ceil_mode=True)))
        maps = self.prelu4(self.conv4(F.max_pool2d(maps, 2, 2, ceil_mode=True)))
        return F.adaptive_avg_pool2d(maps, self.side)
