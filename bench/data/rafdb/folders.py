"""RAF-DB as folders per class, numbered or named, and as flat files that carry their class in the name."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from bench.data import order
from bench.data.class_folders import (
    Items,
    Shape,
    count,
    first_images,
    is_image,
    look,
    number,
    read_csv,
    read_tree,
    split_of,
)
from bench.data.classes import ORDERS, class_name
from bench.data.listing import Bad, Layout, Listing, entries, is_folder, safe_name
from bench.data.order import Fit
from bench.data.rafdb.names import BENCHMARK, Row, official_name, official_split, places, table
from bench.errors import UserError

NEITHER = "one of the two is wrong; restore the published files, or remove the table"
ALIKE = 0.9  # of a table's rows agree with the folders, or its numbers are of an order not known
_RENAMED = re.compile(r"(train|val|test)_\d+_([A-Za-z]+)")


class Folders(Layout):
    """train/3, train/happy and the like; numbers are read in the order that fits the published counts.

    Kaggle's train_labels.csv and test_labels.csv, beside the folders or beside DATASET, are checked against them.
    """

    name: ClassVar[str] = "folders"

    def find(self, root: Path) -> Path | None:
        for base in places(root):
            shape = look(base)
            if shape is not None and _is_rafdb(base, shape):
                beside = base != root and base.name.lower() == "dataset" and _tables(base.parent)
                return base.parent if beside else base
        return None

    def read(self, base: Path) -> Listing:
        tree = _tree(base)
        items = read_tree(tree)
        histogram = items.histogram()
        fit = Fit(BENCHMARK, "", 0, 0, 0)
        if any(number(token) is not None for tokens in histogram.values() for token in tokens):
            fit = order.detect(histogram, {BENCHMARK: order.published()[BENCHMARK]}, str(tree))
        as_test = "val" in histogram and "test" not in histogram
        rows, bad = _rows(tree, items, fit, as_test)
        files = _tables(base) or _tables(tree)
        found = _listing(rows, [*items.bad, *bad], files, base, str(tree.relative_to(base)))
        found.order = fit.order
        if fit.remark:
            found.remarks.append(fit.remark)
        if as_test:
            found.remarks.append("the folder called val is RAF-DB's test split: RAF-DB has no validation split")
        if items.ignored:
            more = ", ..." if len(items.ignored) > 5 else ""
            found.remarks.append(f"not read, no images of a class: {', '.join(map(ascii, items.ignored[:5]))}{more}")
        return found

    def state(self, base: Path) -> list[Path]:
        tree = _tree(base)
        shape = look(tree)
        folders = [tree / folder.path for folder in shape.folders] if shape else []
        return [*(_tables(base) or _tables(tree)).values(), *dict.fromkeys(path.parent for path in folders), *folders]

    def lacks(self, root: Path) -> str:
        for base in places(root):
            shape = look(base)
            fit = order.closest(count(base, shape, _most()), _published()) if shape is not None else None
            if fit is not None and fit.distance <= fit.total // 4:
                counts = f"{fit.distance:,} images more or fewer than the published {fit.total:,}"
                return f"{base}: class folders whose counts are near RAF-DB's, but {counts}; restore the missing ones"
        return ""


class Renamed(Layout):
    """Flat files `train_1_angry.jpg` in a folder per split, with a table `name,label` (ResEmoteNet)."""

    name: ClassVar[str] = "resemotenet"

    def find(self, root: Path) -> Path | None:
        for base in places(root):
            folders = _flat_folders(base)
            if folders and order.which_dataset(_name_histogram(folders)) == "rafdb":
                return base
        return None

    def read(self, base: Path) -> Listing:
        rows: dict[str, Row] = {}
        bad: list[Bad] = []
        for folder, own in _flat_folders(base).items():
            for entry in entries(folder):
                name = _RENAMED.fullmatch(os.path.splitext(entry.name)[0])
                if not is_image(entry.name):
                    continue
                row = Row("", (class_name(name[2]) or "") if name else "", name[1] if name else "", entry.path)
                if not row.label or not safe_name(entry.name):
                    message = f"{folder}: the name {entry.name!r} does not tell its class (train_1_angry.jpg)"
                    bad.append(Bad(repr(entry.name), "name", message, "restore its name, or remove it"))
                elif own and own != row.split:
                    message = f"{entry.path}: a {row.split} image by its name lies in a {own} folder"
                    bad.append(Bad(f"{own}/{entry.name}", "row", message, "move it to its own folder"))
                elif (key := f"{row.split}/{entry.name}") in rows:
                    message = f"{key} is there twice: {rows[key].path} and {entry.path}"
                    bad.append(Bad(key, "twice", message, "remove one"))
                else:
                    rows[key] = row._replace(name=key, path=str(Path(entry.path).relative_to(base)))
        return _listing(rows, bad, _tables(base, _flat_folders(base)), base, "the file name")

    def state(self, base: Path) -> list[Path]:
        folders = _flat_folders(base)
        return [*_tables(base, folders).values(), *folders]


def _published() -> Mapping[str, order.Counts]:
    return {BENCHMARK: order.published()[BENCHMARK]}


def _most() -> int:
    """Files of a class folder worth counting: more than any class of RAF-DB has in all its splits."""
    return 5 + int(1.05 * sum(max(classes.values()) for classes in _published()[BENCHMARK].values()))


def _is_rafdb(base: Path, shape: Shape) -> bool:
    """By the names of the first images, else by the counts; AffectNet, FERPlus and own folders have others."""
    names = first_images(base, shape)
    if 2 * sum(official_name(name) is not None for name in names) > len(names):
        return True
    return not shape.problem and order.which_dataset(count(base, shape, _most())) == "rafdb"


def _tree(base: Path) -> Path:
    """The folder with the class folders: `base`, or the one in it that they came wrapped in."""
    return next((place for place in places(base) if look(place) is not None), base)


def _rows(tree: Path, items: Items, fit: Fit, as_test: bool) -> tuple[dict[str, Row], list[Bad]]:
    """Usable images by name, and what is wrong with the others."""
    rows: dict[str, Row] = {}
    bad: list[Bad] = []
    twice: set[str] = set()
    known = set(ORDERS["raf"])
    for item in items.items:
        official = official_name(item.path)
        split = "test" if as_test and item.split == "val" else item.split or official_split(official or "")
        inside = item.path.partition("/")[2] if item.split else item.path
        name = official or f"{split}/{inside}"
        label = fit.label(item.token)
        path = tree / item.path
        if label not in known:
            hint = "remove it, or use the copy as your own data"
            bad.append(Bad(name, "label", f"{path}: '{item.token}' is no class of RAF-DB", hint))
        elif not split:
            hint = "put the images into train and test"
            bad.append(Bad(name, "row", f"{path}: neither folder nor name says train or test", hint))
        elif official and (split == "test") != (official_split(official) == "test"):
            hint = "move it back: the split is official, and its name says it"
            bad.append(Bad(name, "row", f"{path}: an image of the {official_split(official)} split", hint))
        elif name in rows:
            if name not in twice:
                message = f"{name} is there twice: {tree / rows[name].path} and {path}"
                bad.append(Bad(name, "twice", message, "remove the wrong one"))
            twice.add(name)
        else:
            rows[name] = Row(name, str(label), split, item.path)
    return {name: row for name, row in rows.items() if name not in twice}, bad


def _listing(rows: dict[str, Row], bad: list[Bad], files: dict[str, Path], base: Path, where: str) -> Listing:
    """The listing of rows, less those that the tables contradict. `where` says what else has the label."""
    found = Listing(table([]), bad)
    for split, file in files.items():
        wrong, remark = _compare(split, file, rows, where)
        found.bad += wrong
        found.remarks += [remark] if remark else []
        for one in wrong:
            rows.pop(one.name, None)
    prefix = f"{where}/" if where not in (".", "the file name") else ""
    found.frame = table(row._replace(path=prefix + row.path) for row in rows.values())
    found.label_files = {str(file.relative_to(base)): file for file in files.values()}
    return found


def _compare(split: str, file: Path, rows: Mapping[str, Row], where: str) -> tuple[list[Bad], str]:
    """Rows of a table that contradict folders or names, and a remark on what it leaves open."""
    items = read_csv(file)
    own = {_key(row.path): row for row in rows.values() if row.split == split}
    pairs = [(item, own.get(_key(item.path))) for item in items.items]
    fit = _reading((item.token, row.label) for item, row in pairs if row is not None)
    matched = sum(row is not None and fit.label(item.token) == row.label for item, row in pairs)
    present = sum(row is not None for _, row in pairs)
    if matched < ALIKE * present:
        return [], f"{file.name} is not used: its labels are in no known order, or of other images"
    bad = list(items.bad)
    source = "its name" if where == "the file name" else "its folder"
    for item, row in pairs:
        place = f"{file}, row {item.row}"
        if row is None:
            message = f"{place} names {item.path}, which is not there"
            bad.append(Bad(official_name(item.path) or f"{split}/{item.path}", "missing", message, "restore the image"))
        elif fit.label(item.token) != row.label:
            told = fit.label(item.token) or f"'{item.token}', no class"
            bad.append(Bad(row.name, "label", f"{place}: {item.path} is {told}, {source} says {row.label}", NEITHER))
    unnamed = len(own) - present
    return bad, f"{file.name} leaves out {unnamed:,} of {len(own):,} {split} images" if unnamed > 0 else ""


def _key(path: str) -> str:
    return official_name(path) or path.rsplit("/", 1)[-1]


def _reading(pairs: Iterable[tuple[str, str]]) -> Fit:
    """The order under which most labels of a table are those of the images."""
    counted = Counter(pairs)
    readings = [Fit(BENCHMARK, name, first, 0, 0) for name in ORDERS for first in (1, 0)]
    return max(readings, key=lambda fit: sum(n for (token, label), n in counted.items() if fit.label(token) == label))


def _tables(base: Path, folders: Iterable[Path] = ()) -> dict[str, Path]:
    """Split -> train_labels.csv, test_labels.csv and the like in some folders."""
    found: dict[str, Path] = {}
    for folder in (base, *folders):
        for word in ("train", "val", "valid", "validation", "test"):
            file = folder / f"{word}_labels.csv"
            split = split_of(word)
            if split and split not in found and file.is_file():
                found[split] = file
    return found


def _flat_folders(base: Path) -> dict[Path, str]:
    """Folders of renamed images: split folders of `base`, or `base` itself ("" for the split)."""
    try:
        inside = entries(base, 256)
    except UserError:
        return {}
    folders = {Path(entry.path): split_of(entry.name) or "" for entry in inside if is_folder(entry)}
    found = {folder: split for folder, split in folders.items() if split and _is_renamed(folder)}
    return found or ({base: ""} if _is_renamed(base) else {})


def _is_renamed(folder: Path) -> bool:
    try:
        names = [entry.name for entry in entries(folder, 16) if is_image(entry.name)]
    except UserError:
        return False
    return 2 * sum(_RENAMED.fullmatch(os.path.splitext(name)[0]) is not None for name in names) > len(names)


def _name_histogram(folders: Mapping[Path, str]) -> dict[str, dict[str, int]]:
    """Images per split and class word of renamed files, no more than could be RAF-DB's."""
    found: dict[str, dict[str, int]] = {}
    left = 2 * sum(sum(classes.values()) for classes in _published()[BENCHMARK].values())
    for folder in folders:
        for entry in entries(folder, left):
            name = _RENAMED.fullmatch(os.path.splitext(entry.name)[0])
            if name:
                words = found.setdefault(name[1], {})
                words[name[2]] = words.get(name[2], 0) + 1
    return found
