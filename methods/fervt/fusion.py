"""From the feature pyramid to logits: the three strategies of FER-VT Table 13."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.fervt.initialise import kaiming
from methods.fervt.local import SLOPE
from methods.fervt.tokens import FeatureResize, TokenEmbedding
from methods.fervt.transformer import TokenTransformer

LEVELS = 3  # section 4.2.1: the last three stages


class FullyConnected(nn.Module):
    """Table 13 "FC", without a fusion strategy: global average pooling of conv5 and a Linear layer.

    Reading: Table 13's FC row and Table 11's "ResNet + GWA" row agree on all three data sets: both are ResNet's head.
    """

    def __init__(self, channels: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Pyramid of three maps to logits (B, K)."""
        return self.head(pyramid[-1].mean((-2, -1)))


class AdaptiveFusion(nn.Module):
    """Table 13 "ASSF": adaptively spatial feature fusion (Liu, Huang and Wang, arXiv 1911.09516).

    At every position the three levels are averaged with weights that a small network reads from them.

    Readings: the levels are brought to one size by Table 5's networks; a 1x1 convolution with BatchNorm and LeakyReLU
    compresses each to 16 channels, a 1x1 convolution turns the three into three scores, a softmax over levels into
    weights; a 3x3 convolution expands the sum to the width of conv5, and ResNet's head follows.
    """

    def __init__(self, channels: tuple[int, int, int], c1: int, classes: int, compressed: int = 16) -> None:
        super().__init__()
        self.resize = FeatureResize(channels, c1)
        self.compress = nn.ModuleList(_conv_norm(c1, compressed, 1) for _ in range(LEVELS))
        self.score = nn.Conv2d(LEVELS * compressed, LEVELS, 1)
        self.expand = _conv_norm(c1, channels[-1], 3)
        for part in (self.compress, self.score, self.expand):
            part.apply(kaiming)
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Pyramid of three maps to logits (B, K)."""
        maps = self.resize(pyramid)
        compressed = [compress(level) for compress, level in zip(self.compress, maps, strict=True)]
        weights = self.score(torch.cat(compressed, dim=1)).softmax(1)  # (B, 3, H1, W1)
        fused = (torch.stack(maps, dim=1) * weights[:, :, None]).sum(1)
        return self.head(self.expand(fused).mean((-2, -1)))


class TokenFusion(nn.Module):
    """Table 13 "VTA": visual tokens and the token transformer (section 3.4)."""

    def __init__(self, embedding: TokenEmbedding, transformer: TokenTransformer) -> None:
        super().__init__()
        self.embedding = embedding
        self.transformer = transformer

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Pyramid of three maps to logits (B, K)."""
        return self.transformer(self.embedding(pyramid))


def _conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
    )
