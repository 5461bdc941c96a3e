"""A small convolutional network in the place of the face networks, for shortened profiles: seconds of one core."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (16, 32, 64, 96)


class Miniature(nn.Module):
    """Four convolutions of stride 2 with batch norm, then a Linear over what is where: 3 x 3 places are kept.

    Normalised pictures (B, 3, 48, 48) to features (B, D).
    """

    side: ClassVar[int] = 48

    def __init__(self, features: int, embeds: bool) -> None:
        """`embeds`: batch norm behind the last Linear, then length 1, as Inception-ResNet-v1; else a ReLU."""
        super().__init__()
        self.embeds = embeds
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.small = nn.Sequential(*layers)
        places = (self.side // 2 ** len(WIDTHS)) ** 2
        self.small_linear = nn.Linear(before * places, features, bias=not embeds)
        self.small_out: nn.Module = nn.BatchNorm1d(features) if embeds else nn.ReLU()

    @staticmethod
    def made(names: Collection[str]) -> bool:
        """Whether tensors with these names are a miniature's; the full networks have none that begins so."""
        return any(name.startswith("small") for name in names)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.small_out(self.small_linear(self.small(images).flatten(1)))
        return F.normalize(found) if self.embeds else found
