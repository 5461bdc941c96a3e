"""MobileFaceNet for 68 facial landmarks: the frozen landmark detector of POSTER section 4.2.

Chen et al., MobileFaceNets (2018), Table 1, with the landmark head that POSTER's released code uses. Parameter names
are those of the released file, so it loads as it is.
"""

from __future__ import annotations

from torch import Tensor, nn


class ConvBlock(nn.Module):
    """Convolution without bias, BatchNorm and, unless `linear`, a PReLU with one slope per channel.

    Zero padding keeps the size of the map (at stride 1), unless `whole`: then the kernel covers all of it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
        whole: bool = False,
    ) -> None:
        super().__init__()
        padding = 0 if whole else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.prelu = nn.Identity() if linear else nn.PReLU(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        return self.prelu(self.bn(self.conv(maps)))


class InvertedBottleneck(nn.Module):
    """1x1 up, 3x3 depthwise, 1x1 down without activation; a shortcut where the size stays."""

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = ConvBlock(inputs, middle)
        self.conv_dw = ConvBlock(middle, middle, 3, stride, groups=middle)
        self.project = ConvBlock(middle, outputs, linear=True)
        self.shortcut = stride == 1

    def forward(self, maps: Tensor) -> Tensor:
        found = self.project(self.conv_dw(self.conv(maps)))
        return maps + found if self.shortcut else found


class Stage(nn.Module):
    """`count` bottlenecks of one size."""

    def __init__(self, width: int, middle: int, count: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(InvertedBottleneck(width, middle, width, 1) for _ in range(count)))

    def forward(self, maps: Tensor) -> Tensor:
        return self.model(maps)


class LandmarkHead(nn.Module):
    """Global depthwise convolution, Linear, BatchNorm: a map (B, C, side, side) to (B, 2 x points)."""

    def __init__(self, channels: int, side: int, points: int) -> None:
        super().__init__()
        self.conv_6_dw = ConvBlock(channels, channels, side, groups=channels, linear=True, whole=True)  # 7x7 at S = 112
        self.linear = nn.Linear(channels, 2 * points, bias=False)
        self.bn = nn.BatchNorm1d(2 * points)

    def forward(self, maps: Tensor) -> Tensor:
        return self.bn(self.linear(self.conv_6_dw(maps).flatten(1)))


class MobileFaceNet(nn.Module):
    """Faces (B, 3, S, S) to landmarks, and the feature map in front of them.

    Args:
        width: channels of the stem; 64 is the paper's, less is for scaled-down runs.
        channels: of the feature map that POSTER takes its landmark tokens from.
        inner_size: S, a multiple of 16.
        points: landmarks; x and y of each are neighbours in the output.
    """

    def __init__(self, width: int = 64, channels: int = 512, inner_size: int = 112, points: int = 68) -> None:
        super().__init__()
        self.conv1 = ConvBlock(3, width, 3, stride=2)
        self.conv2_dw = ConvBlock(width, width, 3, groups=width)
        self.conv_23 = InvertedBottleneck(width, 2 * width, width, stride=2)
        self.conv_3 = Stage(width, 2 * width, 4)
        self.conv_34 = InvertedBottleneck(width, 4 * width, 2 * width, stride=2)
        self.conv_4 = Stage(2 * width, 4 * width, 6)
        self.conv_45 = InvertedBottleneck(2 * width, 8 * width, 2 * width, stride=2)
        self.conv_5 = Stage(2 * width, 4 * width, 2)
        self.conv_6_sep = ConvBlock(2 * width, channels)
        self.output_layer = LandmarkHead(channels, inner_size // 16, points)

    def features(self, images: Tensor) -> Tensor:
        """The map (B, channels, S / 16, S / 16) of normalised images; a cell is a landmark token of POSTER."""
        maps = self.conv2_dw(self.conv1(images))
        maps = self.conv_3(self.conv_23(maps))
        maps = self.conv_4(self.conv_34(maps))
        maps = self.conv_5(self.conv_45(maps))
        return self.conv_6_sep(maps)

    def forward(self, images: Tensor) -> Tensor:
        """Landmarks (B, 2 x points), coordinates as fractions of the image side."""
        return self.output_layer(self.features(images))
