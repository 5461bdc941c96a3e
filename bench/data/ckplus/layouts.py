"""Layouts of CK+: the official sequences (frames, emotion files, landmarks), and the class folders known as CK+48.

Both name an image `S005_001_00000011.png`: subject, sequence, frame. Both give the columns of `COLUMNS`.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.data.base import is_synthetic
from bench.data.ckplus.files import (
    CLASSES,
    EMOTION,
    FRAME,
    LANDMARKS,
    LOOK,
    Tree,
    box_of,
    complete,
    emotion_of,
    ending,
    folders,
    kind_of,
    landmarked,
    parts_of,
    sequences,
    subjects,
    trees,
)
from bench.data.classes import class_name
from bench.data.image import SUFFIXES
from bench.data.listed import BOX
from bench.data.listing import Bad, Kind, Layout, Listing, entries, is_aligned, safe_name
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# position: frame of its sequence as Python counts, 0, 1, 2 from the start (neutral) and -3, -2, -1 from the end (peak).
# box_*: around the 68 landmarks; NaN where a layout holds faces that are cropped already.
COLUMNS = ("name", "label", "split", "path", "subject", "sequence", "expression", "position", *BOX)
FRAMES = 3  # from each end of a sequence
RESTORE = "restore it from your copy of CK+"
LABELS = "add the folder Emotion of Emotion_labels.zip"
PICTURES = "add the folder cohn-kanade-images of extended-cohn-kanade-images.zip"
POINT_FILES = "add the folder Landmarks of Landmarks.zip (or crop the faces with `data align`)"
NO_BOX = (math.nan,) * 4


class Sequence(NamedTuple):
    """A labelled sequence."""

    subject: str
    number: str
    expression: str
    peak: str  # the frame its emotion file is named after, without suffix; "" where there is no such file

    @property
    def id(self) -> str:
        """Subject and number, S005_001."""
        return f"{self.subject}_{self.number}"


@dataclass
class _Found:
    """What becomes the listing."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def refuse(self, name: str, kind: Kind, message: str, hint: str = RESTORE, images: int = 1) -> None:
        self.bad.append(Bad(name, kind, message, hint, images))

    def add(self, one: Sequence, label: str, position: int, frame: int, path: str, box: tuple[float, ...]) -> None:
        name = f"{one.id}_{frame:08d}.png"
        self.rows.append((name, label, "", path, one.subject, one.id, one.expression, position, *box))

    def listing(self, order: str = "") -> Listing:
        return Listing(_frame(self.rows), self.bad, self.extra, remarks=self.remarks, order=order)


def _frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    types: dict[str, type] = dict.fromkeys(BOX, float) | {"position": int}
    return frame.astype({column: types.get(column, object) for column in COLUMNS})


