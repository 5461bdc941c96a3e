"""POSTER's networks at test size and at published size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from methods.poster.model import POSTER
from methods.poster.options import Options

SMALL: dict[str, Any] = {
    "depth": 2, "dims": [32, 16, 8], "heads": 2, "inner_size": 32, "ir_width": 8, "ir_units": [1, 1, 1],
    "landmark_width": 8,
}  # fmt: skip
PAPER: dict[str, Any] = {
    "tokens": "patches", "token_mixing": False, "query_projection": True, "pre_norm": False,
    "squeeze_excitation": False, "released_extras": False, "landmark_batch_statistics": False,
}  # fmt: skip
STEPS: dict[str, dict[str, Any]] = {  # Table 4
    "landmark": {"streams": "landmark", "cross_fusion": False, "pyramid": False},
    "image": {"streams": "image", "cross_fusion": False, "pyramid": False},
    "baseline": {"cross_fusion": False, "pyramid": False},
    "pyramid": {"cross_fusion": False},
    "cross-fusion": {"pyramid": False},
    "poster": {},
}


def full(**options: Any) -> POSTER:
    """A network of published size for seven classes, without memory for its numbers."""
    with torch.device("meta"):
        return POSTER(7, Options.parse(options))


def small(**options: Any) -> POSTER:
    torch.manual_seed(0)
    return POSTER(7, Options.parse(SMALL | options))


def faces(count: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))
