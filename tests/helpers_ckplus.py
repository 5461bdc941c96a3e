"""Small and full-size copies of CK+ in both layouts, made up."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from conftest import png

from bench import declare
from bench.data.ckplus.files import CLASSES
from bench.data.ckplus.folds import SUBJECTS
from bench.declare import Protocol

SEVEN = CLASSES[1:]
RULES = ("last3", "last1", "last3-random", "last1-random")
IMAGES, EMOTION, LANDMARKS = "cohn-kanade-images", "Emotion", "Landmarks"
# sequence -> (id of its emotion file, None where it has none; frames)
Content = dict[str, tuple[int | None, int]]
SMALL: Content = {
    "S005/001": (3, 8), "S005/002": (None, 5), "S010/002": (7, 7), "S010/004": (1, 9), "S011/003": (4, 6),
    "S035/006": (5, 7), "S130/009": (6, 6), "S502/002": (2, 6), "S895/001": (None, 6), "S999/001": (1, 6),
}  # fmt: skip
BOX = (10.0, 12.0, 20.0, 16.0)  # x, y, width, height


def protocol(rule: str = "last3", classes: Iterable[str] = SEVEN, **fields: object) -> Protocol:
    """A protocol for small copies: counts are checked only where given."""
    return Protocol(id=f"small@{rule}", dataset="ckplus", classes=tuple(classes), rule=rule, folds=10, **fields)


def declared() -> dict[str, Protocol]:
    path = declare.ROOT / "bench" / "data" / "protocols.yaml"
    return {name: one for name, one in declare.load_from([], [path]).protocols.items() if one.dataset == "ckplus"}


def stem(sequence: str, frame: int) -> str:
    return f"{sequence.replace('/', '_')}_{frame:08d}"


def points(box: tuple[float, float, float, float] = BOX) -> str:
    """The text of a landmark file whose points span the box."""
    x, y, width, height = box
    corners = [(x, y), (x + width, y + height), *[(x + width / 2, y + height / 2)] * 66]
    return "".join(f"   {a:.7e}   {b:.7e}\n" for a, b in corners)


def picture(sequence: str, frame: int, shape: tuple[int, ...] = (40, 50)) -> np.ndarray:
    """Different for every frame."""
    return np.random.default_rng([*sequence.encode(), frame]).integers(0, 256, shape, dtype=np.uint8)


def write_official(root: Path, content: Content = SMALL, decode: bool = True, shuffle: int | None = None) -> Path:
    """The official layout; `shuffle` seeds the order in which files are made."""
    files: dict[str, bytes] = {}
    for sequence, (label, frames) in content.items():
        for frame in range(1, frames + 1):
            name = f"{sequence}/{stem(sequence, frame)}"
            files[f"{IMAGES}/{name}.png"] = png(picture(sequence, frame)) if decode else b""
            files[f"{LANDMARKS}/{name}_landmarks.txt"] = points().encode()
        (root / EMOTION / sequence).mkdir(parents=True)
        if label is not None:
            files[f"{EMOTION}/{name}_emotion.txt"] = f"   {label:.7e}\n".encode()
    names = list(files)
    if shuffle is not None:
        random.Random(shuffle).shuffle(names)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(files[name])
    return root


def write_ck48(root: Path, content: Content = SMALL, decode: bool = True) -> Path:
    """Class folders with the last three frames of each labelled sequence."""
    folders = (None, "anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
    for sequence, (label, frames) in content.items():
        if label is not None:
            folder = root / str(folders[label])
            folder.mkdir(parents=True, exist_ok=True)
            for frame in range(frames - 2, frames + 1):
                data = png(picture(sequence, frame, (48, 48))) if decode else b""
                (folder / f"{stem(sequence, frame)}.png").write_bytes(data)
    return root


def full_size() -> Content:
    """As many labelled sequences per class, subjects and unlabelled sequences as published."""
    labels = [k for k, n in enumerate((0, 45, 18, 59, 25, 69, 28, 83)) for _ in range(n)]
    random.Random(0).shuffle(labels)
    places = [f"{subject}/{number:03d}" for number in (1, 2, 3) for subject in SUBJECTS]
    content: Content = {place: (label, 6) for place, label in zip(places, labels, strict=False)}
    others = [f"{subject}/{number:03d}" for number in (7, 8, 9) for subject in SUBJECTS][: 593 - len(labels)]
    return content | dict.fromkeys(others, (None, 1))
