"""AffectNet with lists of its own, as public code makes them from either release: one list a split, or one table.

POSTER writes `train_set/train_annotations_8class.txt`, QCS `affectnet_training-cls8-v7.txt`, DAN one `affectnet.csv`
with a column for the split. Where the npy files of the release of 2021 are there too, those are read and not the lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.data.affectnet.layouts import RESTORE, AffectNetLayout, from_items, is_label, release_of
from bench.data.affectnet.release_2021 import PEEK, Release2021
from bench.data.base import SPLITS
from bench.data.class_folders import head, is_image, read_csv, read_list
from bench.data.label_lists import Items
from bench.data.listing import Listing, entries, is_folder
from bench.errors import UserError

TEST_FOLDERS = ("valid_set", "val_set")
QCS_IMAGES = ("Manually_trainval_croped", "Manually_trainval_cropped")
QCS_LISTS = {"train": "affectnet_training-cls{}", "test": "affectnet_validation-cls{}"}
TABLES = ("affectnet.csv", "AffectNet.csv")
TABLE_COLUMNS = {"phase", "img_path", "label"}


@dataclass(frozen=True)
class Lists:
    """One list a split, and where the names in it start."""

    classes: int
    files: dict[str, Path]
    images: dict[str, Path]


class SplitLists(AffectNetLayout):
    """POSTER's and QCS's lists of `<name> <number>`."""

    name: ClassVar[str] = "lists"

    def find(self, root: Path) -> Path | None:
        found = find_lists(root)
        if found is None or Release2021().find(root) is not None:
            return None
        return root if all(folder.is_dir() for folder in found.images.values()) else None

    def release(self, base: Path) -> str:
        names = [line.split()[0] for path in _lists(base).files.values() for line in head(path)]
        return _common_release(names)

    def classes(self, base: Path) -> int:
        return _lists(base).classes

    def state(self, base: Path) -> list[Path]:
        found = _lists(base)
        images = list(dict.fromkeys(found.images.values()))  # flat, or dealt out to folders
        return [*found.files.values(), *images, *(inside for folder in images for inside in _folders(folder))]

    def lacks(self, root: Path) -> str:
        found = find_lists(root)
        absent = [folder for folder in found.images.values() if not folder.is_dir()] if found is not None else []
        return f"{root} has lists of AffectNet but no images in {absent[0]}." if absent else ""

    def read(self, base: Path) -> Listing:
        found = _lists(base)
        whole = Items()
        for split, path in found.files.items():
            one = read_list(path, split, is_label)
            prefix = found.images[split].relative_to(base).as_posix()
            whole.items += [item._replace(path=f"{prefix}/{item.path}") for item in one.items]
            whole.bad += one.bad
        shown = {split: path.relative_to(base).as_posix() for split, path in found.files.items()}
        return _listing(base, whole, shown, {name: base / name for name in shown.values()})


class PhaseTable(AffectNetLayout):
    """DAN's table with the columns phase, img_path and label."""

    name: ClassVar[str] = "phase-table"

    def find(self, root: Path) -> Path | None:
        table = find_table(root)
        if table is None or Release2021().find(root) is not None:
            return None
        return root if any(_is_there(root, path) for path in _paths_in_head(table)) else None

    def release(self, base: Path) -> str:
        return _common_release(_paths_in_head(_table(base)))

    def classes(self, base: Path) -> int:
        return 0

    def lacks(self, root: Path) -> str:
        table = find_table(root)
        if table is None or self.find(root) is not None or Release2021().find(root) is not None:
            return ""
        path = next(iter(_paths_in_head(table)), "images")
        return f"{table} lists images of AffectNet that are not there ({path})."

    def state(self, base: Path) -> list[Path]:
        outer = _folders(base)
        return [_table(base), *outer, *(inside for folder in outer for inside in _folders(folder))]

    def read(self, base: Path) -> Listing:
        table = _table(base)
        found = read_csv(table, name="img_path", label="label", split="phase", accept=is_label)
        files = Files(base)
        found.items = [item._replace(path=files.within(item.path)) for item in found.items]
        return _listing(base, found, dict.fromkeys(SPLITS, table.name), {table.name: table})


