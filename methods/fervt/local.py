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
# Section 4.2.1 prints 3 -> 64 -> 3, which no whole expansion factor k of Table 2 gives; the printed widths are used.
HIDDEN = 64


def make_local(name: str, channels: int, expansion: int = HIDDEN) -> nn.Module:
    """The local feature network called `name`, initialised; `expansion` is the inverted bottleneck's inner width."""
    known = {
        "ibn": lambda: InvertedBottleneck(channels, expansion),
        "bottleneck": lambda: Bottleneck(channels),
        "local_relation": lambda: LocalRelation(channels),
    }
    if name not in known:
        raise unknown("local feature network of fervt", name, known)
    return known[name]().apply(kaiming)


class InvertedBottleneck(nn.Module):
    """Table 2: 1x1 up, BatchNorm, LeakyReLU, 1x1 down, BatchNorm, LeakyReLU. No 3x3 and no shortcut are printed.

    Every pixel is treated alone, so both convolutions are matrix products over the (C, pixels) matrix of all grids, and
    the first BatchNorm is folded into the first product: the statistics of 64 channels follow from the mean and
    covariance of three. That saves four passes over the widest tensor of the model (a quarter of the time); the values
    are those of the plain layers.
    """

    def __init__(self, channels: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.up = nn.Conv2d(channels, hidden, 1)
        self.up_norm = nn.BatchNorm2d(hidden)
        self.down = nn.Conv2d(hidden, channels, 1)
        self.down_norm = nn.BatchNorm2d(channels)

    def forward(self, grids: Tensor) -> Tensor:
        count, channels, rows, columns = grids.shape
        pixels = grids.movedim(1, 0).reshape(channels, -1)
        weight, bias = fold_batch_norm(self.up, self.up_norm, pixels)
        wide = F.leaky_relu(torch.addmm(bias[:, None], weight, pixels), SLOPE, inplace=True)
        narrow = self.down.weight.flatten(1) @ wide + self.down.bias[:, None]
        features = self.down_norm(narrow.view(1, channels, -1, columns))
        return F.leaky_relu(features, SLOPE).view(channels, count, rows, columns).movedim(0, 1)


def fold_batch_norm(convolution: nn.Conv2d, norm: nn.BatchNorm2d, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (O, C) and bias (O,) of a 1x1 convolution and the BatchNorm behind it, as one affine map of (C, P) pixels.

    In training the batch statistics of the convolution's output are derived from those of its input, and the running
    statistics are updated as `nn.BatchNorm2d` does (with the unbiased variance).
    """
    weight = convolution.weight.flatten(1)
    if norm.training:
        mean = pixels.mean(1)
        centred = pixels - mean[:, None]
        covariance = centred @ centred.T / pixels.shape[1]
        output_mean = weight @ mean + convolution.bias
        output_var = ((weight @ covariance) * weight).sum(1)
        with torch.no_grad():
            unbiased = output_var * (pixels.shape[1] / (pixels.shape[1] - 1))
            norm.running_mean.lerp_(output_mean, norm.momentum)
            norm.running_var.lerp_(unbiased, norm.momentum)
            norm.num_batches_tracked += 1
    else:
        output_mean, output_var = norm.running_mean, norm.running_var
    scale = norm.weight * torch.rsqrt(output_var + norm.eps)
    return weight * scale[:, None], norm.bias + (convolution.bias - output_mean) * scale


class Bottleneck(nn.Module):
    """Table 12 "BN block": the bottleneck of ResNet, 1x1 down, 3x3, 1x1 up, shortcut, ReLU; no biases, as there.

    Reading: the paper gives no width. ResNet narrows by four; a quarter of three channels, rounded up, is one.
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

    Readings: FER-VT gives no settings. Every channel has weights of its own (sharing needs a divisor of three
    channels); the prior's hidden width is twice the channels; positions are scaled to [-1, 1]; a window does not leave
    its grid, and positions outside take no part in the softmax instead of counting as zeros.
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
        positions = torch.stack(torch.meshgrid(step, step, indexing="ij"))[None]  # (1, 2, 7, 7)
        self.register_buffer("positions", positions, persistent=False)

    def aggregate(self, grids: Tensor) -> Tensor:
        """The weighted window averages (N, C, p, q), before the channels are mixed."""
        rows, columns = grids.shape[-2:]
        keys, values = self._windows(self.key(grids)), self._windows(grids)
        misfit = (self.query(grids)[:, :, None] - keys).square()
        outside = self._windows(grids.new_ones(1, 1, rows, columns)) == 0
        # Prior and mask are alike for all grids: adding them up first keeps large tensors few.
        prior = self.prior(self.positions).flatten(2)[..., None, None].masked_fill(outside, float("-inf"))
        weights = (prior - misfit).softmax(2)  # (N, C, 49, p, q)
        return (weights * values).sum(2)

    def forward(self, grids: Tensor) -> Tensor:
        return self.finish(self.mix(self.aggregate(grids)))

    def _windows(self, grids: Tensor) -> Tensor:
        """The zero-padded window around every position: (N, C, p, q) to (N, C, 49, p, q)."""
        count, channels, rows, columns = grids.shape
        unfolded = F.unfold(grids, self.window, padding=self.window // 2)
        return unfolded.view(count, channels, self.window**2, rows, columns)
