"""FERPlus votes: reading the two label files and turning ten votes into a label.

Both files come from github.com/microsoft/FERPlus and disagree: `fer2013new.csv` gives all pixel-identical images the
votes of the first of them, `label.csv` keeps the votes each image really got. The benchmark's 25,045 / 3,191 / 3,137
images follow from label.csv and the majority rule only.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from bench.errors import UserError

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
COLUMNS = (*EMOTIONS, "unknown", "NF")  # NF: not a face
HEADER = ["Usage", "Image name", *COLUMNS]
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
NONE = -1  # the rule gives this image no label
RESTORE = "restore the published file from github.com/microsoft/FERPlus"


@dataclass(frozen=True)
class Votes:
    """Images and their votes: names (N), splits (N), votes (N, 10) int64 in the order of COLUMNS."""

    names: list[str]
    splits: list[str]
    votes: np.ndarray


@dataclass(frozen=True)
class Rows:
    """fer2013new.csv row by row, as fer2013.csv is ordered: usage (N), names (N, empty where none), votes (N, 10)."""

    usage: list[str]
    names: list[str]
    votes: np.ndarray

    def first_of_each_name(self) -> list[int]:
        """Row numbers (from 0) of named images, the first row of a name that occurs twice.

        Four names occur twice; the later row is another picture under the same name, and label.csv has the votes of the
        first. 173 rows without a name are pictures that ten of ten raters called no face.
        """
        return [row for name, row in _first_rows(self.names).items() if name]


def majority(votes: np.ndarray) -> np.ndarray:
    """Labels by Microsoft's majority rule (Barsoum et al. 2016, section 3; `majority` mode of the released code).

    Single votes are dropped; the winner needs more than half of what is left, counting unknown and NF; images won by
    unknown or NF are dropped.

    Args:
        votes: (N, 10) counts in the order of COLUMNS.

    Returns:
        (N,) class numbers in the order of EMOTIONS; NONE where the image is dropped.
    """
    kept = _without_single(votes)
    winner = kept.argmax(1)
    return np.where((2 * kept.max(1) > kept.sum(1)) & (winner < len(EMOTIONS)), winner, NONE)


def argmax8(votes: np.ndarray) -> np.ndarray:
    """Most votes among the 8 emotions; unknown and NF are ignored, the first of equals wins. As `majority`."""
    emotions = votes[:, : len(EMOTIONS)]
    return np.where(emotions.max(1) > 0, emotions.argmax(1), NONE)


def argmax10(votes: np.ndarray) -> np.ndarray:
    """Most votes among all 10 columns; images won by unknown or NF are dropped, first of equals wins. As `majority`."""
    winner = votes.argmax(1)
    return np.where((votes.max(1) > 0) & (winner < len(EMOTIONS)), winner, NONE)


def soft(votes: np.ndarray) -> np.ndarray:
    """Labels under the probability filter: the largest of `soft_targets`, NONE where the filter drops the image."""
    targets = soft_targets(votes)
    return np.where(targets.max(1) > 0, targets.argmax(1), NONE)


def soft_targets(votes: np.ndarray) -> np.ndarray:
    """Vote shares by Microsoft's filter for `probability` and `crossentropy` training (Barsoum et al. 2016, section 3).

    Single votes are dropped. Then the largest vote counts are taken, all equal ones together, until they hold three
    quarters of what is left, three columns are taken, or unknown or NF comes up (which ends it, and is left out when an
    emotion was taken before). An image is dropped when what was taken is not more than half, is more than three
    columns, or is led by unknown or NF.

    Args:
        votes: (N, 10) counts.

    Returns:
        (N, 8) float64 shares that sum to 1, or rows of zeros for dropped images.
    """
    rest = _without_single(votes)
    total = rest.sum(1)
    taken = np.zeros_like(rest)
    reached = np.zeros(len(rest), dtype=rest.dtype)
    count = np.zeros(len(rest), dtype=np.int64)
    going = total > 0
    for _ in range(3):
        going &= (4 * reached < 3 * total) & (count < 3)
        level = rest.max(1)
        for column in range(len(COLUMNS)):
            hit = going & (rest[:, column] == level)
            rest[hit, column] = 0
            reached[hit] += level[hit]
            if column >= len(EMOTIONS):
                going &= ~hit
                hit &= taken.sum(1) == 0
            taken[hit, column] = level[hit]
            count[hit] += 1
    keep = (2 * taken.sum(1) > total) & (count <= 3) & (taken.argmax(1) < len(EMOTIONS))
    emotions: np.ndarray = np.where(keep[:, None], taken[:, : len(EMOTIONS)], 0)
    shares: np.ndarray = emotions / np.maximum(emotions.sum(1, keepdims=True), 1)
    return shares


def _without_single(votes: np.ndarray) -> np.ndarray:
    return np.where(votes > 1, votes, 0)


RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "majority": majority,
    "argmax8": argmax8,
    "argmax10": argmax10,
    "soft": soft,
}


def is_label_csv(path: Path) -> bool:
    """Whether the first line is one of label.csv: name, box, 10 votes."""
    first = next(iter(csv.reader([first_line(path)])), [])
    return len(first) == 2 + len(COLUMNS) and first[1].startswith("(") and all(v.strip().isdigit() for v in first[2:])


def is_fer2013new(path: Path) -> bool:
    """Whether the header is that of fer2013new.csv."""
    return [part.strip() for part in first_line(path).split(",")][:2] == HEADER[:2]


def first_line(path: Path) -> str:
    """The first line of a text file (at most 4 kB of it); empty where there is none."""
    try:
        with path.open("rb") as file:
            return file.readline(4096).decode("utf-8-sig", errors="replace").strip()
    except OSError:
        return ""


def read_label_csv(path: Path, skipped: dict[str, str] | None = None) -> tuple[list[str], np.ndarray]:
    """Names (N) and votes (N, 10) of one label.csv; the first row of a repeated name counts.

    Args:
        skipped: wrong rows are left out and entered here, file and row -> reason; None: a wrong row is an error.

    Raises:
        UserError: naming file and row: columns, votes, or a name is wrong.
    """
    numbered = _rows(path, "name, box, 10 votes", skipped)
    names = [row[0].strip() for _, row in numbered]
    votes, usable = _votes(path, numbered, skipped)
    for at, name in enumerate(names):
        if not name or "/" in name or "\\" in name:
            _leave_out(skipped, path, numbered[at][0], f"'{name}' is not an image name")
            usable[at] = False
    first = _first_rows([name if usable[at] else "" for at, name in enumerate(names)])
    first.pop("", None)
    return list(first), votes[list(first.values())]


def read_fer2013new(path: Path, skipped: dict[str, str] | None = None) -> Rows:
    """All rows of fer2013new.csv.

    Args:
        skipped: rows with wrong votes lose their name and are entered here; None: they are an error. A row that is
            missing or has other columns always is: rows are joined with fer2013.csv by order.

    Raises:
        UserError: naming file and row: header, columns, Usage or votes are wrong.
    """
    numbered = _rows(path, "Usage, Image name, 10 votes")
    if not numbered or [cell.strip() for cell in numbered[0][1]] != HEADER:
        raise UserError(f"{path}, row 1: the header is not '{','.join(HEADER)}'", RESTORE)
    del numbered[0]
    usage = [row[0].strip() for _, row in numbered]
    for (number, _), value in zip(numbered, usage, strict=True):
        if value not in USAGES:
            raise UserError(f"{path}, row {number}: Usage '{value}' is not one of {', '.join(USAGES)}", RESTORE)
    votes, usable = _votes(path, numbered, skipped)
    return Rows(usage, [row[1].strip() if usable[at] else "" for at, (_, row) in enumerate(numbered)], votes)


def _first_rows(names: Sequence[str]) -> dict[str, int]:
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        first.setdefault(name, row)
    return first


def _rows(path: Path, columns: str, skipped: dict[str, str] | None = None) -> list[tuple[int, list[str]]]:
    """Rows with their numbers (from 1), blank lines left out; every row has 12 columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError:
        raise UserError(f"{path} is missing", "get it from github.com/microsoft/FERPlus") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a text table: {error}", RESTORE) from None
    width = 2 + len(COLUMNS)
    numbered = [(number, row) for number, row in enumerate(rows, 1) if row]
    for number, row in numbered:
        if len(row) != width:
            _leave_out(skipped, path, number, f"expected {width} columns ({columns}), found {len(row)}")
    return [(number, row) for number, row in numbered if len(row) == width]


