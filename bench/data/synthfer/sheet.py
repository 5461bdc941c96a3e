"""The example sheet of the README: `sheet().save("docs/synthfer-sheet.png")` makes it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.data.synthfer.actions import EXPRESSIONS, draw_actions
from bench.data.synthfer.geometry import controls
from bench.data.synthfer.people import people
from bench.data.synthfer.render import render
from bench.data.synthfer.rng import Draws, key_of
from bench.data.synthfer.sample import facts, images
from bench.data.synthfer.scene import Conditions, draw_scene
from bench.data.synthfer.variants import VARIANTS

STUDIO = Conditions(
    yaw=0.04, pitch=0.02, turned=0.0, roll=0.012, shift=0.012, zoom=0.02, light=0.4, blur=0.15, noise=0.004,
    occluded=0.0, clutter=0.7,
)  # fmt: skip
PERSONS = (1, 2, 9, 6, 4, 13)
MARGIN, GAP, INK = 92, 14, (40, 40, 48)


def portraits(expression: str, persons: Sequence[int], size: int, neutral: bool = False) -> np.ndarray:
    """(N, size, size, 3) uint8: persons of the sheet showing `expression` clearly, in even studio light."""
    ids = np.array(persons)
    number = EXPRESSIONS.index(expression)
    scene = draw_scene(Draws(key_of("sheet", "scene"), ids), STUDIO)
    acts = draw_actions(Draws(key_of("sheet", "acts", expression), ids), np.full(len(ids), number), 0.75, 0.95, 0.0)
    units = np.zeros_like(acts.units) if neutral else acts.units
    return render(controls(people(key_of("people", 0), ids), scene, units, acts.side), size, True, key_of("sheet"), ids)


def sheet(tile: int = 80) -> Image.Image:
    """Rows of expressions, columns of persons; beside them images of affectnet8 with their neutral twins.

    Below them occluders and turned heads, a CK-like sequence, and images of ferplus at their own size.
    """
    pair_x = MARGIN + len(PERSONS) * tile + GAP
    width = pair_x + 4 * tile
    below = 24 + len(EXPRESSIONS) * tile + GAP
    page = Image.new("RGB", (width, below + 3 * (tile + 18) + 4), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    pen.text((MARGIN, 4), "six persons, eight expressions", INK, font)
    pen.text((pair_x, 4), "image | neutral twin   (affectnet8)", INK, font)
    for row, name in enumerate(EXPRESSIONS):
        top = 24 + row * tile
        pen.text((6, top + tile // 2 - 8), name, INK, font)
        _paste(page, portraits(name, PERSONS, tile), MARGIN, top)
        _paste(page, _pairs(name, tile), pair_x, top)
    strips = (
        ("hidden and turned (rafdb)", _difficult(9, tile)),
        ("a sequence (ckplus)", _sequence(tile)),
        ("as the models see them, 48 px (ferplus)", _drawn("ferplus", range(16), 48)),
    )
    for title, tiles in strips:
        pen.text((MARGIN, below), title, INK, font)
        _paste(page, tiles, MARGIN, below + 18)
        below += tile + 18
    page = page.crop((0, 0, width, below - tile + 48 + 8))
    return page.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _paste(page: Image.Image, tiles: np.ndarray, left: int, top: int) -> None:
    for k, tile in enumerate(tiles):
        page.paste(Image.fromarray(tile), (left + k * tile.shape[1], top))


def _drawn(name: str, indices: Sequence[int] | np.ndarray, size: int, neutral: bool = False) -> np.ndarray:
    """Images of a variant drawn at `size` pixels, in three channels."""
    known = facts(name, 0, indices)
    made = images(replace(known, variant=replace(known.variant, size=size)), neutral)
    return made if made.ndim == 4 else np.repeat(made[..., None], 3, axis=3)


def _pairs(label: str, tile: int) -> np.ndarray:
    """Two clear, unhidden images of `label` from affectnet8, each followed by its twin."""
    known = facts("affectnet8", 0, range(VARIANTS["affectnet8"].images))
    clear = (np.array(known.label) == label) & (np.array(known.occlusion) == "none") & (known.scene["ambient"] > 0.56)
    clear &= (np.abs(known.yaw) < 25) & (np.abs(known.pitch) < 12)
    clear &= (known.units.max(axis=1) == 0) if label == "neutral" else (known.intensity > 0.8)
    rows = np.flatnonzero(clear)[:2]
    faces, twins = _drawn("affectnet8", rows, tile), _drawn("affectnet8", rows, tile, neutral=True)
    return np.stack([faces, twins], axis=1).reshape(4, tile, tile, 3)


def _difficult(count: int, tile: int) -> np.ndarray:
    known = facts("rafdb", 0, range(VARIANTS["rafdb"].images))
    hidden = np.flatnonzero((np.array(known.occlusion) != "none") & (known.intensity > 0.6))[: count // 2]
    turned = np.flatnonzero((np.abs(known.yaw) > 38) & (known.intensity > 0.6) & (np.array(known.occlusion) == "none"))
    return _drawn("rafdb", [*hidden, *turned[: count - len(hidden)]], tile)


def _sequence(tile: int) -> np.ndarray:
    peaks = facts("ckplus", 0, range(7, VARIANTS["ckplus"].images, 8))
    clear = (np.array(peaks.label) == "surprise") & (peaks.intensity > 0.9) & (peaks.person["skin"][:, 0] > 0.8)
    last = int(peaks.index[np.flatnonzero(clear)[0]])
    return _drawn("ckplus", range(last - 7, last + 1), tile)
