"""What an experiment may choose of POSTER's network: the released code, the paper's text, and the steps of Table 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bench.errors import UserError
from bench.options import MethodOptions, shown

LEVELS = ("large", "medium", "small")  # of the pyramid, section 3.2; they differ in the width of a token


@dataclass(frozen=True)
class Options(MethodOptions):
    """The network. The defaults are the released code for RAF-DB; where the paper says something else, it is told.

    Attributes:
        streams: both | landmark | image. With both, the tokens of the landmark net follow those of the image net.
        cross_fusion: cross-fusion encoders (Figure 3 c), else vanilla ones (Figure 3 a) over all tokens.
        pyramid: three levels of token width, else the first only.
        depth: encoders one behind the other: 8 (large), 6 (base) or 4 (small).
        dims: token width of the levels.
        heads: attention heads, at every level.
        mlp_ratio: hidden width of an MLP by token width.
        drop_path: stochastic depth of the last encoder; it grows linearly from 0. Paper: 0.01.
        tokens: channels | patches: see `ir50.to_tokens`. Paper: patches.
        token_mixing: a 1x1 convolution across tokens behind each cross-fusion encoder. Paper, and code for AffectNet:
            none.
        query_projection: W_Q of Equations 5 and 6 in cross-fusion; vanilla encoders (Equation 1) always have it.
            Paper: yes.
        pre_norm: LayerNorm in front of attention. Paper: not in Equations 3, 9, 11.
        squeeze_excitation: gate in front of the classifier. Paper: none.
        released_extras: also hold the parameters that the released files have and nothing uses: IR-50's face
            recognition head (if there is an image stream) and a class token.
        landmark: mobilefacenet | onet, the frozen landmark net.
        landmark_batch_statistics: let the landmark net's BatchNorm use and track the statistics of training batches.
            Its weights stay frozen. Paper: "all of the weights frozen".
        sam_rho: radius of sharpness-aware minimisation, 0 for the plain optimizer; the training reads it.
        inner_size: pixels both backbones see; images of another size are shrunk or grown to it. Like ir_width, ir_units
            (of IR-50's three stages) and landmark_width, only scaled-down runs change it.
    """

    of: ClassVar[str] = "poster"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "streams": ("both", "landmark", "image"),
        "tokens": ("channels", "patches"),
        "landmark": ("mobilefacenet", "onet"),
    }
    least: ClassVar[Mapping[str, float]] = {
        "depth": 1, "dims": 1, "heads": 1, "mlp_ratio": 0, "drop_path": 0, "sam_rho": 0, "inner_size": 16,
        "ir_width": 1, "ir_units": 1, "landmark_width": 1,
    }  # fmt: skip

    streams: str = "both"
    cross_fusion: bool = True
    pyramid: bool = True
    depth: int = 8
    dims: tuple[int, int, int] = (512, 256, 128)
    heads: int = 8
    mlp_ratio: float = 2.0
    drop_path: float = 0.1
    tokens: str = "channels"
    token_mixing: bool = True
    query_projection: bool = False
    pre_norm: bool = True
    squeeze_excitation: bool = True
    released_extras: bool = True
    landmark: str = "mobilefacenet"
    landmark_batch_statistics: bool = True
    sam_rho: float = 0.05
    inner_size: int = 112
    ir_width: int = 64
    ir_units: tuple[int, int, int] = (3, 4, 14)
    landmark_width: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop_path >= 1:
            raise UserError(f"drop_path of poster is {self.drop_path}: nothing would be left", "give less than 1")
        if self.cross_fusion and self.streams != "both":
            raise UserError("cross-fusion needs both streams", "set streams to both, or cross_fusion to false")
        if self.inner_size % 16:
            raise UserError(f"inner_size {self.inner_size} is not a multiple of 16", "the released code has 112")
        wide, middle, narrow = self.dims
        example = "the paper has 512, 256, 128 and the released code 8 heads"
        if not wide > middle > narrow:
            raise UserError(f"dims {shown(self.dims)} of poster do not decrease", example)
        if wide % middle or middle % narrow or narrow % self.heads:
            raise UserError(f"dims {shown(self.dims)} do not divide each other and by {self.heads} heads", example)
        if narrow * self.mlp_ratio < 1:
            raise UserError(f"mlp_ratio {self.mlp_ratio} leaves no hidden unit at width {narrow}", "the paper has 2")

    @property
    def token_count(self) -> int:
        """P, tokens of one stream without its class token: 49."""
        return (self.inner_size // 16) ** 2

    @property
    def levels(self) -> tuple[tuple[str, int], ...]:
        """Names and token widths of the levels in use, widest first."""
        return tuple(zip(LEVELS, self.dims, strict=True))[: len(LEVELS) if self.pyramid else 1]
