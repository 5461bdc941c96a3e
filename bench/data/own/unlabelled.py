"""Reading a user's images that have no labels: whatever lies in the folder, at any depth."""

from __future__ import annotations

from pathlib import Path

from bench.data.class_folders import is_image, split_of
from bench.data.listing import Bad, entries, is_folder, safe_name
from bench.data.own.file import FILE
from bench.data.own.read import Found, Row


def folders(base: Path) -> list[Path]:
    """The folder and all folders in it, parents first."""
    found = [base]
    for folder in found:
        found += [folder / entry.name for entry in entries(folder) if is_folder(entry)]
    return found


def read_all(base: Path) -> Found:
    """Every image. Folders called train, val or test are those parts; where there is one, all else is for training."""
    found = Found()
    below = folders(base)
    parts = {folder for folder in below if folder.parent == base and split_of(folder.name)}
    for folder in below:
        inside = folder.relative_to(base).parts
        split = "" if not parts else inside[0] if inside and base / inside[0] in parts else "train"
        for entry in entries(folder):
            path = "/".join((*inside, entry.name))
            if is_folder(entry) or path == FILE:
                continue
            if not is_image(entry.name):
                found.extra.append(path)
            elif not safe_name(path):
                message = f"{folder} holds a file whose name has a control character: {entry.name!r}"
                found.bad.append(Bad(repr(path), "name", message, "rename or remove it"))
            else:
                found.rows.append(Row(path, "", split, "", "", str(folder)))
    return found
