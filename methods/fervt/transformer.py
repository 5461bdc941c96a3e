"""The token transformer: FER-VT section 3.4.2, Equations 10 to 13."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.fervt.initialise import vit

EPSILON = 1e-6  # of every LayerNorm, as in ViT


class Attention(nn.Module):
    """Multi-head self-attention whose heads need not add up to the token width: D -> heads x head_dim -> D.

    Section 4.2.1: eight heads of 64 for tokens of 128. No bias on query, key and value; dropout after the output
    projection, as ViT applies it (after every dense layer but the qkv projections), and none on the weights.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) to (B, N, D)."""
        query, key, value = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """One encoder layer, normalised before each part: Equation 12."""

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=EPSILON)
        self.attention = Attention(dim, heads, head_dim, dropout)
        self.mlp_norm = nn.LayerNorm(dim, eps=EPSILON)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim), nn.Dropout(dropout)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class TokenTransformer(nn.Module):
    """Class token, learnable positions, encoder layers, LayerNorm and Linear on the class token.

    Args:
        tokens: number of visual tokens N; the sequence has one more.
        dim, depth, heads, head_dim: section 4.2.1 (128, 12, 8, 64).
        mlp_dim: not printed; ViT's ratio of four gives 512.
        dropout: section 4.2.2 prints one rate, 0.2, without a place: here after positions and dense layers, as in ViT.
        classes: K of Equation 13.
    """

    def __init__(
        self, tokens: int, dim: int, depth: int, heads: int, head_dim: int, mlp_dim: int, dropout: float, classes: int
    ) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, tokens + 1, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(dim, heads, head_dim, mlp_dim, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=EPSILON)
        self.head = nn.Linear(dim, classes)
        self.apply(vit)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Visual tokens (B, N, D) to logits (B, K)."""
        first = self.class_token.expand(len(tokens), -1, -1).to(tokens.dtype)
        sequence = self.dropout(torch.cat([first, tokens], dim=1) + self.positions)
        return self.head(self.norm(self.blocks(sequence)[:, 0]))
