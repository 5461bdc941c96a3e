"""Reading a Hugging Face dataset into a folder that `data verify` and `run --experiment` understand.

Images keep their bytes and lie in <part>/<class>/<name>. By default the folder is own data: a list, a ferbench.yaml and
source.json say what it is. With `as_dataset` it is laid out for the adapter of a published dataset, if it is one.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench import registry, store
from bench.data.base import SPLITS, Dataset
from bench.data.class_folders import is_image, split_of
from bench.data.classes import EXPRESSIONS, class_name
from bench.data.hub.exporting import RECORD, images_hash
from bench.data.hub.source import Columns, Opened
from bench.data.listed import BOX
from bench.data.new_folder import new_folder
from bench.data.own.file import FILE
from bench.declare import Protocol
from bench.errors import UserError, unknown

LIST = "labels.csv"
SOURCE = "source.json"
PARTS = (*SPLITS, "none")  # what a split of the source can become; none leaves it out
MAGIC = {
    b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp", b"II*\x00": ".tif",
    b"MM\x00*": ".tif", b"RIFF": ".webp",
}  # fmt: skip


@dataclass
class Imported:
    """What was read and written.

    Attributes:
        counts: part ("" where the data has none) -> class -> images.
        alike: declared protocols with exactly these images per class.
        readable_as: datasets of those whose adapters can read the folder, if it is imported as one of them.
        protocol: what the folder is now called: own/<id>, or the published protocol it was imported as.
        exported_as: the protocol this was exported from, its manifest found unchanged; "" for other sources.
        remarks: what was decided on the way.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    alike: list[str] = field(default_factory=list)
    readable_as: list[str] = field(default_factory=list)
    protocol: str = ""
    exported_as: str = ""
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Image:
    """One row of the source, as written."""

    path: str
    label: str
    part: str
    split: str  # by its own name, where `part` is what became of it
    name: str
    digest: bytes  # SHA-256 of its bytes
    others: tuple[Any, ...]


def import_dataset(
    opened: Opened, columns: Columns, place: Path, protocols: Mapping[str, Protocol], *,
    parts: Mapping[str, str] | None = None, as_dataset: str = "",
) -> Imported:  # fmt: skip
    """Write an opened dataset into the new folder `place`.

    Args:
        protocols: all declared ones, to compare counts with.
        parts: split of the source -> train | val | test | none, where its name does not say.
        as_dataset: lay it out for this dataset's adapter instead; it must then be exactly one of its protocols.

    Raises:
        UserError: a row has no image or label, the source is not what its record says, or not `as_dataset`.
    """
    found = Imported()
    if as_dataset:
        _adapter(as_dataset)  # an unknown name is an error before anything is written
    _judge_boxes(opened, columns, as_dataset, found)
    part_of = _parts(opened, parts or {}, found)
    classes = _Classes(columns)
    with new_folder(place) as folder:
        writer = _Writer(folder, split_folders=not (as_dataset and _folded(as_dataset, protocols)))
        images = [
            writer.write(row, columns, classes, (part, split), where)
            for split, part in part_of.items()
            for where, row in _rows(opened, split)
        ]
        if not images:
            raise UserError(f"{opened.about['source']} holds no images", "see --splits")
        hashes = {"manifest_sha256": _manifest(images, classes)}
        hashes["images_sha256"] = images_hash((image.name, image.digest) for image in images)
        _compare(_count(images, classes), folder, protocols, found)
        found.exported_as = _check_record(opened, hashes)
        if as_dataset:
            found.protocol = _check_dataset(folder, as_dataset, found, protocols)
        else:
            found.protocol = _write_own(folder, place.name, images, columns, classes, opened, found)
        rows = {part or "all": sum(of.values()) for part, of in found.counts.items()}
        about = {"rows": rows, "columns": [columns.image, columns.label], **hashes}
        store.write_json(folder / SOURCE, {**opened.about, **about})
    return found


