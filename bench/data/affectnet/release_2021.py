"""AffectNet's release of 2021: `train_set` and `val_set` of cropped faces with four npy files each.

Only `<number>_exp.npy` is read, 291,650 files of 130 bytes or so, each a number or a short text. Few contents occur, so
a file is parsed only when its bytes were not seen before: reading costs opening the files and nothing else.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.data.affectnet.layouts import (
    CLASSES,
    DROPPED,
    ORDER,
    RELEASE_2021,
    RESTORE,
    AffectNetLayout,
    canonical,
    dropped_remark,
    label_number,
    release_of,
    without_repeats,
)
from bench.data.image import SUFFIXES
from bench.data.listing import Bad, Listing, safe_name
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SPLIT_FOLDERS = {"train": ("train_set",), "test": ("val_set", "valid_set")}
ENDING = "_exp.npy"
PEEK = 64  # entries of a folder looked at to recognise it; a quarter of the annotations are labels
THREADS = 4
BATCH = 2_000  # files a thread reads at a time
LARGEST = 4_096  # bytes of a label file; those of the release have about 130
REMEMBERED = 1_000  # different contents that are kept parsed


class Release2021(AffectNetLayout):
    """`{train_set,val_set|valid_set}/images/<number>.jpg` with `annotations/<number>_exp.npy`."""

    name: ClassVar[str] = "release-2021"

    def find(self, root: Path) -> Path | None:
        return root if all(split_folders(root).values()) else None

    def release(self, base: Path) -> str:
        return RELEASE_2021

    def state(self, base: Path) -> list[Path]:
        folders = [folders[0] for folders in split_folders(base).values()]
        return [folder / inside for folder in folders for inside in ("images", "annotations")]

    def lacks(self, root: Path) -> str:
        found = split_folders(root)
        if not any(found.values()):
            return ""
        parts = []
        for split, names in SPLIT_FOLDERS.items():
            if not found[split]:
                parts.append(f"{names[0]}/images with {names[0]}/annotations/<number>{ENDING}")
        there = ", ".join(str(folders[0].relative_to(root)) for folders in found.values() if folders)
        return f"{root} has {there} of AffectNet (2021) but not {' and '.join(parts)}."

    def read(self, base: Path) -> Listing:
        import pandas as pd

        bad: list[Bad] = []
        extra: list[str] = []
        dropped: Counter[int] = Counter()
        frames: list[pd.DataFrame] = []
        for split, folders in split_folders(base).items():
            if len(folders) > 1:
                message = f"{base} has the {split} split twice: {' and '.join(str(folder) for folder in folders)}"
                raise UserError(message, "keep one of them there")
            frames.append(_read_split(base, folders[0], split, bad, extra, dropped))
        frame = pd.concat(frames, ignore_index=True)
        frame = without_repeats(frame, lambda row: str(base / str(frame["path"].iat[row])), bad)
        return Listing(frame, bad, extra, {}, dropped_remark(dropped), ORDER)


def split_folders(root: Path) -> dict[str, list[Path]]:
    """Split -> the folders that hold it, links to one folder counted once; unpacking often nests one in itself."""
    found: dict[str, list[Path]] = {}
    for split, names in SPLIT_FOLDERS.items():
        places = [place for name in names for place in (root / name, root / name / name) if is_annotated(place)]
        found[split] = list({place.resolve(): place for place in reversed(places)}.values())[::-1]
    return found


def is_annotated(folder: Path) -> bool:
    """Whether a folder has `images` and, in `annotations`, label files of the release of 2021."""
    if not (folder / "images").is_dir():
        return False
    return any(
        name.endswith(ENDING) and release_of(name.removesuffix(ENDING)) == RELEASE_2021
        for name in islice(file_names(folder / "annotations"), PEEK)
    )


def file_names(folder: Path) -> Iterator[str]:
    """Names in a folder as they come; none when it cannot be read. (`entries` sorts, which a million names feel.)"""
    try:
        with os.scandir(folder) as scan:
            yield from (entry.name for entry in scan if not entry.name.startswith("."))
    except OSError:
        return


def parse_label(data: bytes) -> int:
    """The number in an npy file: an integer, a float without fraction or a text, as a scalar or an array of one.

    Raises:
        ValueError: it is no npy file, holds pickled objects, more than one value, or no whole number.
    """
    import numpy as np

    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a damaged header raises what Python's parser does: SyntaxError, struct.error, ...
        if isinstance(error, MemoryError):
            raise
        raise ValueError(f"no readable npy file ({type(error).__name__})") from None
    if not isinstance(array, np.ndarray) or array.size != 1:
        raise ValueError("not a single value")
    value = array.reshape(-1)[0]
    number = label_number(value.decode(errors="replace") if isinstance(value, bytes) else str(value))
    if number is None:
        raise ValueError(f"'{value}' is no whole number")
    return number


def read_labels(folder: Path, names: Sequence[str]) -> Iterator[int | str]:
    """The number in each `<name>_exp.npy` of a folder, or what is wrong with the file, in order."""
    known: dict[bytes, int | str] = {}
    batches = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
    place = os.open(folder, os.O_RDONLY)
    try:
        # opening a file waits for the disk, and frees the interpreter lock meanwhile
        with ThreadPoolExecutor(THREADS) as pool:
            for labels in pool.map(lambda batch: _read_batch(place, batch, known), batches):
                yield from labels
    finally:
        os.close(place)


def _read_batch(place: int, names: Sequence[str], known: dict[bytes, int | str]) -> list[int | str]:
    labels: list[int | str] = []
    for name in names:
        try:
            file = os.open(name + ENDING, os.O_RDONLY, dir_fd=place)
            try:
                data = os.read(file, LARGEST)
            finally:
                os.close(file)
        except OSError as error:
            labels.append(f"cannot be read: {error.strerror}")
            continue
        label = known.get(data)
        if label is None:
            try:
                label = parse_label(data)
            except ValueError as error:
                label = f"is {error}" if data else "is empty (0 bytes)"
            if len(known) < REMEMBERED:
                known[data] = label
        labels.append(label)
    return labels


def _read_split(
    base: Path, folder: Path, split: str, bad: list[Bad], extra: list[str], dropped: Counter[int]
) -> pd.DataFrame:
    """One split's usable images; everything else goes into `bad`, `extra` and `dropped`."""
    import pandas as pd

    images, annotations = folder / "images", folder / "annotations"
    shown, place = images.relative_to(base).as_posix(), annotations.relative_to(base).as_posix()
    labelled = {name.removesuffix(ENDING) for name in file_names(annotations) if name.endswith(ENDING)}
    stems, files = [], []
    for file in file_names(images):
        stem, ending = os.path.splitext(file)
        if release_of(stem) != RELEASE_2021 or ending.lower() not in SUFFIXES or not safe_name(file):
            extra.append(f"{shown}/{file}")
        elif stem not in labelled:
            message = f"{base / shown / file} has no label: {place}/{stem}{ENDING} is missing"
            bad.append(Bad(f"{split}/{stem}", "label", message, RESTORE))
        else:
            stems.append(stem)
            files.append(file)
    for stem in sorted(labelled.difference(stems)):
        message = f"{base / shown / stem}.jpg is missing; {place}/{stem}{ENDING} labels it"
        bad.append(Bad(canonical(stem, split) or f"{place}/{stem}{ENDING}", "missing", message, RESTORE))
    names, labels, paths = [], [], []
    for stem, file, label in zip(stems, files, read_labels(annotations, stems), strict=True):
        if isinstance(label, str):
            where = annotations / f"{stem}{ENDING}"
            bad.append(Bad(f"{split}/{stem}", "unreadable", f"{where} {label}", RESTORE))
        elif label in DROPPED:
            dropped[label] += 1
        elif label >= len(CLASSES):
            known = ", ".join(f"{number} {word}" for number, word in enumerate(CLASSES))
            message = f"{annotations / stem}{ENDING}: label {label} is not one of {known}"
            bad.append(Bad(f"{split}/{stem}", "label", message, RESTORE))
        else:
            names.append(f"{split}/{stem}")
            labels.append(CLASSES[label])
            paths.append(f"{shown}/{file}")
    frame = pd.DataFrame({"name": names, "label": labels, "path": paths}, dtype="str")
    frame.insert(2, "split", split)
    return frame
