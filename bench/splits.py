"""A run's images and labels: all on the device where they fit, else read from the cache batch by batch."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.data.pixel_file import Mapped, PixelFile
from bench.data.source import Data
from bench.declare import Protocol
from bench.method import Front

RESIDENT_BYTES = 4 << 30  # images a CPU job keeps in memory; more are read batch by batch, to the same result
LOAD_BYTES = 64 << 20


@dataclass(frozen=True)
class Split:
    """Images of one split and their labels, on the device.

    Attributes:
        labels: class indices, int64 (N,); of a stage, its protocol's targets, float32 (N, ...) or int64 (N,).
        images: uint8 (N, H, W) or (N, H, W, 3) on the device, or the file to read them from, batch by batch, where they
            do not fit.
        rows: int64 (N,), where the split's images are in that file.
        front: what every batch of these images goes through ahead of augmentation; None where nothing does, or where
            that has been done once for all of them (bench/data/derived.py).
    """

    images: Tensor | PixelFile
    labels: Tensor
    rows: np.ndarray | None = None
    front: Front | None = None

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def batches(self, order: Tensor, size: int, first: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Images and labels on the device, `size` at a time.

        Args:
            order: int64 (k,) on the CPU, positions within the split.
            first: batches to leave out at the beginning.
        """
        on_device = order.to(self.labels.device)
        places = [slice(start, start + size) for start in range(first * size, len(order), size)]
        if isinstance(self.images, PixelFile):
            assert self.rows is not None
            wanted = [self.rows[order[place].numpy()] for place in places]
            for place, images in zip(places, _read_ahead(self.images, wanted, self.labels.device), strict=True):
                yield images, self.labels[on_device[place]]
        else:
            for place in places:
                yield self.images[on_device[place]], self.labels[on_device[place]]


def _read_ahead(file: PixelFile, wanted: Sequence[np.ndarray], device: torch.device) -> Iterator[Tensor]:
    """Images of each array of rows, on the device; a thread reads the next ones while these are used."""

    def read(rows: np.ndarray) -> Tensor:
        shape = (len(rows), *file.shape[1:])
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")  # pinned: copied in parallel
        file.read(rows, into=images.numpy())
        return images

    with ThreadPoolExecutor(1) as thread:
        ahead: Future[Tensor] | None = None
        for rows in [*wanted, None]:
            ready, ahead = ahead, None if rows is None else thread.submit(read, rows)
            if ready is not None:
                yield ready.result().to(device, non_blocking=True)


def labels_of(data: Data, protocol: Protocol) -> np.ndarray:
    """What each index row is to be answered with: the protocol's targets, else the class; 0 where there are none."""
    if data.targets is not None:
        return data.targets
    if not protocol.classes:
        return np.zeros(len(data.index), np.int64)
    index_of = {name: i for i, name in enumerate(protocol.classes)}
    return data.index["label"].map(index_of).to_numpy(np.int64)  # type: ignore[no-any-return]


def load(
    data: Data, labels: np.ndarray, rows: Mapping[str, np.ndarray], device: torch.device, front: Front | None = None
) -> dict[str, Split]:
    """Images and labels of every split.

    Args:
        labels: of every row of the data's index, as `labels_of` gives them.
        rows: split -> rows of the index.
        front: what every batch of the images goes through; see `Split`.
    """
    assert isinstance(data.pixels, Mapped)
    file = data.pixels.file
    needed = sum(len(at) for at in rows.values()) * file.row_bytes
    resident = needed <= room(device)
    if not resident:
        print(f"{needed / 2**30:.1f} GiB of images do not fit: they are read from {file.path} batch by batch")
    return {
        name: Split(
            _load(file, data.rows[at], device) if resident else file,
            torch.from_numpy(labels[at]).to(device),
            None if resident else data.rows[at],
            front,
        )
        for name, at in rows.items()
    }


def _load(file: PixelFile, rows: np.ndarray, device: torch.device) -> Tensor:
    """Images of `rows` on the device, read in pieces: those on a GPU never lie in main memory all at once."""
    images = torch.empty((len(rows), *file.shape[1:]), dtype=torch.uint8, device=device)
    count = max(1, LOAD_BYTES // file.row_bytes)
    for start in range(0, len(rows), count):
        images[start : start + count] = torch.from_numpy(file.read(rows[start : start + count]))
    return images


def room(device: torch.device) -> int:
    """Bytes that images may take: half of a GPU's free memory; else RESIDENT_BYTES, on small machines less."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return min(RESIDENT_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