def _rows(opened: Opened, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a split with its name for messages."""
    place = f"{opened.about['source']}, {split}"
    number = 0
    try:
        for number, row in enumerate(opened.splits[split], start=1):
            yield f"{place}, row {number}", row
    except (UserError, OSError):
        raise  # ours, or of the disk that is written to
    except Exception as error:  # the library raises whatever its readers and the network do
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{place}, after row {number}: {text[0]}", "fetch the dataset again") from None


def _judge_boxes(opened: Opened, columns: Columns, as_dataset: str, found: Imported) -> None:
    """Images with boxes of faces are whole photographs: not what an adapter of cropped faces takes them for."""
    if not any(column in columns.others for column in BOX):
        return
    if as_dataset:
        message = f"{opened.about['source']}: its images are not cropped, faces are given by boxes ({BOX[0]}, ...)"
        raise UserError(message, f"import it as own data, or use the original copy of {as_dataset}")
    found.remarks.append(f"the boxes of faces are kept in {LIST}, and nothing crops by them")


# ------------------------------------------------------------------------------------------------------------- splits
def _parts(opened: Opened, asked: Mapping[str, str], found: Imported) -> dict[str, str]:
    """Split of the source -> train | val | test, or "" where there is only one."""
    for split, part in asked.items():
        if split not in opened.splits:
            raise unknown("split", split, opened.splits)
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    part_of = {split: asked.get(split) or split_of(split) or "" for split in opened.splits}
    part_of = {split: part for split, part in part_of.items() if part != "none"}
    unnamed = [split for split, part in part_of.items() if not part]
    if len(part_of) == 1 and not asked:
        found.remarks.append(f"there is only the split '{next(iter(part_of))}': {FILE} deals its images out")
        return dict.fromkeys(part_of, "")
    if unnamed or len(set(part_of.values())) < len(part_of):
        named = ", ".join(f"{split} ({part or 'unknown'})" for split, part in part_of.items())
        raise UserError(
            f"splits cannot be told by their names: {named}", "say --splits NAME=train NAME=test NAME=none ..."
        )
    if "test" not in part_of.values() and "val" in part_of.values():
        split = next(split for split, part in part_of.items() if part == "val")
        found.remarks.append(f"there is no test split: '{split}' becomes the test split")
        part_of[split] = "test"
    return part_of


# ------------------------------------------------------------------------------------------------------------- labels
class _Classes:
    """From label cells to the words of the source, and from those to class names."""

    def __init__(self, columns: Columns) -> None:
        self.names = columns.names
        self.class_of: dict[str, str] = {word: _class(word) for word in columns.names}

    def word(self, cell: Any, where: str) -> str:
        """The label as the source calls it."""
        if cell is None or (self.names and not 0 <= int(cell) < len(self.names)):
            known = f"names for 0 to {len(self.names) - 1}" if self.names else "a word"
            message = f"{where}: the label is {cell!r}, expected {known}"
            raise UserError(message, "leave the split out with --splits NAME=none, or correct --classes")
        word = self.names[int(cell)] if self.names else str(cell).strip()
        self.class_of.setdefault(word, _class(word))
        return word

    def order(self, present: Iterable[str]) -> list[str]:
        """Class names: in the source's order, or in the usual one of expressions where labels are words."""
        found = list(dict.fromkeys(self.class_of[word] for word in (self.names or sorted(present))))
        there = {self.class_of[word] for word in present}
        if not self.names:
            found.sort(key=lambda name: EXPRESSIONS.index(name) if name in EXPRESSIONS else len(EXPRESSIONS))
        return [name for name in found if name in there]


def _class(word: str) -> str:
    """An expression's own name, else the word with what a class name cannot hold replaced."""
    return class_name(word) or re.sub(r"[^\w-]+", "-", word.strip()).strip("-") or "unnamed"


# ------------------------------------------------------------------------------------------------------------- images
class _Writer:
    """Writes images under names of their own."""

    def __init__(self, folder: Path, split_folders: bool) -> None:
        self.folder, self.split_folders = folder, split_folders
        self._taken: set[str] = set()

    def write(
        self, row: dict[str, Any], columns: Columns, classes: _Classes, place: tuple[str, str], where: str
    ) -> _Image:
        """One row; `place` is the part it goes to and the split it comes from."""
        part, split = place[0], split_of(place[1]) or ""
        data, stored_name = _bytes(row[columns.image], where)
        name = str(row.get(columns.name) or stored_name or "")
        word = classes.word(row[columns.label], where)
        inside = [part] if part and self.split_folders else []
        path = self._free("/".join([*inside, classes.class_of[word]]), _file_name(name, split, data, where))
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)
        others = tuple(row.get(column) for column in columns.others)
        return _Image(path, word, part, split, name or path, hashlib.sha256(data).digest(), others)

    def _free(self, parent: str, name: str) -> str:
        """A path that is not taken, also where a file system takes no notice of case."""
        stem, suffix = os.path.splitext(name)
        path, number = f"{parent}/{name}", 1
        while path.lower() in self._taken:
            number += 1
            path = f"{parent}/{stem}-{number}{suffix}"
        self._taken.add(path.lower())
        return path


