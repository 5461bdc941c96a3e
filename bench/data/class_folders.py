"""Folder-per-class trees and `name label` lists as public code leaves them: every image with its class as written.

Nothing here knows a dataset. A class is a *token*: the name of a folder or the text of a label cell, either a word for
an expression ("Happy", see bench/data/classes.py) or a whole number ("3"). Which expression a number stands for is
decided in bench/data/order.py, never here.

    look(base)                           Shape or None: split and class folders, by the first entries (cheap)
    read_tree(base)                      Items: every image of such a tree
    count(base, shape, limit)            {split: {token: images}}, names are not kept
    read_list(file, split)               Items of a text file with lines `name label`
    read_csv(file, name, label, split)   Items of a table with or without header
    head(file)                           the first lines of a text file, for recognition
    split_of(word), number(token), is_class(token), is_image(name)

`look` never raises (what contradicts itself is told in `Shape.problem`); `read_tree` raises UserError for it. Rows that
cannot be used become `Bad`; a bad row never changes what another row means.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.data.classes import class_name
from bench.data.label_lists import Accept as Accept
from bench.data.label_lists import Item as Item
from bench.data.label_lists import Items as Items
from bench.data.label_lists import head as head
from bench.data.label_lists import is_class as is_class
from bench.data.label_lists import is_image as is_image
from bench.data.label_lists import number as number
from bench.data.label_lists import read_csv as read_csv
from bench.data.label_lists import read_list as read_list
from bench.data.label_lists import split_of as split_of
from bench.data.listing import ALIGNED, Bad, entries, is_aligned, is_folder, safe_name
from bench.errors import UserError

LOOK = 256  # entries of a folder seen in recognition: one with class folders holds little else
MOST_CLASSES = 31  # folders with greater numbers are no classes (AffectNet's images lie in numbered folders)


class ClassFolder(NamedTuple):
    """A folder of images of one class: path relative to the base, split or "", token."""

    path: str
    split: str
    token: str


@dataclass(frozen=True)
class Shape:
    """Class folders of a tree.

    Attributes:
        folders: all class folders, by split, then name.
        bare: split folders without class folders, relative paths.
        others: folders beside split or class folders that are neither, relative paths.
        problem: why the tree cannot be read as it is; "" where it can.
    """

    folders: tuple[ClassFolder, ...]
    bare: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    problem: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with class folders; ("",) where there are none."""
        return tuple(dict.fromkeys(folder.split for folder in self.folders))

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens of all splits, each once."""
        return tuple(dict.fromkeys(folder.token for folder in self.folders))

    @property
    def numbered(self) -> bool:
        """Whether classes are numbers."""
        return all(number(token) is not None for token in self.tokens)


def look(base: Path, accept: Accept = is_class) -> Shape | None:
    """Class folders in the split folders of `base`, or in `base` itself; None where there are none with images.

    Sees only the first entries of each folder. A split folder that holds a folder of its own split (`val_set/val_set`,
    left by unpacking) and no class folders is entered.

    Args:
        base: the folder; one that cannot be read counts as empty.
        accept: which folder names are classes (a user's own label map has others).
    """
    own = _class_folders(base, "", "", accept)
    found: list[ClassFolder] = []
    bare: list[str] = []
    places: list[str] = []
    problem = ""
    for name in _folders(base):
        split = split_of(name)
        if split is None:
            continue
        place = _unnested(base, name, accept)
        inside = _class_folders(base, place, split, accept)
        if not inside:
            bare.append(name)
        elif any(folder.split == split for folder in found):
            problem = f"{base} holds two folders of the {split} split: {places[-1]} and {place}"
        else:
            found += inside
            places.append(place)
    if found and own:
        problem = f"{base} holds class folders of its own ({own[0].path}) beside those in {places[0]}"
    folders = found or own
    if not folders:
        return None
    others = [path for place in dict.fromkeys(["", *places]) for path in _others(base, place, accept, bool(own))]
    return Shape(tuple(folders), tuple(bare), tuple(others), problem or _mixed(base, folders))


def read_tree(base: Path, accept: Accept = is_class) -> Items:
    """Every image of a folder-per-class tree; folders in class folders are not entered.

    Raises:
        UserError: there are no class folders, they contradict each other (see `Shape.problem`), or one cannot be read.
    """
    _refuse_dead_links(base, lambda name: accept(name) or split_of(name) is not None)
    shape = look(base, accept)
    if shape is None:
        raise UserError(f"{base} holds no class folders", "expected folders such as train/happy or train/3 with images")
    if shape.problem:
        raise UserError(shape.problem, "keep one of them; move the other elsewhere")
    found = Items(ignored=list(shape.others))
    for parent in dict.fromkeys((base / folder.path).parent for folder in shape.folders):
        _refuse_dead_links(parent, accept)
        found.folders.append(parent)
    for folder in shape.folders:
        found.folders.append(base / folder.path)
        _read_folder(base, folder, found)
    return found


def count(base: Path, shape: Shape, limit: int = 0) -> dict[str, dict[str, int]]:
    """Image files per split and token; each folder is counted up to `limit` files, if given.

    A folder that cannot be read counts as empty: `read_tree` names it.
    """
    found: dict[str, dict[str, int]] = {}
    for folder in shape.folders:
        tokens = found.setdefault(folder.split, {})
        tokens[folder.token] = tokens.get(folder.token, 0) + _count_images(base / folder.path, limit)
    return found


def first_images(base: Path, shape: Shape, limit: int = 4) -> list[str]:
    """Names of a few images of each class folder, for recognition by name."""
    names: list[str] = []
    for folder in shape.folders:
        try:
            inside = entries(base / folder.path, 16)
        except UserError:
            continue
        names += [entry.name for entry in inside if is_image(entry.name)][:limit]
    return names


def _folders(folder: Path) -> list[str]:
    """Names of the folders among the first entries; none where the folder cannot be read."""
    try:
        return [entry.name for entry in entries(folder, LOOK) if is_folder(entry)]
    except UserError:
        return []


def _class_folders(base: Path, place: str, split: str, accept: Accept) -> list[ClassFolder]:
    """Class folders in `base/place`, if any of them holds an image."""
    tokens = [name for name in _folders(base / place) if accept(name)]
    if any((value := number(name)) is not None and value > MOST_CLASSES for name in tokens):
        return []
    prefix = f"{place}/" if place else ""
    found = [ClassFolder(prefix + name, split, name) for name in tokens]
    return found if any(_holds_image(base / folder.path) for folder in found) else []


def _holds_image(folder: Path) -> bool:
    try:
        return any(is_image(entry.name) for entry in entries(folder, 16))
    except UserError:
        return False


def _unnested(base: Path, name: str, accept: Accept) -> str:
    """`name`, or the folder of the same split in it where only that one has class folders."""
    if _class_folders(base, name, "", accept):
        return name
    inner = [inside for inside in _folders(base / name) if split_of(inside) == split_of(name)]
    return next((f"{name}/{one}" for one in inner if _class_folders(base, f"{name}/{one}", "", accept)), name)


def _others(base: Path, place: str, accept: Accept, own: bool) -> list[str]:
    """Folders in `base/place` that are no class folders, and at the base no split folders."""
    names = _folders(base / place)
    if not place:
        return [name for name in names if split_of(name) is None and not (own and accept(name))]
    return [f"{place}/{name}" for name in names if not accept(name)]


def _mixed(base: Path, folders: list[ClassFolder]) -> str:
    """What is wrong when some classes are names and others numbers, or one class has two folders in a split."""
    numbers = [folder for folder in folders if number(folder.token) is not None]
    words = [folder for folder in folders if number(folder.token) is None]
    if numbers and words:
        return f"{base} mixes numbered and named class folders: {numbers[0].path} and {words[0].path}"
    seen: dict[tuple[str, object], str] = {}
    for folder in folders:
        value = number(folder.token)
        key = (folder.split, value if value is not None else class_name(folder.token) or folder.token)
        if seen.setdefault(key, folder.path) != folder.path:
            return f"{base} holds two folders of one class: {seen[key]} and {folder.path}"
    return ""


def _refuse_dead_links(parent: Path, accept: Accept) -> None:
    """A folder that is a loop of links or leads nowhere must not look like a class without images."""
    for entry in entries(parent):
        if entry.is_symlink() and accept(entry.name) and not os.path.exists(entry.path):
            raise UserError(f"{entry.path} cannot be read: its link leads nowhere", "restore the folder it stands for")


def _read_folder(base: Path, folder: ClassFolder, found: Items) -> None:
    for entry in entries(base / folder.path):
        path = f"{folder.path}/{entry.name}"
        if not is_image(entry.name) or entry.is_dir(follow_symlinks=False):
            found.ignored.append(path)
        elif not safe_name(entry.name):
            message = f"{base / folder.path} holds a file with a control character in its name: {entry.name!r}"
            found.bad.append(Bad(repr(path), "name", message, "rename or remove it"))
        else:
            found.items.append(Item(path, folder.split, folder.token))


def _by_align(folder: Path, entry: os.DirEntry[str]) -> bool:
    return entry.name in ALIGNED and is_aligned(folder)


def _count_images(folder: Path, limit: int) -> int:
    found = 0
    try:
        with os.scandir(folder) as scan:
            for entry in scan:
                found += is_image(entry.name) and not entry.name.startswith(".") and not _by_align(folder, entry)
                if limit and found >= limit:
                    break
    except OSError:
        return 0
    return found
