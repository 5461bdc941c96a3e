"""Local feature networks of grid-wise attention: FER-VT section 3.3.1, Table 2, and the alternatives of Table 12.

Each maps grids (N, C, p, q) to features of the same shape, with N = batch x grids.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import unknown
from methods.fervt.initialise import kaiming

SLOPE = 0.1  # negative slope of every LeakyReLU (section 4.2.2)
HIDDEN = 64  # section 4.2.1: 3 -> 64 -> 3. Table 2's integer factor k cannot give 64 from 3; the printed widths are used.


def make_local(name: str, channels: int) -> nn.Module:
    """The local feature network called `name`, initialised."""
    known = {"ibn": InvertedBottleneck, "bottleneck": Bottleneck, "local_relation": LocalRelation}
    if name not in known:
        raise unknown("local feature network of fervt", name, known)
    return known[name](channels).apply(kaiming)


class InvertedBottleneck(nn.Sequential):
    """Table 2: 1x1 up, BatchNorm, LeakyReLU, 1x1 down, BatchNorm, LeakyReLU. No 3x3 and no shortcut are printed."""

    def __init__(self, channels: int, hidden: int = HIDDEN) -> None:
        super().__init__(
            nn.Conv2d(channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(hidden, channels, 1),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(SLOPE, inplace=True),
        )


class Bottleneck(nn.Module):
    """Table 12 "BN block": the bottleneck of ResNet, 1x1 down, 3x3, 1x1 up, shortcut, ReLU; no biases, as there.

    Reading: the paper gives no width. A bottleneck is narrower than its three channels; of the two widths left, one is
    the widest that still narrows by ResNet's factor (four) when rounded up.
    """

    def __init__(self, channels: int, middle: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, middle, 1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, grids: Tensor) -> Tensor:
        return F.relu(self.body(grids) + grids)


class LocalRelation(nn.Module):
    """Table 12 "LRN block": a local relation layer (Hu et al., ICCV 2019), BatchNorm, LeakyReLU.

    Every pixel is replaced by an average of its 7x7 window. The weights are a softmax over the window of how well the
    pixel's query fits the neighbour's key, minus their squared difference (keys and queries are scalars), plus a prior
    learned from the relative position by a two-layer network. A 1x1 convolution mixes the channels afterwards.

    Readings: FER-VT gives no settings. Every channel has weights of its own (sharing needs a divisor of three channels);
    the prior's hidden width is twice the channels; positions are scaled to [-1, 1]; a window does not leave its grid,
    and positions outside take no part in the softmax instead of counting as zeros.
    """

    def __init__(self, channels: int, window: int = 7) -> None:
        super().__init__()
        self.window = window
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.prior = nn.Sequential(
            nn.Conv2d(2, 2 * channels, 1), nn.ReLU(inplace=True), nn.Conv2d(2 * channels, channels, 1)
        )
        self.mix = nn.Conv2d(channels, channels, 1)
        self.finish = nn.Sequential(nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE, inplace=True))
        step = torch.linspace(-1, 1, window)
        self.register_buffer("positions", torch.stack(torch.meshgrid(step, step, indexing="ij"))[None], persistent=False)

    def aggregate(self, grids: Tensor) -> Tensor:
        """The weighted window averages (N, C, p, q), before the channels are mixed."""
        rows, columns = grids.shape[-2:]
        keys, values = self._windows(self.key(grids)), self._windows(grids)
        fit = -(self.query(grids)[:, :, None] - keys).square()
        prior = self.prior(self.positions).flatten(2)[..., None, None]  # (1, C, 49, 1, 1)
        inside = self._windows(grids.new_ones(1, 1, rows, columns)) > 0
        weights = (fit + prior).masked_fill(~inside, float("-inf")).softmax(2)
        return (weights * values).sum(2)

    def forward(self, grids: Tensor) -> Tensor:
        return self.finish(self.mix(self.aggregate(grids)))

    def _windows(self, grids: Tensor) -> Tensor:
        """The zero-padded window around every position: (N, C, p, q) to (N, C, 49, p, q)."""
        count, channels, rows, columns = grids.shape
        unfolded = F.unfold(grids, self.window, padding=self.window // 2)
        return unfolded.view(count, channels, self.window**2, rows, columns)