def _bytes(cell: Any, where: str) -> tuple[bytes, str]:
    """Stored bytes of an image and its file name, "" where it has none."""
    path = (cell or {}).get("path") or ""
    data = (cell or {}).get("bytes")
    if data is None and path:
        try:
            data = _read(path)
        except OSError as error:
            raise UserError(f"{where}: {path} cannot be read: {error}", "fetch the dataset again") from None
    if not data:
        raise UserError(
            f"{where}: there is no image", "correct the source, or leave the split out (--splits NAME=none)"
        )
    return data, os.path.basename(path)


def _read(path: str) -> bytes:
    if "://" not in path:
        return Path(path).read_bytes()
    import fsspec

    with fsspec.open(path) as stream:
        data: bytes = stream.read()
    return data


def _file_name(name: str, split: str, data: bytes, where: str) -> str:
    """A safe file name with the suffix of its kind."""
    suffix = next((kind for start, kind in MAGIC.items() if data.startswith(start)), "")
    if not suffix:
        raise UserError(f"{where}: its bytes are no image known here", "correct the source")
    plain = re.sub(r"[^\w.@+ -]+", "_", name.removeprefix(f"{split}/")).lstrip(". ")
    if len(plain.encode()) > 150:
        plain = hashlib.sha256(name.encode()).hexdigest()[:24]
    return plain if is_image(plain) else (plain or "image") + suffix


# ----------------------------------------------------------------------------------------------------------- checking
def _count(images: list[_Image], classes: _Classes) -> dict[str, dict[str, int]]:
    counted = Counter((image.part, classes.class_of[image.label]) for image in images)
    order = classes.order({image.label for image in images})
    parts = [part for part in ("", *SPLITS) if any(image.part == part for image in images)]
    return {part: {name: counted[part, name] for name in order} for part in parts}


def _compare(
    counts: dict[str, dict[str, int]], folder: Path, protocols: Mapping[str, Protocol], found: Imported
) -> None:
    """Which published protocols have these counts, and whose adapters can read the folder."""
    found.counts = counts
    found.alike = [protocol.id for protocol in protocols.values() if _same_counts(counts, protocol)]
    datasets = dict.fromkeys(protocols[name].dataset for name in found.alike)
    found.readable_as = [name for name in datasets if _adapter(name).detect(folder) is not None]


def _same_counts(counts: Mapping[str, Mapping[str, int]], protocol: Protocol) -> bool:
    """Whether these are exactly the published images per class; parts play no role where a protocol has folds."""
    # one that transforms the test images of another has its counts
    if not protocol.class_counts or protocol.synthetic or protocol.subset_of or protocol.test_transform:
        return False
    wanted = _per_class(protocol.class_counts, protocol.folds)
    return _per_class(counts, protocol.folds) == wanted


def _per_class(counts: Mapping[str, Mapping[str, int]], folds: int) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for part, classes in counts.items():
        for name, n in classes.items():
            found["" if folds else part, name] += n
    return +found  # without zeros


