"""Faces of raw images, detected by MTCNN and brought to one template by a similarity transform.

`align` writes a tree with the same relative paths as its source, so that every dataset layout stays readable: images
are replaced by aligned ones of one size, other files are copied. Beside them lie alignment.json (all settings) and
alignment.csv (one row an image: what was found, which face was taken, where). A stopped alignment continues.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench import store
from bench.data.align.faces import Settings, align_image
from bench.data.image import SUFFIXES, read_image
from bench.data.listing import safe_name
from bench.errors import UserError

SETTINGS, JOURNAL, PICTURE = "alignment.json", "alignment.csv", "alignment.png"
COLUMNS = (
    "path", "status", "faces", "probability", "x", "y", "width", "height", "points", "scale", "degrees", "size",
    "time_ns", "message",
)  # fmt: skip
REPORT_SECONDS = 5.0


def align(source: Path, dest: Path, settings: Settings, only: str = "", jobs: int = 1) -> dict[str, int]:
    """Align every image under `source` (or under its subfolder `only`) into `dest`, continuing what is there.

    Returns:
        Images by status: aligned, several (a choice was made), no-face, skipped, unreadable.

    Raises:
        UserError: no images, `dest` was made from something else, an image has no or several faces where the settings
            say fail, or the disk is full. What was finished stays and is not done again.
    """
    start = source / only
    if not start.is_dir():
        raise UserError(f"{start} is not a folder", "name the folder that holds the images")
    if dest.resolve() == source.resolve() or source.resolve() in dest.resolve().parents:
        raise UserError(f"{dest} lies inside {source}", "choose a folder outside of it")
    images, others = _files(source, start)
    if not images:
        raise UserError(f"{start} holds no images", f"known kinds: {', '.join(sorted(SUFFIXES))}")
    _claim(source, dest, settings, only)
    done = _journal(dest, source)
    for path in others:
        _copy(source / path, dest / path)
    todo = [path for path in images if path not in done]
    counts = Counter(row["status"] for row in done.values())
    progress = _Progress(len(images), len(images) - len(todo))
    with (dest / JOURNAL).open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        for row in _work(source, dest, todo, settings, jobs):
            if row["status"] == "failed":
                raise UserError(row["message"], "choose another policy (--no-face, --several), or repair the image")
            writer.writerow(row)
            file.flush()
            counts[row["status"]] += 1
            progress.report()
    summary = dict(sorted(counts.items()))
    _write_settings(source, dest, settings, only, complete=True, images=len(images), counts=summary)
    return summary


def _one(task: tuple[Path, Path, str, Settings]) -> dict[str, Any]:
    """Align one file; its row in the journal."""
    source, dest, path, settings = task
    stat = (source / path).stat()
    row: dict[str, Any] = {"path": path, "size": stat.st_size, "time_ns": stat.st_mtime_ns}
    try:
        image = read_image(source / path, convert=True)
    except UserError as error:
        return row | {"status": "unreadable", "message": error.message}
    pixels, found = align_image(image, settings)
    if pixels is not None:
        store.write_bytes(dest / path, encode(pixels, Path(path).suffix, settings.quality))
    if found["status"] == "failed":
        found["message"] = f"{source / path}: {found['message']}"
    return row | found


def encode(pixels: np.ndarray, suffix: str, quality: int) -> bytes:
    """An image file in the format of its suffix."""
    from PIL import Image

    stream = io.BytesIO()
    jpeg = suffix.lower() in (".jpg", ".jpeg")
    kind = "JPEG" if jpeg else Image.registered_extensions()[suffix.lower()]
    options: dict[str, Any] = {"quality": quality, "subsampling": 0} if jpeg else {}
    if kind == "WEBP":
        options = {"lossless": True}
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def _work(source: Path, dest: Path, paths: Sequence[str], settings: Settings, jobs: int) -> Iterator[dict[str, Any]]:
    tasks = ((source, dest, path, settings) for path in paths)
    if jobs == 1 or len(paths) < 2 * jobs:
        yield from map(_one, tasks)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork once it has threads
    with context.Pool(jobs) as pool:
        yield from pool.imap(_one, tasks, chunksize=4)


def _files(source: Path, start: Path) -> tuple[list[str], list[str]]:
    """Relative paths of images under `start`, and of all other files under `source`, in name order."""
    images, others = [], []
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(folder) == start or start in Path(folder).parents
        for name in sorted(names):
            relative = str((Path(folder) / name).relative_to(source))
            if not safe_name(relative):
                message = f"{folder} holds a file whose name has control characters: {name!r}"
                raise UserError(message, "rename it")
            if Path(name).suffix.lower() not in SUFFIXES:
                if name not in (SETTINGS, JOURNAL) and not name.startswith("."):
                    others.append(relative)
            elif inside:
                images.append(relative)
    return images, others


def _claim(source: Path, dest: Path, settings: Settings, only: str) -> None:
    """Take `dest` for this alignment, or refuse a folder that holds something else."""
    made = dest / SETTINGS
    if made.is_file():
        try:
            before = json.loads(made.read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{made} is damaged", "remove the folder and align again") from None
        now = _facts(source, settings, only)
        changed = sorted(key for key in now if before.get(key) != now[key])
        if changed:
            message = f"{dest} was aligned with other settings or versions ({', '.join(changed)})"
            raise UserError(message, "choose another folder, or remove this one")
        return
    if dest.exists() and any(dest.iterdir()):
        raise UserError(f"{dest} is not empty and was not made by `data align`", "choose a new folder")
    dest.mkdir(parents=True, exist_ok=True)
    _write_settings(source, dest, settings, only, complete=False)


def _facts(source: Path, settings: Settings, only: str) -> dict[str, Any]:
    from importlib.metadata import version

    import facenet_pytorch

    weights = Path(facenet_pytorch.__file__).parent / "data"
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(weights.glob("*net.pt"))))
    return {
        "name": settings.name, "settings": asdict(settings), "source": str(source.resolve()), "only": only,
        "detector": f"facenet-pytorch {version('facenet-pytorch')} MTCNN",
        "detector_sha256": digest.hexdigest()[:16], "template": "five points, 112 px (ArcFace)",
    }  # fmt: skip


def _write_settings(source: Path, dest: Path, settings: Settings, only: str, **found: Any) -> None:
    store.write_json(dest / SETTINGS, _facts(source, settings, only) | found)


def _journal(dest: Path, source: Path) -> dict[str, dict[str, str]]:
    """Rows of images that are done and whose source has not changed; the file is left with whole rows only."""
    path = dest / JOURNAL
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    done = {}
    for row in csv.DictReader(io.StringIO(text)):
        if None in row.values() or None in row or row.keys() != set(COLUMNS):
            continue  # cut off when the process was killed
        file = source / row["path"]
        same = file.is_file() and [row["size"], row["time_ns"]] == [
            str(file.stat().st_size),
            str(file.stat().st_mtime_ns),
        ]
        there = (dest / row["path"]).is_file() or row["status"] in ("skipped", "unreadable")
        if same and there:
            done[row["path"]] = row
    whole = io.StringIO()
    writer = csv.DictWriter(whole, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(done.values())
    store.write_text(path, whole.getvalue())
    return done


def _copy(source: Path, dest: Path) -> None:
    if dest.is_file() and dest.stat().st_size == source.stat().st_size:
        return
    dest.parent.mkdir(parents=True, exist_ok=True)
    temporary = dest.with_name(f".{dest.name}.tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, dest)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{dest} cannot be written: {error.strerror}", "free space, or choose another disk") from None


class _Progress:
    """Lines on stderr with the time left."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.first = total, done, done
        self.start = self.last = time.monotonic()
        if done:
            print(f"continuing: {done:,} of {total:,} images are aligned", file=sys.stderr, flush=True)

    def report(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.last >= REPORT_SECONDS and self.done < self.total:
            self.last = now
            left = (now - self.start) / (self.done - self.first) * (self.total - self.done)
            print(f"aligned {self.done:,} of {self.total:,}, about {left:.0f} s left", file=sys.stderr, flush=True)


def rows_of(dest: Path) -> list[dict[str, str]]:
    """The journal of an aligned tree."""
    return store.read_rows(dest / JOURNAL)
