"""POSTER's encoders (Figure 3) and a block of them across the pyramid (Figure 2 b)."""

from __future__ import annotations

from itertools import pairwise

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from methods.poster.attention import Attention, CrossFusionAttention, SelfAttention
from methods.poster.options import Options

EPSILON = 1e-6  # of every LayerNorm, as in ViT and the released code


def norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=EPSILON)


def mlp(dim: int, ratio: float) -> nn.Sequential:
    hidden = int(dim * ratio)
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class VanillaEncoder(nn.Module):
    """Equations 3 and 4: self-attention over all tokens, whichever stream they are from.

    Args:
        drop_path: the share of samples that skip an addition in training.
    """

    def __init__(self, dim: int, drop_path: float, options: Options) -> None:
        super().__init__()
        self.attention_norm = norm(dim) if options.pre_norm else nn.Identity()
        self.attention = SelfAttention(dim, options.heads)
        self.mlp_norm = norm(dim)
        self.mlp = mlp(dim, options.mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) to (B, N, D)."""
        tokens = tokens + self.drop_path(self.attention(self.attention_norm(tokens)))
        return tokens + self.drop_path(self.mlp(self.mlp_norm(tokens)))

    def attentions(self) -> dict[str, Attention]:
        """By stream."""
        return {"all": self.attention}


class CrossFusionStream(nn.Module):
    """One side of a cross-fusion encoder: Equations 9 and 10 for images, 11 and 12 for landmarks."""

    def __init__(self, dim: int, drop_path: float, options: Options) -> None:
        super().__init__()
        self.attention_norm = norm(dim) if options.pre_norm else nn.Identity()
        self.attention = CrossFusionAttention(dim, options.heads, options.query_projection)
        self.mlp_norm = norm(dim)
        self.mlp = mlp(dim, options.mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """This stream's tokens (B, N, D), guided by the other's (B, N, D)."""
        fused = self.attention(self.attention_norm(own), self.attention_norm(other))
        own = own + self.drop_path(fused)
        return own + self.drop_path(self.mlp(self.mlp_norm(own)))


class CrossFusionEncoder(nn.Module):
    """Figure 3 c: each stream attends to itself with the queries of the other.

    Args:
        count: tokens of both streams together, for the released code's convolution across tokens.
    """

    def __init__(self, dim: int, count: int, drop_path: float, options: Options) -> None:
        super().__init__()
        self.image = CrossFusionStream(dim, drop_path, options)
        self.landmark = CrossFusionStream(dim, drop_path, options)
        self.mixing = nn.Conv1d(count, count, 1) if options.token_mixing else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """Image tokens and behind them as many landmark tokens, together (B, 2 N, D)."""
        image, landmark = tokens.chunk(2, dim=1)
        fused = torch.cat([self.image(image, landmark), self.landmark(landmark, image)], dim=1)
        return self.mixing(fused)

    def attentions(self) -> dict[str, Attention]:
        """By stream."""
        return {"image": self.image.attention, "landmark": self.landmark.attention}


class Block(nn.Module):
    """An encoder at each level, then each level is added to the next wider one.

    The paper calls the levels' outputs "aggregated"; the released code does it in every block and with learned lifts,
    convolutions whose channels are the tokens, so that they also mix tokens.
    """

    def __init__(self, count: int, drop_path: float, options: Options) -> None:
        super().__init__()
        levels = options.levels
        self.encoders = nn.ModuleDict(
            {
                name: CrossFusionEncoder(dim, count, drop_path, options)
                if options.cross_fusion
                else VanillaEncoder(dim, drop_path, options)
                for name, dim in levels
            }
        )
        self.lifts = nn.ModuleDict()  # by the level they start from
        for (_, wide), (name, narrow) in pairwise(levels):
            self.lifts[name] = nn.ConvTranspose1d(count, count, wide // narrow, stride=wide // narrow)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Tokens of each level, widest first, each (B, N, its width), to the same."""
        levels = [encoder(tokens) for encoder, tokens in zip(self.encoders.values(), levels, strict=True)]
        for narrow, lift in reversed(list(enumerate(self.lifts.values(), start=1))):  # from the narrowest up
            levels[narrow - 1] = levels[narrow - 1] + lift(levels[narrow])
        return levels
