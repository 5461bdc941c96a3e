"""A small network for super-resolution of one plane: residual blocks at the low resolution, one step up at the end.

The blocks are EDSR's (Lim et al., 2017: no batch normalisation), the sub-pixel convolution is ESPCN's (Shi et al.,
2016): everything costs what the small picture costs. What the network answers is added to bicubic enlargement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from bench.weight_files import load_strict

SCALES = (2, 4, 8)
HEAD, TAIL = "head.weight", "tail.weight"  # the tensors whose shapes tell width and scale


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        deeper: Tensor = self.second(F.relu(self.first(x), inplace=True))
        return x + deeper


class SuperResolution(nn.Module):
    """Enlarges pictures by `scale`, each channel by itself and all with the same weights.

    Its last convolution starts at zero, hence the network at bicubic enlargement.
    """

    def __init__(self, width: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Conv2d(1, width, 3, padding=1)
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, scale * scale, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Float (B, C, h, w) in [0, 1] to (B, C, h * scale, w * scale) in [0, 1]."""
        batch, channels, height, width = images.shape
        planes = self.enlarge(images.reshape(batch * channels, 1, height, width)).clamp(0, 1)
        return planes.reshape(batch, channels, height * self.scale, width * self.scale)

    def enlarge(self, planes: Tensor) -> Tensor:
        """Float (B, 1, h, w) to (B, 1, h * scale, w * scale), not limited: what training compares."""
        shallow = self.head(planes - 0.5)
        detail = F.pixel_shuffle(self.tail(shallow + self.body(shallow)), self.scale)
        return bicubic(planes, self.scale).add(detail)


def bicubic(images: Tensor, scale: int) -> Tensor:
    """Enlarged by `scale` with Keys's kernel (a = -0.5); values may leave [0, 1].

    torch uses this kernel where `antialias` is set and a = -0.75 where it is not; enlarging does not smooth either way.
    """
    size = [side * scale for side in images.shape[-2:]]
    return F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True)


def from_state(state: Mapping[str, Tensor], what: str) -> SuperResolution:
    """The network whose tensors these are; its sizes are read from their shapes.

    Args:
        state: of a `SuperResolution`.
        what: where the tensors come from, for messages.

    Raises:
        UserError: they are those of another network.
    """
    if not {HEAD, TAIL} <= state.keys() or state[HEAD].ndim != 4 or state[TAIL].ndim != 4:
        raise UserError(f"{what} holds no network of method superres: no {HEAD} or {TAIL}", "give a stage's network")
    scale = math.isqrt(len(state[TAIL]))
    if scale not in SCALES:
        message = f"{what} enlarges by none of {', '.join(map(str, SCALES))}: {TAIL} is {tuple(state[TAIL].shape)}"
        raise UserError(message, "give a stage's network")
    blocks = len({name.split(".")[1] for name in state if name.startswith("body.")})
    with torch.device("meta"):
        net = SuperResolution(len(state[HEAD]), blocks, scale)
    load_strict(net.to_empty(device="cpu"), state, what)
    return net
