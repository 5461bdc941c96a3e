"""Decoding all images of a dataset into one file, so that a killed build goes on where it stopped.

While it lasts there are `<storage>.partial` (the pixels so far), `.digests` (16 bytes for each image in it) and
`.journal` (what it is of, and who builds). No reader opens them: the sidecar `.json` is written when everything is on
the disk, then `.partial` becomes `.u8`. A continued build trusts no byte: it keeps the images that agree with their
digests, up to the first that does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench import declare
from bench.data.cache_check import DIGEST_BYTES, fits, image_digest
from bench.data.pixel_file import PixelFile
from bench.data.progress import Progress
from bench.errors import UserError
from bench.store import write_json

FLUSH_BYTES = 8 << 20  # decoded bytes held in memory; a killed build loses no more


class Images(Protocol):
    """What is kept: a dataset's decoded images, or those that a front makes of them (bench/data/derived.py)."""

    @property
    def protocol(self) -> declare.Protocol: ...
    @property
    def root(self) -> Path | None: ...
    @property
    def skip_bad(self) -> bool: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def decode(self) -> Mapping[str, object]: ...
    @property
    def storage(self) -> str: ...
    @property
    def doing(self) -> str: ...
    def fingerprint(self) -> str: ...
    def names(self) -> list[str]: ...
    def decoded(self, names: Sequence[str]) -> Iterator[np.ndarray | UserError]: ...


class CannotWrite(UserError):
    """The cache folder cannot hold the result."""


def build(ds: Images, names: Sequence[str], want: dict[str, Any], path: Path) -> None:
    """Make the cache at `path`, continuing an earlier build of the same; runs under the lock.

    Args:
        names: the images, in storage order.
        want: what the sidecar is to say, apart from hashes and bad images.

    Raises:
        UserError: an image is bad and the dataset is not opened with `skip_bad`; the images before it are kept for the
            next build.
        CannotWrite: most often a full disk. Nothing is kept, since that is what fills it.
    """
    if not all(want["shape"]):
        raise UserError(f"{ds.root or ds.protocol.id} holds no images", "check the data folder with `data verify`")
    partial = _Partial(path, want)
    try:
        partial.open(ds, names)
        _decode(ds, names, partial)
        if len(partial.bad) == len(names):
            message = f"none of {len(names):,} images can be used; the first: {partial.bad[names[0]]}"
            raise UserError(message, "check the data folder with `data verify`")
        partial.finish()
    except CannotWrite:
        partial.discard()
        raise
    except BaseException:
        if not partial.rows:
            partial.discard()
        raise
    finally:
        partial.close()


def usable(ds: Images, names: Sequence[str]) -> Iterator[np.ndarray | UserError]:
    """Decoded images of the dataset's shape, each replaced by what is wrong with it where it is not."""
    for name, image in zip(names, ds.decoded(names), strict=True):
        if not isinstance(image, UserError) and (image.shape != tuple(ds.shape) or image.dtype != np.uint8):
            message = f"image '{name}' is {image.shape} {image.dtype}, expected {tuple(ds.shape)} uint8"
            yield UserError(message, "restore the original file")
        else:
            yield image


def builder(path: Path) -> str:
    """Who builds the cache at `path`, in words, as far as that is known."""
    try:
        who = json.loads(path.with_suffix(".journal").read_text(encoding="utf-8"))["builder"]
        return f"process {who['process']} on {who['host']} (since {who['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _decode(ds: Images, names: Sequence[str], partial: _Partial) -> None:
    """Add the images that `partial` lacks."""
    left = names[partial.rows :]
    progress = Progress(f"{ds.doing} {ds.protocol.dataset}", len(names), partial.rows)
    try:
        for name, image in zip(left, usable(ds, left), strict=True):
            if not isinstance(image, UserError):
                partial.add(image)
            elif ds.skip_bad:
                partial.add_bad(name, image)
            else:
                raise image
            progress.report(partial.rows)
    finally:
        partial.flush()


