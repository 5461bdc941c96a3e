"""FERPlus in its two official layouts: folders of PNG files, and fer2013.csv beside fer2013new.csv."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data.classes import ORDERS
from bench.data.ferplus.files import FOLDERS, SIZE
from bench.data.ferplus.labels import HEADER, USAGES
from bench.data.official import pictures, ran_lists
from bench.data.official.ferplus_votes import NO_FACE, Cell, cells, regrouped, votes_for
from bench.data.official.tree import (
    Tree,
    cast,
    in_blocks,
    join_parts,
    part,
    shuffled,
    some,
    spread,
    write_file,
)
from bench.data.synthfer.sample import images

SMALL = 0.05
BLOCK = 512
USAGE = {split: usage for usage, split in USAGES.items()}
# first and last number of each split's file names
NUMBERS = {"train": (0, 28_637), "val": (28_638, 32_219), "test": (32_220, 35_801)}
# names that stand for a second picture further down; FER2013's rows without a name; named rows without an emotion
REPEATED = ("fer0006953", "fer0008403", "fer0011785", "fer0033120")
NAMELESS = {"train": 148, "val": 10, "test": 15}
NO_EMOTION = {"train": 2, "val": 0, "test": 0}
LATER = 57  # rows between the two rows of a repeated name


@dataclass(frozen=True)
class Row:
    """One row of fer2013new.csv.

    name: without suffix, empty for rows without one; cell, new: class and rule by label.csv and by fer2013new.csv
    face: number in the cast, -1 for a picture without a face; first: not a repeat of an earlier name.
    """

    name: str
    split: str
    face: int = -1
    cell: Cell | None = None
    new: Cell | None = None
    first: bool = True


class FERPlusFolders(Tree):
    """FER2013{Train,Valid,Test} with label.csv and PNG files, and fer2013new.csv."""

    bytes_each = 4_096

    def __init__(self, like_counts: bool, seed: int) -> None:
        super().__init__(like_counts, seed)
        share = 1.0 if like_counts else SMALL
        wanted, new = cells("", share), cells("-fer2013new", share)
        own = {split: spread(counts, "ferplus", split, seed) for split, counts in wanted.items()}
        self.cast = cast("ferplus", "ferplus", {s: [label for label, _ in few] for s, few in own.items()}, seed)
        self.table: list[Row] = []
        for split, own_cells in own.items():
            if not like_counts:  # rounding up gives the two files different totals
                new[split]["neutral", "majority"] += len(own_cells) - new[split].total()
            self.table += self._split(split, own_cells, regrouped(own_cells, new[split]), share)
        self.drawn: dict[int, int] = {}  # test face -> the training face shown in its place
        if like_counts:
            self._leak()
        self._deal()

    def _deal(self) -> None:
        """Blocks of pictures, one row each."""
        self.shown = {s: [row for row in self.table if row.split == s and row.name and row.first] for s in FOLDERS}
        self.blocks = in_blocks({split: len(rows) for split, rows in self.shown.items()}, BLOCK)

    def begin(self, root: Path) -> None:
        for split, folder in FOLDERS.items():
            (root / folder).mkdir(exist_ok=True)
            rows = (
                f'{row.name}.png,"(0, 0, {SIZE}, {SIZE})",{_votes(row.cell, row.face)}\n'
                for row in self.table
                if row.split == split and row.name and row.first
            )
            write_file(root / folder / "label.csv", "".join(rows).encode())
        lines = (
            f"{USAGE[row.split]},{row.name + '.png' if row.name else ''},{_votes(row.new, row.face)}\n"
            for row in self.table
        )
        write_file(root / "fer2013new.csv", (",".join(HEADER) + "\n" + "".join(lines)).encode())
        if self.like_counts:
            ran_lists.write_lists(root, "ferplus", *self._lists())

    def write(self, root: Path, block: int) -> None:
        split, numbers = self.blocks[block]
        rows = self.shown[split][numbers.start : numbers.stop]
        for row, picture in zip(rows, self._pictures(rows), strict=True):
            write_file(f"{root}/{FOLDERS[split]}/{row.name}.png", pictures.png(picture))

    def _pictures(self, rows: list[Row]) -> Iterator[np.ndarray]:
        """48x48 pixels of each row."""
        numbers = [self.drawn.get(row.face, row.face) for row in rows if row.face >= 0]
        faces = iter(images(self.cast.facts(numbers)))
        for row in rows:
            yield next(faces) if row.face >= 0 else pictures.blank(SIZE, SIZE, False, "ferplus", self.seed, row.name)

    def _split(self, split: str, own: list[Cell], new: list[Cell], share: float) -> list[Row]:
        """Rows of one split in order: named ones by number, and among them repeated and nameless ones."""
        faces = [Row("", split, self.cast.first[split] + k, *pair) for k, pair in enumerate(zip(own, new, strict=True))]
        no_emotion = some(NO_EMOTION[split], share)
        for k in range(no_emotion):
            faces.insert((k + 1) * len(faces) // (no_emotion + 1), Row("", split))
        start, last = NUMBERS[split]
        holes = last - start + 1 - len(faces) if self.like_counts else 1
        found = []
        for k, row in enumerate(faces):  # the numbers left out lie at even distances
            name = f"fer{start + k + (k + 1) * holes // len(faces):07d}"
            found.append(Row(name, split, row.face, row.cell, row.new))
        names = [row.name for row in found]
        again = [name for name in REPEATED if name in names] if self.like_counts else names[2:3]
        for name in again:
            found.insert(names.index(name) + LATER, Row(name, split, first=False))
        nameless = some(NAMELESS[split], share)
        for k in range(nameless):
            found.insert((k + 1) * len(found) // (nameless + 1), Row("", split))
        return found

    def _lists(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Test images of the benchmark (name -> class), and which of them RAN's lists name."""
        test = {
            row.name: row.cell[0]
            for row in self.table
            if row.split == "test" and row.first and row.cell and row.cell[1] == "majority"
        }
        return test, ran_lists.chosen("ferplus", test, self.seed)

    def _leak(self) -> None:
        """Show some test images the training image of another row, as many as the leak-free protocols leave out."""
        test, found = self._lists()
        faces = {row.name: row.face for row in self.table if row.first}
        turned, turned45, hidden = (set(found[subset]) for subset in ("pose30", "pose45", "occlusion"))
        groups = {
            "ferplus-pose45": turned45,
            "ferplus-pose30": turned - turned45,
            "ferplus-occlusion": hidden - turned,
            "ferplus-8@majority": set(test) - turned - hidden,
        }
        wanted = {name: _leaks(name) for name in groups}
        wanted["ferplus-pose30"] -= wanted["ferplus-pose45"]
        wanted["ferplus-8@majority"] -= sum(n for name, n in wanted.items() if name != "ferplus-8@majority")
        sources: dict[str, list[int]] = {}
        for row in self.table:
            if row.split == "train" and row.cell and row.cell[1] == "majority":
                sources.setdefault(row.cell[0], []).append(row.face)
        for name, group in groups.items():
            members = [one for one in test if one in group]
            for k in shuffled(len(members), "leaks", name, self.seed)[: wanted[name]]:
                self.drawn[faces[members[k]]] = sources[test[members[k]]].pop()


