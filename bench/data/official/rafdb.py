"""RAF-DB, basic expressions, as its authors lay it out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data.classes import ORDERS
from bench.data.official import pictures, ran_lists
from bench.data.official.tree import Tree, cast, declared, in_blocks, spread, write_file
from bench.data.synthfer.sample import images

SMALL = 0.05
BLOCK = 256
DRAWN = 80  # pixels a side in which an original is drawn, before it is enlarged


class RAFDB(Tree):
    """EmoLabel/list_patition_label.txt, Image/aligned (100x100) and Image/original (larger pictures of the same)."""

    bytes_each = 16_500
    files_each = 2

    def __init__(self, like_counts: bool, seed: int) -> None:
        super().__init__(like_counts, seed)
        counts = declared("raf-db-7", 1.0 if like_counts else SMALL)
        labels = {split: spread(classes, "rafdb", split, seed) for split, classes in counts.items()}
        self.cast = cast("rafdb", "rafdb", labels, seed)
        self.labels = labels
        self.blocks = in_blocks({split: len(names) for split, names in labels.items()}, BLOCK)

    def begin(self, root: Path) -> None:
        for folder in ("EmoLabel", "Image/aligned", "Image/original"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        rows = [
            f"{name_of(split, row)}.jpg {ORDERS['raf'].index(label) + 1}"
            for split, names in self.labels.items()
            for row, label in enumerate(names)
        ]
        write_file(root / "EmoLabel/list_patition_label.txt", "\n".join(rows).encode())
        if self.like_counts:
            test = {name_of("test", row): label for row, label in enumerate(self.labels["test"])}
            ran_lists.write_lists(root, "rafdb", test, ran_lists.chosen("rafdb", test, self.seed))

    def write(self, root: Path, block: int) -> None:
        split, rows = self.blocks[block]
        numbers = np.array(rows) + self.cast.first[split]
        known = self.cast.facts(numbers)
        originals = pictures.wide(known, DRAWN, f"rafdb/{self.seed}", (1.5, 4.0))
        for row, face, original in zip(rows, images(known), originals, strict=True):
            name = name_of(split, row)
            write_file(root / f"Image/aligned/{name}_aligned.jpg", pictures.jpeg(face))
            write_file(root / f"Image/original/{name}.jpg", pictures.jpeg(original.picture))


def name_of(split: str, row: int) -> str:
    """Official stem of a picture; train has five digits, test four."""
    return f"train_{row + 1:05d}" if split == "train" else f"test_{row + 1:04d}"
