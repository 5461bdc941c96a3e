"""RAF-DB as label lists beside a folder of images: the official layout and those of public code.

The official list has 15,339 lines `train_00001.jpg 5`, names without `_aligned`, ids 1 to 7, line feeds and none at
the end. EAC's noise01.txt to noise03.txt look like it but name train images only, with 10 to 30 % of labels changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from bench.data import order
from bench.data.class_folders import Items, head, number, read_list
from bench.data.classes import ORDERS
from bench.data.listing import Layout, Listing, entries, is_folder
from bench.data.rafdb.names import (
    BENCHMARK,
    RESTORE,
    image_folder,
    join,
    official_name,
    official_split,
    outermost,
    pictures,
    places,
)
from bench.errors import UserError

RAF = ORDERS["raf"]
LIST_NAMES = ("list_patition_label.txt", "list_partition_label.txt")  # the first is the published spelling
ANY_SIZE = "--preprocessing rafdb-any-100 resizes them"


class OneList(Layout):
    """One list of all images with RAF-DB's own ids. Subclasses say where it and the images lie."""

    folder: ClassVar[str]  # of the list
    images: ClassVar[tuple[str, ...]]  # the preferred one first

    def find(self, root: Path) -> Path | None:
        return next((base for base in places(root) if self._starts(base)), None)

    def read(self, base: Path) -> Listing:
        file = self._list(base)
        folder = image_folder(base, self.images)
        if file is None or not folder:
            raise UserError(f"{base} is no longer a copy in layout '{self.name}'", RESTORE)
        items = read_list(file)
        _refuse_without_test(file, items)
        found = join(base, {file: items}, pictures(base, folder), _official_label, "one of RAF-DB's ids 1 to 7")
        found.order = "raf"
        others = [place for place in places(outermost(base)) if self._starts(place) and not place.samefile(base)]
        found.remarks = [*_about_images(base, folder, self.images), *_about_noise(file.parent)]
        found.remarks += [f"another copy of the same layout lies in {place}; it is not read" for place in others]
        return found

    def state(self, base: Path) -> list[Path]:
        file = self._list(base)
        return [*([file] if file else []), *_folders(base, self.images)]

    def lacks(self, root: Path) -> str:
        for base in places(root):
            file = self._list(base)
            if file and not image_folder(base, self.images):
                dead = [name for name in self.images if os.path.islink(base / name) and not (base / name).exists()]
                what = f"{dead[0]} is a link that leads nowhere" if dead else f"no images in {', '.join(self.images)}"
                return f"{base}: RAF-DB's label list is there, but {what}"
            unread = [base / self.folder / name for name in LIST_NAMES if (base / self.folder / name).exists()]
            if unread and not file:
                return f"{unread[0]} does not start with a line such as 'train_00001.jpg 5': restore it"
        return ""

    def _starts(self, base: Path) -> bool:
        return self._list(base) is not None and image_folder(base, self.images) != ""

    def _list(self, base: Path) -> Path | None:
        """The list, where its first line is of RAF-DB."""
        return next((path for name in LIST_NAMES if _is_list(path := base / self.folder / name)), None)


class Official(OneList):
    """EmoLabel/list_patition_label.txt and Image/aligned or Image/original."""

    name = "official"
    folder = "EmoLabel"
    images = ("Image/aligned", "Image/original", "Image/aligned_224")


class Nr(OneList):
    """The list and the image folder side by side (VT_with_NR_for_FER)."""

    name = "nr"
    folder = "."
    images = ("aligned", "original")


class ListPerSplit(Layout):
    """train.txt and test.txt; ids official, from 0 or in an order of the code's own, told by their counts."""

    folder: ClassVar[str]
    train: ClassVar[tuple[str, ...]] = ("train.txt", "train_label.txt")
    test: ClassVar[tuple[str, ...]] = ("test.txt", "test_label.txt", "val.txt")
    images: ClassVar[tuple[str, ...]]

    def find(self, root: Path) -> Path | None:
        return next((base for base in self._bases(root) if image_folder(base, self.images)), None)

    def read(self, base: Path) -> Listing:
        folder = image_folder(base, self.images)
        files = self._lists(base)
        if not folder or "train" not in files:
            raise UserError(f"{base} is no longer a copy in layout '{self.name}'", RESTORE)
        if "test" not in files:
            message = f"{base}: {files['train'].name} is there, but no list of the test images ({', '.join(self.test)})"
            raise UserError(message, "add one, or EmoLabel/list_patition_label.txt of the official archive")
        lists = {file: read_list(file, split) for split, file in files.items()}
        histogram = {split: lists[file].histogram().get(split, {}) for split, file in files.items()}
        where = " and ".join(map(str, lists))
        fit = order.detect(histogram, {BENCHMARK: order.published()[BENCHMARK]}, where)
        found = join(base, lists, pictures(base, folder), fit.label, f"a class of order {fit.title}")
        found.order = fit.order
        found.remarks = [*filter(None, [fit.remark]), *_about_images(base, folder, self.images)]
        return found

    def state(self, base: Path) -> list[Path]:
        return [*self._lists(base).values(), *_folders(base, self.images)]

    def lacks(self, root: Path) -> str:
        for base in self._bases(root):
            if not image_folder(base, self.images):
                return f"{base}: lists of RAF-DB are there, but no images in {', '.join(self.images)}"
        return ""

    def _bases(self, root: Path) -> Iterator[Path]:
        """Folders with a train list of RAF-DB; the official list, where it is there too, goes first."""
        for base in places(root):
            if "train" in self._lists(base) and Official().find(base) is None and Nr().find(base) is None:
                yield base

    def _lists(self, base: Path) -> dict[str, Path]:
        found = {}
        for split, names in (("train", self.train), ("test", self.test)):
            file = next((path for name in names if _is_list(path := base / self.folder / name)), None)
            if file is not None:
                found[split] = file
        return found


