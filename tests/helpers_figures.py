"""Small networks and random faces for tests of figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.figure import Faces

CLASSES = ("neutral", "happiness", "surprise")
SMALL = {  # options of POSTER
    "inner_size": 64, "ir_width": 4, "ir_units": (1, 1, 1), "landmark_width": 4, "dims": (16, 8, 4), "heads": 2,
    "depth": 2, "released_extras": False,
}  # fmt: skip


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def faces(count: int, shape: tuple[int, ...] = (20, 20, 3)) -> Faces:
    """Random faces, every class in turn."""
    pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    inputs = images(count)
    labels = np.arange(count) % len(CLASSES)
    return Faces(CLASSES, labels, lambda at: pixels[at], lambda title, at: inputs[at], "Ours: mine.", True)


def is_whole_picture(path: Path) -> bool:
    """A PNG up to its last chunk, and no unfinished file beside it."""
    data = path.read_bytes()
    return data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82") and not list(path.parent.glob(".*"))
