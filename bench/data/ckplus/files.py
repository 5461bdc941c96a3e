"""Names, texts and folders of CK+: frames like `S005_001_00000011.png` in folders `S005/001`, and what is said of them.

A tree is a folder of subjects (S005) with folders of sequences (001). Frames, emotion files and landmark files lie in a
tree each, or in one; a tree is known by the files in it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.data.classes import ORDERS
from bench.data.image import SUFFIXES
from bench.data.listing import entries, is_folder
from bench.errors import UserError

CLASSES = ORDERS["ckplus"]
POINTS = 68
SUBJECT, SEQUENCE = re.compile(r"S[0-9]{3}"), re.compile(r"[0-9]{3}")
FRAME = re.compile(r"(S[0-9]{3})_([0-9]{3})_([0-9]{8})")
EMOTION, LANDMARKS = "_emotion.txt", "_landmarks.txt"
LOOK, WRAPPED = 256, 16  # entries looked at: of a folder that may be a tree of subjects; of one that only holds such
SEEN = 24  # folders of sequences with files that show what a tree holds: half of them have no emotion file


def emotion_of(text: str) -> str:
    """The expression that the text of an emotion file ("   3.0000000e+00") stands for.

    Raises:
        ValueError: it is not one whole number from 0 to 7.
    """
    values = _numbers(text)
    if len(values) != 1 or values[0] not in range(len(CLASSES)):
        raise ValueError(f"'{text.strip()[:20]}' is not a whole number from 0 to {len(CLASSES) - 1}")
    return CLASSES[int(values[0])]


def box_of(text: str) -> tuple[float, float, float, float]:
    """x, y, width and height in pixels of the box around the landmarks in the text of a landmark file.

    Raises:
        ValueError: there are not 68 lines of two finite numbers, or they span no area.
    """
    widths = [len(words) for line in text.splitlines() if (words := line.split())]
    if widths != [2] * POINTS:
        raise ValueError(f"it has {len(widths)} lines, not {POINTS} of two numbers")
    values = _numbers(text)
    if not all(map(math.isfinite, values)):
        raise ValueError("a coordinate is not a finite number")
    across, down = values[::2], values[1::2]
    box = (min(across), min(down), max(across) - min(across), max(down) - min(down))
    if not all(0 < side < math.inf for side in box[2:]):
        raise ValueError("its points span no area")
    return box


def _numbers(text: str) -> list[float]:
    """The numbers in a text; NaN for a word that is none ("1_0" is one to Python only)."""
    try:
        return [float(word) for word in text.split()] if "_" not in text else [math.nan]
    except ValueError:
        return [math.nan]


class Tree(NamedTuple):
    """A folder of subjects, and one kind of file that lies in it."""

    kind: str  # images, emotion or landmarks
    folder: Path
    depth: int  # below the folder that was searched
    top: Path  # the folder at depth 1 it lies in, or is


def trees(root: Path) -> list[Tree]:
    """Trees at most two folders below `root`, nearest first; a tree with two kinds of files is there twice."""
    found: list[Tree] = []
    level = [(root, root)]
    for depth in range(3):
        below: list[tuple[Path, Path]] = []
        for folder, top in level:
            kinds = _kinds(folder)
            found += [Tree(kind, folder, depth, top) for kind in kinds]
            if not kinds and depth < 2:
                inside = folders(folder, WRAPPED if depth else LOOK)
                below += [(one, top if depth else one) for one in inside if not SUBJECT.fullmatch(one.name)]
        level = below
    return found


def complete(found: list[Tree]) -> bool:
    """Whether there are frames and emotion files."""
    return {"images", "emotion"} <= {tree.kind for tree in found}


def parts_of(base: Path) -> dict[str, Path]:
    """The nearest tree of each kind.

    Raises:
        UserError: two are equally near.
    """
    parts: dict[str, Tree] = {}
    for tree in trees(base):
        first = parts.setdefault(tree.kind, tree)
        if first is not tree and first.depth == tree.depth:
            message = f"{base} holds two folders of CK+ with {tree.kind}: {first.folder} and {tree.folder}"
            raise UserError(message, "keep one of them there")
    return {kind: tree.folder for kind, tree in parts.items()}


def _kinds(folder: Path) -> list[str]:
    """Kinds of files in a tree of subjects, by its first sequences; empty where the folder is none."""
    kinds: dict[str, None] = {}
    seen = 0
    try:
        if not subjects(folder, LOOK):
            return []
        for _, _, inside in sequences(folder):
            names = [entry.name for entry in entries(inside)]
            kinds |= dict.fromkeys(kind for name in names if (kind := kind_of(name)))
            seen += bool(names)
            if seen == SEEN:
                break
    except UserError:
        pass  # what cannot be read is named when it is needed
    return list(kinds)


def kind_of(name: str) -> str:
    """Kind of a file: images, emotion, landmarks, or "" for another."""
    if name.endswith(EMOTION):
        return "emotion"
    if name.endswith(LANDMARKS):
        return "landmarks"
    return "images" if FRAME.fullmatch(name.partition(".")[0]) and _suffix(name) in SUFFIXES else ""


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def folders(folder: Path, limit: int) -> list[Path]:
    """Folders in a folder; none where there is more than `limit` in it."""
    try:
        inside = entries(folder, limit + 1)
    except UserError:
        return []
    return [Path(entry.path) for entry in inside if is_folder(entry)] if len(inside) <= limit else []


def subjects(tree: Path, limit: int = 0) -> list[os.DirEntry[str]]:
    """Folders of subjects in a tree."""
    return [entry for entry in entries(tree, limit) if SUBJECT.fullmatch(entry.name) and is_folder(entry)]


def sequences(tree: Path) -> Iterator[tuple[str, str, str]]:
    """Subject, number and folder of every sequence of a tree."""
    for subject in subjects(tree):
        for entry in entries(subject.path):
            if SEQUENCE.fullmatch(entry.name) and is_folder(entry):
                yield subject.name, entry.name, entry.path


def landmarked(tree: Path, subject: str, number: str) -> set[int]:
    """Frames of a sequence that have a landmark file, which proves that they were published."""
    try:
        files = ending(str(tree / subject / number), LANDMARKS)
    except UserError:
        return set()
    found = (FRAME.fullmatch(file.name.removesuffix(LANDMARKS)) for file in files)
    return {int(match[3]) for match in found if match and match.groups()[:2] == (subject, number)}


def ending(folder: str, suffix: str) -> list[os.DirEntry[str]]:
    """Files of a folder whose names end in `suffix`."""
    return [entry for entry in entries(folder) if entry.name.endswith(suffix)]
