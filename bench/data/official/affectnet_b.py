"""AffectNet, the release of 2021: face crops of 224 pixels with four npy files each."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from bench.data.classes import ORDERS
from bench.data.official import pictures
from bench.data.official.affect import affect
from bench.data.official.tree import Tree, cast, declared, in_blocks, spread, write_file
from bench.data.synthfer.sample import images, landmarks

FOLDERS = {"train": "train_set", "test": "val_set"}
SMALL = {"train": 0.005, "test": 0.05}
SIZE = 224
BLOCK = 512


class AffectNetB(Tree):
    """train_set and val_set, each with images/<number>.jpg and annotations/<number>_{exp,val,aro,lnd}.npy."""

    bytes_each = 9_900 + 4 * 4_096
    files_each = 5

    def __init__(self, like_counts: bool, seed: int) -> None:
        super().__init__(like_counts, seed)
        counts = declared("affectnet-8@3999", 1.0 if like_counts else SMALL)
        labels = {split: spread(classes, "affectnet-b", split, seed) for split, classes in counts.items()}
        self.cast = cast("affectnet-b", "affectnet8", labels, seed)
        self.blocks = in_blocks({split: len(names) for split, names in labels.items()}, BLOCK)

    def begin(self, root: Path) -> None:
        for folder in FOLDERS.values():
            for kind in ("images", "annotations"):
                (root / folder / kind).mkdir(parents=True, exist_ok=True)

    def write(self, root: Path, block: int) -> None:
        split, rows = self.blocks[block]
        numbers = np.array(rows) + self.cast.first[split]
        known = self.cast.facts(numbers)
        scale = SIZE / self.cast.variant.size
        points = (landmarks(known).astype(np.float64) + 0.5) * scale - 0.5
        folder = root / FOLDERS[split]
        rated = affect(known.label, known.intensity)
        for row, face, marks, label, (valence, arousal) in zip(
            rows, images(known), points, known.label, rated, strict=True
        ):
            name = name_of(row)
            write_file(f"{folder}/images/{name}.jpg", pictures.jpeg(pictures.resized(face, SIZE, SIZE)))
            start = f"{folder}/annotations/{name}"
            write_file(f"{start}_exp.npy", text_npy(str(ORDERS["affectnet"].index(label))))
            write_file(f"{start}_val.npy", text_npy(f"{valence:.6g}"))
            write_file(f"{start}_aro.npy", text_npy(f"{arousal:.6g}"))
            write_file(f"{start}_lnd.npy", npy_header("<f8", (marks.size,)) + marks.tobytes())


def name_of(row: int) -> str:
    """The published numbers have gaps: those of the pictures that show no expression."""
    return str(row * 3 // 2)


def text_npy(text: str) -> bytes:
    """An npy file of one string, as the published labels are: loaders cast it."""
    return npy_header(f"<U{len(text)}", ()) + text.encode("utf-32-le")


@lru_cache(maxsize=64)
def npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    """The first bytes of an npy file, version 1.0; put together here because np.save costs as much as the picture."""
    words = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    padding = -(10 + len(words) + 1) % 64
    length = (len(words) + padding + 1).to_bytes(2, "little")
    return b"\x93NUMPY\x01\x00" + length + words.encode() + b" " * padding + b"\n"
