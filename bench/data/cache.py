"""Decoded pixels, written once as raw uint8 and memory-mapped by every run that uses them.

Two files per copy of a dataset: `<storage>.u8` holds the bytes, `<storage>.json` says what they are and their SHA-256.
The JSON is written last, by rename, so a build that was killed or ran out of disk leaves nothing that could be opened.
The hash is checked at every opening: a damaged cache is built again, and that is said.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.data.base import Dataset
from bench.errors import UserError
from bench.store import write_json

FORMAT = 1  # of the two files; another number is built again
CHUNK_BYTES = 8 << 20  # decoded bytes held in memory while building
QUIET_SECONDS = 2.0  # builds shorter than this print nothing
REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class Pixels:
    """Decoded images of one dataset copy."""

    array: np.ndarray
    """Read-only memory map, uint8 (N, H, W) or (N, H, W, 3)."""
    names: list[str]
    """Image of each row."""
    sha256: str
    """Of the pixel bytes."""
    path: Path

    def rows(self, names: Sequence[str]) -> np.ndarray:
        """Row numbers (int64) of `names`."""
        return np.fromiter((self._row_of[name] for name in names), dtype=np.int64, count=len(names))

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}


def open_pixels(ds: Dataset, cache_root: Path) -> Pixels:
    """The decoded images of `ds`, built now if they are not in `cache_root` or do not match.

    Processes that ask at the same time wait for the first one to finish.

    Raises:
        UserError: an image is missing or damaged (named), or the cache folder cannot hold the result. Nothing is left.
    """
    names = ds.names()
    want = _description(ds, names)
    path = cache_root / "pixels" / f"{ds.storage}.u8"
    opened, _ = _open(path, want)
    if opened is None:
        with _lock(path):
            opened, reason = _open(path, want)  # another process may have built it meanwhile
            if opened is None:
                if reason:
                    print(f"cache {path}: {reason}; building it again", file=sys.stderr)
                _build(ds, names, want, path)
                opened, reason = _open(path, want)
    if opened is None:
        message = f"cache {path} was written and reads back wrong: {reason}"
        raise UserError(message, "check the disk, or set FERBENCH_CACHE elsewhere")
    array, digest = opened
    return Pixels(array, names, digest, path)


def _description(ds: Dataset, names: Sequence[str]) -> dict[str, Any]:
    """What the cached bytes must be: everything in the sidecar but their hash."""
    return {
        "format": FORMAT,
        "dataset": ds.protocol.dataset,
        "fingerprint": ds.fingerprint(),
        "decode": dict(ds.decode),
        "shape": [len(names), *ds.shape],
        "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
    }


def _open(path: Path, want: dict[str, Any]) -> tuple[tuple[np.ndarray, str] | None, str]:
    """The mapped array and its hash, or None and why not; the reason is empty where there was no cache."""
    sidecar = path.with_suffix(".json")
    try:
        have = json.loads(sidecar.read_text(encoding="utf-8"))
        digest = have.pop("pixels_sha256")
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None, f"{sidecar.name} is damaged"
    if have != want:
        changed = sorted(key for key in want if have.get(key) != want[key])
        return None, f"made from something else ({', '.join(changed) or 'other settings'} changed)"
    size = int(np.prod(want["shape"], dtype=np.int64))
    try:
        actual = path.stat().st_size
        if actual != size:
            return None, f"damaged: {actual:,} bytes instead of {size:,}"
        array = np.memmap(path, dtype=np.uint8, mode="r", shape=tuple(want["shape"]))
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"
    if hashlib.sha256(array.data).hexdigest() != digest:
        return None, "damaged: the SHA-256 of its bytes is not the recorded one"
    return (array, digest), ""


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that builds {path}", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise _cannot_write(path.parent, error) from None
    try:
        yield
    finally:
        lock.release()


def _build(ds: Dataset, names: list[str], want: dict[str, Any], path: Path) -> None:
    """Decode everything into a temporary file, then rename it, then write the sidecar. Runs under the lock."""
    size = int(np.prod(want["shape"], dtype=np.int64))
    if not size:
        raise UserError(f"{ds.root or ds.protocol.id} holds no images", "check the data folder with `data verify`")
    sidecar, temporary = path.with_suffix(".json"), path.with_suffix(".tmp")
    digest = hashlib.sha256()
    try:
        with _writing(path.parent, size):
            for old in (sidecar, path, temporary):  # what does not match, and what a killed build left
                old.unlink(missing_ok=True)
            file = temporary.open("wb")
        with _closing(file):
            free = shutil.disk_usage(path.parent).free
            if free < size:
                raise _full(path.parent, size, f"{free:,} are free")
            for block in _blocks(ds, names):
                digest.update(block)
                with _writing(path.parent, size):
                    file.write(block)
            with _writing(path.parent, size):
                file.flush()
                os.fsync(file.fileno())
        with _writing(path.parent, size):
            os.replace(temporary, path)
            write_json(sidecar, {**want, "pixels_sha256": digest.hexdigest()})
    except BaseException:
        for partial in (temporary, sidecar, path):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def _closing(file: IO[bytes]) -> Iterator[None]:
    """Close without a second error: on a full disk `close` tries the failed write again."""
    try:
        yield
    finally:
        with suppress(OSError):
            file.close()


@contextmanager
def _writing(folder: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _full(folder, size, error.strerror or str(error)) from error


def _blocks(ds: Dataset, names: list[str]) -> Iterator[bytes]:
    """Pixel bytes of all images in order, a few megabytes at a time.

    One thread: decoding 48x48 PNG files in two threads measured 1.4 times slower than in one (the interpreter lock is
    held for most of an image that small).
    """
    per_block = max(1, CHUNK_BYTES // int(np.prod(ds.shape)))
    buffer = bytearray()
    progress = _Progress(f"decoding {ds.protocol.dataset}", len(names))
    for done, (name, image) in enumerate(zip(names, ds.pixels(names), strict=True), 1):
        if image.shape != tuple(ds.shape) or image.dtype != np.uint8:
            message = f"image '{name}' is {image.shape} {image.dtype}, expected {tuple(ds.shape)} uint8"
            raise UserError(message, "restore the original file")
        buffer += image.tobytes()
        if done % per_block == 0:
            yield bytes(buffer)
            buffer.clear()
        progress.report(done)
    yield bytes(buffer)


class _Progress:
    """Lines on stderr with the time left; silent for short builds."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.start = time.monotonic()
        self.next = self.start + QUIET_SECONDS

    def report(self, done: int) -> None:
        now = time.monotonic()
        if now >= self.next and done < self.total:
            self.next = now + REPORT_SECONDS
            left = (now - self.start) / done * (self.total - done)
            text = f"{self.what}: {done:,} of {self.total:,} images, about {left:.0f} s left"
            print(text, file=sys.stderr, flush=True)


def _full(folder: Path, size: int, reason: str) -> UserError:
    return UserError(
        f"cannot write the decoded images into {folder}: {size:,} bytes are needed, {reason}",
        "free space there, or set FERBENCH_CACHE to another folder; nothing half-written was kept",
    )


def _cannot_write(folder: Path, error: OSError) -> UserError:
    message = f"cannot write into the cache folder {folder}: {error.strerror}"
    return UserError(message, "set FERBENCH_CACHE to a writable folder")
