"""A convolution for very small maps on CPUs.

With 48-pixel faces ResNet's last stages work on maps of 3x3 and 2x2. CPU convolution kernels are built for large maps
and lose there; the same sums written as one matrix product are up to five times faster forward and backward (measured
in tests/benchmarks/test_bench_fervt.py). Only the order of summation differs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALL = 9  # output positions up to which the matrix product wins: 2x2 and 3x3 maps


class SmallMapConv2d(nn.Conv2d):
    """`nn.Conv2d` (zero padding, no dilation, no groups) with a faster path for small maps on CPUs."""

    def forward(self, maps: Tensor) -> Tensor:
        rows, columns = (self._outputs(size, axis) for axis, size in enumerate(maps.shape[-2:]))
        if maps.device.type != "cpu" or rows * columns > SMALL:
            return super().forward(maps)
        (kernel_rows, kernel_columns), (down, right) = self.kernel_size, self.stride
        top, left = self.padding
        padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, left, left, top, top))  # (B, H, W, C)
        taps = [
            padded[:, i : i + down * (rows - 1) + 1 : down, j : j + right * (columns - 1) + 1 : right]
            for i in range(kernel_rows)
            for j in range(kernel_columns)
        ]
        patches = torch.cat(taps, dim=-1)  # (B, rows, columns, kernel x kernel x C)
        out = F.linear(patches, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)
        return out.permute(0, 3, 1, 2)

    def _outputs(self, size: int, axis: int) -> int:
        return (size + 2 * self.padding[axis] - self.kernel_size[axis]) // self.stride[axis] + 1


def use_small_map_convolutions(module: nn.Module) -> None:
    """Replace every 3x3 `nn.Conv2d` inside `module`; names, shapes and the layer's meaning stay."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and child.kernel_size == (3, 3) and child.groups == 1:
                setattr(parent, name, _same(child))


def _same(convolution: nn.Conv2d) -> SmallMapConv2d:
    return SmallMapConv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        bias=convolution.bias is not None,
    )
