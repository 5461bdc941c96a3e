"""Grid-wise attention (GWA): FER-VT section 3.3, Equations 1 to 6, Tables 3 and 4.

The image is cut into h x w grids, a small network looks at every grid, the attention matrices of the grids are pooled
to one weight per grid and channel, and the weighted image is fused with the image itself. Input and output are images
of the same shape, so the block stands in front of any backbone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.errors import UserError, unknown
from methods.fervt.local import HIDDEN, make_local

IMAGE_CHANNELS = 3
# Axis of the scores (B, hw, C, H/h, H/h) over which Equation 3 normalises; the paper prints none with softmax(scores).
# "grid" is our reading: grids compete, the pooled weights of a channel sum to one, so a weight says something about its
# grid. "literal" is the last axis, as in ordinary attention: every row then sums to one, the pooled weight is exactly
# 1/(H/h) for every image, and GWA only scales. "channel" lets the colour channels of one grid compete.
SOFTMAX_AXES = {"grid": 1, "literal": -1, "channel": 2}


def to_grids(images: Tensor, h: int, w: int) -> Tensor:
    """Equation 1: images (B, C, H, W) to grids (B, hw, C, H/h, W/w), row by row.

    Raises:
        UserError: if h does not divide H or w does not divide W.
    """
    height, width = images.shape[-2:]
    if height % h or width % w:
        hint = f"choose an input size divisible by {h} and {w}, or another grid"
        raise UserError(f"grid {h} x {w} does not divide images of {height} x {width} pixels", hint)
    cells = images.unflatten(3, (w, width // w)).unflatten(2, (h, height // h))  # (B, C, h, H/h, w, W/w)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def from_grids(grids: Tensor, h: int, w: int) -> Tensor:
    """Equation 5, the inverse of `to_grids`: (B, hw, C, H/h, W/w) to (B, C, H, W)."""
    cells = grids.unflatten(1, (h, w))  # (B, h, w, C, H/h, W/w)
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


class GridAttention(nn.Module):
    """Equations 2 to 5: from images to one weight per grid and channel.

    Args:
        grid: (h, w), the number of grids down and across.
        local: local feature network, "ibn", "bottleneck" or "local_relation" (Table 12).
        softmax: the axis of Equation 3, a key of `SOFTMAX_AXES`.
        expansion: width inside the inverted bottleneck; the other networks ignore it.
    """

    def __init__(self, grid: tuple[int, int], local: str, softmax: str, expansion: int = HIDDEN) -> None:
        super().__init__()
        if softmax not in SOFTMAX_AXES:
            raise unknown("softmax axis of fervt", softmax, SOFTMAX_AXES)
        self.grid = grid
        self.axis = SOFTMAX_AXES[softmax]
        # One network for all grids: Equation 2 applies the same LFN to the whole collection.
        self.local = make_local(local, IMAGE_CHANNELS, expansion)

    def weights(self, images: Tensor) -> Tensor:
        """Pooled attention (B, hw, C) of images (B, C, H, W): Equation 3 and the pooling of Equation 4.

        Equation 3 compares the rows of one grid with each other, (H/h x W/w) times its transpose. The product has as
        many elements as the grids themselves, little beside the local network's 64 channels, so it is formed as it
        stands; a softmax that couples different grids leaves no shorter way to its mean.
        """
        grids = to_grids(images, *self.grid)
        features = self.local(grids.flatten(0, 1)).unflatten(0, grids.shape[:2])
        scores = features @ features.transpose(-1, -2) / features.shape[-1]  # d_k = W/w, not its root: as printed
        return scores.softmax(self.axis).mean((-2, -1))

    def forward(self, images: Tensor) -> Tensor:
        """The weighted image of Equation 5, (B, C, H, W)."""
        h, w = self.grid
        rows, columns = images.shape[-2] // h, images.shape[-1] // w
        expanded = self.weights(images)[..., None, None].expand(-1, -1, -1, rows, columns)
        return from_grids(expanded, h, w) * images


class ResidualFusion(nn.Module):
    """Equation 6: RFN(FT1(image) + FT2(weighted image)), three channels throughout, output in (0, 1).

    Readings. Tables 3 and 4 print "Use-bias" for some convolutions only; all have one here, which gives the 1,031
    parameters of the whole block and changes nothing where BatchNorm follows. One PReLU slope per layer. The text calls
    RFN residual while Table 4 is a plain chain whose third convolution receives "I tilde prime": the sum of
    Equation 6 is added before the third convolution.
    """

    def __init__(self, channels: int = IMAGE_CHANNELS) -> None:
        super().__init__()
        self.image = _conv_norm(channels, nn.ReLU(inplace=True))  # FT1, Table 3
        self.weighted = _conv_norm(channels, nn.ReLU(inplace=True))  # FT2, unshared
        self.inner = nn.Sequential(_conv_norm(channels, nn.PReLU()), _conv_norm(channels, nn.PReLU()))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.apply(_xavier)

    def forward(self, images: Tensor, weighted: Tensor) -> Tensor:
        """Fuse two tensors (B, C, H, W)."""
        total = self.image(images) + self.weighted(weighted)
        return torch.sigmoid(self.last(self.inner(total) + total))


class GWA(nn.Module):
    """Grid-wise attention followed by residual fusion: images (B, 3, H, W) to images of the same shape.

    Two settings belong to the block, whatever the run's: it computes in fp32, because its output lies within a few
    hundredths of one half (the fusion starts with gain 0.1 and ends in a sigmoid), where bfloat16 has steps of 0.004;
    and its layers keep the contiguous layout, because with three channels channels-last is four times slower.
    """

    def __init__(
        self, grid: tuple[int, int] = (3, 3), local: str = "ibn", softmax: str = "grid", expansion: int = HIDDEN
    ) -> None:
        super().__init__()
        self.attention = GridAttention(grid, local, softmax, expansion)
        self.fusion = ResidualFusion()

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(self.fusion.last.weight.dtype).contiguous()
            return self.fusion(images, self.attention(images))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GWA:
        """`Module.to` and its relatives, followed by a return to the contiguous layout."""
        super()._apply(fn, recurse)
        for parameter in self.parameters():
            parameter.data = parameter.data.contiguous()
        return self


def _conv_norm(channels: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), activation)


def _xavier(module: nn.Module) -> None:
    """Section 4.2.2: Xavier uniform with gain 0.1. It is not defined for vectors, so biases start at zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight, gain=0.1)
        nn.init.zeros_(module.bias)
