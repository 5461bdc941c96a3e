"""`ferbench.yaml`: the one file by which a user's own folder of images becomes a protocol.

    id: my-faces                 # the protocol is called own/my-faces
    images: folders              # class folders, in train/val/test or not; or a list such as labels.csv
    columns: {image: path, label: emotion, split: part, subject: person}    # of a list; only those called otherwise
    labels: {happy: happiness, "0": neutral, grumpy: annoyed, blurred: null}    # as written -> class; null leaves out
    classes: [neutral, happiness, annoyed]       # order of the network's outputs
    split: {by: subject, test: 0.2, val: 0.1}    # only where the data has no split; or {folds: 5, by: subject}
    preprocessing: own-112
    unlabelled: true             # instead of labels and classes: faces for pretraining, without a class

Cheap to read (no pandas, no image), since every command that has a data root reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from bench.data.classes import EXPRESSIONS, class_name
from bench.declare import Protocol
from bench.errors import UserError
from bench.recipe import Declared
from bench.yaml_files import parse, read_yaml

FILE = "ferbench.yaml"
FOLDERS = "folders"
UNLABELLED = "unlabelled"  # the label of images that have no class
LEFT_OUT = ""  # what `OwnFile.class_of` gives for a label that is mapped to null
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")
_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
_CLASS = re.compile(r"[\w-]+")  # names columns of predictions and of confusion matrices


class Columns(Declared):
    """Headers of a list. Those a user names must be there; split, subject and fold are optional else."""

    image: str = "image"
    label: str = "label"
    split: str = "split"
    subject: str = "subject"
    fold: str = "fold"


class Split(Declared):
    """How images without a split are dealt out: by a hash of their names, so the same on every machine."""

    by: Literal["image", "subject"] = "image"
    test: float = 0.0  # fraction of the images of each class, or of the subjects
    val: float = 0.0
    folds: int = 0
    seed: int = 0

    @model_validator(mode="after")
    def _one_of_two(self) -> Split:
        if self.folds:
            if self.test or self.val:
                raise ValueError("give either folds, or test and val")
            if self.folds < 2:
                raise ValueError(f"folds must be at least 2, not {self.folds}")
        elif not (self.test > 0 and self.val >= 0 and self.test + self.val < 1):
            raise ValueError("give folds, or fractions with test > 0 and test + val < 1")
        return self

    def __str__(self) -> str:
        if self.folds:
            return f"{self.folds} folds by {self.by}"
        return f"split by {self.by}: test {self.test:g}, val {self.val:g}"


class OwnFile(Declared):
    """One ferbench.yaml."""

    id: str
    title: str = ""
    images: str = FOLDERS
    columns: Columns = Columns()
    labels: dict[str, str | None] = {}
    classes: tuple[str, ...] = ()
    split: Split | None = None
    preprocessing: str = "own-224"
    unlabelled: bool = False
    notes: str = ""

    @field_validator("id")
    @classmethod
    def _plain_id(cls, value: str) -> str:
        if not _ID.fullmatch(value):
            raise ValueError(f"'{value}': letters, digits, '.', '_', '@' and '-' only")
        return value

    @field_validator("images")
    @classmethod
    def _inside(cls, value: str) -> str:
        if Path(value).is_absolute() or ".." in Path(value).parts:
            raise ValueError(f"'{value}': the list must lie in the folder of {FILE}")
        return value

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_as_text(cls, value: Any) -> Any:
        # YAML reads 0: and yes: as a number and a truth value
        return {_text(key): _text(name) for key, name in value.items()} if isinstance(value, dict) else value

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_as_text(cls, value: Any) -> Any:
        return [_text(name) for name in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _classes_agree(self) -> OwnFile:
        mapped = list(dict.fromkeys(name for name in self.labels.values() if name is not None))
        odd = [name for name in (*self.classes, *mapped) if not _CLASS.fullmatch(name)]
        if odd:
            raise ValueError(f"class '{odd[0]}': letters, digits, '_' and '-' only")
        twice = [name for name in self.classes if self.classes.count(name) > 1]
        if twice:
            raise ValueError(f"classes: '{twice[0]}' is given twice")
        for written, name in self.labels.items():
            if self.classes and name is not None and name not in self.classes:
                raise ValueError(f"labels: '{written}' is mapped to '{name}', which is not in classes")
        if (self.classes or mapped) and len(self.classes or mapped) < 2:
            raise ValueError("at least two classes are needed")
        return self

    @model_validator(mode="after")
    def _without_classes(self) -> OwnFile:
        if self.unlabelled and (self.classes or self.labels):
            raise ValueError("unlabelled: true has neither classes nor labels")
        if self.unlabelled and self.split and self.split.folds:
            raise ValueError("unlabelled: true has no folds; give test and val, or no split")
        return self

    @property
    def protocol_id(self) -> str:
        """What the protocol is called on the command line."""
        return f"own/{self.id}"

    @property
    def named_classes(self) -> tuple[str, ...]:
        """Classes the file names, in order; empty where the data alone names them."""
        return self.classes or tuple(dict.fromkeys(name for name in self.labels.values() if name is not None))

    def class_of(self, written: str, classes: Sequence[str]) -> str | None:
        """The class of a folder or label cell; LEFT_OUT where it is mapped to null, None where nothing maps it.

        The map comes first, then a class of that name, then the usual words for an expression ("Happy"). Of unlabelled
        images it is UNLABELLED, whatever is written.
        """
        if self.unlabelled:
            return UNLABELLED
        if written in self.labels:
            return self.labels[written] or LEFT_OUT
        if written in classes:
            return written
        known = class_name(written)
        return known if known is not None and known in classes else None


def read(folder: Path) -> OwnFile | None:
    """The ferbench.yaml of a folder; None where it has none.

    Raises:
        UserError: it is not valid; names file and key.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected keys and values", "it needs at least `id: my-faces`")
    own: OwnFile = parse(OwnFile, data, path)
    return own


