"""Images that a front makes of the stored ones, computed once and kept as pixels of their own (bench.method.Front).

They lie in the decode cache beside the images they were made of and are built, continued, locked and checked as those
are (bench/data/cache.py). Their name is made of what they are: the front, the pixels it was given, and which images.
So all runs that need the same images (seeds, folds, losses) share one file, and whatever changes makes another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bench.data.cache import open_pixels
from bench.data.pixel_file import Mapped, PixelFile
from bench.data.source import Data
from bench.declare import Protocol
from bench.errors import UserError
from bench.loop import as_float
from bench.method import Front


def prepared(
    data: Data, protocol: Protocol, wanted: np.ndarray, front: Front, device: torch.device, cache_root: Path,
    told: Callable[[int, int], None] = lambda done, images: None,
) -> Data:  # fmt: skip
    """The data with the images that the front makes of its own, computed now if they are not in `cache_root`.

    Args:
        wanted: rows of the index whose images are needed; no other has one in what is returned (its place is -1).
        told: called with the images done and their number: at the beginning, after every batch, and now and then while
            another process computes them. What it raises ends the work; the next call goes on from there.

    Raises:
        UserError: the front gives no image, or the cache folder cannot hold the result.
    """
    assert isinstance(data.pixels, Mapped)
    unique = np.unique(wanted)
    at = unique[np.argsort(data.rows[unique], kind="stable")]  # in the order in which the originals are stored
    made = _Made(data, protocol, at, front, device, told)
    told(0, len(at))
    pixels = open_pixels(made, cache_root, waited=lambda: told(0, len(at)))
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what the front worked in is room for images now
    rows = np.full(len(data.index), -1, np.int64)
    rows[at] = np.arange(len(at))
    return replace(data, pixels=pixels.array, rows=rows)


def rounding(front: Front) -> Front:
    """The front computed for each batch, to the same numbers as where its images are kept: rounded to 8 bits.

    No more of them at a time than there, as they may need gigabytes each.
    """

    def apply(images: Tensor) -> Tensor:
        parts = [images[start : start + front.batch] for start in range(0, len(images), front.batch)]
        return torch.cat([as_float(to_bytes(front.apply(part))) for part in parts])

    return replace(front, apply=apply)


def to_bytes(images: Tensor) -> Tensor:
    """Float (B, C, H, W) in [0, 1], C 1 or 3, rounded to stored pixels: uint8 (B, H, W) or (B, H, W, 3).

    Raises:
        UserError: it is not that, or not finite.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"a front gives arrays of {tuple(images.shape)}, not images", "correct the method's front")
    if not bool(torch.isfinite(images).all()):
        raise UserError("a front gives pixels that are not finite", "correct the method's front, or its weights")
    stored = images.clamp(0, 1).mul(255).round().to(torch.uint8)
    return stored[:, 0] if stored.shape[1] == 1 else stored.permute(0, 2, 3, 1).contiguous()


@dataclass
class _Made:
    """Images of one front, as the decode cache asks a dataset for its own.

    Attributes:
        at: int64 (N,), rows of the data's index, in storage order.
    """

    data: Data
    protocol: Protocol
    at: np.ndarray
    front: Front
    device: torch.device
    told: Callable[[int, int], None]
    root: ClassVar[Path | None] = None
    skip_bad: ClassVar[bool] = False
    doing: ClassVar[str] = "preparing"

    @property
    def decode(self) -> Mapping[str, Any]:
        return {"front": self.front.once}

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, 3): what becomes of the first image."""
        return self._batch(0, 1).shape[1:] if len(self.at) else (0, 0)

    @property
    def storage(self) -> str:
        what = "\n".join([self.fingerprint(), *self.names()])
        return f"{self.protocol.dataset}-front-{hashlib.sha256(what.encode()).hexdigest()[:12]}"

    def fingerprint(self) -> str:
        given = [self.front.once, self.data.pixels_sha256, str(self.data.pixels.shape[1:])]
        return hashlib.sha256("\n".join(given).encode()).hexdigest()

    def names(self) -> list[str]:
        return list(self.data.index["name"].iloc[self.at])

    def decoded(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        """The last images, as many as `names`; in the batches in which all of them are computed."""
        first, size = len(self.at) - len(names), self.front.batch
        for start in range(first // size * size, len(self.at), size):
            yield from self._batch(start, size)[max(0, first - start) :]
            self.told(min(start + size, len(self.at)), len(self.at))

    def _batch(self, start: int, size: int) -> np.ndarray:
        """Images from position `start` on, uint8 (k, H, W) or (k, H, W, 3)."""
        file: PixelFile = self.data.pixels.file  # type: ignore[attr-defined]
        stored = torch.from_numpy(file.read(self.data.rows[self.at[start : start + size]]))
        with torch.inference_mode():
            return to_bytes(self.front.apply(as_float(stored.to(self.device)))).cpu().numpy()
