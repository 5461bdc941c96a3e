"""What all layouts of AffectNet share: names and releases, label numbers, repeats.

Two releases are about, and no public table maps the names of one to those of the other. That of 2017 names its images
by 56 hex digits, that of 2021 by whole numbers, so any copy that kept the file names tells its release.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.classes import ORDERS, class_name
from bench.data.label_lists import Item
from bench.data.listing import Bad, Layout, Listing
from bench.data.order import detect, published
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

ORDER = "affectnet"
CLASSES = ORDERS[ORDER]
DROPPED = {8: "None", 9: "Uncertain", 10: "No-Face"}  # in the label files, but no expression
RELEASE_2017, RELEASE_2021 = "2017", "2021"
NAMES_OF = {RELEASE_2017: "names of 56 hex digits", RELEASE_2021: "whole-number names"}
RESTORE = "restore it from your copy of the dataset"
_HEX = re.compile(r"[0-9a-fA-F]{56}")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"([0-9]{1,9})(\.0*)?")


class AffectNetLayout(Layout):
    """A layout that also tells its release and its number of classes, without reading labels."""

    @abstractmethod
    def release(self, base: Path) -> str:
        """RELEASE_2017, RELEASE_2021, or "" where file names do not tell."""

    def classes(self, base: Path) -> int:
        """8, 7 where contempt is left out, or 0 where only the labels tell."""
        return 8


def release_of(stem: str) -> str:
    """The release whose images are named like `stem` (a file name without its ending); "" for neither."""
    if _HEX.fullmatch(stem):
        return RELEASE_2017
    return RELEASE_2021 if _WHOLE.fullmatch(stem) else ""


def canonical(stem: str, split: str) -> str:
    """The image's name in every layout; "" where the file name is of neither release."""
    release = release_of(stem)
    if release == RELEASE_2017:
        return stem.lower()
    return f"{split}/{stem}" if release == RELEASE_2021 else ""


def label_number(cell: str) -> int | None:
    """A label as a whole number, however it is written (7, "7", 7.0, " 7 "); None when it is none."""
    found = _NUMBER.fullmatch(cell.strip().strip("\"'").strip())
    return int(found[1]) if found else None


def without_repeats(frame: pd.DataFrame, place: Callable[[int], str], bad: list[Bad]) -> pd.DataFrame:
    """The rows of `frame` less those that list an image again; each such image is added to `bad`.

    Of rows that agree, the first stays. Where they disagree on label or split none does: neither can be trusted.

    Args:
        frame: columns name, label, split and a fresh index.
        place: index -> file and row, for messages.
    """
    repeated = frame["name"].duplicated(keep=False)
    if not repeated.any():
        return frame
    unwanted: list[int] = []
    for name, rows in frame[repeated].groupby("name", sort=False).indices.items():
        numbers = [int(row) for row in frame.index[repeated][rows]]
        first, others = numbers[0], numbers[1:]
        said = [(str(frame["label"].iat[k]), str(frame["split"].iat[k])) for k in numbers]
        other = next((k for k, one in zip(numbers, said, strict=True) if one != said[0]), None)
        if other is None:
            unwanted += others
            message = f"{place(first)} and {place(others[0])} are the same image, {name} ({said[0][0]})"
            bad.append(Bad(str(name), "twice", message, "keep one of them"))
        else:
            unwanted += numbers
            label, split = said[numbers.index(other)]
            message = f"{name} is {said[0][0]} ({said[0][1]}) by {place(first)}, {label} ({split}) by {place(other)}"
            bad.append(Bad(str(name), "twice", message, "keep the one that is right"))
    return frame.drop(index=unwanted).reset_index(drop=True)


def dropped_remark(dropped: dict[int, int]) -> list[str]:
    """How many rows are labelled with no expression, in words."""
    total = sum(dropped.values())
    if not total:
        return []
    parts = ", ".join(f"{dropped[number]:,} {word}" for number, word in DROPPED.items() if dropped.get(number))
    return [f"{total:,} rows are labelled with no expression and left out ({parts})"]


def known_counts() -> Mapping[str, Mapping[str, Mapping[str, int]]]:
    """Published images per split and class of every AffectNet protocol, by its id."""
    return {name: counts for name, counts in published().items() if name.startswith("affectnet-")}


