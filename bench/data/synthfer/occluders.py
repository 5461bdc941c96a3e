"""Glasses and whatever hides a part of the face: sunglasses, a mask, a hand."""

from __future__ import annotations

import numpy as np

from bench.data.synthfer.canvas import Canvas, Plane, Window, cover, stroke, wave
from bench.data.synthfer.features import place
from bench.data.synthfer.scene import OCCLUSIONS

AWAY = 0.10  # glasses sit this far before the eyes


def _rows(c: Canvas, kind: str) -> np.ndarray:
    return np.flatnonzero(c.f.occlusion[:, 0] == OCCLUSIONS.index(kind))


def _lenses(w: Window, height: float) -> tuple[Plane, Plane, Plane]:
    """Distance to the lenses (rounded boxes), |x| and y from the middle of the glasses."""
    f = w.f
    x = np.abs(w.x - AWAY * f.tan_yaw)
    y = w.y - (f.eye_y + 0.015 + AWAY * f.tan_pitch)
    dx = np.abs(x - (f.eye_x + 0.01))
    dx -= 0.13
    np.maximum(dx, 0.0, out=dx)
    dy = np.abs(y)
    dy -= height - 0.07
    np.maximum(dy, 0.0, out=dy)
    dx *= dx
    dy *= dy
    dx += dy
    np.sqrt(dx, out=dx)
    dx -= 0.075
    return dx, x, y


def glasses(c: Canvas) -> None:
    """Clear glasses of those who wear them (not under sunglasses)."""
    rows = np.flatnonzero((c.f.glasses[:, 0] > 0) & (c.f.occlusion[:, 0] != OCCLUSIONS.index("sunglasses")))
    if not len(rows):
        return
    f = c.f.some(rows)
    where = place(f, AWAY * f.tan_yaw, f.eye_y)
    w = Window(c, rows, (0.80, 0.22), where)
    d, x, y = _lenses(w, 0.14)
    thickness = 0.012 + 0.35 / w.per_pixel
    rim = stroke(d, thickness + 0.008)
    bridge = stroke(y + 0.03, thickness + 0.004)
    bridge *= cover(x - 0.10, w.per_pixel)
    np.maximum(rim, bridge, out=rim)
    arms = stroke(y + 0.04, thickness + 0.004)
    arms *= cover(f.eye_x + 0.21 - x, w.per_pixel)
    arms *= cover(x - f.head_a * 0.98, w.per_pixel)
    np.maximum(rim, arms, out=rim)
    rim *= 0.85
    w.paint(rim, [f.frame] * len(w.planes))
    w.close()


def sunglasses(c: Canvas) -> None:
    """Dark lenses with a sheen."""
    rows = _rows(c, "sunglasses")
    if not len(rows):
        return
    f = c.f.some(rows)
    where = place(f, AWAY * f.tan_yaw, f.eye_y)
    w = Window(c, rows, (0.80, 0.26), where)
    d, x, y = _lenses(w, 0.165)
    bar = np.maximum(np.abs(y + 0.07) - 0.022, x - f.head_a * 0.98)
    np.minimum(d, bar, out=d)
    alpha = cover(d, w.per_pixel)
    alpha *= 0.95
    sheen = y * -0.35 + 0.09
    w.paint(alpha, [sheen] * len(w.planes))
    w.close()


def mask(c: Canvas) -> None:
    """A cloth mask over nose, mouth and chin, with pleats."""
    rows = _rows(c, "mask")
    if not len(rows):
        return
    f = c.f.some(rows)
    where = place(f, 0.0 * f.zoom, 0.55 + 0.0 * f.zoom)
    w = Window(c, rows, (0.85, 0.62), where)
    x = np.abs(w.x - 0.05 * f.tan_yaw)
    y = w.y
    upper = (0.14 + 0.0 * f.zoom) + x * x * 0.22
    d = upper - y
    np.maximum(d, (x - 0.60) * 0.9, out=d)
    np.maximum(d, (y - 1.02) + x * x * 0.5, out=d)
    alpha = cover(d, w.per_pixel)
    pleats = wave(y * 6.0 + x * 0.6)
    pleats *= 0.12
    side = x * x
    side *= 0.55
    pleats -= side
    pleats += f.ambient + 0.5 * f.key
    w.paint(alpha, [pleats * tone for tone in f.colour("occluder")])
    strap = stroke(y - (0.26 + 0.0 * f.zoom), 0.02 + 0.4 / w.per_pixel)
    strap *= cover(0.58 - x, w.per_pixel)
    strap *= cover(x - f.head_a * 0.97, w.per_pixel)
    strap *= 0.8
    w.paint(strap, f.colour("occluder"))
    w.close()


def hand(c: Canvas) -> None:
    """Four fingers that come in from one side, in the person's own skin."""
    rows = _rows(c, "hand")
    if not len(rows):
        return
    f = c.f.some(rows)
    px, py = c.px[rows], c.py[rows]
    per_pixel = c.per_pixel[rows]
    planes = [plane[rows] for plane in c.planes]
    along = px * f.hand_side - f.hand_x  # from the finger tips (0) outwards to the side
    for finger in range(4):
        tip = (0.10, 0.0, 0.02, 0.12)[finger]
        across = py - (f.hand_y + 0.135 * (finger - 1.5)) - along * f.hand_slope
        before = along - tip
        np.minimum(before, 0.0, out=before)
        before *= before
        r = across * across
        r += before
        np.sqrt(r, out=r)
        tone = r * -3.0
        tone += f.ambient + 0.60 * f.key
        r -= 0.074
        alpha = cover(r, per_pixel)
        for plane, skin in zip(planes, f.colour("skin"), strict=True):
            plane += alpha * (tone * skin - plane)
    for plane, part in zip(c.planes, planes, strict=True):
        plane[rows] = part
