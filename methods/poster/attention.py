"""Multi-head attention of POSTER: ordinary (Figure 4 a) and cross-fusion (Figure 4 b), and a look at its maps.

Scores are scaled by the square root of a head's width. There is no dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from methods.poster.model import POSTER


class Attention(nn.Module):
    """Softmax(Q K^T / sqrt(d)) V over heads, and the output projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.output = nn.Linear(dim, dim)
        self.probe: Callable[[Tensor], None] | None = None  # gets the map (B, heads, N, N) of each forward pass

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Three times (B, N, D) to (B, N, D)."""
        q, k, v = (tokens.unflatten(2, (self.heads, -1)).transpose(1, 2) for tokens in (query, key, value))
        if self.probe is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:  # the fused kernel never forms the map
            weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
            self.probe(weights)
            mixed = weights @ v
        return self.output(mixed.transpose(1, 2).flatten(2))


class SelfAttention(Attention):
    """Equations 1 and 2: queries, keys and values of the same tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.query_key_value = nn.Linear(dim, 3 * dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) to (B, N, D)."""
        query, key, value = self.query_key_value(tokens).chunk(3, dim=-1)
        return self.attend(query, key, value)


class CrossFusionAttention(Attention):
    """Equations 5 to 8: a stream's own keys and values, the other stream's queries.

    Args:
        query_projection: W_Q of Equations 5 and 6. Without it the other stream's tokens are the queries as they come,
            as in the released code.
    """

    def __init__(self, dim: int, heads: int, query_projection: bool) -> None:
        super().__init__(dim, heads)
        self.query = nn.Linear(dim, dim) if query_projection else nn.Identity()
        self.key_value = nn.Linear(dim, 2 * dim)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Tokens of this stream and of the other one, each (B, N, D), to (B, N, D)."""
        key, value = self.key_value(own).chunk(2, dim=-1)
        return self.attend(self.query(other), key, value)


class Place(NamedTuple):
    """Where in the network an attention map is from.

    Attributes:
        block: 0 is the first.
        level: large | medium | small.
        stream: image | landmark in cross-fusion; all in a vanilla encoder, whose tokens are those of its streams one
            behind the other.
    """

    block: int
    level: str
    stream: str


@contextmanager
def recorded(net: POSTER) -> Iterator[dict[Place, Tensor]]:
    """Attention maps (B, heads, N, N) of the forward pass inside this context, in the order of computation.

    Row i, column j: how much the new token i takes of token j. In cross-fusion both are tokens of the map's stream (the
    other stream only asks), so maps of a stream can be multiplied from block to block. Token 0 of a stream is its class
    token, 1 to P are the cells of the landmark net or image tokens; `ir50.to_map` leads from those to the image.

    The maps are part of the graph: call `retain_grad()` on them, or `torch.autograd.grad(logit, maps.values())`. A
    second forward pass replaces them. Outside this context nothing is formed or kept.

        with recorded(net) as maps:
            net(images)[:, label].sum().backward(inputs=list(maps.values()))
    """
    maps: dict[Place, Tensor] = {}
    attentions = net.attentions()
    for place, attention in attentions.items():
        attention.probe = lambda weights, place=place: maps.__setitem__(place, weights)
    try:
        yield maps
    finally:
        for attention in attentions.values():
            attention.probe = None
