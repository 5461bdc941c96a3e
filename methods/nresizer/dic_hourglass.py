"""The landmark estimator inside DIC: an hourglass without BatchNorm that hands features on to its next run.

Ma et al., CVPR 2020, section 3.3, after Newell et al. (2016); layers and parameter names are those of the released
state dict (github.com/Maclory/Deep-Iterative-Collaboration), under `HG.`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 256
LANDMARKS = 68
LEVELS = (4, 3, 2, 1)  # halvings, in the order they are met on the way down; the names count from the inside


class Bottleneck(nn.Module):
    """1x1 to half the outputs, 3x3, 1x1, plus the input; only the first convolution is followed by a ReLU.

    A 1x1 convolution fits the input where the channels differ.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        self.conv_block = nn.Sequential(
            nn.Conv2d(inputs, middle, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, middle, 3, padding=1),
            nn.Conv2d(middle, outputs, 1),
        )
        self.skip_layer = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.skip_layer(maps) + self.conv_block(maps)


class PointwiseReLU(nn.Module):
    """1x1 convolution and ReLU; a class of its own for the parameter names."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(features, features, 1), nn.ReLU(inplace=True))

    def forward(self, maps: Tensor) -> Tensor:
        return self.conv_block(maps)


class Hourglass(nn.ModuleDict):
    """Four times down by max-pooling and up again bilinearly, with a bottleneck across at each size.

    At level n: `res<n>_1` goes across, `res<n>_2` follows the pooling, `res<n>_3` precedes the enlargement. Sides of
    the maps are multiples of 16.
    """

    def __init__(self, features: int) -> None:
        names = [f"res{level}_{place}" for level in LEVELS for place in (1, 2, 3)]
        super().__init__({name: Bottleneck(features, features) for name in [*names, "res_center"]})

    def forward(self, maps: Tensor) -> Tensor:
        across = []
        for level in LEVELS:
            across.append(self[f"res{level}_1"](maps))
            maps = self[f"res{level}_2"](F.max_pool2d(maps, 2))
        maps = self["res_center"](maps)
        for level in reversed(LEVELS):
            maps = self[f"res{level}_3"](maps)
            maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True) + across.pop()
        return maps


class FeedbackHourglass(nn.Module):
    """Heat maps of 68 landmarks at a quarter of an image's size.

    It works on the image's features and, beside them, on what its last run left: half of the hourglass's channels
    become heat maps, the other half goes to the next run.
    """

    def __init__(self) -> None:
        super().__init__()
        quarter, half = FEATURES // 4, FEATURES // 2
        self.pre_conv_block = nn.Sequential(
            nn.Conv2d(3, quarter, 7, stride=2, padding=3),
            nn.ReLU(inplace=True),
            Bottleneck(quarter, half),
            nn.MaxPool2d(2),
            Bottleneck(half, half),
            Bottleneck(half, FEATURES),
        )
        self.compress_in = nn.Conv2d(2 * FEATURES, 2 * FEATURES, 1)
        self.hg = Hourglass(2 * FEATURES)
        self.hg_conv_out = nn.Sequential(
            Bottleneck(FEATURES, FEATURES), PointwiseReLU(FEATURES), nn.Conv2d(FEATURES, LANDMARKS, 1)
        )

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One run.

        Args:
            images: (B, 3, H, W), the mean colour taken off; sides are multiples of 64.
            hidden: from the run before; without one the image's features stand in for it.

        Returns:
            Heat maps (B, 68, H / 4, W / 4), about 1 at a landmark, and what the next run gets,
            (B, 256, H / 4, W / 4).
        """
        features = self.pre_conv_block(images)
        beside = features if hidden is None else hidden
        both = self.hg(self.compress_in(torch.cat((features, beside), dim=1)))
        shown, kept = both.split(FEATURES, dim=1)
        return self.hg_conv_out(shown), kept
