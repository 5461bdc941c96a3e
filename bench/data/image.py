"""One image file to a uint8 array, or an error that names the file and the remedy. Nothing is silently repaired."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np

from bench.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
RESTORE = "restore it from your copy of the dataset"
# Modes that hold a grey or colour picture in another form; `convert` accepts them, everything else is refused.
CONVERTIBLE = {
    "RGBA": "four channels (RGBA)", "LA": "grey with transparency", "P": "a colour palette", "PA": "a colour palette",
    "CMYK": "four printing inks (CMYK)", "YCbCr": "YCbCr colour", "1": "one bit a pixel",
}  # fmt: skip


def read_image(path: Path, convert: bool = False) -> np.ndarray:
    """Decode an image file with Pillow; orientation tags are ignored, colour profiles are not applied.

    Args:
        path: the file.
        convert: accept RGBA, palette, CMYK, YCbCr and one-bit pictures too, converted to RGB as Pillow does
            (AffectNet's come from the web in all forms); else it is an error, since a published set is uniform.

    Returns:
        uint8 (H, W) grey or (H, W, 3) RGB.

    Raises:
        UserError: the file is absent, empty, truncated, damaged (PNG checksums are checked: the decoder accepts some
            flipped bits), no image, or of a kind that is refused (16 bits a channel always is).
    """
    return decode(read_bytes(path), str(path), convert)


def read_bytes(path: Path) -> bytes:
    """The contents of a file that a label names; UserError where it is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing", "restore it: the label file names it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "check links, permissions and the disk") from None


def decode(data: bytes, where: str, convert: bool = False) -> np.ndarray:
    """`read_image` for bytes; `where` names them in messages."""
    from PIL import Image

    if not data:
        raise UserError(f"{where} is empty (0 bytes)", RESTORE)
    try:
        if data.startswith(PNG_SIGNATURE):
            check_png(data)
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            if mode in CONVERTIBLE and convert:
                return np.asarray(image.convert("RGB"))
            array = np.asarray(image)
    except Exception as error:  # Pillow's plug-ins raise whatever their parsers do (struct.error, KeyError, ...)
        if isinstance(error, MemoryError):
            raise
        reason = str(error).replace(f" {io.BytesIO.__name__}", "").split(" <")[0] or type(error).__name__
        raise UserError(f"{where} is not a readable image: {reason}", RESTORE) from None
    if mode in CONVERTIBLE:
        hint = f"{RESTORE}; if it is yours, save it as 8-bit grey or RGB"
        raise UserError(f"{where} has {CONVERTIBLE[mode]}, not 8-bit grey or RGB", hint)
    if mode not in ("L", "RGB"):
        deep = "16 bits or more a channel" if mode.startswith(("I", "F")) else f"mode {mode}"
        raise UserError(f"{where} has {deep}, not 8-bit grey or RGB", f"{RESTORE}; if it is yours, save it with 8 bits")
    return array


def check_png(data: bytes) -> None:
    """ValueError unless `data` is a whole PNG file with correct checksums."""
    if not data.startswith(PNG_SIGNATURE):
        raise ValueError("empty file" if not data else "no PNG signature")
    start = 8
    while start < len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        if end + 4 > len(data):
            raise ValueError("truncated")
        if zlib.crc32(data[start + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError("checksum error")
        if data[start + 4 : start + 8] == b"IEND":
            return
        start = end + 4
    raise ValueError("truncated")