def _manifest(images: list[_Image], classes: _Classes) -> str:
    """As `manifest_hash` of the protocol these may have been exported from."""
    lines = sorted(f"{image.name},{classes.class_of[image.label]},{image.split}\n" for image in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_record(opened: Opened, hashes: Mapping[str, str]) -> str:
    """The protocol an export says it is, if it still is; "" for other sources."""
    if not opened.record:
        return ""
    protocol = str(opened.record.get("protocol"))
    for kind, what in (("manifest_sha256", "names, labels or splits"), ("images_sha256", "images")):
        if hashes[kind] != opened.record.get(kind):
            message = f"{opened.about['source']} says it is {protocol}, but its {what} are others"
            raise UserError(message, f"fetch or export it again; without its {RECORD} it is imported as it is")
    return protocol


def _folded(name: str, protocols: Mapping[str, Protocol]) -> bool:
    """Whether a dataset's protocols have folds, so that its images lie in no split folders."""
    return all(p.folds for p in protocols.values() if p.dataset == name and not p.subset_of)


def _adapter(name: str) -> type[Dataset]:
    adapter: type[Dataset] = registry.find("dataset", name).load()
    return adapter


def _check_dataset(folder: Path, name: str, found: Imported, protocols: Mapping[str, Protocol]) -> str:
    """The protocol of dataset `name` that the folder gives; UserError when it gives none."""
    alike = [protocols[one] for one in found.alike if protocols[one].dataset == name]
    counted = "; ".join(f"{part or 'all'} {sum(of.values()):,}" for part, of in found.counts.items())
    if not alike:
        raise UserError(f"{counted}: these are not the images of any protocol of {name}", "import it as own data")
    if name not in found.readable_as:
        message = f"the adapter of {name} cannot read class folders: it looks for {_adapter(name).looked_for}"
        raise UserError(message, "import it as own data, without --as")
    _adapter(name)(folder, alike[0]).index(alike[0])
    return alike[0].id


# ----------------------------------------------------------------------------------------------------------- own data
def _write_own(
    folder: Path, name: str, images: list[_Image], columns: Columns, classes: _Classes, opened: Opened, found: Imported
) -> str:
    """labels.csv and ferbench.yaml; the id of the protocol they declare."""
    others = [name if name not in ("image", "split") else f"{name}_" for name in columns.others]
    header = ["image", "label", *(["split"] if "" not in found.counts else []), "name", *others]
    with (folder / LIST).open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)  # its CRLF line ends make it quote a lone carriage return in a name
        table.writerow(header)
        for image in images:
            split = [image.part] if image.part else []
            table.writerow([image.path, image.label, *split, image.name, *image.others])
    present = list(dict.fromkeys(image.label for image in images))
    own: dict[str, Any] = {
        "id": re.sub(r"[^A-Za-z0-9._@-]+", "-", name).strip("-._@") or "imported",
        "title": f"imported from {opened.about['source']}",
        "images": LIST,
        "labels": {word: classes.class_of[word] for word in (classes.names or sorted(present)) if word in present},
        "classes": classes.order(present),
    }
    if "" in found.counts:
        own["split"] = _split(images, others)
    own["preprocessing"] = _preprocessing(folder / images[0].path)
    text = yaml.safe_dump(own, sort_keys=False, allow_unicode=True, width=120)
    store.write_text(folder / FILE, text)
    return f"own/{own['id']}"


def _split(images: list[_Image], others: list[str]) -> dict[str, Any]:
    """How images without a split are dealt out: by the folds or subjects of the source where it names them."""
    by = (
        "subject" if "subject" in others and all(image.others[others.index("subject")] for image in images) else "image"
    )
    if "fold" in others:
        folds = {image.others[others.index("fold")] for image in images}
        if all(isinstance(fold, int) for fold in folds) and folds == set(range(len(folds))) and len(folds) > 1:
            return {"by": by, "folds": len(folds)}
    return {"by": by, "test": 0.2, "val": 0.1}


def _preprocessing(image: Path) -> str:
    """The smallest profile that does not shrink the first image, or the largest one."""
    from PIL import Image

    try:
        with Image.open(image) as opened:
            side = max(opened.size)
    except OSError:
        return "own-224"
    return "own-64" if side <= 64 else "own-112" if side <= 112 else "own-224"
