"""A contact sheet of an alignment: each image with what was found in it, beside what came out; problems first."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.image import read_image

if TYPE_CHECKING:
    from PIL import Image

TILE = 112  # pixels a side of each picture
COLUMNS = 4  # pairs in a row
COLOURS = {"aligned": (60, 160, 60), "several": (220, 140, 0), "no-face": (200, 40, 40), "skipped": (200, 40, 40)}


def sheet(source: Path, dest: Path, rows: Sequence[dict[str, str]], count: int = 32) -> bytes:
    """PNG of up to `count` pairs (original with box and points, result), half of them from the problem cases.

    Args:
        rows: the journal of the alignment (bench/data/align/tree.py).
    """
    from PIL import Image, ImageDraw

    shown = _sample(rows, count)
    height = (len(shown) + COLUMNS - 1) // COLUMNS
    page = Image.new("RGB", (COLUMNS * (2 * TILE + 12), max(1, height) * (TILE + 18)), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for number, row in enumerate(shown):
        x, y = (number % COLUMNS) * (2 * TILE + 12), (number // COLUMNS) * (TILE + 18)
        colour = COLOURS.get(row["status"], (0, 0, 0))
        page.paste(_marked(source / row["path"], row, colour), (x, y))
        result = dest / row["path"]
        if result.is_file():
            page.paste(Image.open(result).convert("RGB").resize((TILE, TILE)), (x + TILE + 2, y))
        draw.text((x, y + TILE + 2), f"{row['status']}  {Path(row['path']).name}"[:36], fill=colour)
    stream = io.BytesIO()
    page.save(stream, "PNG")
    return stream.getvalue()


def _sample(rows: Sequence[dict[str, str]], count: int) -> list[dict[str, str]]:
    """Problem cases, at most half, then plain ones; the same choice every time."""
    draw = random.Random(0)
    readable = [row for row in rows if row["status"] != "unreadable"]
    odd = [row for row in readable if row["status"] != "aligned"]
    plain = [row for row in readable if row["status"] == "aligned"]
    chosen = draw.sample(odd, min(len(odd), max(count // 2, count - len(plain))))
    chosen += draw.sample(plain, min(len(plain), count - len(chosen)))
    return sorted(chosen, key=lambda row: (row["status"] == "aligned", row["status"], row["path"]))


def _marked(path: Path, row: dict[str, str], colour: tuple[int, int, int]) -> Image.Image:
    """The original, shrunk to a tile, with the chosen face's box and points."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(read_image(path, convert=True)).convert("RGB")
    scale = TILE / max(image.size)
    tile = Image.new("RGB", (TILE, TILE), (235, 235, 235))
    tile.paste(image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale)))), (0, 0))
    if row["x"]:
        draw = ImageDraw.Draw(tile)
        x, y, width, height = (float(row[name]) * scale for name in ("x", "y", "width", "height"))
        draw.rectangle((x, y, x + width, y + height), outline=colour)
        values = [float(v) * scale for v in row["points"].split()]
        for px, py in zip(values[::2], values[1::2], strict=True):
            draw.ellipse((px - 1.5, py - 1.5, px + 1.5, py + 1.5), fill=colour)
    return tile