class _Partial:
    """An unfinished cache on the disk: its first `rows` images."""

    def __init__(self, path: Path, want: dict[str, Any]) -> None:
        self.path, self.want = path, want
        self.shape = tuple(want["shape"])
        self.row_bytes = int(np.prod(self.shape[1:], dtype=np.int64))
        self.rows = 0
        self.bad: dict[str, str] = {}
        self._whole = hashlib.sha256()
        self._digests = bytearray()  # of all rows
        self._waiting = bytearray()  # pixels of the last rows, not yet written
        self._descriptors: dict[str, int] = {}

    def open(self, ds: Images, names: Sequence[str]) -> None:
        """Make room, take over what an earlier build of the same left, and open the files for more."""
        journal = self._file(".journal")
        with self._writing():
            for old in (".json", ".u8", ".checked"):  # a cache of something else, or a damaged one
                self._file(old).unlink(missing_ok=True)
            if not self._continues(journal):
                self.discard()
            about = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
            write_json(journal, {"of": self.want, "builder": about})
        with suppress(OSError, UserError):  # what cannot be read is decoded again
            self._take_over(ds, names)
        if self.rows:
            print(f"continuing at {self.rows:,} of {len(names):,} images: {self.path}", file=sys.stderr, flush=True)
        with self._writing():
            for suffix, length in ((".partial", self.rows * self.row_bytes), (".digests", self.rows * DIGEST_BYTES)):
                self._descriptors[suffix] = os.open(self._file(suffix), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                os.ftruncate(self._descriptors[suffix], length)
        free = shutil.disk_usage(self.path.parent).free
        if free < (self.shape[0] - self.rows) * self.row_bytes:
            raise self._cannot_write(f"{free:,} are free")

    def add(self, image: np.ndarray) -> None:
        """The next image."""
        pixels = np.ascontiguousarray(image)
        self._add(pixels, image_digest(self.shape[1:], pixels))

    def add_bad(self, name: str, error: UserError) -> None:
        """The next image cannot be used: zeros stand for it."""
        self.bad[name] = error.message
        self._add(np.zeros(self.row_bytes, dtype=np.uint8), bytes(DIGEST_BYTES))

    def flush(self) -> None:
        """Hand over to the system what waits; digests last, so that each has its pixels."""
        written = self.rows - len(self._waiting) // self.row_bytes
        with self._writing():
            _write(self._descriptors[".partial"], self._waiting)
            _write(self._descriptors[".digests"], self._digests[written * DIGEST_BYTES :])
        self._waiting = bytearray()

    def finish(self) -> None:
        """Make it a cache: all bytes to the disk, then the sidecar, then the name."""
        hashes = {
            "pixels_sha256": self._whole.hexdigest(),
            "digests_sha256": hashlib.sha256(self._digests).hexdigest(),
            "bad": self.bad,
        }
        with self._writing():
            for descriptor in self._descriptors.values():
                os.fsync(descriptor)
            # in this order: killed in between, the next build finds all images in the partial file
            write_json(self._file(".json"), {**self.want, **hashes})
            os.replace(self._file(".partial"), self.path)
            self._file(".journal").unlink()

    def close(self) -> None:
        """Close the files."""
        while self._descriptors:
            with suppress(OSError):  # a full disk was reported when writing
                os.close(self._descriptors.popitem()[1])

    def discard(self) -> None:
        """Remove every file of an unfinished build."""
        for suffix in (".json", ".partial", ".digests", ".journal"):
            self._file(suffix).unlink(missing_ok=True)

    def _add(self, pixels: np.ndarray, digest: bytes) -> None:
        self._whole.update(pixels.data)
        self._waiting += pixels.data
        self._digests += digest
        self.rows += 1
        if len(self._waiting) >= FLUSH_BYTES:
            self.flush()

    def _continues(self, journal: Path) -> bool:
        try:
            return bool(json.loads(journal.read_text(encoding="utf-8"))["of"] == self.want)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _take_over(self, ds: Images, names: Sequence[str]) -> None:
        """Count in the images on the disk, up to the first that is not right or could be read now."""
        pixels, kept = self._file(".partial"), self._file(".digests").read_bytes()
        there = min(pixels.stat().st_size // self.row_bytes, len(kept) // DIGEST_BYTES, len(names))
        digests = np.frombuffer(kept, np.uint8, there * DIGEST_BYTES).reshape(there, DIGEST_BYTES)
        file = PixelFile(pixels, (there, *self.shape[1:]))
        progress = Progress("checking what was decoded before", there)
        for start, piece in file.pieces(0, there):
            for row, image in enumerate(piece, start):
                if not fits(self.shape[1:], image, digests[row]):
                    return
                if not digests[row].any():
                    error = next(usable(ds, [names[row]])) if ds.skip_bad else None
                    if not isinstance(error, UserError):
                        return
                    self.bad[names[row]] = error.message
                self._whole.update(image.data)
                self._digests += kept[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]
                self.rows += 1
            progress.report(self.rows)

    def _file(self, suffix: str) -> Path:
        return self.path.with_suffix(suffix)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._cannot_write(error.strerror or str(error)) from error
        except UserError as error:  # a full disk, told by write_json
            raise CannotWrite(error.message, error.hint) from error

    def _cannot_write(self, reason: str) -> CannotWrite:
        size = self.shape[0] * self.row_bytes
        return CannotWrite(
            f"cannot write the decoded images into {self.path.parent}: {size:,} bytes are needed, {reason}",
            "free space there, or set FERBENCH_CACHE to another folder; nothing half-written was kept",
        )


def _write(descriptor: int, data: bytearray) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