def _votes(
    path: Path, numbered: Sequence[tuple[int, list[str]]], skipped: dict[str, str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Votes (N, 10) and whether each row's are right (N); wrong rows hold zeros."""
    cells = chain.from_iterable(row[2:] for _, row in numbered)
    size = len(numbered) * len(COLUMNS)
    usable = np.ones(len(numbered), dtype=bool)
    try:
        votes = np.fromiter(map(int, cells), dtype=np.int64, count=size).reshape(-1, len(COLUMNS))
        if not (votes < 0).any():
            return votes, usable
    except (ValueError, OverflowError):
        pass
    votes = np.zeros((len(numbered), len(COLUMNS)), dtype=np.int64)
    for at, (number, row) in enumerate(numbered):
        wrong = [(cell, column) for cell, column in zip(row[2:], COLUMNS, strict=True) if not _is_count(cell)]
        if wrong:
            cell, column = wrong[0]
            _leave_out(skipped, path, number, f"'{cell}' is not a number of votes (column {column})")
            usable[at] = False
        else:
            votes[at] = [int(cell) for cell in row[2:]]
    return votes, usable


def _is_count(cell: str) -> bool:
    digits = cell.strip()
    return digits.isascii() and digits.isdigit() and len(digits) < 10


def _leave_out(skipped: dict[str, str] | None, path: Path, row: int, reason: str) -> None:
    """Record a wrong row; raise where none may be left out."""
    if skipped is None:
        raise UserError(f"{path}, row {row}: {reason}", RESTORE)
    skipped[f"{path.parent.name}/{path.name}, row {row}"] = f"{path}, row {row}: {reason}"