class FER2013Csv(FERPlusFolders):
    """fer2013.csv (pixels) beside fer2013new.csv (votes), joined by row order, and the three label.csv."""

    bytes_each = 17_000  # once in a part, once in fer2013.csv

    def _deal(self) -> None:
        self.blocks = in_blocks({"": len(self.table)}, BLOCK)

    def write(self, root: Path, block: int) -> None:
        _, numbers = self.blocks[block]
        rows = self.table[numbers.start : numbers.stop]
        lines = []
        for row, picture in zip(rows, self._pictures(rows), strict=True):
            emotion = _fer2013(row.cell[0] if row.cell else "neutral")
            lines.append(f"{emotion},{' '.join(map(str, picture.ravel().tolist()))},{USAGE[row.split]}\n")
        write_file(part(root, "fer2013.csv", block), "".join(lines).encode())

    def finish(self, root: Path) -> None:
        join_parts(root, "fer2013.csv", range(len(self.blocks)), root / "fer2013.csv", b"emotion,pixels,Usage\n")


def _votes(cell: Cell | None, number: int) -> str:
    return ",".join(map(str, votes_for(cell, number) if cell else NO_FACE))


def _fer2013(label: str) -> int:
    """FER2013's own class number; it knows no contempt."""
    return ORDERS["fer2013"].index("neutral" if label == "contempt" else label)


def _leaks(name: str) -> int:
    """Test images of a FERPlus protocol that its leak-free variant leaves out."""
    from bench import declare

    known = declare.load().protocols
    return known[name].counts["test"] - known[f"{name}-leak-free"].counts["test"]
