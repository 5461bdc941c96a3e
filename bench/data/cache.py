"""Decoded pixels, written once as raw uint8 and read by every run that uses them.

Three files per copy of a dataset: `<storage>.u8` holds the bytes, `.digests` 16 bytes for each image, and `.json` says
what they are and their SHA-256. The JSON is written last, so a build that was killed or ran out of disk leaves nothing
that could be opened; a killed one is continued (bench/data/cache_build.py). The hashes are checked at every opening, of
very large files samples (bench/data/cache_check.py): a damaged cache is built again, and that is said.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import cache_build
from bench.data.cache_build import Images
from bench.data.cache_check import DIGEST_BYTES, wrong
from bench.data.pixel_file import Mapped, PixelFile
from bench.errors import UserError

WAITED_SECONDS = 0.5
FORMAT = 2  # of the files; another number is built again


@dataclass(frozen=True)
class Pixels:
    """Decoded images of one dataset copy."""

    array: Mapped
    """Read-only memory map, uint8 (N, H, W) or (N, H, W, 3); `array.file` reads batches where memory is short."""
    names: list[str]
    """Image of each row."""
    sha256: str
    """Of the pixel bytes."""
    bad: dict[str, str]
    """Images that could not be used, with the reason; their rows are zeros."""
    digests: np.ndarray
    """uint8 (N, 16): `cache_check.image_digest` of each row, equal for equal images; zeros for bad ones."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.array.file.path

    def rows(self, names: Sequence[str]) -> np.ndarray:
        """Row numbers (int64) of `names`."""
        return np.fromiter((self._row_of[name] for name in names), dtype=np.int64, count=len(names))

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}


def open_pixels(ds: Images, cache_root: Path, waited: Callable[[], None] = lambda: None) -> Pixels:
    """The decoded images of `ds`, built now if they are not in `cache_root` or do not match.

    Processes that ask at the same time wait for the first one to finish.

    Args:
        waited: called now and then while another process builds; what it raises ends the waiting.

    Raises:
        UserError: an image is missing or damaged (named) and `ds` is not opened with `skip_bad`, or the cache folder
            cannot hold the result.
    """
    names = ds.names()
    want = _description(ds, names)
    path = cache_root / "pixels" / f"{ds.storage}.u8"
    opened, _ = _open(ds, names, want, path)
    if opened is None:
        with _lock(path, waited):
            opened, reason = _open(ds, names, want, path)  # another process may have built it meanwhile
            if opened is None:
                if reason:
                    print(f"cache {path}: {reason}; building it again", file=sys.stderr)
                cache_build.build(ds, names, want, path)
                opened, reason = _open(ds, names, want, path)
    if opened is None:
        message = f"cache {path} was written and reads back wrong: {reason}"
        raise UserError(message, "check the disk, or set FERBENCH_CACHE elsewhere")
    return opened


def _description(ds: Images, names: Sequence[str]) -> dict[str, Any]:
    """What the cached bytes must be: everything in the sidecar but their hashes and the bad images."""
    return {
        "format": FORMAT,
        "dataset": ds.protocol.dataset,
        "fingerprint": ds.fingerprint(),
        "decode": dict(ds.decode),
        "shape": [len(names), *ds.shape],
        "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
    }


def _open(ds: Images, names: list[str], want: dict[str, Any], path: Path) -> tuple[Pixels | None, str]:
    """The images, or None and why not; the reason is empty where there was no cache."""
    sidecar = path.with_suffix(".json")
    try:
        have = json.loads(sidecar.read_text(encoding="utf-8"))
        sha256, digests_sha256, bad = (have.pop(key) for key in ("pixels_sha256", "digests_sha256", "bad"))
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None, f"{sidecar.name} is damaged"
    if have != want:
        changed = sorted(key for key in want if have.get(key) != want[key])
        return None, f"made from something else ({', '.join(changed) or 'other settings'} changed)"
    try:
        file = PixelFile(path, tuple(want["shape"]))
        size = file.shape[0] * file.row_bytes
        if file.stat.st_size != size:
            return None, f"damaged: {file.stat.st_size:,} bytes instead of {size:,}"
        kept = path.with_suffix(".digests").read_bytes()
        if hashlib.sha256(kept).hexdigest() != digests_sha256:
            return None, "damaged: the SHA-256 of the images' digests is not the recorded one"
        digests = np.frombuffer(kept, dtype=np.uint8).reshape(-1, DIGEST_BYTES)
        reason = wrong(file, digests, sha256)
        array = file.map()
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"
    except UserError as error:
        return None, error.message
    reason = reason or _mended(ds, bad)
    return (None, reason) if reason else (Pixels(array, names, sha256, bad, digests), "")


def _mended(ds: Images, bad: dict[str, str]) -> str:
    """Says so if an image that was bad when the cache was built can be used now (they are few, and tried again).

    Raises:
        UserError: the first bad image, unless `ds` is opened with `skip_bad`.
    """
    if not bad:
        return ""
    for name, image in zip(bad, cache_build.usable(ds, list(bad)), strict=True):
        if not isinstance(image, UserError):
            return f"image '{name}' could not be used and can be now"
    if not ds.skip_bad:
        more = f" (and {len(bad) - 1:,} more images cannot be used)" if len(bad) > 1 else ""
        message = next(iter(bad.values())) + more
        raise UserError(message, "restore the files; --skip-bad goes on without them, as no benchmark")
    return ""


@contextmanager
def _lock(path: Path, waited: Callable[[], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for {cache_build.builder(path)}, which builds {path}", file=sys.stderr, flush=True)
            while not lock.is_locked:
                waited()
                with suppress(Timeout):
                    lock.acquire(timeout=WAITED_SECONDS)
    except OSError as error:
        message = f"cannot write into the cache folder {path.parent}: {error.strerror}"
        raise UserError(message, "set FERBENCH_CACHE to a writable folder") from None
    try:
        yield
    finally:
        lock.release()