class Official(Layout):
    """Frames, emotion files and landmarks, each in its own tree of subjects and sequences, or all in one."""

    name = "official"

    def find(self, root: Path) -> Path | None:
        """`root` where it holds frames and emotion files, else the one folder in it that holds both."""
        found = trees(root)
        if complete([tree for tree in found if tree.depth < 2]):
            return root
        inner = _official_inside(found)
        if inner:
            return _only([*inner, *_ck48_inside(root)])
        return root if complete(found) else None

    def read(self, base: Path, cropped: bool = False) -> Listing:
        """As `Layout.read`.

        Args:
            cropped: the frames are faces that `data align` cut out; landmarks are not read.
        """
        parts = parts_of(base)
        found = _Found()
        if not cropped and "landmarks" not in parts:
            raise UserError(f"{base} has no landmarks, which say where the face is in a frame", POINT_FILES)
        labelled = list(_labelled(parts["emotion"], found))
        everything = sum(1 for _ in sequences(parts["images"]))
        found.remarks.append(
            f"{everything:,} sequences, {len(labelled):,} labelled; those without a label are not used"
        )
        odd = []
        for one in labelled:
            frames = _frames(parts["images"] / one.subject / one.number, one, base, found)
            if frames:
                odd += [one.id] if list(frames) != list(range(1, int(one.peak[-8:]) + 1)) else []
                _add_ends(one, frames, None if cropped else parts["landmarks"], found)
        if odd:
            found.remarks.append(
                f"in {len(odd):,} labelled sequences, the first is {odd[0]}, frames do not run from 1 to the one the "
                "emotion file is named after; the first and last three are those of the frames that are there or have "
                "landmarks"
            )
        return found.listing("ckplus")

    def state(self, base: Path) -> list[Path]:
        """Trees, their folders of subjects, the emotion files, and the other folders of labelled sequences.

        A frame or landmark file that is written over in place is not seen; one that comes, goes or is renamed is.
        """
        parts = parts_of(base)
        found = [str(parts[kind]) for kind in sorted(parts)]
        found += [subject.path for kind in sorted(parts) for subject in subjects(parts[kind])]
        others = [str(parts[kind]) for kind in ("images", "landmarks") if kind in parts]
        for subject, number, folder in sequences(parts["emotion"]):
            files = [file.path for file in ending(folder, EMOTION)]
            found += [*files, *(f"{tree}/{subject}/{number}" for tree in others if files)]
        return [Path(path) for path in dict.fromkeys(found) if os.path.exists(path)]  # a loop of links does not

    def lacks(self, root: Path) -> str:
        """Which of frames and labels is there without the other."""
        found = {tree.kind: tree.folder for tree in reversed(trees(root))}
        if "images" in found and "emotion" not in found:
            return f"{found['images']} holds sequences of CK+ without labels; {LABELS}"
        if "emotion" in found and "images" not in found:
            return f"{found['emotion']} holds labels of CK+ without frames; {PICTURES}"
        return ""


class CK48(Layout):
    """Class folders with the last three frames of each labelled sequence; subject and sequence are in the names."""

    name = "ck+48"

    def find(self, root: Path) -> Path | None:
        """`root`, or the one folder in it, that holds class folders with images named like frames of CK+."""
        if _class_folders(root):
            return root
        inner = _ck48_inside(root)
        return _only([*inner, *_official_inside(trees(root))]) if inner else None

    def read(self, base: Path) -> Listing:
        found = _Found()
        by_sequence: dict[tuple[str, str], dict[int, tuple[str, str]]] = {}
        for expression, folder in _class_folders(base):
            for key, frame, path in _named(folder, base, found):
                frames = by_sequence.setdefault(key, {})
                if frame in frames:
                    message = f"{base / path} is there twice, also as {base / frames[frame][1]}"
                    found.refuse(f"{'_'.join(key)}_{frame:08d}.png", "twice", message, "remove one of them")
                else:
                    frames[frame] = (expression, path)
        for (subject, number), frames in sorted(by_sequence.items()):
            _add_last(subject, number, frames, base, found)
        found.remarks.append("only the last three frames of each sequence: none is neutral")
        if any(class_name(folder.name) == "neutral" for folder in folders(base, LOOK)):
            found.remarks.append("its folder of neutral faces is not read: which frames they are is not known")
        return found.listing()

    def state(self, base: Path) -> list[Path]:
        return [base, *(folder for _, folder in _class_folders(base))]


def ckextended(root: Path) -> str:
    """Why the table known as ckextended.csv cannot be used, where `root` holds it; "" where it does not."""
    for path in sorted(root.glob("*.csv")):
        if is_ckextended(path):
            return (
                f"{path} is ckextended.csv: 920 faces without subject ids, so that no folds by subject can be made "
                "and its random split has the same persons in train and test; use the official CK+ or CK+48"
            )
    return ""


def is_ckextended(path: Path) -> bool:
    """Whether a table is ckextended.csv: the columns of fer2013.csv, but 920 rows."""
    try:
        if path.stat().st_size > 32 << 20:  # its 920 rows are 8 MB; fer2013.csv, 300 MB, is not read
            return False
        with path.open("rb") as file:
            header = [part.strip().strip('"').lower() for part in file.readline(200).decode("latin-1").split(",")]
            return sorted(header) == ["emotion", "pixels", "usage"] and sum(1 for line in file if line.strip()) == 920
    except OSError:
        return False


