"""Writing a protocol as a Hugging Face dataset: parquet shards with Image and ClassLabel features, and a card.

Images keep the bytes they have on disk; pixels that lie in a table, or are made, become PNG files. Rows are written a
few megabytes at a time, so that a data set of any size passes through little memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import store
from bench.data.base import SPLITS, Dataset, manifest_hash
from bench.data.new_folder import new_folder
from bench.declare import Protocol

if TYPE_CHECKING:
    import pandas as pd

RECORD = "ferbench.json"  # what an export says of itself, read again by `data import`
HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
GROUP_BYTES, GROUP_ROWS = 8 << 20, 1000  # of a row group, the unit that is in memory at once
SHARD_BYTES = 100 << 20  # who reads a shard may hold all of it
REPORT_SECONDS = 5.0
FORBIDDEN = (
    "**Do not upload or pass on this folder.** {dataset} may be used under the terms its owners gave you, and they do "
    "not allow redistribution. It is for your own machines."
)
TERMS = {
    "ferplus": "**Do not upload the images.** The votes are Microsoft's (MIT licence), but the images are FER2013's, "
    "which came with a Kaggle competition under its rules.",
    "own": "These are your own images: you know under which terms they may be passed on.",
    "synthfer": "Drawn by a program (SynthFER): no person is shown, and they may be passed on.",
}


@dataclass
class Exported:
    """What was written."""

    protocol: str
    manifest_sha256: str
    published: bool | None  # whether that is the published manifest; None where none is known
    counts: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)  # relative path -> bytes


def export(ds: Dataset, protocol: Protocol, place: Path) -> Exported:
    """Write `protocol` of a copy into the new folder `place`.

    Raises:
        UserError: the copy is not exactly the protocol, an image cannot be read, or `place` cannot be written.
    """
    frame = ds.index(protocol)  # refuses bad rows and counts that are not the protocol's
    known = ds.known_manifests.get(protocol.id)
    digest = manifest_hash(frame)
    found = Exported(protocol.id, digest, None if known is None else digest == known)
    tally = _Tally(len(frame))
    with new_folder(place) as folder:
        for split in SPLITS:
            rows = frame[frame["split"] == split].reset_index(drop=True)
            if len(rows):
                found.counts[split] = len(rows)
                found.files |= _write_split(ds, protocol, rows, folder, HUB_SPLITS[split], tally)
        record = {
            "made by": "ferbench data export", "protocol": protocol.id, "dataset": protocol.dataset,
            "classes": list(protocol.classes), "counts": found.counts, "manifest_sha256": digest,
            "synthetic": protocol.synthetic, "images_sha256": images_hash(tally.digests),
        }  # fmt: skip
        store.write_json(folder / RECORD, record)
        store.write_text(folder / "README.md", card(protocol, frame, found))
    return found


def _write_split(
    ds: Dataset, protocol: Protocol, rows: pd.DataFrame, folder: Path, split: str, tally: _Tally
) -> dict[str, int]:
    """Shards of one split, named once their number is known."""
    shards: list[Path] = []
    writer: Any = None
    try:
        for group in _groups(ds, protocol, rows, tally):
            if writer is not None and shards[-1].stat().st_size >= SHARD_BYTES:
                writer.close()
                writer = None
            if writer is None:
                shards.append(folder / "data" / f".{split}-{len(shards):05d}")
                writer = _writer(shards[-1], group.schema)
            writer.write_table(group)
    finally:
        if writer is not None:
            writer.close()
    written = {}
    for number, shard in enumerate(shards):
        name = f"data/{split}-{number:05d}-of-{len(shards):05d}.parquet"
        shard.rename(folder / name)
        written[name] = (folder / name).stat().st_size
    return written


def _writer(path: Path, schema: Any) -> Any:
    import pyarrow.parquet as pq

    path.parent.mkdir(exist_ok=True)
    short = [name for name in schema.names if name != "image"]
    # image bytes are compressed already: neither a dictionary nor statistics nor zstd would gain anything
    codecs = dict.fromkeys(short, "zstd") | {"image.bytes": "none", "image.path": "zstd"}
    return pq.ParquetWriter(path, schema, compression=codecs, use_dictionary=short, write_statistics=short)


def _groups(ds: Dataset, protocol: Protocol, rows: pd.DataFrame, tally: _Tally) -> Iterator[Any]:
    """Arrow tables of about GROUP_BYTES."""
    import pyarrow as pa

    features = features_of(protocol, rows)
    schema = features.arrow_schema
    number = {name: k for k, name in enumerate(protocol.classes)}
    columns = {name: _cells(rows[name]) for name in features if name not in ("image", "label")}
    labels = [number[label] for label in rows["label"]]
    names = rows["name"].tolist()
    start, size = 0, 0
    images: list[dict[str, Any]] = []
    for row, name in enumerate(names):
        images.append(stored_image(ds, name))
        size += len(images[-1]["bytes"])
        tally.add(name, images[-1]["bytes"])
        if size >= GROUP_BYTES or len(images) >= GROUP_ROWS or row + 1 == len(names):
            part = {key: values[start : row + 1] for key, values in columns.items()}
            yield pa.Table.from_pydict({"image": images, "label": labels[start : row + 1], **part}, schema=schema)
            start, size, images = row + 1, 0, []


def stored_image(ds: Dataset, name: str) -> dict[str, Any]:
    """Bytes and file name of an image: those of its file where it has one, else a PNG of its pixels.

    Raises:
        UserError: the image is missing or damaged; names it.
    """
    from PIL import Image

    file = ds.image_file(name)
    if file is None:
        stream = io.BytesIO()
        Image.fromarray(ds.read(name)).save(stream, "PNG")
        stem = name.replace("/", "_")
        return {"bytes": stream.getvalue(), "path": stem if stem.lower().endswith(".png") else f"{stem}.png"}
    ds.read(name)  # a damaged file is not passed on
    return {"bytes": file.read_bytes(), "path": file.name}


def features_of(protocol: Protocol, rows: pd.DataFrame) -> Any:
    """`datasets.Features` of an export: image, label, name, and whatever else the index holds (votes, folds, boxes)."""
    from datasets import ClassLabel, Features, Image, Value

    found: dict[str, Any] = {"image": Image(), "label": ClassLabel(names=list(protocol.classes))}
    for column, kind in rows.dtypes.items():
        if column not in ("label", "split"):
            found[str(column)] = Value(str(kind) if kind.kind in "iufb" else "string")
    return Features(found)


def _cells(column: pd.Series[Any]) -> list[Any]:
    """Values of a column; None where there is none."""
    return [None if cell != cell else cell for cell in column.tolist()]


def card(protocol: Protocol, frame: pd.DataFrame, found: Exported) -> str:
    """README.md: a header that `datasets` and the hub read, then what this is and under which terms."""
    terms = TERMS.get(protocol.dataset) or FORBIDDEN.format(dataset=protocol.title or protocol.dataset)
    counted = frame.groupby(["split", "label"]).size().to_dict()
    splits = list(found.counts)
    table = ["| class | " + " | ".join(HUB_SPLITS[s] for s in splits) + " |", "|---" * (len(splits) + 1) + "|"]
    for name in protocol.classes:
        table.append(f"| {name} | " + " | ".join(f"{counted.get((s, name), 0):,}" for s in splits) + " |")
    table.append("| **all** | " + " | ".join(f"**{found.counts[s]:,}**" for s in splits) + " |")
    published = {None: "", True: " (as published)", False: " (not the published labels)"}[found.published]
    lines = [
        "---", *_header(protocol, frame, found), "---", "", f"# {protocol.title or protocol.id}", "",
        f"Protocol `{protocol.id}`, exported by ferbench. {terms}", "",
        *([f"How to get the dataset: {protocol.access}", ""] if protocol.access and protocol.dataset != "own" else []),
        *table, "",
        f"Labels are class names in the order above. Manifest (SHA-256 over names, labels and splits): "
        f"`{found.manifest_sha256}`{published}.", "",
        *([protocol.notes.strip(), ""] if protocol.notes else []),
    ]  # fmt: skip
    return "\n".join(lines)


def _header(protocol: Protocol, frame: pd.DataFrame, found: Exported) -> list[str]:
    """The card's YAML; the features as `datasets` spells them."""
    features = features_of(protocol, frame)
    lines = [f"pretty_name: {json.dumps(protocol.title or protocol.id)}", "license: other", "task_categories:"]
    lines += ["- image-classification", "configs:", "- config_name: default", "  data_files:"]
    for split in found.counts:
        lines += [f"  - split: {HUB_SPLITS[split]}", f"    path: data/{HUB_SPLITS[split]}-*.parquet"]
    lines += ["dataset_info:", "  features:"]
    for name, feature in features.items():
        lines.append(f"  - name: {name}")
        if name == "label":
            lines += ["    dtype:", "      class_label:", "        names:"]
            lines += [f"          '{number}': {json.dumps(word)}" for number, word in enumerate(feature.names)]
        else:
            lines.append(f"    dtype: {'image' if name == 'image' else feature.dtype}")
    lines.append("  splits:")
    for split, count in found.counts.items():
        size = sum(n for name, n in found.files.items() if name.startswith(f"data/{HUB_SPLITS[split]}-"))
        lines += [f"  - name: {HUB_SPLITS[split]}", f"    num_bytes: {size}", f"    num_examples: {count}"]
    return lines


def images_hash(digests: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over names and the SHA-256 of each image's bytes, in name order: tells a damaged or re-encoded copy."""
    lines = sorted(f"{name} {digest.hex()}\n" for name, digest in digests)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class _Tally:
    """Hash of every image that was written; says on stderr how far it is, unless that is soon over."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.digests: list[tuple[str, bytes]] = []
        self.start = time.monotonic()
        self.next = self.start + REPORT_SECONDS

    def add(self, name: str, data: bytes) -> None:
        self.digests.append((name, hashlib.sha256(data).digest()))
        now, done = time.monotonic(), len(self.digests)
        if now >= self.next and done < self.total:
            self.next = now + REPORT_SECONDS
            left = (now - self.start) / done * (self.total - done)
            print(f"{done:,} of {self.total:,} images, about {left:.0f} s left", file=sys.stderr, flush=True)
