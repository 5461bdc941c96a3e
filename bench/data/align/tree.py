"""Faces of raw images, detected by MTCNN and brought to one template by a similarity transform.

`align` writes a tree with the same relative paths as its source, so that every dataset layout stays readable: images
are replaced by aligned ones of one size, other files are copied. Beside them lie alignment.json (all settings) and
alignment.csv (one row an image: what was found, which face was taken, where). A stopped alignment continues.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench import store
from bench.data.align import journal
from bench.data.align.faces import Settings, align_image, not_installed
from bench.data.align.files import (
    JOURNAL,
    LOCK,
    SETTINGS,
    copy,
    files_of,
    in_words,
    is_image,
    locked,
    refuse_under_file,
    remove,
    stamp,
)
from bench.data.align.journal import Row
from bench.data.image import SUFFIXES, read_image
from bench.data.progress import Progress
from bench.errors import UserError


def align(source: Path, dest: Path, settings: Settings, only: str = "", jobs: int = 1) -> dict[str, int]:
    """Align every image under `source` (or under its subfolder `only`) into `dest`, continuing what is there.

    What changed in `source` since is done again; what is no longer there is removed from `dest`, if it was written by
    an alignment. Linked folders are followed.

    Returns:
        Images by status: aligned, several (a choice was made), no-face, skipped, unreadable.

    Raises:
        UserError: no images, `dest` was made from something else, another alignment is writing there, an image has no
            or several faces where the settings say fail, or the disk is full or cannot be written. What was finished
            stays and is not done again.
    """
    only = _inside(source, only)
    start = source / only
    if not start.is_dir():
        raise UserError(f"{start} is not a folder", "name the folder that holds the images")
    with in_words(dest, source):
        if dest.resolve() == source.resolve() or source.resolve() in dest.resolve().parents:
            raise UserError(f"{dest} lies inside {source}", "choose a folder outside of it")
        refuse_under_file(dest)
        _refuse_foreign(dest)
        files = list(files_of(source, dest))
        others = [path for path in files if not is_image(path)]
        images = [path for path in files if is_image(path) and path.startswith(f"{only}/" if only else "")]
        if not images:
            raise UserError(f"{start} holds no images", f"known kinds: {', '.join(sorted(SUFFIXES))}")
        dest.mkdir(parents=True, exist_ok=True)
        with locked(dest):
            return _align(source, dest, images, others, settings, only, jobs)


def _align(
    source: Path, dest: Path, images: Sequence[str], others: Sequence[str], settings: Settings, only: str, jobs: int
) -> dict[str, int]:
    """`align` once `dest` is locked."""
    facts = _facts(source, settings, only)
    whole = _is_whole(dest, facts)
    before = journal.read(dest)
    wanted = [*others, *images]
    done = {path: before[path] for path in wanted if journal.is_done(source, dest, before.get(path))}
    gone = sorted(before.keys() - set(wanted))
    todo = [path for path in images if path not in done]
    if not whole or gone or len(done) < len(wanted):
        store.write_json(dest / SETTINGS, facts | {"complete": False})
        # all of it is in the journal before it is done, so that it can be removed however this ends
        begun = {path: {"path": path, "status": journal.BEGUN} for path in wanted if path not in done}
        journal.write(dest, (before | begun).values())
        for path in gone:
            remove(dest, path)
        aligned = len(images) - len(todo)
        if aligned:
            print(f"continuing: {aligned:,} of {len(images):,} images are aligned", file=sys.stderr, flush=True)
        progress = Progress("aligning", len(images), aligned)
        with (dest / JOURNAL).open("a", encoding="utf-8", newline="") as file:
            writer = journal.writer(file)
            for row in _rows(source, dest, [path for path in others if path not in done], todo, settings, jobs):
                writer.writerow(row)
                file.flush()
                done[row["path"]] = row
                if row["status"] != journal.COPIED:
                    aligned += 1
                    progress.report(aligned)
        journal.write(dest, [done[path] for path in wanted])
    summary = dict(sorted(Counter(done[path]["status"] for path in images).items()))
    about = facts | {"complete": True, "images": len(images), "counts": summary}
    if not whole or gone or todo or about != _about(dest):
        store.write_json(dest / SETTINGS, about)
    return summary


def _rows(
    source: Path, dest: Path, others: Sequence[str], images: Sequence[str], settings: Settings, jobs: int
) -> Iterator[Row]:
    """Copy and align; the row of each file, once it is there."""
    for path in others:
        size, time_ns = stamp(source / path)
        copy(source / path, dest / path)
        yield {"path": path, "status": journal.COPIED, "size": size, "time_ns": time_ns}
    for row in _work(source, dest, images, settings, jobs):
        if row["status"] == "failed":
            raise UserError(row["message"], "choose another policy (--no-face, --several), or repair the image")
        yield row


def _one(task: tuple[Path, Path, str, Settings]) -> Row:
    """Align one file; its row in the journal."""
    source, dest, path, settings = task
    size, time_ns = stamp(source / path)
    row: Row = {"path": path, "size": size, "time_ns": time_ns}
    try:
        image = read_image(source / path, convert=True)
    except UserError as error:
        remove(dest, path)  # what was made of it before it changed
        return row | {"status": "unreadable", "message": error.message}
    pixels, found = align_image(image, settings)
    if pixels is not None:
        store.write_bytes(dest / path, encode(pixels, Path(path).suffix, settings.quality))
    else:
        remove(dest, path)
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


def _work(source: Path, dest: Path, paths: Sequence[str], settings: Settings, jobs: int) -> Iterator[Row]:
    tasks = ((source, dest, path, settings) for path in paths)
    if jobs == 1 or len(paths) < 2 * jobs:
        yield from map(_one, tasks)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork once it has threads
    with context.Pool(jobs) as pool:
        yield from pool.imap(_one, tasks, chunksize=4)


def _inside(source: Path, only: str) -> str:
    """`only` as a plain relative path; "" for the whole of `source`."""
    plain = os.path.normpath(only) if only else ""
    if os.path.isabs(plain) or plain.split(os.sep)[0] == os.pardir:
        raise UserError(f"--only {only}: lies outside of {source}", f"give a path inside of it, relative to {source}")
    return "" if plain in ("", os.curdir) else Path(plain).as_posix()


def _refuse_foreign(dest: Path) -> None:
    """UserError where a folder holds something else than an alignment."""
    if not dest.is_dir() or (dest / SETTINGS).is_file():
        return
    if any(entry.name != LOCK for entry in dest.iterdir()):
        raise UserError(f"{dest} is not empty and was not made by `data align`", "choose a new folder")


def _about(dest: Path) -> dict[str, Any] | None:
    """What alignment.json says; None where there is none yet."""
    made = dest / SETTINGS
    if not made.is_file():
        return None
    try:
        found = json.loads(made.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{made} is damaged", "remove the folder and align again")
    return found


def _is_whole(dest: Path, facts: dict[str, Any]) -> bool:
    """Whether the alignment in `dest` was finished; UserError where it is another one."""
    before = _about(dest)
    if before is None:
        _refuse_foreign(dest)
        return False
    changed = sorted(key for key in facts if before.get(key) != facts[key])
    if changed:
        message = f"{dest} was aligned with other settings or versions ({', '.join(changed)})"
        raise UserError(message, "choose another folder, or remove this one")
    return bool(before.get("complete"))


def _facts(source: Path, settings: Settings, only: str) -> dict[str, Any]:
    from importlib.metadata import version

    try:
        import facenet_pytorch
    except ImportError as error:
        raise not_installed(error) from None
    weights = Path(facenet_pytorch.__file__).parent / "data"
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(weights.glob("*net.pt"))))
    return {
        "name": settings.name, "settings": asdict(settings), "source": str(source.resolve()), "only": only,
        "detector": f"facenet-pytorch {version('facenet-pytorch')} MTCNN",
        "detector_sha256": digest.hexdigest()[:16], "template": "five points, 112 px (ArcFace)",
    }  # fmt: skip


def rows_of(dest: Path) -> list[Row]:
    """The journal's rows of the images of an aligned tree."""
    return journal.images(journal.read(dest).values())