def _official_inside(found: list[Tree]) -> list[Path]:
    """Folders at depth 1 that hold both frames and emotion files."""
    tops = dict.fromkeys(tree.top for tree in found if tree.depth == 2)
    return [top for top in tops if complete([tree for tree in found if tree.top == top])]


def _ck48_inside(root: Path) -> list[Path]:
    return [folder for folder in folders(root, LOOK) if _class_folders(folder)]


def _only(copies: list[Path]) -> Path | None:
    """The one copy in a folder. Of several, and where it has a mark of its own, each is found by itself."""
    (first, *more) = copies
    return None if more or is_synthetic(first) or is_aligned(first) else first


# --- official sequences -----------------------------------------------------------------------------------------------


def _labelled(emotion: Path, found: _Found) -> Iterator[Sequence]:
    """Sequences with one good emotion file."""
    for subject, number, folder in sequences(emotion):
        files = ending(folder, EMOTION)
        name = f"{subject}_{number}"
        if not files:
            continue
        path, peak = files[0].path, files[0].name.removesuffix(EMOTION)
        if len(files) > 1:
            both = f"{files[0].name!r} and {files[1].name!r}"
            found.refuse(name, "twice", f"{folder} holds two emotion files, {both}", "keep the right one", 2 * FRAMES)
            continue
        match = FRAME.fullmatch(peak)
        if not match or match.groups()[:2] != (subject, number):
            message = f"{folder} holds {files[0].name!r}, which is of another sequence"
            found.refuse(name, "name", message, RESTORE, 2 * FRAMES)
            continue
        try:
            with open(path, encoding="ascii") as file:
                expression = emotion_of(file.read(1000))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else _reason(error)
            found.refuse(name, "label", f"{path}: {reason}", RESTORE, 2 * FRAMES)
            continue
        yield Sequence(subject, number, expression, peak)


def _reason(error: ValueError) -> str:
    return "it is not text" if isinstance(error, UnicodeDecodeError) else str(error)


def _frames(folder: Path, one: Sequence, base: Path, found: _Found) -> dict[int, str]:
    """Frame numbers of a sequence, ascending, with their paths; empty, and in `found.bad`, where it cannot be used."""
    frames: dict[int, str] = {}
    if folder.is_dir():
        for key, frame, path in _named(folder, base, found):
            if key != (one.subject, one.number):
                found.refuse(Path(path).name, "name", f"{base / path} is of another sequence than its folder")
            elif frame in frames:
                message = f"{base / path} is there twice, also as {base / frames[frame]}"
                found.refuse(f"{one.id}_{frame:08d}.png", "twice", message, "remove one of them")
            else:
                frames[frame] = path
    peak = f"{one.peak}.png"
    if int(one.peak[-8:]) not in frames:
        message = f"{folder / peak} is missing; the emotion file of {one.id} is named after it"
        found.refuse(peak, "missing", message, RESTORE, 2 * FRAMES)
        return {}
    if len(frames) < FRAMES:
        message = f"{folder} holds {len(frames)} frames, fewer than {FRAMES}"
        found.refuse(one.id, "missing", message, "restore the others", 2 * FRAMES)
        return {}
    return dict(sorted(frames.items()))


def _named(folder: Path, base: Path, found: _Found) -> Iterator[tuple[tuple[str, str], int, str]]:
    """(subject, sequence), frame number and path of the images in a folder; others become extra or bad."""
    inside = folder.relative_to(base).as_posix()
    for entry in entries(folder):
        stem, suffix = os.path.splitext(entry.name)
        match = FRAME.fullmatch(stem)
        if suffix.lower() not in SUFFIXES:
            continue
        if match:
            yield (match[1], match[2]), int(match[3]), f"{inside}/{entry.name}"
        elif safe_name(entry.name):
            found.extra.append(f"{inside}/{entry.name}")
        else:
            message = f"{folder} holds {entry.name!r}, a name with a control character"
            found.refuse(f"{inside}/{entry.name!a}", "name", message, "rename or remove it")


