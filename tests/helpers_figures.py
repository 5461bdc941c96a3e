"""Small networks and random faces for tests of figures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from bench import declare
from bench.data.pixel_file import PixelFile
from bench.figure import Faces, Scale

CLASSES = ("neutral", "happiness", "surprise")
PROTOCOL = declare.Protocol(id="toy-3", dataset="synthfer", classes=CLASSES, rule="none", synthetic=True)
SCALE = Scale((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "rgb")
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


def toy_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Thirty-three test images behind ten training images in a pixel file, in another order than the index.

    From now on they are the data of every protocol; the cache is empty.

    Returns:
        The test images in the index's order, uint8 (33, 20, 20, 3).
    """
    pixels = np.random.default_rng(0).integers(0, 256, (43, 20, 20, 3), dtype=np.uint8)
    (tmp_path / "pixels.u8").write_bytes(pixels.tobytes())
    rows = np.random.default_rng(1).permutation(43)
    index = pd.DataFrame({
        "name": [f"{i}.png" for i in range(43)],
        "label": [CLASSES[i % 3] for i in range(43)],
        "split": ["train"] * 10 + ["test"] * 33,
    })  # fmt: skip
    data = SimpleNamespace(index=index, rows=rows, pixels=PixelFile(tmp_path / "pixels.u8", pixels.shape).map())
    monkeypatch.setattr("bench.data.source.open_data", lambda *_, **__: data)
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    return pixels[rows[10:]]


def is_whole_picture(path: Path) -> bool:
    """A PNG up to its last chunk, and no unfinished file beside it."""
    data = path.read_bytes()
    return data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82") and not list(path.parent.glob(".*"))
