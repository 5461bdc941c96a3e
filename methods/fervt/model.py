"""FER-VT assembled: Algorithm 1, and the combinations of Tables 11 to 13."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from bench.errors import unknown
from methods.fervt.backbone import MAPS, Backbone
from methods.fervt.fusion import LEVELS, AdaptiveFusion, FullyConnected, TokenFusion
from methods.fervt.gwa import GWA
from methods.fervt.tokens import TokenEmbedding
from methods.fervt.transformer import TokenTransformer

FUSIONS = ("vta", "fc", "asff")


@dataclass(frozen=True)
class Options:
    """What an experiment may set; the defaults are the paper's FER-VT (sections 4.2.1 and 4.2.2)."""

    gwa: bool = True  # grid-wise attention in front of the backbone
    local: str = "ibn"  # ibn | bottleneck | local_relation (Table 12)
    expansion: int = 64  # width inside the inverted bottleneck, 3 -> 64 -> 3
    grid: tuple[int, int] = (3, 3)  # grids down and across
    softmax: str = "grid"  # grid | literal | channel: see gwa.SOFTMAX_AXES
    fusion: str = "vta"  # vta | fc | asff (Table 13)
    c1: int = 64  # C1 of Table 5, not printed
    dim: int = 128  # D
    depth: int = 12
    heads: int = 8
    head_dim: int = 64
    mlp_dim: int = 512  # not printed: ViT's 4 D
    dropout: float = 0.2
    width: int = 64  # of the ResNet; only scaled-down profiles change it and expansion

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Options:
        """Options from declared plain values; an unknown name lists the nearest ones."""
        known = {field.name for field in fields(cls)}
        for name in options:
            if name not in known:
                raise unknown("option of fervt", name, known)
        values = dict(options)
        if "grid" in values:
            values["grid"] = tuple(values["grid"])
        return cls(**values)


class FERVT(nn.Module):
    """ResNet with grid-wise attention in front and a fusion of its last three stages behind, each optional.

    Args:
        classes: number of expressions K.
        input_size: pixels, height = width; the grid must divide it.
        backbone: resnet18, resnet34 or resnet50.
        options: see `Options`.
    """

    def __init__(self, classes: int, input_size: int, backbone: str = "resnet34", options: Options = Options()) -> None:
        super().__init__()
        if options.fusion not in FUSIONS:
            raise unknown("fusion of fervt", options.fusion, FUSIONS)
        self.gwa = (
            GWA(options.grid, options.local, options.softmax, options.expansion) if options.gwa else nn.Identity()
        )
        self.backbone = Backbone(backbone, options.width)
        self.fusion = _fusion(options, self.backbone.channels[-LEVELS:], input_size, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, 3, H, W)."""
        return self.fusion(self.backbone(self.gwa(images)))

    def feature_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Maps after the stem and each stage, by Table 1's names."""
        return dict(zip(MAPS, self.backbone.features(self.gwa(images)), strict=True))


def _fusion(options: Options, channels: tuple[int, int, int], input_size: int, classes: int) -> nn.Module:
    if options.fusion == "fc":
        return FullyConnected(channels, classes)
    if options.fusion == "asff":
        return AdaptiveFusion(channels, options.c1, classes)
    dim, dropout = options.dim, options.dropout
    embedding = TokenEmbedding(channels, options.c1, input_size, dim, dropout)
    transformer = TokenTransformer(
        LEVELS, dim, options.depth, options.heads, options.head_dim, options.mlp_dim, dropout, classes
    )
    return TokenFusion(embedding, transformer)