class Apvit(ListPerSplit):
    """EmoLabel/train.txt and test.txt beside images the authors aligned again, 224x224 (APViT)."""

    name = "apvit"
    folder = "EmoLabel"
    images = ("Image/aligned_224", "Image/aligned", "Image/original")


class Scn(ListPerSplit):
    """Lists with absolute paths of another machine and ids from 0 (SCN); images are found by file name."""

    name = "scn"
    folder = "."
    images = ("Image/aligned", "aligned", "Image/aligned_224", "aligned_224", "Image/original", "original")


def _is_list(file: Path) -> bool:
    """Whether the first line is the name of an image of RAF-DB and a number."""
    words = next(iter(head(file, 1)), "").replace("\\", "/").replace(",", " ").split()
    return len(words) >= 2 and official_name(" ".join(words[:-1])) is not None and number(words[-1]) is not None


def _official_label(token: str) -> str | None:
    value = number(token)
    return RAF[value - 1] if value is not None and 1 <= value <= len(RAF) else None


def _refuse_without_test(file: Path, items: Items) -> None:
    """EAC's noise lists in place of the official one must not pass for it."""
    names = [name for item in items.items if (name := official_name(item.path))]
    if not names or any(official_split(name) == "test" for name in names):
        return
    counts = order.published()[BENCHMARK]["train"]
    found: dict[str, int] = {}
    for item in items.items:
        label = _official_label(item.token) or item.token
        found[label] = found.get(label, 0) + 1
    message = f"{file} names {len(names):,} train images and no test image"
    if len(names) == sum(counts.values()) and found != counts:
        message += ", and its counts per class are not RAF-DB's: these are labels with noise (EAC's noise01.txt to 03)"
    raise UserError(message, "put the official list_patition_label.txt (15,339 lines) there")


def _about_images(base: Path, used: str, known: tuple[str, ...]) -> list[str]:
    """What a user should know about the image folder in use."""
    others = [other for other in known if image_folder(base, [other]) not in ("", used)]
    remarks = [f"images are those of {used}; {' and '.join(others)} not used"] if others else []
    remarks += [f"{path} holds images too; they are not read" for path in _copied_folders(base, used, known)]
    other = about_images(used)
    return [*remarks, f"{other}; {ANY_SIZE}"] if other else remarks


def _copied_folders(base: Path, used: str, known: tuple[str, ...]) -> list[str]:
    """Folders that look like an image folder unpacked or copied twice: `aligned (copy)`, `aligned/aligned`."""
    outer = next(name for name in known if image_folder(base, [name]) == used)
    parent = (base / outer).parent
    beside = [entry for entry in entries(parent, 256) if re.search("aligned|original", entry.name, re.I)]
    paths = [(parent / entry.name).relative_to(base).as_posix() for entry in beside if is_folder(entry)]
    inner = f"{used}/{used.rpartition('/')[2]}"
    return [found for path in (*paths, inner) if path not in known and (found := image_folder(base, [path]))]


def about_images(used: str) -> str:
    """Why the images of a folder are not the published aligned ones; "" where they are."""
    name = used.rsplit("/", 1)[-1]
    if name == "original":
        return f"images are the originals of {used}: not aligned, of many sizes"
    return f"{used} is aligned by others than RAF-DB's authors" if name not in ("", "aligned") else ""


def _about_noise(folder: Path) -> list[str]:
    noisy = sorted(path.name for path in folder.glob("*noise*.txt"))
    return [f"{', '.join(noisy)}: labels changed on purpose (EAC, SCN), not read"] if noisy else []


def _folders(base: Path, images: tuple[str, ...]) -> list[Path]:
    used = image_folder(base, images)
    return [base / name for name in dict.fromkeys([*images, *([used] if used else [])]) if (base / name).is_dir()]
