"""Whether a pixel file still holds the images that were written: hashes of the whole, of single images, of samples.

Files up to `WHOLE_BYTES` are hashed whole at every opening. Larger ones (AffectNet at 224 pixels has 44 GB, minutes of
reading) are checked image by image once, and a stamp remembers that: size, time and inode of the file as checked. While
they stay, an opening checks a few random stretches only. What that can miss: bytes that change on the disk without a
write through the file system, outside the stretches drawn (one bad megabyte in 44 GB: 1 chance in 450 to be seen at an
opening). Deleting the `.checked` file has everything checked at the next opening.
"""

from __future__ import annotations

import hashlib
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.pixel_file import PixelFile
from bench.data.progress import Progress
from bench.errors import UserError
from bench.store import write_json

DIGEST_BYTES = 16  # of the SHA-256 of an image
WHOLE_BYTES = 1 << 30  # files up to here are hashed at every opening
SAMPLES = 4  # stretches drawn at random, besides the first and the last
SAMPLE_BYTES = 16 << 20


def image_digest(shape: tuple[int, ...], image: np.ndarray) -> bytes:
    """First 16 bytes of the SHA-256 over the text of the shape and the pixels, the same as `data verify` computes.

    Args:
        shape: (H, W) or (H, W, 3).
        image: uint8, that many values, contiguous.
    """
    digest = hashlib.sha256(f"{shape}".encode())
    digest.update(image.data)
    return digest.digest()[:DIGEST_BYTES]


def first_wrong(
    file: PixelFile, digests: np.ndarray, first: int, last: int, progress: Progress | None = None
) -> int | None:
    """The first image from row `first` up to `last` that is not the one its digest was made of; None when all are.

    Args:
        digests: uint8 (N, 16); zeros stand for an image that could not be used, whose row is all zeros.
    """
    shape = file.shape[1:]
    for start, piece in file.pieces(first, last):
        for row, image in enumerate(piece, start):
            if not fits(shape, image, digests[row]):
                return row
        if progress:
            progress.report(start + len(piece))
    return None


def fits(shape: tuple[int, ...], image: np.ndarray, digest: np.ndarray) -> bool:
    """Whether a stored image is the one its digest was made of."""
    if not digest.any():
        return not image.any()
    return image_digest(shape, image) == digest.tobytes()


def whole_sha256(file: PixelFile) -> str:
    """SHA-256 over all pixel bytes in order."""
    digest = hashlib.sha256()
    for _, piece in file.pieces(0, file.shape[0]):
        digest.update(piece.data)
    return digest.hexdigest()


def wrong(file: PixelFile, digests: np.ndarray, sha256: str) -> str:
    """Why the file is not what was written, having read all or samples of it; empty when nothing is wrong.

    Args:
        digests: uint8 (N, 16), of each image, known to be right.
        sha256: of all pixel bytes.
    """
    rows = file.shape[0]
    if file.stat.st_size <= WHOLE_BYTES:
        right = whole_sha256(file) == sha256
        return "" if right else "damaged: the SHA-256 of its bytes is not the recorded one"
    stamp, now = file.path.with_suffix(".checked"), _identity(file, sha256)
    known = _read(stamp) == now
    progress = None if known else Progress(f"checking {file.path.name}", rows)
    stretches = _samples(rows, max(1, SAMPLE_BYTES // file.row_bytes)) if known else [(0, rows)]
    for first, last in stretches:
        row = first_wrong(file, digests, first, last, progress)
        if row is not None:
            stamp.unlink(missing_ok=True)
            return f"damaged: image {row + 1:,} of {rows:,} is not the one that was written"
    if not known:
        with suppress(OSError, UserError):  # a cache that others keep, a full disk: checked again next time
            write_json(stamp, now)
    return ""


def _samples(rows: int, length: int) -> list[tuple[int, int]]:
    draw = random.Random()  # of its own: nobody's random numbers depend on whether a cache was opened
    starts = [0, max(0, rows - length)] + [draw.randrange(max(1, rows - length)) for _ in range(SAMPLES)]
    return [(start, min(rows, start + length)) for start in sorted(set(starts))]


def _identity(file: PixelFile, sha256: str) -> dict[str, Any]:
    stat = file.stat
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino, "pixels_sha256": sha256}


def _read(stamp: Path) -> Any:
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
