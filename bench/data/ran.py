"""RAN's lists of occluded and turned faces (Wang et al. 2020, arXiv 1905.04075), read from its authors' files.

One file per dataset and subset, in five line formats. A line names a test image and its class, numbered in the
dataset's own order; the lists of occluded faces add a type of occlusion (what the types mean is not documented). Some
images are listed twice. Names come out as the dataset's adapter spells them. A list with other images is refused: only
the lists that `data synth` writes for its own trees may differ.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.data.base import is_synthetic
from bench.data.classes import ORDERS
from bench.data.listing import is_folder
from bench.errors import UserError

REPOSITORY = "github.com/kaiwang960112/Challenge-condition-FER-dataset"
RESTORE = f"restore the published file from {REPOSITORY}"
DEPTH = 2  # folders between a data root and the lists
MANY = 500  # entries of a folder below a data root that holds images, not lists: it is not looked into


@dataclass(frozen=True)
class Form:
    """Where a list lies in the repository and how its lines are read."""

    folder: str
    file: str
    line: re.Pattern[str]  # groups label, name and, where there is one, occlusion
    example: str
    order: str  # of bench/data/classes.py
    suffix: str  # what the adapter's name has after the listed one
    labels: str = ""  # a second file with the labels alone, in the same order


@dataclass(frozen=True)
class Listed:
    """One line of a list."""

    row: int  # from 1
    name: str
    label: str
    occlusion: int | None = None


_FERPLUS_TURNED = re.compile(r"(?P<label>[0-9])/(?P<name>fer[0-9]{7})\.jpg")
_RAFDB_TURNED = re.compile(r"(?P<label>[0-9])/(?P<name>test_[0-9]{4})_aligned\.jpg")
_HASH = r"(?P<label>[0-9])/(?P<name>[0-9a-f]{56})"

FORMS: dict[tuple[str, str], Form] = {
    ("ferplus", "occlusion"): Form(
        "FERplus_dir", "jianfei_occlusion_list.txt",
        re.compile(r"(?P<label>[0-9])_(?P<name>fer[0-9]{7})\.png 8 (?P<occlusion>[0-9])"), "1_fer0034656.png 8 0",
        "ferplus", ".png",
    ),
    ("ferplus", "pose30"): Form(
        "FERplus_dir", "pose_30_ferplus_list.txt", _FERPLUS_TURNED, "0/fer0032226.jpg", "ferplus", ".png"
    ),
    ("ferplus", "pose45"): Form(
        "FERplus_dir", "pose_45_ferplus_list.txt", _FERPLUS_TURNED, "0/fer0032226.jpg", "ferplus", ".png"
    ),
    ("rafdb", "occlusion"): Form(
        "RAF_DB_dir", "rafdb_occlusion_list.txt",
        re.compile(r"(?P<name>test_[0-9]{4})_aligned (?P<label>[0-9]) (?P<occlusion>[0-9])"), "test_0003_aligned 3 4",
        "raf", ".jpg",
    ),
    ("rafdb", "pose30"): Form(
        "RAF_DB_dir", "val_raf_db_list.txt", _RAFDB_TURNED, "0/test_0004_aligned.jpg", "raf", ".jpg",
        "val_raf_db_label.txt",
    ),
    ("rafdb", "pose45"): Form(
        "RAF_DB_dir", "val_raf_db_list_45.txt", _RAFDB_TURNED, "0/test_0004_aligned.jpg", "raf", ".jpg",
        "val_raf_db_label_45.txt",
    ),
    ("affectnet", "occlusion"): Form(
        "AffectNet_dir", "occlusion_affectnet_list.txt", re.compile(f"val/{_HASH}/"), "val/0/<56 hex digits>/",
        "affectnet", "",
    ),
    ("affectnet", "pose30"): Form(
        "AffectNet_dir", "pose_30_affectnet_list.txt", re.compile(rf"{_HASH}\.jpg"), "0/<56 hex digits>.jpg",
        "affectnet", "",
    ),
    ("affectnet", "pose45"): Form(
        "AffectNet_dir", "pose_45_affectnet_list.txt", re.compile(rf"{_HASH}/8\.jpg"), "7/<56 hex digits>/8.jpg",
        "affectnet", "",
    ),
}  # fmt: skip

PUBLISHED: dict[tuple[str, str], str] = {  # `digest` of each list
    ("ferplus", "occlusion"): "961bb37daf82d2eab79120dffb01c68d07341be4dd21144f5cae7ee6280e9e12",
    ("ferplus", "pose30"): "aad43721edb5c175633ad6294304144c94d2eff75f7b4b9ebf3bbee3fe6e31ff",
    ("ferplus", "pose45"): "ab2631c4ec21cbc4c03848682b844ecf8edaa505886676c6fe4513bcf395f311",
    ("rafdb", "occlusion"): "4e6f52b6aa2914c9b80cfb80469eee60df0287e18c97e05f48c2715709250806",
    ("rafdb", "pose30"): "c3e7707f1e231ff0ce5d6442e659ebb8515684d9c3e08be81a74b3055cb83b49",
    ("rafdb", "pose45"): "bedb4325cb05c8c442b86180a1d5213e9bce5144a597b0f74a130b83a24004cb",
    ("affectnet", "occlusion"): "51100e52422c4ddb2870b04c86f6c6099f4743dd7e14f8f6b1389558ec910c68",
    ("affectnet", "pose30"): "676094efc4193b8d797fa99600bf3bd23a0d998ed4b47abe09eae3fc5b7d857e",
    ("affectnet", "pose45"): "d1e3d94723aabfc8863b124c70bb1205aa0204d41368351bacef428f3e9b49a3",
}


def read(dataset: str, subset: str, places: Iterable[Path], published: bool = True) -> tuple[Path, list[Listed]]:
    """A list as published, repeats included.

    Args:
        dataset: ferplus, rafdb or affectnet.
        subset: occlusion, pose30 or pose45.
        places: folders to look in, and in the folders one and two below them.
        published: whether it must be RAN's list, image by image; synthetic trees are then not looked into. Else it is
            the list of such a tree.

    Returns:
        The file, and its lines.

    Raises:
        UserError: the list is not there, or a file or row is wrong (named), or it is not the published one.
    """
    form = FORMS[dataset, subset]
    places = list(dict.fromkeys(places))
    folders = [folder for place in places for folder in _folders(place, published)]
    path = _find(form, folders)
    if path is None:
        message = f"RAN's list {form.file} is not under {' or '.join(map(str, places))}"
        raise UserError(message, f"put {form.folder} of {REPOSITORY} there (it holds names and labels only)")
    listed = read_list(path, form)
    if published:
        check_published(path, listed, (dataset, subset))
    return path, listed


def digest(listed: Iterable[Listed]) -> str:
    """SHA-256 over the sorted lines `name,label` of a list, repeats included."""
    lines = sorted(f"{one.name},{one.label}\n" for one in listed)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_list(path: Path, form: Form) -> list[Listed]:
    """The lines of one file, checked against the file of its labels where that lies beside it.

    Raises:
        UserError: names file and row: the line has another form, the class number is out of range, or an image has two
            labels.
    """
    order = ORDERS[form.order]
    found = []
    labels: dict[str, str] = {}
    for row, text in _lines(path):
        match = form.line.fullmatch(text)
        if match is None:
            raise UserError(f"{path}, row {row}: '{text[:80]}' is not of the form '{form.example}'", RESTORE)
        name, label = match["name"] + form.suffix, _label(match["label"], order, f"{path}, row {row}")
        if labels.setdefault(name, label) != label:
            raise UserError(f"{path}, row {row}: {name} is {label} here and {labels[name]} further up", RESTORE)
        found.append(Listed(row, name, label, int(match["occlusion"]) if "occlusion" in match.groupdict() else None))
    if not found:
        raise UserError(f"{path} is empty", RESTORE)
    if form.labels and (path.parent / form.labels).is_file():
        _check_labels(path, found, path.parent / form.labels, order)
    return found


def check_published(path: Path, listed: list[Listed], place: tuple[str, str]) -> None:
    """UserError where a list is not the published one for its dataset and subset."""
    found = digest(listed)
    if found == PUBLISHED[place]:
        return
    other = next((known for known, sha256 in PUBLISHED.items() if sha256 == found), None)
    if other == (place[0], "pose30"):
        message = f"{path} holds the 30-degree list ({len(listed):,} lines)"
        hint = f"RAN's README links both lists of FERPlus to one file; take {path.name} from the folder of {REPOSITORY}"
        raise UserError(message, hint)
    message = f"{path} is not RAN's published list: its {len(listed):,} lines name other images, or other classes"
    raise UserError(message, RESTORE)


def cleaned(listed: Iterable[Listed]) -> list[Listed]:
    """Each image once: its first line."""
    first: dict[str, Listed] = {}
    for one in listed:
        first.setdefault(one.name, one)
    return list(first.values())


def _find(form: Form, folders: Iterable[Path]) -> Path | None:
    """The file in any of `folders`, bare or in the repository's folder; UserError where two of them differ."""
    found = [path for f in folders for path in (f / form.file, f / form.folder / form.file) if path.is_file()]
    for other in found[1:]:
        if other.read_bytes().split() != found[0].read_bytes().split():
            raise UserError(f"{found[0]} and {other} are different lists", "keep the published one")
    return found[0] if found else None


