"""AffectNet, the release of 2017: full pictures with face boxes, and lists of all manually annotated ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from bench.data.classes import ORDERS
from bench.data.official import pictures, ran_lists
from bench.data.official.affect import affect
from bench.data.official.tree import (
    Tree,
    cast,
    declared,
    in_blocks,
    join_parts,
    link_file,
    part,
    shuffled,
    some,
    spread,
    write_file,
)

IMAGES, LISTS = "Manually_Annotated_Images", "Manually_Annotated_file_lists"
TABLES = {"train": "training.csv", "test": "validation.csv"}
HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n"
# ids 8, 9, 10: None, Uncertain, No-Face
WITHOUT = {"train": (33_088, 11_645, 82_415), "test": (500, 500, 500)}
SMALL = {"train": 0.005, "test": 0.05}
IN_FOLDER = 400  # pictures in a numbered folder
BLOCK = 512
DRAWN = 80  # pixels a side in which a picture is drawn, before it is enlarged
UNRATED = -2.0  # valence and arousal where there is no expression


class AffectNetA(Tree):
    """Manually_Annotated_file_lists and Manually_Annotated_Images/<number>/<56 hex digits>.jpg.

    A row is (split, row of the table). Rows without an expression show no face: one picture a block, under many names.
    """

    bytes_each = 14_500

    def __init__(self, like_counts: bool, seed: int) -> None:
        super().__init__(like_counts, seed)
        share = {"train": 1.0, "test": 1.0} if like_counts else SMALL
        counts = declared("affectnet-8@4000", share)
        labels = {split: spread(classes, "affectnet-a", split, seed) for split, classes in counts.items()}
        self.cast = cast("affectnet-a", "affectnet8", labels, seed)
        self.faces = {split: len(names) for split, names in labels.items()}
        self.without = {split: [some(n, share[split]) for n in numbers] for split, numbers in WITHOUT.items()}
        totals = {split: n + sum(self.without[split]) for split, n in self.faces.items()}
        # row -> face of the split; numbers beyond the faces are rows without an expression
        self.shown = {s: np.array(shuffled(n, "rows", "affectnet-a", s, seed)) for s, n in totals.items()}
        self.blocks = in_blocks(totals, BLOCK)

    def begin(self, root: Path) -> None:
        (root / LISTS).mkdir(parents=True, exist_ok=True)
        (root / IMAGES).mkdir(exist_ok=True)
        if self.like_counts:
            labels = {
                self._stem("test", row): self.cast.label(self.cast.first["test"] + number)
                for row, number in enumerate(self.shown["test"].tolist())
                if number < self.faces["test"]
            }
            ran_lists.write_lists(root, "affectnet", labels, ran_lists.chosen("affectnet", labels, self.seed))

    def write(self, root: Path, block: int) -> None:
        split, rows = self.blocks[block]
        for folder in {self._folder(split, row) for row in rows}:
            (root / IMAGES / folder).mkdir(exist_ok=True)
        shown = self.shown[split][rows.start : rows.stop]
        with_face = shown < self.faces[split]
        lines = dict(self._with_face(root, split, np.array(rows)[with_face], shown[with_face]))
        lines |= self._without_face(root, split, np.array(rows)[~with_face], shown[~with_face], block)
        text = "".join(lines[row] for row in rows)
        write_file(part(root, TABLES[split], block), text.encode())

    def finish(self, root: Path) -> None:
        for split, table in TABLES.items():
            blocks = [k for k, (other, _) in enumerate(self.blocks) if other == split]
            header = HEADER if split == "train" else ""  # the validation list is published without one
            join_parts(root, table, blocks, root / LISTS / table, header.encode())

    def _with_face(self, root: Path, split: str, rows: np.ndarray, shown: np.ndarray) -> dict[int, str]:
        """Write the pictures; returns the line of each row."""
        numbers = shown + self.cast.first[split]
        known = self.cast.facts(numbers)
        made = pictures.wide(known, DRAWN, f"affectnet-a/{self.seed}", (2.0, 4.0))
        rated = affect(known.label, known.intensity)
        lines = {}
        for row, one, label, (valence, arousal) in zip(rows.tolist(), made, known.label, rated, strict=True):
            name = self._name(split, row)
            encode = pictures.png if name.endswith(".png") else pictures.jpeg
            write_file(root / IMAGES / name, encode(one.picture))
            lines[row] = line(name, one.box, one.points, ORDERS["affectnet"].index(label), valence, arousal)
        return lines

    def _without_face(self, root: Path, split: str, rows: np.ndarray, shown: np.ndarray, block: int) -> dict[int, str]:
        edges = self.faces[split] + np.cumsum(self.without[split])
        ids = len(ORDERS["affectnet"]) + np.searchsorted(edges, shown, side="right")
        lines: dict[int, str] = {}
        first: Path | None = None
        points = np.full((68, 2), 80.0)
        for row, number in zip(rows.tolist(), ids.tolist(), strict=True):
            name = self._name(split, row, only_jpeg=True)
            if first is None:
                first = root / IMAGES / name
                picture = pictures.blank(200, 160, True, "affectnet-a", self.seed, block)
                write_file(first, pictures.jpeg(picture))
            else:
                link_file(first, root / IMAGES / name)
            lines[row] = line(name, (40, 40, 80, 80), points, number, UNRATED, UNRATED)
        return lines

    def _stem(self, split: str, row: int) -> str:
        return hashlib.sha224(f"affectnet-a/{self.seed}/{split}/{row}".encode()).hexdigest()

    def _folder(self, split: str, row: int) -> str:
        before = 0 if split == "train" else len(self.shown["train"])
        return str((before + row) // IN_FOLDER + 1)

    def _name(self, split: str, row: int, only_jpeg: bool = False) -> str:
        """Folder and file; a few files have other suffixes, as the published ones do."""
        stem = self._stem(split, row)
        suffix = {"00": ".JPG", "01": ".jpeg", "02": ".png"}.get(stem[:2], ".jpg")
        if only_jpeg and suffix == ".png":
            suffix = ".jpg"
        return f"{self._folder(split, row)}/{stem}{suffix}"


def line(
    name: str, box: tuple[int, int, int, int], points: np.ndarray, number: int, valence: float, arousal: float
) -> str:
    """One row of a list; landmarks (68, 2) in pixels."""
    marks = ";".join([f"{value:.2f}" for value in points.ravel().tolist()])
    return f"{name},{','.join(map(str, box))},{marks},{number},{valence:.6g},{arousal:.6g}\n"
