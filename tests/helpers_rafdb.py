"""Small copies of RAF-DB in every layout: the same 59 images, names and labels, as public code would leave them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from bench.data.classes import ORDERS
from bench.declare import Protocol

RAF = ORDERS["raf"]
# counts of a class differ from those of every other, as in the real set
COUNTS = {
    "train": dict(zip(RAF, (8, 2, 6, 12, 5, 1, 9), strict=True)),
    "test": dict(zip(RAF, (3, 1, 2, 4, 2, 1, 3), strict=True)),
}
WORDS = {
    "surprise": "surprise", "fear": "fear", "disgust": "disgust", "happiness": "happy", "sadness": "sad",
    "anger": "angry", "neutral": "neutral",
}  # fmt: skip
LIST = "EmoLabel/list_patition_label.txt"
PROTOCOL = Protocol(id="raf-db-7", dataset="rafdb", classes=RAF, rule="official", class_counts=COUNTS, counts={
    split: sum(classes.values()) for split, classes in COUNTS.items()
})  # fmt: skip
Image = tuple[str, str, str]  # split, stem of the official name, class name


@lru_cache(maxsize=1)
def images() -> tuple[Image, ...]:
    """Train, then test, classes in turn, so that neighbours in the list have other labels."""
    found = []
    for split, classes in COUNTS.items():
        left = dict(classes)
        number = 0
        while any(left.values()):
            for label in RAF:
                if left[label]:
                    left[label] -= 1
                    number += 1
                    found.append((split, f"{split}_{number:0{5 if split == 'train' else 4}d}", label))
    return tuple(found)


@lru_cache(maxsize=64)
def picture(stem: str, side: int = 100) -> bytes:
    """A JPEG file with a colour of its own per name."""
    from PIL import Image as Pil

    stream = io.BytesIO()
    Pil.new("RGB", (side, side), tuple(zlib.crc32(stem.encode()).to_bytes(4, "big")[:3])).save(stream, "JPEG")
    return stream.getvalue()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def write_images(folder: Path, suffix: str = "_aligned.jpg", side: int = 100) -> None:
    for _, stem, _ in images():
        put(folder / f"{stem}{suffix}", picture(stem, side))


def official_list(name: str = "{stem}.jpg", order: str = "raf", first: int = 1, split: str = "") -> str:
    """Lines of a list: no line end after the last one, as published."""
    return "\n".join(
        f"{name.format(stem=stem)} {ORDERS[order].index(label) + first}"
        for own, stem, label in images()
        if split in ("", own)
    )


def write_official(root: Path) -> Path:
    put(root / LIST, official_list())
    write_images(root / "Image" / "aligned")
    return root


def write_original(root: Path) -> Path:
    put(root / LIST, official_list())
    write_images(root / "Image" / "original", ".jpg", 130)
    return root


def write_nr(root: Path) -> Path:
    put(root / "list_patition_label.txt", official_list())
    write_images(root / "aligned")
    return root


def write_apvit(root: Path, order: str = "raf", first: int = 1) -> Path:
    for split in COUNTS:
        put(root / "EmoLabel" / f"{split}.txt", official_list("{stem}_aligned.jpg", order, first, split) + "\n")
    write_images(root / "Image" / "aligned_224", ".jpg", 112)
    return root


def write_scn(root: Path) -> Path:
    for split in COUNTS:
        put(root / f"{split}.txt", official_list("/home/me/RAFDB/aligned/{stem}_aligned.jpg", "raf", 0, split) + "\n")
    write_images(root / "Image" / "aligned")
    return root


def write_folders(
    root: Path, name: Callable[[str], str], splits: tuple[str, str] = ("train", "test"), suffix: str = "_aligned.jpg"
) -> Path:
    for split, stem, label in images():
        folder = splits[0] if split == "train" else splits[1]
        put(root / folder / name(label) / f"{stem}{suffix}", picture(stem))
    return root


def numbered(order: str, first: int) -> Callable[[str], str]:
    return lambda label: str(ORDERS[order].index(label) + first)


def write_kaggle(root: Path) -> Path:
    write_folders(root / "DATASET", numbered("raf", 1))
    for split in COUNTS:
        rows = official_list("{stem}_aligned.jpg", split=split).replace(" ", ",")
        put(root / f"{split}_labels.csv", f"image,label\n{rows}\n")
    return root


def write_resemotenet(root: Path) -> Path:
    """Counted anew within each class; the class is a word in the name and a number in the table."""
    for split in COUNTS:
        rows, counted = [], dict.fromkeys(RAF, 0)
        for own, stem, label in images():
            if own == split:
                file = f"{split}_{counted[label]}_{WORDS[label]}.jpg"
                counted[label] += 1
                put(root / split / file, picture(stem))
                rows.append(f"{file},{ORDERS['resemotenet'].index(label)}")
        put(root / f"{split}_labels.csv", "\n".join(rows) + "\n")
    return root