def _add_ends(one: Sequence, frames: dict[int, str], landmarks: Path | None, found: _Found) -> None:
    """Rows of the first frames and the last; in a short sequence a frame that is among the last is not neutral.

    A frame before the peak that has landmarks and no image is missing: another one must not take its place.
    """
    known = set() if landmarks is None else landmarked(landmarks, one.subject, one.number)
    numbers = sorted({*frames, *(frame for frame in known if frame < int(one.peak[-8:]))})
    neutral = numbers[: min(FRAMES, len(numbers) - FRAMES)]
    ends = [*((k, "neutral") for k in range(len(neutral))), *((k, one.expression) for k in range(-FRAMES, 0))]
    for position, label in ends:
        frame = numbers[position]
        if frame not in frames:
            name = f"{one.id}_{frame:08d}.png"
            where = f"{landmarks}/{one.subject}/{one.number}"
            found.refuse(name, "missing", f"{name} is missing; {where} has the landmarks of that frame")
            continue
        box = NO_BOX if landmarks is None else _box(landmarks, one, frame, found)
        if box is not None:
            found.add(one, label, position, frame, frames[frame], box)


def _box(landmarks: Path, one: Sequence, frame: int, found: _Found) -> tuple[float, ...] | None:
    """Box of a frame; None, and in `found.bad`, where its landmarks are not there or wrong."""
    stem = f"{one.id}_{frame:08d}"
    path = f"{landmarks}/{one.subject}/{one.number}/{stem}{LANDMARKS}"
    try:
        with open(path, encoding="ascii") as file:
            return box_of(file.read(100_000))
    except FileNotFoundError:
        found.refuse(f"{stem}.png", "missing", f"{path} is missing: where the face is in that frame", POINT_FILES)
    except OSError as error:
        found.refuse(f"{stem}.png", "unreadable", f"{path} cannot be read: {error.strerror}")
    except ValueError as error:
        found.refuse(f"{stem}.png", "row", f"{path}: {_reason(error)}")
    return None


# --- CK+48 ------------------------------------------------------------------------------------------------------------


def _class_folders(base: Path) -> list[tuple[str, Path]]:
    """Expressions and their folders, where at least one holds images named like frames of CK+; neutral is left out."""
    named = [(class_name(folder.name), folder) for folder in folders(base, LOOK)]
    found = [(name, folder) for name, folder in named if name in CLASSES[1:]]
    return found if any(_holds_frames(folder) for _, folder in found) else []


def _holds_frames(folder: Path) -> bool:
    try:
        return any(kind_of(entry.name) == "images" for entry in entries(folder, 8))
    except UserError:
        return False


def _add_last(subject: str, number: str, frames: dict[int, tuple[str, str]], base: Path, found: _Found) -> None:
    """Rows of the last three frames of a sequence, which must be there and of one class."""
    labels = Counter(expression for expression, _ in frames.values())
    one = Sequence(subject, number, next(iter(labels)), "")
    paths = [frames[frame][1] for frame in sorted(frames)]
    if len(labels) > 1:
        message = f"{base}: {one.id} is in the folders of {' and '.join(sorted(labels))}, as in {base / paths[0]}"
        found.refuse(one.id, "label", message, "keep one", FRAMES)
    elif len(paths) < FRAMES:
        message = f"{base / paths[0]}: {len(paths)} of the last three frames of {one.id} are there"
        found.refuse(one.id, "missing", message, "restore the others", FRAMES)
    else:
        for position, frame in zip(range(-FRAMES, 0), sorted(frames)[-FRAMES:], strict=True):
            found.add(one, one.expression, position, frame, frames[frame][1], NO_BOX)