@lru_cache(maxsize=1024)
def is_label(token: str) -> bool:
    """Whether a cell or folder can be a class of AffectNet, in whatever order: one of 0 to 10, or a word."""
    value = label_number(token)
    return value <= max(DROPPED) if value is not None else class_name(token) is not None


def from_items(
    items: list[Item], base: Path, place: Callable[[Item], str], has: Callable[[str], bool] = lambda path: True
) -> Listing:
    """A listing of images whose classes are numbers in an order that their counts must tell, or words.

    Args:
        items: paths relative to `base`. A split "val" beside "test" was cut off train.
        base: the copy, for messages.
        place: file and row of an item, for messages.
        has: whether the file of a path is there; the order is that of all items, whether their files are or not.

    Raises:
        UserError: the counts per class fit no class order, or the images are of both releases.
    """
    import pandas as pd

    remarks: list[str] = []
    bad: list[Bad] = []
    dropped: Counter[int] = Counter()
    items = _expressions(_settled(items, remarks), place, bad, dropped)
    histogram: dict[str, dict[str, int]] = {}
    for (split, token), images in Counter((item.split, item.token) for item in items).items():
        tokens = histogram.setdefault(split, {})
        tokens[_plain(token)] = tokens.get(_plain(token), 0) + images
    fit = detect(histogram, known_counts(), str(base))
    label_of = {token: fit.label(_plain(token)) for token in {item.token for item in items}}
    _refuse_mixture(items, base, place)
    there = [item for item in items if has(item.path)]
    if len(there) < len(items):
        for item in items:
            if not has(item.path):
                message = f"{base / item.path} is missing; {place(item)} names it"
                bad.append(Bad(_name(item), "missing", message, RESTORE))
    frame = pd.DataFrame(
        {
            "name": [_name(item) for item in there],
            "label": [label_of[item.token] for item in there],
            "split": [item.split for item in there],
            "path": [item.path for item in there],
        },
        dtype="str",
    )
    frame = without_repeats(frame, lambda row: place(there[row]), bad)
    return Listing(frame, bad, remarks=remarks + dropped_remark(dropped), order=fit.order)


def _plain(token: str) -> str:
    """A token as others of its class are written: "7" for "7.0"."""
    value = label_number(token)
    return token if value is None else str(value)


def _settled(items: list[Item], remarks: list[str]) -> list[Item]:
    """Items with the published splits, train and test: the validation set is what everybody tests on."""
    splits = {item.split for item in items}
    if "val" not in splits:
        return items
    if "test" in splits:
        moved = sum(item.split == "val" for item in items)
        remarks.append(f"{moved:,} images of a split 'val' belong to the published training set and are put back")
    target = "train" if "test" in splits else "test"
    return [item._replace(split=target) if item.split == "val" else item for item in items]


def _expressions(items: list[Item], place: Callable[[Item], str], bad: list[Bad], dropped: Counter[int]) -> list[Item]:
    """Items whose number can be an expression; counts those of AffectNet's other labels, and reports the rest."""
    value_of = {token: label_number(token) for token in {item.token for item in items}}
    first = 0 if 0 in value_of.values() else 1
    usual = {t for t, value in value_of.items() if value is None or first <= value < first + len(CLASSES)}
    if len(usual) == len(value_of):
        return items
    kept: list[Item] = []
    for item in items:
        value = value_of[item.token]
        if item.token in usual:
            kept.append(item)
        elif first == 0 and value in DROPPED:
            dropped[value] += 1
        else:
            message = f"{place(item)}: label '{item.token}' is not one of {first} to {first + len(CLASSES) - 1}"
            bad.append(Bad(_name(item), "label", message, "correct the label, or remove the row"))
    return kept


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _name(item: Item) -> str:
    return canonical(_stem(item.path), item.split) or f"{item.split}/{item.path}"


def _refuse_mixture(items: list[Item], base: Path, place: Callable[[Item], str]) -> None:
    """Images of one release must not be tested by a model that was trained on the other's."""
    first: dict[str, Item] = {}
    for item in items:
        first.setdefault(release_of(_stem(item.path)), item)
    if RELEASE_2017 in first and RELEASE_2021 in first:
        shown = " and ".join(
            f"{NAMES_OF[release]} ({place(first[release])})" for release in (RELEASE_2017, RELEASE_2021)
        )
        message = f"{base} mixes AffectNet's releases of 2017 and 2021: {shown}"
        raise UserError(message, "keep the images of one release there")
