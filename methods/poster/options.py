"""What an experiment may choose of POSTER's network: the released code, the paper's text, and the steps of Table 4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bench.errors import UserError, unknown

LEVELS = ("large", "medium", "small")  # of the pyramid, section 3.2; they differ in the width of a token
CHOICES = {
    "streams": ("both", "landmark", "image"),
    "tokens": ("channels", "patches"),
    "landmark": ("mobilefacenet", "onet"),
}
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", tuple: "three whole numbers"}
# The smallest value of numbers, of each where there are several.
LEAST = {
    "depth": 1, "dims": 1, "heads": 1, "mlp_ratio": 0, "drop_path": 0, "sam_rho": 0, "inner_size": 16, "ir_width": 1,
    "ir_units": 1, "landmark_width": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Options:
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
        for field in fields(self):
            _refuse_other_kinds(field.name, getattr(self, field.name), field.default)
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown(f"{name} of poster", getattr(self, name), known)
        for name, least in LEAST.items():
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) < least:
                raise UserError(f"{name} of poster is {_shown(value)}, less than {least}")
        if self.drop_path >= 1:
            raise UserError(f"drop_path of poster is {self.drop_path}: nothing would be left", "give less than 1")
        if self.cross_fusion and self.streams != "both":
            raise UserError("cross-fusion needs both streams", "set streams to both, or cross_fusion to false")
        if self.inner_size % 16:
            raise UserError(f"inner_size {self.inner_size} is not a multiple of 16", "the released code has 112")
        wide, middle, narrow = self.dims
        example = "the paper has 512, 256, 128 and the released code 8 heads"
        if not wide > middle > narrow:
            raise UserError(f"dims {_shown(self.dims)} of poster do not decrease", example)
        if wide % middle or middle % narrow or narrow % self.heads:
            raise UserError(f"dims {_shown(self.dims)} do not divide each other and by {self.heads} heads", example)
        if narrow * self.mlp_ratio < 1:
            raise UserError(f"mlp_ratio {self.mlp_ratio} leaves no hidden unit at width {narrow}", "the paper has 2")

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Options:
        """Options from declared plain values; an unknown name lists the nearest ones."""
        known = {field.name for field in fields(cls)}
        for name in options:
            if name not in known:
                raise unknown("option of poster", name, known)
        lists = {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
        return cls(**{**options, **lists})

    @property
    def token_count(self) -> int:
        """P, tokens of one stream without its class token: 49."""
        return (self.inner_size // 16) ** 2

    @property
    def levels(self) -> tuple[tuple[str, int], ...]:
        """Names and token widths of the levels in use, widest first."""
        return tuple(zip(LEVELS, self.dims, strict=True))[: len(LEVELS) if self.pyramid else 1]


def _refuse_other_kinds(name: str, value: Any, default: Any) -> None:
    """Raise unless a value is of its default's kind. A whole number may stand for a number; true and false may not."""
    kind = type(default)
    if kind is tuple:
        right = isinstance(value, tuple) and len(value) == len(default) and all(type(part) is int for part in value)
    elif kind is float:
        right = type(value) in (int, float) and math.isfinite(value)
    else:
        right = type(value) is kind
    if not right:
        raise UserError(f"{name} of poster is {_shown(value)}, not {KINDS[kind]}", f"the default is {_shown(default)}")


def _shown(value: Any) -> str:
    """A value as YAML would have it, more or less."""
    return f"[{', '.join(map(repr, value))}]" if isinstance(value, tuple) else repr(value)
