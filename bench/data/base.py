"""The dataset contract: a copy on disk, the labels a protocol gives its images, and their pixels.

Copies are recognised by what is in them, never by a folder's name, and their counts are compared with the protocol's
on load: most "I get five points less" reports come from another label file, vote rule or split of the same images.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.data.listing import ALIGNMENT, is_aligned
from bench.data.own.file import FILE as OWN_FILE
from bench.declare import Protocol
from bench.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SPLITS = ("train", "val", "test")
MARKER = "synthfer.json"  # at the root of a tree that `data synth` made
ALIGNED_BY = ("name", "settings", "detector", "detector_sha256", "template")


class Dataset(ABC):
    """One copy of a dataset, seen through a protocol.

    Args:
        root: folder of the copy as `find_dataset` returned it; None for datasets that are made, not read.
        protocol: what is asked of it. Real datasets keep the same images under every protocol.
    """

    shape: tuple[int, ...]
    """(H, W) or (H, W, 3), the same for all images."""
    layouts: ClassVar[tuple[str, ...]] = ()
    """Names `detect` can return, the preferred one first."""
    looked_for: ClassVar[str] = ""
    """What makes a folder this dataset, in words for an error message."""
    own_data: ClassVar[bool] = False
    """Whether it reads folders with a ferbench.yaml; all other datasets leave those alone."""
    decode: ClassVar[Mapping[str, object]] = {}
    """Settings that change pixel values; part of the cache's identity."""
    doing: ClassVar[str] = "decoding"
    """What is said to be done while the cache is filled."""
    benchmark: ClassVar[str] = ""
    """Id of the protocol the literature reports."""
    known_files: ClassVar[Mapping[str, str]] = {}
    """SHA-256 of a published label file -> what it is."""
    known_manifests: ClassVar[Mapping[str, str]] = {}
    """Protocol id -> `manifest_hash` of the published labels and split."""
    known_pixels: ClassVar[str] = ""
    """`pixels_hash` of the published images; empty where none is known."""
    official_names: ClassVar[str] = ""
    """Regular expression that the names of published images match; empty where names are not judged."""
    published_sizes: tuple[str, ...] = ()
    """Of the published files, as `48x48 grey` or `100x100` (any colour); empty where they have any size."""
    unstable_images: ClassVar[frozenset[str]] = frozenset()
    """Images that differ between correct copies; left out of `pixels_hash`."""

    def __init__(self, root: Path | None, protocol: Protocol) -> None:
        self.root = root
        self.protocol = protocol
        # set by whoever opens the copy (bench/data/source.py), before anything is read
        self.data_root = root  # where else to look for lists that belong to it
        self.skip_bad = False  # go on without what cannot be used; it is recorded in `skipped`
        self.preprocessing = ""  # a profile of preprocessing.yaml; empty: the dataset's own
        self.skipped: dict[str, str] = {}  # image, or file and row -> reason

    @classmethod
    @abstractmethod
    def detect(cls, root: Path) -> str | None:
        """The layout found under `root`, judged by content; None when it is not a usable copy of this dataset."""

    @classmethod
    def serves(cls, root: Path, protocol: Protocol) -> bool:
        """Whether the copy at `root` is the one `protocol` speaks of, where copies declare protocols of their own."""
        return True

    @classmethod
    def near_miss(cls, root: Path) -> str:
        """What `root` holds of this dataset when it is incomplete, and what to add; empty when it holds nothing."""
        return ""

    @property
    def storage(self) -> str:
        """Name of these pixels in the cache: one per copy on disk, one per protocol where images are made."""
        if self.root is None:
            return f"{self.protocol.dataset}-{hashlib.sha256(self.protocol.id.encode()).hexdigest()[:12]}"
        return f"{self.protocol.dataset}-{hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:12]}"

    @abstractmethod
    def fingerprint(self) -> str:
        """Cheap identity of this copy (sizes and times, not contents). Changes when a label file changes."""

    def places(self) -> list[Path]:
        """The copy's folder and those in it where its files start (a layout may lie one or two folders deeper)."""
        return [self.root] if self.root is not None else []

    def is_synthetic(self) -> bool:
        """Whether `data synth` made this copy: it has the official layout and must not pass for the dataset."""
        return any(is_synthetic(place) for place in self.places())

    @cached_property
    def alignment(self) -> dict[str, Any] | None:
        """What `data align` wrote about this copy, which then is not as published; None where it did not make it.

        Raises:
            UserError: the alignment was stopped, or what it wrote is damaged.
        """
        around = [self.root.parent] if self.root is not None else []
        around += [self.data_root] if self.data_root is not None else []
        file = find_alignment([*self.places(), *around])
        if file is None:
            return None
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}", "check its permissions") from None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserError(f"{file} is damaged", "align the images again")
        if not found.get("complete"):
            raise UserError(f"{file.parent} is aligned in part", "run the same `data align` again: it continues")
        return found

    def aligned_by(self) -> dict[str, object]:
        """What `decode` says of an aligned copy; empty for others."""
        if self.alignment is None:
            return {}
        return {"alignment": {name: self.alignment.get(name) for name in ALIGNED_BY}}

    def alignment_remark(self) -> list[str]:
        """That a copy is aligned here, in words; empty for others."""
        if self.alignment is None:
            return []
        return [f"aligned here by `data align` ({self.alignment.get('name')}): not the published pixels"]

    def alignment_blocked(self) -> UserError | None:
        """Why an aligned copy cannot be used; None when it can."""
        try:
            _ = self.alignment
        except UserError as error:
            return error
        return None

    def blocked(self, protocol: Protocol) -> UserError | None:
        """Why this copy cannot serve `protocol`, judged without reading labels; None when it can."""
        return None

    @abstractmethod
    def index(self, protocol: Protocol) -> pd.DataFrame:
        """Images and labels of `protocol`.

        Returns:
            One row per image: name (str, unique), label (class name), split (train | val | test); `votes_<class>` (int)
            where there are votes, `fold` (int) where there are folds.

        Raises:
            UserError: a file or row is wrong (named), or the counts are not the protocol's.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """Every image of this copy, in storage order; unique."""

    @abstractmethod
    def pixels(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        """uint8 arrays of `self.shape`, in the order of `names`. UserError names a file that is missing or damaged."""

    def decoded(self, names: Sequence[str]) -> Iterator[np.ndarray | UserError]:
        """As `pixels`, with the error in place of an image that cannot be used, where a dataset can tell."""
        return self.pixels(names)

    def read(self, name: str) -> np.ndarray:
        """One image as it is stored, of whatever size (for `data verify`)."""
        return next(iter(self.pixels([name])))

    def image_file(self, name: str) -> Path | None:
        """The file an image is stored in; None where images are rows of a table, or made."""
        return None

    def part(self, name: str, image: np.ndarray) -> np.ndarray:
        """What is used of an image as `read` gave it: the face, where a picture shows more."""
        return image

    def targets(self, kind: str, names: Sequence[str]) -> np.ndarray:
        """What a stage learns in place of class labels, a row for each name (see `Protocol.targets`): float32 (N, ...),
        or int64 (N,) where it is a number that names something.

        Raises:
            UserError: the dataset has no targets of this kind.
        """
        raise UserError(f"{self.protocol.dataset} has no targets '{kind}'", "leave `targets` out of the protocol")

    def splits(self) -> list[str]:
        """The split of every image in `names()` before any label rule; empty where there is no fixed split."""
        return []

    def label_files(self) -> dict[str, Path]:
        """Files the labels come from: name to show -> path."""
        return {}

    def missing(self) -> list[str]:
        """Images the labels name that are not there."""
        return []

    def extra(self) -> list[str]:
        """Files among the images that no label names."""
        return []

    def remarks(self) -> list[str]:
        """Known defects of the published dataset that this copy shares."""
        return []

    def departures(self) -> list[str]:
        """Why numbers measured on this copy are no benchmark's, in words; empty for a copy as published.

        Only what is cheap: no image is decoded (`data verify` does that). A user's own data departs from nothing.
        """
        found = []
        unofficial = self.unofficial_names()
        if unofficial:
            found.append(f"{unofficial:,} images do not have official names: labels cannot be compared one by one")
        if not self.own_data:
            found += self.alignment_remark()
        return found

    def unofficial_names(self) -> int:
        """Images whose names are not those of the published dataset; 0 where names are not judged."""
        if not self.official_names:
            return 0
        official = re.compile(self.official_names).fullmatch
        return sum(official(name) is None for name in self.names())


def check_counts(frame: pd.DataFrame, protocol: Protocol, source: str, skipped: int = 0) -> None:
    """Raise UserError unless `frame` has exactly the images per split and class that `protocol` declares.

    Args:
        frame: an index with columns label and split.
        source: the label files, for the message.
        skipped: images left out on purpose: so many may be lacking in all, and none may be too many.
    """
    per_class = frame.groupby(["split", "label"], sort=False).size().to_dict()
    per_split = frame["split"].value_counts().to_dict()
    splits = {split: (n, per_split.get(split, 0)) for split, n in protocol.counts.items()}
    classes = {
        f"{split}/{label}": (n, per_class.get((split, label), 0))
        for split, declared in protocol.class_counts.items()
        for label, n in declared.items()
    }
    wrong = []
    for counts in (splits, classes):
        lacking = sum(expected - found for expected, found in counts.values())
        differ = [place for place, (expected, found) in counts.items() if expected != found]
        if lacking > skipped or any(found > expected for expected, found in counts.values()) or not skipped:
            wrong += [f"{place}: expected {counts[place][0]:,}, found {counts[place][1]:,}" for place in differ]
    if protocol.counts:
        extra = {split: n for split, n in per_split.items() if split not in protocol.counts}
        wrong += [f"{split}: expected none, found {n:,}" for split, n in extra.items()]
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise UserError(
            f"{source} does not give protocol {protocol.id}: {shown}",
            "this is another version, split or re-labelling of the dataset; `data verify` shows what differs",
        )


def manifest_hash(frame: pd.DataFrame) -> str:
    """SHA-256 over the sorted lines `name,label,split`: the same for every copy that labels the same images alike."""
    columns = (frame[column].tolist() for column in ("name", "label", "split"))
    lines = sorted(f"{name},{label},{split}\n" for name, label, split in zip(*columns, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_dataset(data_root: Path, dataset_class: type[Dataset]) -> Path | None:
    """The copy of a dataset under `data_root`: the folder itself or one of the folders in it, whatever their names.

    Where several copies are there, the one with the preferred layout wins, then the first name.

    Raises:
        UserError: `data_root` is not a folder.
    """
    found = find_copies(data_root, dataset_class)
    return found[0] if found else None


def find_copies(data_root: Path, dataset_class: type[Dataset]) -> list[Path]:
    """Every copy of a dataset under `data_root`, the one that `find_dataset` gives first."""
    found: list[tuple[int, int, Path]] = []
    for folder in _candidates(data_root):
        if is_own(folder) != dataset_class.own_data:
            continue
        layout = dataset_class.detect(folder)
        if layout is not None:
            found.append((dataset_class.layouts.index(layout), len(found), folder))
    # a data root that is itself a copy is not several: a layout may start in one of its folders
    whole = [place for place in found if place[2] == data_root]
    return [place[2] for place in (whole or sorted(found))]


def find_alignment(places: Iterable[Path]) -> Path | None:
    """The file that `data align` left at the root of a tree it made, in the first of some folders that has one."""
    return next((place / ALIGNMENT for place in places if is_aligned(place)), None)


def is_synthetic(root: Path) -> bool:
    """Whether `data synth` made this folder."""
    return (root / MARKER).is_file()


def is_own(root: Path) -> bool:
    """Whether a ferbench.yaml says that this folder is a user's own data, and no copy of a published dataset."""
    return (root / OWN_FILE).is_file()


def why_not_found(data_root: Path, dataset_class: type[Dataset]) -> list[str]:
    """Incomplete copies under `data_root`, each with what it lacks: `near_miss` of every folder that has one."""
    folders = [folder for folder in _candidates(data_root) if is_own(folder) == dataset_class.own_data]
    found = [text for folder in folders if (text := dataset_class.near_miss(folder))]
    return list(dict.fromkeys(found))  # a data root and the folder in it may say the same


def _candidates(data_root: Path) -> list[Path]:
    if not data_root.is_dir():
        raise UserError(f"data root {data_root} is not a folder", "correct --data-root or FERBENCH_DATA")
    try:
        inside = [entry for entry in data_root.iterdir() if not entry.name.startswith(".") and entry.is_dir()]
    except PermissionError:
        raise UserError(f"data root {data_root} cannot be read", "check its permissions") from None
    if is_own(data_root):
        return [data_root]  # its class folders are not copies of anything
    return [data_root, *sorted(inside)]
