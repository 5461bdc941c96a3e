"""What a layout of a dataset holds: a table of its images, and the rows and files that cannot be used.

A dataset is met in several layouts. Each is a `Layout`: it recognises itself by content, cheaply, and reads itself into
a `Listing`. Everything after that (protocols, counts, cache, verify) is the same for all of them.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("name", "label", "split", "path")
ALIGNMENT = "alignment.json"  # at the root of a tree that `data align` made
ALIGNED = (ALIGNMENT, "alignment.csv", "alignment.png", ".alignment.lock")  # beside it; none is part of a dataset
Kind = Literal["missing", "label", "name", "row", "twice", "unreadable"]


@dataclass(frozen=True)
class Bad:
    """A row or file that cannot be used. `name` is the image's name where it has one, else the file and row."""

    name: str
    kind: Kind
    message: str  # names file and row
    hint: str
    images: int = 1  # how many images it costs (a sequence of CK+ without a label: six)


@dataclass
class Listing:
    """All labelled images of one copy, before any protocol.

    Attributes:
        frame: one row per usable image: name (str, unique, the same in every layout of the dataset), label (class name;
            "" where the image has none), split (train | val | test, or "" where there is no fixed split), path (str,
            relative to the folder `Layout.find` returned); further columns as the dataset needs: subject, sequence,
            frame, box_x, box_y, box_width, box_height (pixels), votes_<class>.
        bad: rows that are not in `frame`, with the reason.
        extra: image files that no label names, relative paths.
        label_files: what the labels come from, name to show -> path.
        remarks: what a user should know about this copy.
        order: name of the class order (bench/data/classes.py) that numeric labels were read in; "" for names.
    """

    frame: pd.DataFrame
    bad: list[Bad] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    label_files: dict[str, Path] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    order: str = ""


class Layout(ABC):
    """One way in which a dataset lies on disk."""

    name: ClassVar[str]

    @abstractmethod
    def find(self, root: Path) -> Path | None:
        """The folder this layout starts in, `root` itself or one inside it; None when it is not there.

        Judged by content (the first line of a list, names in a folder), never by the name of `root`; must cost
        milliseconds even where a folder holds 300,000 files (stop at the first few entries).
        """

    @abstractmethod
    def read(self, base: Path) -> Listing:
        """Everything in the layout that starts at `base`.

        Raises:
            UserError: nothing can be made of it (a label file has other columns, class numbers fit no known order).
                What concerns single rows goes into `Listing.bad` instead.
        """

    @abstractmethod
    def state(self, base: Path) -> list[Path]:
        """Label files and image folders: their sizes and times change when labels change or files come and go."""

    def lacks(self, root: Path) -> str:
        """What an incomplete copy under `root` has and what to add; "" when there is nothing of this layout."""
        return ""


def safe_name(name: str) -> bool:
    """Whether a file name can stand in lists: no control characters (a newline would end a row)."""
    return name.isprintable()


def entries(folder: Path | str, limit: int = 0) -> list[os.DirEntry[str]]:
    """Entries of a folder in name order, without hidden and system files and those of `data align`.

    Args:
        limit: at most so many, if given.

    Raises:
        UserError: the folder cannot be read (permissions, a loop of links).
    """
    found: list[os.DirEntry[str]] = []
    try:
        with os.scandir(folder) as scan:
            for entry in scan:
                if entry.name.startswith((".", "__MACOSX")) or entry.name in ("Thumbs.db", "desktop.ini"):
                    continue
                if entry.name in ALIGNED and is_aligned(folder):
                    continue
                found.append(entry)
                if limit and len(found) >= limit:
                    break
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}", "check links and permissions") from None
    return sorted(found, key=lambda entry: entry.name)


def is_aligned(folder: Path | str) -> bool:
    """Whether `data align` wrote into this folder."""
    return os.path.isfile(os.path.join(folder, ALIGNMENT))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; a loop of links is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False
