"""Lists of `name label` lines and tables with a label column: rows with the class as written.

The names of this module are also those of bench/data/class_folders.py, which has the overview.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.data.classes import class_name
from bench.data.image import SUFFIXES
from bench.data.listing import Bad, Kind, safe_name
from bench.errors import UserError

HEAD = 4096  # bytes of a list seen in recognition
RESTORE = "correct it, or restore the published list"
_SPLITS = {
    "train": ("train", "training", "trainset", "trainingset", "traindata"),
    "val": ("val", "valid", "validation", "valset", "validset", "validationset", "publictest"),
    "test": ("test", "testing", "testset", "testingset", "testdata", "privatetest"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
_HEADERS = {
    "name": ("image", "name", "filename", "file", "path", "filepath", "imgpath", "imagepath", "imagename", "img"),
    "label": ("label", "labels", "emotion", "expression", "class", "expr"),
    "split": ("split", "usage", "phase", "subset", "set"),
}
_SEPARATOR = re.compile(r"[ \t]*[,;][ \t]*|[ \t]+")
Accept = Callable[[str], bool]


class Item(NamedTuple):
    """One labelled image: path (relative to the base, or as its list has it), split or "", token, row in its list."""

    path: str
    split: str
    token: str
    row: int = 0


@dataclass
class Items:
    """What a tree or list holds.

    Attributes:
        items: usable rows, in name order of folders and files, or in the order of the list.
        bad: rows and files that are not among them.
        ignored: files that are no images and folders that are no classes, relative paths.
        folders: folders that were read, for `Layout.state`.
    """

    items: list[Item] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def histogram(self) -> dict[str, dict[str, int]]:
        """Images per split and token."""
        found: dict[str, dict[str, int]] = {}
        for item in self.items:
            tokens = found.setdefault(item.split, {})
            tokens[item.token] = tokens.get(item.token, 0) + 1
        return found


def split_of(word: str) -> str | None:
    """train, val or test for the usual names of a split ("Train", "val_set", "PrivateTest"); None for other words."""
    return _SPLIT_OF.get(_plain(word))


def number(token: str) -> int | None:
    """The whole number a token is ("3", "03"); None when it is none."""
    token = token.strip()
    return int(token) if token.isascii() and token.isdigit() and len(token) < 10 else None


def is_class(token: str) -> bool:
    """Whether a token can name a class: a word for an expression, or a whole number."""
    return number(token) is not None or class_name(token) is not None


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def head(file: Path, lines: int = 8) -> list[str]:
    """The first lines of a text file that are not blank; [] where it cannot be read or is no text."""
    try:
        with file.open("rb") as stream:
            data = stream.read(HEAD)
    except OSError:
        return []
    if b"\x00" in data:
        return []
    rows = [row for row in _rows(data.decode("utf-8-sig", errors="replace")) if row.strip()]
    whole = rows if len(data) < HEAD else rows[:-1]  # the last one may be cut
    return whole[:lines]


def read_list(file: Path, split: str = "", accept: Accept = is_class) -> Items:
    """Rows of a text file with lines `name label`: the last word is the label, separated by blanks, tab or a comma.

    Blank lines, CRLF and a byte-order mark are fine. Names are as written, with forward slashes.

    Args:
        file: the list.
        split: given to every item.
        accept: which label cells are classes; others become Bad(kind="label").

    Raises:
        UserError: the file is missing or no UTF-8 text.
    """
    found = Items()
    for row, line in enumerate(_rows(_text(file)), 1):
        if not line.strip(" \t"):
            continue
        name, label = _last_word(line.strip(" \t"))
        if not name or not label:
            found.bad.append(_bad(file, row, "row", f"{line.strip()!r} is not a name and a label"))
        else:
            _add(found, file, Item(_slashes(name), split, label, row), accept)
    return found


def read_csv(
    file: Path, name: str | int = "", label: str | int = "", split: str | int = "", accept: Accept = is_class
) -> Items:
    """Rows of a table, separated by commas, semicolons or tabs, with or without header.

    Each line is a row: a quote that is not closed spoils its own row only.

    Args:
        file: the table.
        name, label, split: columns, by header or by position from 0. Left empty, they are known by their usual headers
            (image, name, path; label, emotion, expression; split, usage, phase); without header, names are in
            column 0, labels in column 1, and there is no split.
        accept: which label cells are classes.

    Raises:
        UserError: the file is missing, no UTF-8 text, or lacks a column that was asked for.
    """
    lines = _rows(_text(file))
    first = next((row for row, line in enumerate(lines) if line.strip()), 0)
    separator = max(",;\t", key=lines[first].count)
    columns, has_header = _columns(
        file, _cells(lines[first], separator), {"name": name, "label": label, "split": split}
    )
    found = Items()
    for row, line in enumerate(lines[first + has_header :], first + has_header + 1):
        if not line.strip():
            continue
        cells = _cells(line, separator)
        if len(cells) <= max(columns.values()):
            found.bad.append(_bad(file, row, "row", f"{len(cells)} columns, expected {max(columns.values()) + 1}"))
            continue
        written = cells[columns["split"]] if "split" in columns else ""
        part = split_of(written) if written else ""
        if part is None:
            found.bad.append(_bad(file, row, "row", f"{written!r} is no split"))
            continue
        _add(found, file, Item(_slashes(cells[columns["name"]]), part, cells[columns["label"]], row), accept)
    return found


def _plain(word: str) -> str:
    return re.sub(r"[-_ ]", "", word.strip().lower())


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", "restore it, or check its permissions") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not a text file in UTF-8", "restore it, or save it as UTF-8") from None


def _rows(text: str) -> list[str]:
    """Lines ended by LF, CRLF or CR only: other characters that Python takes for line ends may stand in a name."""
    return re.split(r"\r\n|\n|\r", text)


def _last_word(line: str) -> tuple[str, str]:
    """A line as name and label, divided at its last separator; the label is "" where there is none."""
    places = list(_SEPARATOR.finditer(line))
    return (line[: places[-1].start()], line[places[-1].end() :]) if places else (line, "")


def _cells(line: str, separator: str) -> list[str]:
    cells = line.split(separator) if '"' not in line else next(csv.reader([line], delimiter=separator), [])
    return [cell.strip(" \t") for cell in cells]


def _columns(file: Path, header: list[str], asked: dict[str, str | int]) -> tuple[dict[str, int], bool]:
    """Position of each column, and whether the first row is a header."""
    words = [_plain(cell) for cell in header]
    usual = {key: next((words.index(word) for word in known if word in words), -1) for key, known in _HEADERS.items()}
    by_name = any(isinstance(column, str) and column for column in asked.values())
    has_header = by_name or (usual["name"] >= 0 and usual["label"] >= 0)
    columns: dict[str, int] = {}
    for position, (key, column) in enumerate(asked.items()):
        if isinstance(column, int):
            columns[key] = column
        elif column in header and column:
            columns[key] = header.index(column)
        elif not column and has_header and usual[key] >= 0:
            columns[key] = usual[key]
        elif column or (has_header and key != "split"):
            wanted = f"'{column}'" if column else f"for the {key}"
            raise UserError(f"{file} has no column {wanted}", f"its first row is: {', '.join(header)[:200]}")
        elif key != "split":
            columns[key] = position
    return columns, has_header


def _add(found: Items, file: Path, item: Item, accept: Accept) -> None:
    if not item.path or not safe_name(item.path):
        found.bad.append(_bad(file, item.row, "name", f"{item.path!r} is no image name"))
    elif not accept(item.token):
        what = f"label {item.token!r} of '{item.path}' is neither a number nor an expression"
        found.bad.append(Bad(item.path, "label", f"{file}, row {item.row}: {what}", RESTORE))
    else:
        found.items.append(item)


def _bad(file: Path, row: int, kind: Kind, what: str) -> Bad:
    return Bad(f"{file.name}, row {row}", kind, f"{file}, row {row}: {what}", RESTORE)


def _slashes(path: str) -> str:
    """A path as this machine writes it: lists made on Windows have backslashes."""
    return path.replace("\\", "/").removeprefix("./")