def folders_under(root: Path) -> list[Path]:
    """Folders with a ferbench.yaml: the data root itself, else those directly under it, in name order."""
    if (root / FILE).is_file():
        return [root]
    try:
        inside = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []  # who opens the data root says what is wrong with it
    return [entry for entry in inside if (entry / FILE).is_file()]


def protocols_under(root: Path) -> list[Protocol]:
    """The protocols that a data root declares.

    Raises:
        UserError: a ferbench.yaml is not valid, or two folders have the same id.
    """
    found: dict[str, tuple[Path, Protocol]] = {}
    for folder in folders_under(root):
        own = read(folder)
        assert own is not None  # folders_under looked
        if own.protocol_id in found:
            message = f"{folder / FILE} and {found[own.protocol_id][0] / FILE} both have the id '{own.id}'"
            raise UserError(message, "give one of them another id")
        found[own.protocol_id] = (folder, protocol(own, folder))
    whole = [declared for _, declared in found.values()]
    return whole + [leak_free(declared) for declared in whole if declared.variants]


def protocol(own: OwnFile, folder: Path) -> Protocol:
    """What an own folder declares; without counts, since nothing published says what they should be."""
    folds = own.split.folds if own.split else 0
    variants = {} if folds or own.unlabelled else {"leak-free": f"{own.protocol_id}-leak-free"}
    return Protocol(
        id=own.protocol_id, dataset="own", title=own.title or f"own data in {folder.name}",
        classes=classes_of(own, folder), rule=own.images + (f", {own.split}" if own.split else ""), folds=folds,
        variants=variants, notes=own.notes, access=str(folder),
    )  # fmt: skip


def leak_free(whole: Protocol) -> Protocol:
    """The subset of test images without an identical copy in train or val."""
    return Protocol(
        id=whole.variants["leak-free"], dataset=whole.dataset, classes=whole.classes, rule="leak-free",
        title=f"{whole.title}, test images without an identical copy in train", subset_of=whole.id, access=whole.access,
    )  # fmt: skip


def classes_of(own: OwnFile, folder: Path) -> tuple[str, ...]:
    """Class names in the order of the network's outputs.

    Where the file names none, the data's own words for expressions count, in the usual order. Unlabelled images have
    none.

    Raises:
        UserError: neither gives two classes.
    """
    if own.unlabelled:
        return ()
    if own.named_classes:
        return own.named_classes
    from bench.data.own.read import words

    written = words(own, folder)
    known = {class_name(word) for word in written}
    classes = tuple(name for name in EXPRESSIONS if name in known)
    if len(classes) < 2:
        shown = ", ".join(sorted(written)[:20]) or "none"
        message = f"{folder / FILE}: no classes are named, and those found are no two expressions (found: {shown})"
        raise UserError(message, to_add(written))
    return classes


def to_add(written: Iterable[str]) -> str:
    """The line of ferbench.yaml that maps labels nothing maps yet."""
    lines = ", ".join(f"{_quoted(word)}: CLASS" for word in sorted(set(written))[:20]) or "as written: CLASS"
    return f"add to {FILE}: `labels: {{{lines}}}` with a class name for each, or null to leave its images out"


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else str(value)


def _quoted(word: str) -> str:
    plain = word.isalpha() and word.lower() not in _YAML_WORDS
    return word if plain else json.dumps(word, ensure_ascii=False)