class Files:
    """Which files are there, each folder read once."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.names: dict[str, set[str]] = {}  # folder, relative to the base -> its files
        self.moved: dict[str, str] = {}  # folder as written -> the folder its files were found in

    def has(self, path: str) -> bool:
        """Whether a file is there; a path that leaves the base is not."""
        folder, _, name = path.rpartition("/")
        if folder not in self.names:
            inside = self.base / folder
            leaves = folder.startswith("/") or ".." in folder.split("/")
            self.names[folder] = set() if leaves or not inside.is_dir() else {entry.name for entry in entries(inside)}
        return name in self.names[folder]

    def within(self, path: str) -> str:
        """A path of another machine as one in the base: its longest end that is there; the path where none is."""
        folder, _, name = path.rpartition("/")
        if folder in self.moved and self.has(f"{self.moved[folder]}/{name}"):
            return f"{self.moved[folder]}/{name}"
        found = next((end for end in _ends(path) if self.has(end)), path)
        if found != path:
            self.moved[folder] = found.rpartition("/")[0]
        return found

    def extra(self, named: set[str]) -> list[str]:
        """Images in the folders seen that are not among `named`."""
        paths = (f"{folder}/{name}" for folder, names in self.names.items() if folder for name in names)
        return sorted(path for path in paths if path not in named and is_image(path))


def find_lists(root: Path) -> Lists | None:
    """The lists under `root`, those of eight classes first; None where not both splits have one."""
    for classes in (8, 7):
        found = _poster_lists(root, classes) or _qcs_lists(root, classes)
        if found is not None and all(_is_list(path) for path in found.files.values()):
            return found
    return None


def find_table(root: Path) -> Path | None:
    """DAN's table in `root`, known by its columns."""
    for name in TABLES:
        first = head(root / name, 1)
        if first and {cell.strip(' "') for cell in first[0].split(",")} >= TABLE_COLUMNS:
            return root / name
    return None


def _poster_lists(root: Path, classes: int) -> Lists | None:
    train = root / "train_set" / f"train_annotations_{classes}class.txt"
    for folder in TEST_FOLDERS:
        for start in ("valid", "val"):
            test = root / folder / f"{start}_annotations_{classes}class.txt"
            if train.is_file() and test.is_file():
                images = {"train": train.parent / "images", "test": test.parent / "images"}
                return Lists(classes, {"train": train, "test": test}, images)
    return None


def _qcs_lists(root: Path, classes: int) -> Lists | None:
    files: dict[str, Path] = {}
    try:
        names = [entry.name for entry in entries(root, 200)]
    except UserError:
        return None
    for split, start in QCS_LISTS.items():
        first = next((n for n in names if n.startswith(start.format(classes)) and n.endswith(".txt")), None)
        if first is None:
            return None
        files[split] = root / first
    folder = next((root / name for name in QCS_IMAGES if (root / name).is_dir()), root / QCS_IMAGES[0])
    return Lists(classes, files, dict.fromkeys(files, folder))


def _is_list(path: Path) -> bool:
    """Whether a file starts with lines of an image's name and a number."""
    lines = [line.split() for line in head(path)]
    return any(len(words) == 2 and is_image(words[0]) and words[1].isdigit() for words in lines)


def _lists(base: Path) -> Lists:
    found = find_lists(base)
    if found is None:
        raise UserError(f"the lists of {base} are gone or empty", RESTORE)
    return found


def _table(base: Path) -> Path:
    found = find_table(base)
    if found is None:
        raise UserError(f"the table of {base} is gone or empty", RESTORE)
    return found


def _paths_in_head(table: Path) -> list[str]:
    first, *rows = head(table)
    column = [cell.strip(' "') for cell in first.split(",")].index("img_path")
    cells = [row.split(",") for row in rows]
    return [row[column].strip(' "').replace("\\", "/") for row in cells if len(row) > column]


def _ends(path: str) -> Iterator[str]:
    """A path less its first folders, the whole of it first."""
    parts = path.strip("/").split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _is_there(root: Path, path: str) -> bool:
    return any((root / end).is_file() for end in _ends(path) if ".." not in end.split("/"))


def _common_release(paths: list[str]) -> str:
    releases = {release_of(path.rpartition("/")[2].rpartition(".")[0]) for path in paths}
    return releases.pop() if len(releases) == 1 else ""


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder; of one whose first entries are files it is taken that all are."""
    if not any(is_folder(entry) for entry in entries(folder, PEEK)):
        return []
    return [folder / entry.name for entry in entries(folder) if is_folder(entry)]


def _listing(base: Path, whole: Items, shown: dict[str, str], label_files: dict[str, Path]) -> Listing:
    """The rows of lists as a listing.

    Args:
        shown: split -> the list its rows are in, for messages.
        label_files: as in `Listing`.
    """
    files = Files(base)
    listing = from_items(whole.items, base, lambda item: f"{shown[item.split]} row {item.row}", files.has)
    listing.bad = whole.bad + listing.bad
    listing.extra = files.extra({item.path for item in whole.items})
    listing.label_files = label_files
    return listing
