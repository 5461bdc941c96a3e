"""Picture files: encoding, faces in a larger picture, pictures without a face."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bench.data.synthfer.rng import Draws, key_of
from bench.data.synthfer.sample import Facts, images, landmarks
from bench.data.synthfer.scene import sine_cosine

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Wide:
    """A picture that a face does not fill.

    picture: (H, W) or (H, W, 3); box: x, y, width, height of the face in its pixels, what a picture of the face alone
    would show; points: the 68 landmarks (68, 2) in its pixels.
    """

    picture: np.ndarray
    box: tuple[int, int, int, int]
    points: np.ndarray


def wide(known: Facts, size: int, key: str, scale: tuple[float, float]) -> Iterator[Wide]:
    """The same faces in larger pictures of all shapes.

    Args:
        size: pixels a side in which they are drawn.
        key: of the random places, shapes and scales.
        scale: range of the factor by which the drawn picture is enlarged.
    """
    draws = Draws(key_of("wide", key), known.index)
    away = draws.uniform(0.6, 0.8)
    room = 1.0 - away
    x, y = draws.uniform(-0.5, 0.5) * room, draws.uniform(-0.5, 0.5) * room
    upright, cuts = draws.chance(0.5), (draws.uniform(0.0, 0.5) * room * size / 2).astype(int)
    factors = draws.uniform(*scale)
    farther = set_back(known, size, away, x, y)
    corners = (np.stack([x - away, y - away], axis=1) + 1.0) * size / 2
    marks = landmarks(farther)
    for k, face in enumerate(images(farther)):
        cut = int(cuts[k])
        left, top = (cut, 0) if upright[k] else (0, cut)
        part = face[top : size - top, left : size - left]
        width, height = round(part.shape[1] * factors[k]), round(part.shape[0] * factors[k])
        grown = np.array([width / part.shape[1], height / part.shape[0]])
        start = np.round((corners[k] - [left, top]) * grown).astype(int).tolist()
        sides = np.round(away[k] * size * grown).astype(int).tolist()
        points = (marks[k] - [left, top] + 0.5) * grown - 0.5  # pixel centres are whole numbers
        yield Wide(resized(part, width, height), (*start, *sides), points)


def set_back(known: Facts, size: int, away: np.ndarray, x: np.ndarray, y: np.ndarray) -> Facts:
    """The same faces seen from further away.

    Args:
        size: pixels a side of the new picture.
        away: (N,) side of the old picture in the new one, as a share of its side.
        x, y: (N,) where the old picture's centre comes to lie; the new picture's sides are at -1 and 1.
    """
    sin, cos = sine_cosine(known.scene["roll_t"])
    zoom = known.scene["zoom"] * away
    moved = {
        "zoom": zoom,
        "shift_x": known.scene["shift_x"] - (x * cos + y * sin) / zoom,
        "shift_y": known.scene["shift_y"] - (y * cos - x * sin) / zoom,
    }
    return replace(known, variant=replace(known.variant, size=size), scene=known.scene | moved)


def resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture in another size, bicubic."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def blank(width: int, height: int, colour: bool, *key: object) -> np.ndarray:
    """A picture without a face: one shade running into another."""
    ends = Draws(key_of("blank", *key), np.arange(6)).uniform(20, 235).reshape(2, 3)
    slope = np.linspace(0, 1, width)[None, :, None] * 0.5 + np.linspace(0, 1, height)[:, None, None] * 0.5
    shades: np.ndarray = (ends[0] * (1 - slope) + ends[1] * slope).astype(np.uint8)
    return shades if colour else shades[:, :, 0]


def jpeg(picture: np.ndarray) -> bytes:
    """A JPEG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def png(picture: np.ndarray, level: int = 0) -> bytes:
    """An 8-bit PNG file of (H, W) or (H, W, 3).

    Args:
        level: zlib's; 0 stores the pixels as FERPlus's published files do, and is ten times quicker than a library.
    """
    height, width = picture.shape[:2]
    values = picture.reshape(height, -1)
    rows = np.zeros((height, 1 + values.shape[1]), np.uint8)  # the first byte of a row names its filter, 0 is none
    rows[:, 1:] = values
    if level:  # differences to the row above (filter 2) compress better
        rows[1:, 0] = 2
        rows[1:, 1:] = values[1:] - values[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if picture.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), level)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