def _folders(place: Path, published: bool) -> Iterator[Path]:
    """A folder and those one and two below it; synthetic trees, whose lists are their own, are no place for RAN's."""
    level = [place]
    for depth in range(DEPTH + 1):
        level = [folder for folder in level if not (published and is_synthetic(folder))]
        yield from level
        if depth < DEPTH:
            level = [inner for folder in level for inner in _inside(folder, 0 if depth == 0 else MANY)]


def _inside(folder: Path, many: int) -> list[Path]:
    """Folders in a folder, by name; none where it cannot be read or has more than `many` entries (0: any number)."""
    try:
        with os.scandir(folder) as scan:
            found = []
            for number, entry in enumerate(scan):
                if many and number >= many:
                    return []
                if not entry.name.startswith(".") and is_folder(entry):
                    found.append(folder / entry.name)
    except OSError:
        return []
    return sorted(found)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines with their numbers (from 1), without blank ones and the blanks around each."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list: {error}", RESTORE) from None
    return [(row, line.strip()) for row, line in enumerate(text.split("\n"), 1) if line.strip()]


def _label(number: str, order: tuple[str, ...], where: str) -> str:
    if not number.isdecimal() or int(number) >= len(order):
        raise UserError(f"{where}: class '{number[:20]}' is not one of 0 to {len(order) - 1}", RESTORE)
    return order[int(number)]


def _check_labels(path: Path, listed: list[Listed], file: Path, order: tuple[str, ...]) -> None:
    """`file` begins with the numbers of images and classes, then has the label of each line of the list at `path`."""
    (_, header), *rows = _lines(file) or [(1, "")]
    if header.split() != [str(len(listed)), str(len(order))] or len(rows) != len(listed):
        message = (
            f"{file} has the header '{header[:20]}' and {len(rows):,} labels; {path.name} has {len(listed):,} lines"
        )
        raise UserError(message, RESTORE)
    for (row, number), one in zip(rows, listed, strict=True):
        if _label(number, order, f"{file}, row {row}") != one.label:
            message = f"{file}, row {row}: class {number}, but {path.name}, row {one.row}, says {one.label}"
            raise UserError(message, RESTORE)
