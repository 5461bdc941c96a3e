"""The two ways in which a user's own images may lie: folders per class, or a list (CSV) of paths and labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.data.class_folders import split_of
from bench.data.listing import Bad, Layout, Listing
from bench.data.own import file as own_file
from bench.data.own import read as own_read
from bench.data.own import unlabelled
from bench.data.own.file import FILE, FOLDERS, LEFT_OUT, OwnFile
from bench.data.own.read import Found, Row
from bench.data.own.split import deal
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class OwnFolders(Layout):
    """Class folders, either directly in the folder or in train, val and test; any folders where there are no labels."""

    name: ClassVar[str] = "folders"

    def find(self, root: Path) -> Path | None:
        own = own_file.read(root)
        return root if own is not None and own.images == FOLDERS else None

    def read(self, base: Path) -> Listing:
        own = _required(base)
        classes = own_file.classes_of(own, base)
        if own.unlabelled:
            found = unlabelled.read_all(base)
        else:
            found = own_read.read_folders(base, lambda word: own.class_of(word, classes) is not None)
        return _listing(own, base, found, {FILE: base / FILE})

    def state(self, base: Path) -> list[Path]:
        if _required(base).unlabelled:
            return [base / FILE, *unlabelled.folders(base)]
        parents = dict.fromkeys(base / folder.path for folder in own_read.class_folders(base)[0])
        splits = dict.fromkeys(parent.parent for parent in parents if parent.parent != base)
        return [base / FILE, base, *splits, *parents]


class OwnList(Layout):
    """A table with a header: paths relative to the folder, labels, and split and subject where it has them."""

    name: ClassVar[str] = "list"

    def find(self, root: Path) -> Path | None:
        own = own_file.read(root)
        return root if own is not None and own.images != FOLDERS else None

    def read(self, base: Path) -> Listing:
        own = _required(base)
        found = own_read.read_list(own, base)
        return _listing(own, base, found, {FILE: base / FILE, own.images: base / own.images})

    def state(self, base: Path) -> list[Path]:
        own = _required(base)
        file = base / own.images
        if not file.is_file():
            return [base / FILE]  # reading it says what is wrong
        stat = file.stat()
        folders = own_read.image_folders(own.images, own.columns.image, base, stat.st_size, stat.st_mtime_ns)
        return [base / FILE, file, *folders]


def _required(base: Path) -> OwnFile:
    own = own_file.read(base)
    if own is None:
        raise UserError(f"{base / FILE} is missing", "restore it")
    return own


def _listing(own: OwnFile, base: Path, found: Found, label_files: dict[str, Path]) -> Listing:
    """Labels to classes, and every image to its part.

    Raises:
        UserError: the data has a split and the file asks for one, or neither.
    """
    import pandas as pd

    classes = own_file.classes_of(own, base)
    label_of = {word: own.class_of(word, classes) for word in dict.fromkeys(row.written for row in found.rows)}
    given = _check_split(own, base, found.rows)
    wrong = _Wrong(own, label_of, given)
    rows = [row for row in found.rows if wrong.keep(row) and label_of[row.written] != LEFT_OUT]
    frame = pd.DataFrame(
        {
            "name": [row.path for row in rows],
            "label": [label_of[row.written] for row in rows],
            "split": "",
            "path": [row.path for row in rows],
        },
        dtype=object,
    )
    if any(row.subject for row in rows):
        frame["subject"] = [row.subject for row in rows]
    _assign(own, frame, rows, given)
    left_out = Counter(row.written for row in found.rows if label_of[row.written] == LEFT_OUT)
    remarks = [f"{n:,} images of '{word}' are left out, as {FILE} says" for word, n in sorted(left_out.items())]
    if own.split is not None and not ("fold" in frame and _folds_given(own, rows)):
        remarks.append(f"{own.split}, dealt out by a hash of the {own.split.by}'s name (seed {own.split.seed})")
    return Listing(frame, found.bad + wrong.bad, found.extra, label_files, remarks)


def _check_split(own: OwnFile, base: Path, rows: list[Row]) -> bool:
    """Whether the data has a split of its own."""
    given = any(row.split for row in rows)
    if given and own.split is not None:
        raise UserError(f"{base / FILE} asks for a split, but the data has one", "remove one of the two")
    if rows and not given and own.split is None and not own.unlabelled:
        message = f"{base}: neither the data nor {FILE} says which images are for test"
        raise UserError(message, f"add `split: {{by: image, test: 0.2}}` to {FILE}, or sort them into train and test")
    if rows and own.split is not None and own.split.by == "subject" and not any(row.subject for row in rows):
        message = f"{base / FILE} asks for a split by subject, but the data names no subjects"
        raise UserError(message, "use a list with a column for the subject, or split by image")
    return given


class _Wrong:
    """Judges rows one after the other; `bad` says what is wrong with those that cannot be kept."""

    def __init__(self, own: OwnFile, label_of: dict[str, str | None], given: bool) -> None:
        self.own, self.label_of, self.given = own, label_of, given
        self.bad: list[Bad] = []
        self._seen: dict[str, str] = {}
        self._hint = own_file.to_add(word for word, label in label_of.items() if label is None)

    def keep(self, row: Row) -> bool:
        bad = self._judge(row)
        if bad is not None:
            self.bad.append(bad)
        return bad is None

    def _judge(self, row: Row) -> Bad | None:
        if self.label_of[row.written] is None:
            message = f"{row.where}: label '{row.written}' of '{row.path}' is no class"
            return Bad(row.path, "label", message, self._hint)
        first = self._seen.setdefault(row.path, row.where)
        if first != row.where:
            message = f"{row.where}: '{row.path}' is named before ({first})"
            return Bad(f"{row.path} (again)", "twice", message, "remove one of the rows")
        if self.given and split_of(row.split) is None:
            said = f"'{row.split}' is no split" if row.split else "there is no split"
            return Bad(row.path, "row", f"{row.where}: {said} for '{row.path}'", "write train, val or test")
        return self._judge_part(row)

    def _judge_part(self, row: Row) -> Bad | None:
        split = self.own.split
        if split is None:
            return None
        if split.by == "subject" and not row.subject:
            message = f"{row.where}: no subject for '{row.path}'"
            return Bad(row.path, "row", message, "name the subject, or split by image")
        if split.folds and row.fold and row.fold not in map(str, range(split.folds)):
            message = f"{row.where}: '{row.fold}' is no fold for '{row.path}'"
            return Bad(row.path, "row", message, f"folds are numbered 0 to {split.folds - 1}")
        return None


def _assign(own: OwnFile, frame: pd.DataFrame, rows: list[Row], given: bool) -> None:
    """Fill in the split, or add the fold. Unlabelled images are all for training, unless something says otherwise."""
    if given:
        frame["split"] = [split_of(row.split) for row in rows]
    elif own.split is not None and _folds_given(own, rows):
        frame["fold"] = [int(row.fold) for row in rows]
    elif own.split is not None:
        parts = deal(frame["name"].tolist(), frame["label"].tolist(), [row.subject for row in rows], own.split)
        frame["fold" if own.split.folds else "split"] = parts
    elif own.unlabelled:
        frame["split"] = "train"


def _folds_given(own: OwnFile, rows: list[Row]) -> bool:
    """Whether the list has its own folds."""
    return bool(own.split and own.split.folds and rows and all(row.fold for row in rows))
