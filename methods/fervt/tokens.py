"""Visual tokens from the feature pyramid: FER-VT section 3.4.1, Tables 5 and 6, Equations 7 to 9."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.fervt.convolution import SmallMapConv2d
from methods.fervt.initialise import kaiming, vit
from methods.fervt.local import SLOPE

# Kernel and stride per pyramid level. Table 5 prints k and s without values. Reading: the common size H1 x W1 is the
# last stage's (1/32 of the image), so strides are 4, 2 and 1; a kernel is twice its stride less one, so that
# neighbouring windows overlap by half.
RESIZE = ((7, 4), (3, 2), (1, 1))


def side(input_size: int) -> int:
    """H1 = W1 for square images: 6 at 192 pixels, 3 at 96, 2 at 48."""
    return -(-input_size // 32)


class FeatureResize(nn.ModuleList):
    """Table 5, once per level, unshared: convolution, BatchNorm, LeakyReLU to a common C1 x H1 x W1."""

    def __init__(self, channels: tuple[int, int, int], c1: int) -> None:
        super().__init__(
            nn.Sequential(
                SmallMapConv2d(count, c1, kernel, stride, padding=(kernel - 1) // 2),
                nn.BatchNorm2d(c1),
                nn.LeakyReLU(SLOPE, inplace=True),
            )
            for count, (kernel, stride) in zip(channels, RESIZE, strict=True)
        )
        self.apply(kaiming)

    def forward(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Three maps (B, C*, H*, W*) to three maps (B, C1, H1, W1)."""
        return [resize(features) for resize, features in zip(self, pyramid, strict=True)]


class TokenEmbedding(nn.Module):
    """Pyramid to tokens: resize, flatten (Equation 8), then Table 6's shared LayerNorm, ReLU, dropout, Linear.

    Args:
        channels: of the three pyramid levels.
        c1: C1; the paper gives no value, 64 is our choice (512 would add six million parameters).
        input_size: pixels, for H1 = W1.
        dim: D, the width of a token.
        dropout: of Table 6.
    """

    def __init__(self, channels: tuple[int, int, int], c1: int, input_size: int, dim: int, dropout: float) -> None:
        super().__init__()
        length = c1 * side(input_size) ** 2
        self.resize = FeatureResize(channels, c1)
        self.embed = nn.Sequential(
            nn.LayerNorm(length), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(length, dim)
        )
        self.embed.apply(vit)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Tokens (B, 3, D)."""
        return self.embed(torch.stack([features.flatten(1) for features in self.resize(pyramid)], dim=1))
