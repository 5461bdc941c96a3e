"""ResNet without pooling and classifier: FER-VT section 3.2, Table 1.

The stages are timm's. Reading: Table 1's script h x w is the size of the stem's output, so the stem is ResNet's
ordinary 7x7 convolution of stride 2, and conv5 is 1/32 of the image. Parameter names equal torchvision's and timm's, so
their weight files load.
"""

from __future__ import annotations

from pathlib import Path

import torch
from timm.models.resnet import BasicBlock, Bottleneck, make_blocks
from torch import Tensor, nn

from bench.errors import unknown
from bench.weight_files import load_strict, read_state
from methods.fervt.convolution import use_small_map_convolutions
from methods.fervt.initialise import kaiming

DEPTHS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
MAPS = ("conv1", "conv2_x", "conv3_x", "conv4_x", "conv5_x")  # Table 1's names of what `features` returns


class Backbone(nn.Module):
    """ResNet features at strides 2, 4, 8, 16 and 32.

    Args:
        name: resnet18, resnet34 or resnet50.
        width: channels of the stem and first stage; 64 is ResNet's, less is for scaled-down runs.

    The last BatchNorm of a block starts at one, as in the original ResNet (and torchvision), not at zero (as in timm).
    """

    def __init__(self, name: str = "resnet34", width: int = 64) -> None:
        super().__init__()
        if name not in DEPTHS:
            raise unknown("backbone of fervt", name, DEPTHS)
        block, depths = DEPTHS[name]
        planes = (width, 2 * width, 4 * width, 8 * width)
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        kinds = {"act_layer": nn.ReLU, "norm_layer": nn.BatchNorm2d}
        stages, _ = make_blocks((block,) * 4, planes, depths, inplanes=width, **kinds)
        for stage_name, stage in stages:
            self.add_module(stage_name, stage)
        self.channels = tuple(count * block.expansion for count in planes)  # of the four stages
        use_small_map_convolutions(self)
        self.apply(kaiming)

    def stem(self, images: Tensor) -> Tensor:
        """The first convolution, BatchNorm and ReLU, in fp32: BatchNorm here magnifies what GWA leaves of the image.

        GWA's output is one half plus a faint image, and zero padding makes a strong frame around it. Rounding that sum
        to bfloat16 costs 7 % of the image's signal (0.3 % of an ordinary image's); from here on precision is the run's.
        """
        kind = images.device.type
        with torch.autocast(kind, enabled=False):
            maps = self.relu(self.bn1(self.conv1(images.to(self.conv1.weight.dtype))))
        return maps.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else maps

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of images (B, 3, H, W) after the stem and each of the four stages, named by `MAPS`."""
        maps = [self.stem(images)]
        maps.append(self.layer1(self.maxpool(maps[0])))
        for stage in (self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps

    def forward(self, images: Tensor) -> list[Tensor]:
        """The pyramid of section 3.4.1: maps of the last three stages, at strides 8, 16 and 32."""
        return self.features(images)[-3:]

    def load_pretrained(self, path: Path) -> None:
        """Load a torchvision or timm ResNet file (.pth, .pt or .safetensors); its classifier `fc` is left out.

        Raises:
            UserError: if any other parameter is missing, left over or of another shape.
        """
        load_strict(self, read_state(path), str(path), ignore=("fc.",))
