"""The network that is trained: STN, resizer and backbone one behind the other (Figure 1, Table 2)."""

from __future__ import annotations

from torch import Tensor, nn

from methods.nresizer.backbones import make_backbone
from methods.nresizer.options import Options
from methods.nresizer.resizer import Interpolation, Resizer, resized_side
from methods.nresizer.stn import STN


class NeuralResizer(nn.Module):
    """Normalised images (B, 3, S, S) to logits (B, K); what is ahead of them, super-resolution, is `Method.front`.

    Args:
        classes: number of expressions K.
        backbone: a name that `make_backbone` knows.
        size: pixels S of the images.
        options: see `Options`.

    A part that the options leave out is the identity, without parameters.
    """

    def __init__(self, classes: int, backbone: str, size: int, options: Options) -> None:
        super().__init__()
        inner = backbone_size(size, options)
        self.stn = STN(size) if options.stn else nn.Identity()
        self.res = _resizer(options)
        self.model = make_backbone(
            backbone, inner, classes, options.head_hidden, options.head_dropout, options.scale_down
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.resized(images))

    def resized(self, images: Tensor) -> Tensor:
        """What the backbone sees of normalised images (B, 3, S, S): (B, 3, s, s) at its own size."""
        return self.res(self.stn(images))


def backbone_size(size: int, options: Options) -> int:
    """Pixels of what the backbone sees, where the network's images have `size`."""
    return size if options.down == "none" else resized_side(size, options.resize_factor)


def _resizer(options: Options) -> nn.Module:
    if options.down == "none":
        return nn.Identity()
    if options.down == "ltr":
        return Resizer(options.resize_factor, options.resizer_channels, options.resizer_blocks)
    return Interpolation(options.resize_factor, options.down)
