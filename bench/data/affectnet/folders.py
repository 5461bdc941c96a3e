"""AffectNet laid out again as folders: `{train,val,valid,test}/{0..7}` or with class names, as loaders like it.

DAN, DDAMFN and POSTER++ use such trees. Names of 56 hex digits can only be AffectNet's; whole numbers are everybody's,
so without hex names it is the counts that tell.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from bench.data.affectnet.layouts import (
    CLASSES,
    DROPPED,
    RELEASE_2017,
    RELEASE_2021,
    AffectNetLayout,
    from_items,
    is_label,
    known_counts,
    release_of,
)
from bench.data.affectnet.lists import PhaseTable
from bench.data.class_folders import Shape, count, first_images, is_image, look, number, read_tree
from bench.data.classes import class_name
from bench.data.listing import Listing
from bench.data.order import Fit, closest

SMALLEST = 3_500  # images of the rarest class in train, and a few less: what has fewer is not counted whole


class ClassFolders(AffectNetLayout):
    """`train/<class>` with `val/`, `valid/` or `test/<class>`, classes as numbers or words."""

    name: ClassVar[str] = "class-folders"

    def find(self, root: Path) -> Path | None:
        shape = _shape(root)
        if shape is None or not _is_split(shape) or not _is_affectnet(root, shape):
            return None
        return None if PhaseTable().find(root) is not None else root  # the table lists the images of the folders

    def release(self, base: Path) -> str:
        shape = _shape(base)
        return _named_like(base, shape) if shape is not None else ""

    def classes(self, base: Path) -> int:
        shape = _shape(base)
        classes = {class_name(token) or number(token) for token in (shape.tokens if shape is not None else ())}
        if 0 in classes:  # AffectNet's numbers, of which some are no expression
            classes -= set(DROPPED)
        return 7 if len(classes) == len(CLASSES) - 1 else 8

    def state(self, base: Path) -> list[Path]:
        shape = _shape(base)
        inside = [base / folder.path for folder in shape.folders] if shape is not None else []
        return [base, *dict.fromkeys(folder.parent for folder in inside if folder.parent != base), *inside]

    def lacks(self, root: Path) -> str:
        shape = _shape(root)
        if shape is None or self.find(root) is not None:
            return ""
        release = _named_like(root, shape)
        if release == RELEASE_2017:
            there = ", ".join(split for split in shape.splits if split) or "class folders without a split"
            return (
                f"{root} has images of AffectNet (2017) by class, but only {there}: train/<class> and test/<class> "
                "are both needed."
            )
        if release == RELEASE_2021 and _is_split(shape) and _is_large(root, shape):
            fit = _fit(root, shape, _times(root, shape))
            off = f"{fit.distance:,} images more or fewer" if fit is not None else "in other classes"
            return f"{root} has class folders with names as in AffectNet (2021), but {off} than published."
        return ""

    def read(self, base: Path) -> Listing:
        found = read_tree(base, is_label)
        listing = from_items(found.items, base, lambda item: str(base / item.path))
        listing.bad = found.bad + listing.bad
        listing.extra = [path for path in found.ignored if is_image(path)]
        return listing


def _shape(root: Path) -> Shape | None:
    shape = look(root, is_label)
    return shape if shape is not None and len(shape.tokens) >= len(CLASSES) - 1 else None


def _is_split(shape: Shape) -> bool:
    return "train" in shape.splits and ("test" in shape.splits or "val" in shape.splits)


def _named_like(root: Path, shape: Shape) -> str:
    """The release whose names the first images have; "" where they are of none, or not all alike."""
    releases = {release_of(name.rpartition(".")[0]) for name in first_images(root, shape)}
    return releases.pop() if len(releases) == 1 else ""


def _is_affectnet(root: Path, shape: Shape) -> bool:
    if any(release_of(name.rpartition(".")[0]) == RELEASE_2017 for name in first_images(root, shape)):
        return True
    if not _is_large(root, shape):
        return False
    fit = _fit(root, shape, _times(root, shape))
    return fit is not None and fit.near


def _is_large(root: Path, shape: Shape) -> bool:
    """Whether a tree may have AffectNet's number of images, seen without counting them all; one class may lack some."""
    train = count(root, shape, SMALLEST).get("train", {})
    return sum(images < SMALLEST for images in train.values()) <= 1


def _times(root: Path, shape: Shape) -> tuple[int, ...]:
    return tuple((root / folder.path).stat().st_mtime_ns for folder in shape.folders)


@lru_cache(maxsize=16)
def _fit(root: Path, shape: Shape, times: tuple[int, ...]) -> Fit | None:
    """The nearest reading of the counts per class; counted once, since AffectNet's take a third of a second."""
    return closest(count(root, shape), known_counts())
