"""Small copies of AffectNet in every layout, with counts of their own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import png

from bench.data.affectnet import folders as affectnet_folders
from bench.data.affectnet import layouts as affectnet_layouts
from bench.data.affectnet.adapter import AffectNet
from bench.data.affectnet.layouts import CLASSES
from bench.data.base import find_dataset, manifest_hash
from bench.declare import Protocol

TRAIN = (7, 8, 6, 4, 3, 2, 5, 1)  # images a class, all different, as an order needs to be told
TEST = (2,) * 8
ALL = Protocol(id="small", dataset="affectnet", classes=CLASSES, rule="manual")
SEVEN = Protocol(id="small-7", dataset="affectnet", classes=CLASSES[:7], rule="manual")
LANDMARKS = ";".join(["10.5;20.5"] * 68)
HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
LISTS = "Manually_Annotated_file_lists"
PICTURES = "Manually_Annotated_Images"
PICTURE = png(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


class Face(NamedTuple):
    """One image: split, number in it, class number."""

    split: str
    number: int
    label: int

    @property
    def hexed(self) -> str:
        return hashlib.sha224(f"{self.split} {self.number}".encode()).hexdigest()

    @property
    def folder(self) -> str:
        return str(self.number % 3 + 1)


def faces(train: Sequence[int] = TRAIN, test: Sequence[int] = TEST) -> list[Face]:
    counts = {"train": train, "test": test}
    return [
        Face(split, number, label)
        for split, numbers in counts.items()
        for number, label in enumerate(label for label, n in enumerate(numbers) for _ in range(n))
    ]


def publish_small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the small copies written here the published ones."""
    counts = {
        "train": dict(zip(CLASSES, TRAIN, strict=True)),
        "test": dict(zip(CLASSES, TEST, strict=True)),
    }
    seven = {split: {c: n for c, n in classes.items() if c != "contempt"} for split, classes in counts.items()}
    for module in (affectnet_layouts, affectnet_folders):
        monkeypatch.setattr(module, "known_counts", lambda: {"small": counts, "small-7": seven})
    monkeypatch.setattr(affectnet_folders, "SMALLEST", 2)


def save(path: Path, data: bytes = PICTURE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def npy(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(value), **options)
    return stream.getvalue()


def row(face: Face, label: object = None, box: str = "10,5,20,30") -> str:
    label = face.label if label is None else label
    return f"{face.folder}/{face.hexed}.jpg,{box},{LANDMARKS},{label},-0.17,0.23"


def write_2017(root: Path, some: Sequence[Face], headers: tuple[bool, bool] = (True, False)) -> Path:
    """Release of 2017 with a picture for every row."""
    for split, name, header in zip(("train", "test"), ("training.csv", "validation.csv"), headers, strict=True):
        lines = ([HEADER] if header else []) + [row(face) for face in some if face.split == split]
        save(root / LISTS / name, ("\n".join(lines) + "\n").encode())
    for face in some:
        save(root / PICTURES / face.folder / f"{face.hexed}.jpg")
    return root


def write_2021(root: Path, some: Sequence[Face], test: str = "val_set") -> Path:
    """Release of 2021; numbers start at 5, since those of the release are not gap-free."""
    for face in some:
        place = root / (test if face.split == "test" else "train_set")
        save(place / "images" / f"{face.number + 5}.jpg")
        save(place / "annotations" / f"{face.number + 5}_exp.npy", npy(str(face.label)))
        save(place / "annotations" / f"{face.number + 5}_val.npy", npy(0.5))
    return root


def write_folders(
    root: Path,
    some: Sequence[Face],
    class_of: Callable[[int], str] = str,
    name_of: Callable[[Face], str] = lambda face: face.hexed,
    test: str = "val",
) -> Path:
    for face in some:
        split = test if face.split == "test" else face.split
        save(root / split / class_of(face.label) / f"{name_of(face)}.jpg")
    return root


def whole(face: Face) -> str:
    return str(face.number + 5)


def write_poster(root: Path, some: Sequence[Face], classes: int = 8) -> Path:
    for split, folder, name in (("train", "train_set", "train"), ("test", "valid_set", "valid")):
        own = [face for face in some if face.split == split]
        lines = [f"{whole(face)}.jpg {face.label}" for face in own]
        save(root / folder / f"{name}_annotations_{classes}class.txt", "\n".join(lines).encode())
        for face in own:
            save(root / folder / "images" / f"{whole(face)}.jpg")
    return root


def write_qcs(root: Path, some: Sequence[Face]) -> Path:
    for split, name in (("train", "affectnet_training-cls8-v7.txt"), ("test", "affectnet_validation-cls8.txt")):
        lines = [f"{face.hexed}.jpg {face.label}" for face in some if face.split == split]
        save(root / name, "\n".join(lines).encode())
    for face in some:
        save(root / "Manually_trainval_croped" / f"{face.hexed}.jpg")
    return root


def write_dan(root: Path, some: Sequence[Face]) -> Path:
    lines = [",phase,img_path,label"]
    for number, face in enumerate(some):
        phase = "val" if face.split == "test" else "train"
        save(root / f"{phase}_set" / "images" / f"{whole(face)}.jpg")
        lines.append(f"{number},{phase},/home/u/AffectNet/{phase}_set/images/{whole(face)}.jpg,{face.label}")
    save(root / "affectnet.csv", "\n".join(lines).encode())
    return root


def opened(root: Path, protocol: Protocol = ALL) -> AffectNet:
    found = find_dataset(root, AffectNet)
    assert found == root
    return AffectNet(root, protocol)


def manifest(root: Path, protocol: Protocol = ALL) -> str:
    return manifest_hash(opened(root, protocol).index(protocol))
