"""Where a FERPlus copy keeps its labels and pictures, and how a picture is read: PNG files or rows of fer2013.csv."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.data.ferplus import labels
from bench.data.image import check_png, decode, read_bytes
from bench.errors import UserError

FOLDERS = {"train": "FER2013Train", "val": "FER2013Valid", "test": "FER2013Test"}
SIZE = 48
PIXELS = "add fer2013.csv of the Kaggle FER2013 competition"
RESTORE_PIXELS = "restore it from your copy of FER2013"


@dataclass(frozen=True)
class Found:
    """The parts of FERPlus in a folder. Each is recognised by its first line, not by its name."""

    folders: dict[str, Path] = field(default_factory=dict)  # split -> folder, where one of the three has a label.csv
    labels: dict[str, Path] = field(default_factory=dict)  # split -> label.csv
    votes: Path | None = None  # fer2013new.csv
    pixels: Path | None = None  # fer2013.csv or icml_face_data.csv
    pictures: bool = False  # any of the folders holds PNG files

    @property
    def layout(self) -> str | None:
        """`folders`, `csv+label.csv`, `csv`, or None when labels or pictures are lacking."""
        if self.labels and self.pictures:
            return "folders"
        if self.votes and self.pixels:
            return "csv+label.csv" if self.labels else "csv"
        return None

    @property
    def misnamed(self) -> bool:
        """The votes lie in a file called fer2013.csv, as a public repository ships them."""
        return self.votes is not None and self.votes.name.lower() == "fer2013.csv"

    def lacks(self) -> str:
        """What an incomplete copy has and what to add; empty when nothing of FERPlus is here."""
        if self.layout:
            return ""
        if self.misnamed:
            return f"{self.votes} is really fer2013new.csv: votes without pixels; {PIXELS}"
        if self.labels:
            label_csv = next(iter(self.labels.values()))
            return f"{label_csv} is there, but no folder holds PNG files; {PIXELS} and FERPlus's fer2013new.csv"
        if self.votes:
            return f"{self.votes} holds votes without pixels; {PIXELS}"
        if self.pixels:
            return f"{self.pixels} holds pixels without FERPlus votes; add fer2013new.csv of microsoft/FERPlus"
        return ""


def look(root: Path) -> Found:
    """What of FERPlus is in `root` or, as in a clone of the FERPlus repository, in `root/data`."""
    votes = pixels = None
    for path in sorted(root.glob("*.csv")):
        if labels.is_fer2013new(path):
            # A proper name goes before the misnamed copy of the same file.
            votes = path if votes is None or votes.name.lower() == "fer2013.csv" else votes
        elif _is_fer2013(path):
            # ckextended.csv has the same columns and 920 rows: the larger file is FER2013
            pixels = path if pixels is None or path.stat().st_size > pixels.stat().st_size else pixels
    for base in (root, root / "data"):
        found = {s: base / n / "label.csv" for s, n in FOLDERS.items() if labels.is_label_csv(base / n / "label.csv")}
        if found:
            folders = {s: base / n for s, n in FOLDERS.items()}
            # A broken label.csv is still the label file of its split: reading it names the wrong row.
            found |= {s: f / "label.csv" for s, f in folders.items() if (f / "label.csv").is_file()}
            pictures = any(_holds_png(folder) for folder in folders.values())
            return Found(folders, {s: found[s] for s in FOLDERS if s in found}, votes, pixels, pictures)
    return Found(votes=votes, pixels=pixels)


def _holds_png(folder: Path) -> bool:
    """Whether there is a PNG file; stops at the first one, which a glob would not."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(".png") for entry in entries)


def _header(line: str) -> list[str]:
    return [part.strip().strip('"').lower() for part in line.split(",")]


def _is_fer2013(path: Path) -> bool:
    return sorted(_header(labels.first_line(path))) == ["emotion", "pixels", "usage"]


def read_png(path: Path) -> np.ndarray:
    """An 8-bit picture of any size: (H, W) grey or (H, W, 3) colour.

    Raises:
        UserError: the file is missing, truncated or damaged, no PNG at all, or not 8-bit grey or colour.
    """
    data = read_bytes(path)
    try:
        check_png(data)
    except ValueError as error:
        raise UserError(f"{path} is not a readable PNG: {error}", RESTORE_PIXELS) from None
    return decode(data, str(path))


class PixelRows:
    """Random access to the pictures of fer2013.csv (or icml_face_data.csv), one per row.

    Opening reads the file once to find where rows begin and to check that its Usage column is that of fer2013new.csv,
    row by row: the two files are joined by row order, and nothing else in them could tell that one was sorted.

    Args:
        path: file with the columns emotion, pixels, Usage in any order.
        usage: the Usage column of fer2013new.csv.

    Raises:
        UserError: naming file and row: columns, number of rows or Usage differ.
    """

    def __init__(self, path: Path, usage: list[str]) -> None:
        self.path = path
        columns = _header(labels.first_line(path))
        self.column, usage_column = columns.index("pixels"), columns.index("usage")
        self.starts: list[int] = []
        with path.open("rb") as file:
            position = len(file.readline())
            for line in file:
                if line.strip():
                    self._check(line.split(b","), usage_column, usage)
                    self.starts.append(position)
                position += len(line)
        if len(self.starts) != len(usage):
            message = f"{path} has {len(self.starts):,} rows, the vote file {len(usage):,}; rows are joined by order"
            raise UserError(message, "use the whole fer2013.csv (35,887 rows), not train.csv or a part of it")

    def _check(self, cells: list[bytes], usage_column: int, usage: list[str]) -> None:
        row = len(self.starts) + 2
        if len(cells) != 3:
            raise UserError(f"{self.path}, row {row}: expected 3 columns, found {len(cells)}", RESTORE_PIXELS)
        value = cells[usage_column].strip(b' "\r\n').decode(errors="replace")
        if row - 2 < len(usage) and value != usage[row - 2]:
            message = f"{self.path}, row {row}: Usage is '{value}', the vote file has '{usage[row - 2]}' in that row"
            raise UserError(message, "the files are joined by row order: restore the published order")

    def read(self, row: int) -> np.ndarray:
        """Picture of a row (from 0): (48, 48) uint8."""
        with self.path.open("rb") as file:
            file.seek(self.starts[row])
            cell = file.readline().split(b",")[self.column]
        try:
            values = bytes(map(int, cell.strip(b' "\r\n').split()))
        except ValueError:
            message = f"{self.path}, row {row + 2}: a pixel is not a number from 0 to 255"
            raise UserError(message, RESTORE_PIXELS) from None
        if len(values) != SIZE * SIZE:
            message = f"{self.path}, row {row + 2}: expected {SIZE * SIZE} pixels, found {len(values)}"
            raise UserError(message, RESTORE_PIXELS)
        return np.frombuffer(values, dtype=np.uint8).reshape(SIZE, SIZE)
