"""The journal of an alignment, alignment.csv: a row for every file that it wrote or is about to write."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from bench import store
from bench.data.align.files import JOURNAL, stamp

COLUMNS = (
    "path", "status", "faces", "probability", "x", "y", "width", "height", "points", "scale", "degrees", "size",
    "time_ns", "message",
)  # fmt: skip
BEGUN, COPIED = "begun", "copied"  # statuses of what is to be done, and of files that are no images
WITHOUT_FILE = ("skipped", "unreadable")
Row = dict[str, Any]


def read(dest: Path) -> dict[str, Row]:
    """The last row of every path; rows that were cut off when a process was killed do not count."""
    path = dest / JOURNAL
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    return {row["path"]: row for row in rows if row.keys() == set(COLUMNS) and None not in row.values()}


def write(dest: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the journal."""
    whole = io.StringIO()
    table = writer(whole)
    table.writeheader()
    table.writerows(rows)
    store.write_text(dest / JOURNAL, whole.getvalue())


def writer(stream: IO[str]) -> csv.DictWriter[str]:
    """Writes rows; fields that a row does not have are empty."""
    return csv.DictWriter(stream, COLUMNS, lineterminator="\n")


def is_done(source: Path, dest: Path, row: Mapping[str, str] | None) -> bool:
    """Whether what a row says is there, and made from the file that the source has now."""
    if row is None or row["status"] == BEGUN or (row["size"], row["time_ns"]) != stamp(source / row["path"]):
        return False
    made = dest / row["path"]
    if row["status"] == COPIED:
        return made.is_file() and stamp(made)[0] == row["size"]
    return row["status"] in WITHOUT_FILE or made.is_file()


def images(rows: Iterable[Row]) -> list[Row]:
    """The rows of images that are done."""
    return [row for row in rows if row["status"] not in (BEGUN, COPIED)]
