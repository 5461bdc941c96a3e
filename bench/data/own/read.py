"""Reading a user's class folders or list as they are written; own_layouts.py turns labels into classes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from bench.data.class_folders import is_image, split_of
from bench.data.listing import Bad, Kind, entries, is_folder, safe_name
from bench.data.own.file import FILE, FOLDERS, OwnFile, to_add
from bench.errors import UserError

FIELDS = ("image", "label", "split", "subject", "fold")


class Row(NamedTuple):
    """One image as the data describes it; `where` names file and row, or the folder, in messages."""

    path: str  # relative to the folder of ferbench.yaml
    written: str  # the label
    split: str
    subject: str
    fold: str
    where: str


class Folder(NamedTuple):
    """A class folder: path relative to the base, name of its split folder or "", its own name."""

    path: str
    split: str
    written: str


@dataclass
class Found:
    """Rows, what is not among them, and image files that nothing names."""

    rows: list[Row] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


def words(own: OwnFile, base: Path) -> set[str]:
    """Labels as the data writes them."""
    if own.images == FOLDERS:
        return {folder.written for folder in class_folders(base)[0]}
    return {row.written for row in _read_rows(own, base).rows}


# ------------------------------------------------------------------------------------------------------------ folders
def class_folders(base: Path) -> tuple[list[Folder], list[str]]:
    """Class folders, and what lies beside them.

    Raises:
        UserError: there are class folders in and beside split folders, or two folders of one split.
    """
    inside, extra = _folders(base, "")
    splits = [name for name in inside if split_of(name)]
    loose = [name for name in inside if not split_of(name)]
    beside = [name for name in loose if _holds_image(base / name)]
    extra = [name for name in extra if is_image(name)] + [f"{name}/" for name in loose if name not in beside]
    if not splits:
        return [Folder(name, "", name) for name in beside], extra
    if beside:
        message = f"{base} holds class folders of its own ({beside[0]}) beside split folders ({splits[0]})"
        raise UserError(message, "keep one of the two layouts")
    found: list[Folder] = []
    place: dict[str, str] = {}
    for name in splits:
        split = split_of(name) or ""
        if place.setdefault(split, name) != name:
            message = f"{base} holds two folders of the {split} split: {place[split]} and {name}"
            raise UserError(message, "keep one of them")
        classes, files = _folders(base / name, f"{name}/")
        found += [Folder(f"{name}/{label}", name, label) for label in classes]
        extra += files
    return found, extra


def read_folders(base: Path, is_class: Callable[[str], bool]) -> Found:
    """Images of every class folder; a folder that `is_class` refuses is one bad row."""
    folders, extra = class_folders(base)
    found = Found(extra=extra)
    hint = to_add(folder.written for folder in folders if not is_class(folder.written))
    for folder in folders:
        if is_class(folder.written):
            _read_folder(base, folder, found)
        elif _holds_image(base / folder.path):
            message = f"{base / folder.path}: '{folder.written}' is no class"
            found.bad.append(Bad(f"{folder.path}/", "label", message, hint))
        else:
            found.extra.append(f"{folder.path}/")
    return found


def _folders(folder: Path, prefix: str) -> tuple[list[str], list[str]]:
    """Names of the folders in a folder, and its other files with `prefix`."""
    inside = entries(folder)
    names = [entry.name for entry in inside if is_folder(entry)]
    return names, [prefix + entry.name for entry in inside if not is_folder(entry)]


def _holds_image(folder: Path) -> bool:
    return any(is_image(entry.name) for entry in entries(folder, 16))


def _read_folder(base: Path, folder: Folder, found: Found) -> None:
    for entry in entries(base / folder.path):
        path = f"{folder.path}/{entry.name}"
        if is_folder(entry):
            message = f"{base / path} is a folder in a class folder; images must lie directly in {folder.path}"
            found.bad.append(Bad(f"{path}/", "name", message, "move its images up, or use a list of paths"))
        elif not is_image(entry.name):
            found.extra.append(path)
        elif not safe_name(entry.name):
            message = f"{base / folder.path} holds a file whose name has a control character: {entry.name!r}"
            found.bad.append(Bad(repr(path), "name", message, "rename or remove it"))
        else:
            found.rows.append(Row(path, folder.written, folder.split, "", "", str(base / folder.path)))


# --------------------------------------------------------------------------------------------------------------- lists
def read_list(own: OwnFile, base: Path) -> Found:
    """Rows of the list whose images are there; `extra` are the images beside them.

    Raises:
        UserError: the list is missing, is no table, or lacks a column.
    """
    found = _read_rows(own, base)
    listed = {row.path for row in found.rows}
    there: set[str] = set()
    for parent in dict.fromkeys(os.path.dirname(path) for path in listed):
        try:
            inside = [entry.name for entry in entries(base / parent)]
        except UserError:
            continue  # all its images are missing
        there |= {f"{parent}/{name}" if parent else name for name in inside}
    found.extra = sorted(path for path in there - listed if is_image(path))
    for row in found.rows:
        if row.path not in there:
            message = f"{row.where}: {base / row.path} is missing"
            found.bad.append(Bad(row.path, "missing", message, "restore the image, or remove the row"))
    found.rows = [row for row in found.rows if row.path in there]
    return found


@lru_cache(maxsize=8)
def image_folders(images: str, column: str, base: Path, size: int, time: int) -> tuple[Path, ...]:
    """Folders that hold listed images.

    Args:
        images, column: the list, and its column of images.
        size, time: of the list, in bytes and nanoseconds: a changed one is read again.
    """
    own = OwnFile.model_validate({"id": "x", "images": images, "columns": {"image": column, "label": column}})
    parents = dict.fromkeys(os.path.dirname(row.path) for row in _read_rows(own, base).rows)
    return tuple(base / parent for parent in parents if (base / parent).is_dir())


def _read_rows(own: OwnFile, base: Path) -> Found:
    """Rows of the list, whether their images are there or not."""
    file = base / own.images
    text = _text(file)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text))
    found = Found()
    try:
        header = [cell.strip() for cell in next(table, [])]
        at = _positions(own, file, header)
        for cells in table:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{file}, row {table.line_num}"
            bad: tuple[Kind, str, str] | None
            if len(cells) == len(header):
                values = [cells[at[key]].strip() if key in at else "" for key in FIELDS]
                bad = _add(base, values, where, found)
            else:
                bad = ("row", f"{where}: {len(cells)} fields, but the header has {len(header)}", "correct the row")
            if bad is not None:
                found.bad.append(Bad(f"{own.images}, row {table.line_num}", *bad))
    except csv.Error as error:
        raise UserError(f"{file}, row {table.line_num}: not a row of a table: {error}", "correct the row") from None
    return found


def _add(base: Path, values: list[str], where: str, found: Found) -> tuple[Kind, str, str] | None:
    """Append a row; what is wrong with its path (kind, message, hint) otherwise."""
    image, label, split, subject, fold = values
    path = os.path.normpath(image.replace("\\", "/"))
    if os.path.isabs(path):
        path = os.path.relpath(path, base)
    if not image or not safe_name(path):
        return "name", f"{where}: {image!r} is no image name", "correct the row, or rename the file"
    if path.split("/")[0] == "..":
        return "name", f"{where}: '{image}' lies outside {base}", f"move {FILE} and its list above the images"
    found.rows.append(Row(path, label, split, subject, fold, where))
    return None


def _positions(own: OwnFile, file: Path, header: list[str]) -> dict[str, int]:
    """Column of each field; split, subject and fold only where the table has them."""
    if len(set(header)) < len(header):
        raise UserError(f"{file}: its header names a column twice: {', '.join(header)[:200]}", "rename one")
    found: dict[str, int] = {}
    required = ("image",) if own.unlabelled else ("image", "label")
    for key in FIELDS:
        name = getattr(own.columns, key)
        if name in header:
            found[key] = header.index(name)
        elif key in required or key in own.columns.model_fields_set:
            shown = ", ".join(header)[:200] or "empty"
            message = f"{file} has no column '{name}' for the {key}; its header is: {shown}"
            raise UserError(message, f"say `columns: {{{key}: NAME}}` in {FILE}")
    return found


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file} is missing", f"{FILE} names it: restore it, or say `images: folders`") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", "check links and permissions") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not a text file in UTF-8", "save it as UTF-8") from None


def _separator(text: str) -> str:
    header = text[: text.find("\n")] if "\n" in text else text
    return max(",;\t", key=header.count)
