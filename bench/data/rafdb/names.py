"""RAF-DB's file names, the folders its copies come wrapped in, and label rows joined to pictures by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.data.class_folders import Item, Items, is_image
from bench.data.image import SUFFIXES
from bench.data.listing import COLUMNS, Bad, Listing, entries, is_folder, safe_name
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

BENCHMARK = "raf-db-7"
RESTORE = "restore the published file"
# folders that archives and tutorials put around the data, lower case
WRAPPERS = frozenset({"basic", "raf-basic", "raf_basic", "rafbasic", "raf-db", "rafdb", "raf_db", "raf", "dataset"})
LAST = {"train": 12_271, "test": 3_068}  # published numbers run from 1 without gaps
_NAME = re.compile(r"(train_\d{5}|test_\d{4})(_aligned)?")


class Row(NamedTuple):
    """A usable image: official (or made-up) name, class name, split, path relative to the base."""

    name: str
    label: str
    split: str
    path: str


@dataclass
class Pictures:
    """Image files of one folder by official name; paths are relative to the base.

    Attributes:
        path_of: official name -> path.
        twice: official name -> paths of its several files.
        others: image files that have no official name.
    """

    path_of: dict[str, str] = field(default_factory=dict)
    twice: dict[str, list[str]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def official_name(path: str) -> str | None:
    """`train_00001.jpg` for any path whose file is that image (`.../train_00001_aligned.png`); None for other files."""
    stem, suffix = os.path.splitext(path.rsplit("/", 1)[-1])
    found = _NAME.fullmatch(stem) if not suffix or suffix.lower() in SUFFIXES else None
    if found is None:
        return None
    split, _, digits = found[1].partition("_")
    return f"{found[1]}.jpg" if 1 <= int(digits) <= LAST[split] else None


def official_split(name: str) -> str:
    """train or test, as an official name says."""
    return name.partition("_")[0]


def places(root: Path) -> Iterator[Path]:
    """`root`, and the folders in it that archives wrap the data in, two levels deep."""
    yield root
    for inner in _wrapped(root):
        yield inner
        yield from _wrapped(inner)


def outermost(base: Path) -> Path:
    """The folder from which `places` gives `base` and others like it: two levels up where those are wrappers."""
    for _ in range(2):
        if base.name.lower() in WRAPPERS:
            base = base.parent
    return base


def _wrapped(folder: Path) -> list[Path]:
    try:
        inside = entries(folder, 256)
    except UserError:
        return []
    return [Path(entry.path) for entry in inside if entry.name.lower() in WRAPPERS and is_folder(entry)]


def image_folder(base: Path, names: Iterable[str]) -> str:
    """The first of some folders that holds images, relative to `base`; "" where none does.

    A folder that only holds one of its own name (left by unpacking) is entered.
    """
    for name in names:
        for path in (name, f"{name}/{name.rsplit('/', 1)[-1]}"):
            if _holds_images(base / path):
                return path
    return ""


def _holds_images(folder: Path) -> bool:
    try:
        return any(is_image(entry.name) for entry in entries(folder, 16))
    except UserError:
        return False


def pictures(base: Path, folder: str) -> Pictures:
    """All image files of a folder, by official name."""
    found = Pictures()
    for entry in entries(base / folder):
        path = f"{folder}/{entry.name}"
        name = official_name(entry.name)
        if name is None:
            if is_image(entry.name):
                found.others.append(path if safe_name(path) else repr(path))
        elif name in found.twice:
            found.twice[name].append(path)
        elif name in found.path_of:
            found.twice[name] = [found.path_of.pop(name), path]
        else:
            found.path_of[name] = path
    return found


def join(
    base: Path, lists: Mapping[Path, Items], there: Pictures, label_of: Callable[[str], str | None], known: str
) -> Listing:
    """Rows of label lists and their pictures, joined by name.

    Args:
        base: folder of the copy.
        lists: rows of each list.
        there: the pictures.
        label_of: class name of a label cell; None where it stands for none.
        known: what a label cell may hold, for messages.
    """
    found = Listing(table([]), [bad for items in lists.values() for bad in items.bad])
    row_of: dict[str, tuple[Row, str]] = {}
    contradicted: set[str] = set()
    for file, items in lists.items():
        for item in items.items:
            where = f"{file}, row {item.row}"
            row = _row(item, where, label_of, known)
            if isinstance(row, Bad):
                found.bad.append(row)
            elif row.name not in row_of:
                row_of[row.name] = (row, where)
            else:
                found.bad.append(_again(row, where, *row_of[row.name], contradicted))
    named = {row.name for row, _ in row_of.values()}
    rows = []
    for name, (row, where) in row_of.items():
        if name in contradicted:
            continue
        path = there.path_of.get(name)
        if path is not None:
            rows.append(row._replace(path=path))
        else:
            found.bad.append(_absent(base, name, where, there))
    found.frame = table(rows)
    unnamed = [path for name, path in there.path_of.items() if name not in named]
    unnamed += [path for name, paths in there.twice.items() if name not in named for path in paths]
    found.extra = sorted([*there.others, *unnamed])
    found.label_files = {str(file.relative_to(base)): file for file in lists}
    return found


def _row(item: Item, where: str, label_of: Callable[[str], str | None], known: str) -> Row | Bad:
    name = official_name(item.path)
    if name is None:
        message = f"{where}: '{item.path}' is no image name of RAF-DB (train_00001.jpg, test_0001.jpg)"
        return Bad(where.rsplit("/", 1)[-1], "row", message, RESTORE)
    label = label_of(item.token)
    if label is None:
        return Bad(name, "label", f"{where}: label '{item.token}' of {name} is not {known}", RESTORE)
    split = item.split or official_split(name)
    if (split == "test") != (official_split(name) == "test"):
        return Bad(name, "row", f"{where}: {name} is in the {split} list", "correct the list: the split is official")
    return Row(name, label, split, "")


def _again(row: Row, where: str, first: Row, first_where: str, contradicted: set[str]) -> Bad:
    """What to say of a second row for an image; one with another label spoils the first too."""
    if (row.label, row.split) == (first.label, first.split):
        message = f"{where}: {row.name} is listed again, as in {first_where.rsplit(', ', 1)[-1]}"
        return Bad(where.rsplit("/", 1)[-1], "twice", message, "remove the second row", images=0)
    contradicted.add(row.name)
    message = f"{row.name} is {first.split} {first.label} in {first_where} and {row.split} {row.label} in {where}"
    return Bad(row.name, "twice", message, RESTORE)


def _absent(base: Path, name: str, where: str, there: Pictures) -> Bad:
    if name in there.twice:
        one, other = there.twice[name][:2]
        message = f"{base}: {one} and {other} are both {name}, which {where} names"
        return Bad(name, "twice", message, "keep the published one; originals and aligned images do not mix")
    message = f"{name} is missing: {where} names it"
    return Bad(name, "missing", message, "restore the image; unpack the archive again if there are many")


def table(rows: Iterable[tuple[str, ...]]) -> pd.DataFrame:
    """Rows (name, label, split, path) as the frame of a Listing."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)
