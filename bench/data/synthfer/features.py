"""Eyes, brows, nose, mouth and furrows, each drawn in a window around it."""

from __future__ import annotations

import numpy as np

from bench.data.synthfer.canvas import Canvas, Columns, Plane, Window, cover, lay, ramp, stroke, wave
from bench.data.synthfer.geometry import CENTRE_Y, HALF_HEIGHT, JAW_FROM, STRETCH_FROM

RECESS = -0.04  # eyes lie behind the ellipsoid, lips and brows before it: their parallax
PROUD = 0.05


def place(f: Columns, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Picture coordinates (B, 1) of the chart point (x, y): geometry.project on columns, enough to place a window."""
    qy = y - CENTRE_Y
    z = f.head_c * np.sqrt(np.maximum(1.0 - (x / f.head_a) ** 2 - (qy / HALF_HEIGHT) ** 2, 0.0))
    below = qy * f.cos_pitch + z * f.sin_pitch + CENTRE_Y
    px = x * f.cos_yaw + (z * f.cos_pitch - qy * f.sin_pitch) * f.sin_yaw
    px = px * (1.0 - f.jaw * np.maximum(below - JAW_FROM, 0.0))
    py = below + np.maximum(below - STRETCH_FROM, 0.0) * f.stretch
    px, py = (px - f.origin_x) * f.zoom, (py - f.origin_y) * f.zoom
    return px * f.cos_roll - py * f.sin_roll, px * f.sin_roll + py * f.cos_roll


def everyone(c: Canvas) -> np.ndarray:
    """All rows of the canvas."""
    return np.arange(c.count)


def eye(c: Canvas, sign: float) -> None:
    """One eye with its brow; `sign` is -1 for the eye on the left of the picture."""
    f = c.f
    where = place(f, sign * f.eye_x + RECESS * f.tan_yaw, f.eye_y - 0.10)
    w = Window(c, everyone(c), (0.30, 0.35), where)
    x = w.x * sign
    x -= f.eye_x + (sign * RECESS) * f.tan_yaw
    y = w.y - (f.eye_y + RECESS * f.tan_pitch)
    y += x * (0.5 * f.eye_tilt)
    t = x * (1.0 / f.eye_w)
    arch = t * t
    np.subtract(np.float32(1.0), arch, out=arch)
    limited = np.maximum(arch, 0.0)
    upper = arch * -f.lid_up
    lower = arch * f.lid_low
    socket(w, x, y, limited, upper, lower)
    ball(w, x, y, t, upper, lower, sign)
    lids(w, y, limited, upper, lower)
    crow(w, x, y)
    brow(w, sign)
    w.close()


def socket(w: Window, x: Plane, y: Plane, arch: Plane, upper: Plane, lower: Plane) -> None:
    """Shadow above the eye, the fold of the lid, the bag below."""
    f = w.f
    fold = y - upper
    fold += arch * (0.020 + 0.25 * f.lid_up) + 0.012
    fold = stroke(fold, 0.030)
    fold *= arch
    fold *= f.lid_fold * 0.6
    bag = y - lower
    bag -= arch * 0.055 + 0.012
    bag = stroke(bag, 0.028)
    bag *= arch
    bag *= f.line_bag * 0.34
    fold += bag
    np.subtract(np.float32(1.0), fold, out=fold)
    w.shade(fold)


def ball(w: Window, x: Plane, y: Plane, t: Plane, upper: Plane, lower: Plane, sign: float) -> None:
    """Sclera, iris, pupil and the catch light, between the lids."""
    f = w.f
    inside = np.maximum(upper - y, y - lower)
    alpha = cover(inside, w.per_pixel)
    white = t * t
    white *= -0.20
    shadow = stroke(y - upper, 0.05)
    shadow *= 0.22
    white -= shadow
    white += 0.92 * (f.ambient + 0.42 * f.key)
    gx, gy = sign * f.gaze_x, f.gaze_y - 0.004
    dx, dy = x - gx, y - gy
    r = dx * dx
    r += dy * dy
    np.sqrt(r, out=r)
    planes = [white.copy() for _ in w.planes] if len(w.planes) > 1 else [white]
    lay(planes, cover(r - 0.068, w.per_pixel), f.colour("iris"))
    lay(planes, cover(r - 0.030, w.per_pixel), [0.04] * len(planes))
    dx -= 0.020 * sign
    dy += 0.022
    dx *= dx
    dy *= dy
    dx += dy
    np.sqrt(dx, out=dx)
    lay(planes, cover(dx - 0.014, w.per_pixel), [0.95] * len(planes))
    w.paint(alpha, planes)


def lids(w: Window, y: Plane, arch: Plane, upper: Plane, lower: Plane) -> None:
    """Dark line of the upper lashes, faint line of the lower lid."""
    f = w.f
    edge = arch * 20.0
    np.minimum(edge, 1.0, out=edge)
    width = np.float32(0.55) / w.per_pixel
    lash = stroke(y - upper, 0.012 + width)
    lash *= edge
    lash *= f.lashes
    w.paint(lash, [0.07] * len(w.planes))
    rim = stroke(y - lower, 0.008 + width)
    rim *= edge
    rim *= -0.35
    rim += 1.0
    w.shade(rim)


def crow(w: Window, x: Plane, y: Plane) -> None:
    """Crow's feet: three furrows that fan out from the outer corner."""
    f = w.f
    ahead = x - f.eye_w * 0.92
    reach = stroke(ahead - 0.085, 0.085)
    np.maximum(ahead, 0.02, out=ahead)
    fan = (y - 0.01) / ahead
    within = 1.15 - np.abs(fan)
    ramp(within)
    fan *= 1.35
    furrow = wave(fan)
    np.subtract(np.float32(1.0), furrow, out=furrow)
    furrow *= furrow
    furrow *= reach
    furrow *= within
    furrow *= f.line_crow * -0.34
    furrow += 1.0
    w.shade(furrow)


def brow(w: Window, sign: float) -> None:
    """The brow: a parabola through its inner, middle and outer point, thick inside and thin outside."""
    f = w.f
    x = w.x * sign
    x -= f.brow_in_x + (sign * 0.03) * f.tan_yaw
    t = x * (1.0 / (f.brow_out_x - f.brow_in_x))
    first = -3.0 * f.brow_in_y + 4.0 * f.brow_mid_y - f.brow_out_y
    second = 2.0 * f.brow_in_y - 4.0 * f.brow_mid_y + 2.0 * f.brow_out_y
    line = t * second
    line += first
    line *= t
    line += f.brow_in_y + 0.03 * f.tan_pitch
    d = w.y - line
    half = t * -0.55
    half += 1.08
    half *= f.brow_h
    inner = (np.abs(t - 0.5) - 0.5) * 0.30
    np.abs(d, out=d)
    d -= half
    np.maximum(d, inner, out=d)
    alpha = cover(d, w.per_pixel * 0.8)
    alpha *= f.brow_alpha
    w.paint(alpha, f.colour("brow"))


def centre(c: Canvas) -> None:
    """The middle of the face: frown lines, wrinkles of the nose, nostrils and the shadow below the nose."""
    f = c.f
    where = place(f, 0.5 * f.nose_h * f.tan_yaw, 0.02 + 0.0 * f.zoom)
    w = Window(c, everyone(c), (0.30, 0.50), where)
    side, y = np.abs(w.x), w.y
    # glabella: two upright furrows between the brows
    frown = stroke(side - (0.052 + 0.12 * (f.brow_in_x - 0.10)), 0.028)
    frown *= stroke(y + 0.27, 0.14)
    frown *= f.line_glabella * 0.42
    # wrinkles across the bridge
    bridge = wave(y * 12.0 + side * 3.5)
    bridge *= stroke(y + 0.03, 0.17)
    bridge *= stroke(side.copy(), 0.15)
    bridge *= f.line_nose * 0.40
    frown += bridge
    # nostrils and wings, carried by the protruding tip
    lean_x, lean_y = 0.55 * f.nose_h * f.tan_yaw, 0.5 * f.nose_h * f.tan_pitch
    base = f.nose_y + 0.045 - 0.028 * f.sneer + lean_y
    out = w.x - lean_x
    np.abs(out, out=out)
    hole = (out - 0.50 * f.nose_w) * (1.0 / 0.040)
    hole *= hole
    drop = (y - base) * (1.0 / 0.022)
    drop *= drop
    hole += drop
    np.subtract(np.float32(1.0), hole, out=hole)
    hole *= 0.8
    ramp(hole)
    hole *= 0.62
    frown += hole
    wing = stroke(out - f.nose_w * (1.08 + 0.15 * f.sneer), 0.030)
    wing *= stroke(y - (base - 0.030), 0.065)
    wing *= 0.22 + 0.22 * f.sneer
    frown += wing
    under = stroke(y - (base + 0.035), 0.055)
    under *= stroke(out, 0.17)
    under *= 0.20
    frown += under
    np.minimum(frown, 0.85, out=frown)
    np.subtract(np.float32(1.0), frown, out=frown)
    w.shade(frown)
    w.close()


def forehead(c: Canvas) -> None:
    """Furrows across the forehead, for the faces that show any."""
    strength = np.maximum(c.f.line_brow, c.f.line_brow_side)[:, 0]
    rows = np.flatnonzero(strength > 0.04)
    if not len(rows):
        return
    f = c.f.some(rows)
    where = place(f, 0.0 * f.zoom, -0.56 + 0.0 * f.zoom)
    w = Window(c, rows, (0.52, 0.22), where)
    bow = w.x * w.x
    power = bow * 6.0
    ramp(power)
    power *= f.line_brow_side - f.line_brow
    power += f.line_brow
    phase = w.y + bow * (0.22 - 0.45 * (f.line_brow - f.line_brow_side))
    phase *= 9.0
    lines = wave(phase)
    lines *= lines
    lines *= stroke(w.y + 0.56, 0.19)
    lines *= stroke(w.x.copy(), 0.50)
    lines *= power
    lines *= -0.30
    lines += 1.0
    w.shade(lines)
    w.close()


def mouth(c: Canvas) -> None:
    """Lips, teeth, tongue, the folds beside and the shadows around them. Same curves as geometry.mouth_point."""
    f = c.f
    where = place(f, PROUD * f.tan_yaw, f.mouth_y + 0.05)
    w = Window(c, everyone(c), (0.52, 0.50), where)
    x = w.x - PROUD * f.tan_yaw
    y = w.y - PROUD * f.tan_pitch
    right = x > 0
    width = np.where(right, f.corner_r_x, f.corner_l_x)
    t = np.abs(x)
    out = t.copy()
    t /= width
    square = t * t
    arch = np.float32(1.0) - square
    seam = square * (np.where(right, f.corner_r_y, f.corner_l_y) - f.seam_y)
    # beyond the corners the seam goes on along its tangent's height, so corner shadows follow it
    seam += f.seam_y
    top_in = seam - arch * f.open_up
    low_in = seam + arch * f.open_low
    furrows(w, x, y, out, right, width)
    lip(w, y, t, arch, top_in, low_in)
    cavity(w, y, t, arch, seam, top_in, low_in)
    w.close()


def lip(w: Window, y: Plane, t: Plane, arch: Plane, top_in: Plane, low_in: Plane) -> None:
    """Both lips: the upper one darker, the lower one with a highlight."""
    f = w.f
    bow = t * t
    bow *= -16.0
    bow += 1.0
    np.maximum(bow, 0.0, out=bow)
    bow *= -0.22
    bow += 1.0
    bow *= arch
    top = top_in - bow * f.lip_up_h
    low = low_in + arch * f.lip_low_h
    inside = np.maximum(top - y, y - low)
    alpha = cover(inside, w.per_pixel * 0.9)
    alpha *= 0.9
    down = y - top_in
    down *= 12.0
    ramp(down)
    light = stroke(y - (low_in + low) * 0.5, 0.035)
    light *= 0.16
    down *= 0.24
    down += light
    down += 0.56
    down *= f.ambient + 0.55 * f.key
    w.paint(alpha, [down * tone for tone in f.colour("lips")])
    # shadow under the lower lip, deeper where the chin is pushed up or the lips are pressed
    under = stroke(y - (low + 0.045), 0.050)
    np.maximum(arch, 0.0, out=bow)
    under *= bow
    under *= -(0.20 + 0.22 * f.chin_raise)
    under += 1.0
    w.shade(under)


def cavity(w: Window, y: Plane, t: Plane, arch: Plane, seam: Plane, top_in: Plane, low_in: Plane) -> None:
    """The open mouth with teeth and tongue, and the line where closed lips meet."""
    f = w.f
    channels = len(w.planes)
    alpha = cover(np.maximum(top_in - y, y - low_in), w.per_pixel)
    # a closed mouth has zero height: its half-covered pixels belong to the seam line, not to a cavity
    gap = (low_in - top_in) * 40.0
    ramp(gap)
    alpha *= gap
    w.paint(alpha, ([0.26, 0.07, 0.07] if channels == 3 else [0.12]))
    teeth = y - (top_in + (0.012 + 0.055 * f.teeth))
    bite = cover(teeth, w.per_pixel)
    bite *= alpha
    sides = 1.05 - t * t
    ramp(sides)
    bite *= sides
    bite *= np.minimum(f.teeth * 1.3, 1.0)
    bright = 0.86 * (f.ambient + 0.45 * f.key)
    w.paint(bite, [bright] * channels if channels == 1 else [bright, bright * 0.97, bright * 0.91])
    tongue = cover((low_in - 0.35 * (low_in - top_in)) - y, w.per_pixel * 0.35)
    np.subtract(np.float32(1.0), tongue, out=tongue)
    np.subtract(np.float32(1.0), tongue, out=tongue)
    tongue *= alpha
    tongue *= ramp((low_in - top_in) * 5.0 - 0.6)
    w.paint(tongue, [0.62, 0.26, 0.27] if channels == 3 else [0.37])
    line = y - seam
    line = stroke(line, 0.014 + 0.6 / w.per_pixel)
    ends = arch * 4.0
    ends += 0.6
    ramp(ends)
    line *= ends
    np.subtract(np.float32(1.0), gap, out=gap)
    line *= gap
    line *= -0.62
    line += 1.0
    w.shade(line)


def furrows(w: Window, x: Plane, y: Plane, out: Plane, right: Plane, width: Plane) -> None:
    """Nasolabial folds, dimples, lines below the corners, and the bunched chin."""
    f = w.f
    corner_y = np.where(right, f.corner_r_y, f.corner_l_y)
    start = f.nose_y - 0.03 * f.sneer
    down = y - start
    along = down * (1.0 / (f.mouth_y + 0.04 - start))
    path = along * (width + 0.105 - f.nose_w * 1.2)
    path += f.nose_w * 1.2
    path -= along * (1.0 - along) * -0.06
    fold = stroke(out - path, 0.042)
    fold *= stroke(along - 0.42, 0.60)
    fold *= np.where(right, f.fold_r, f.fold_l)
    fold *= 0.42
    pit_y = (y - corner_y) * (1.0 / 0.11)
    pit_y *= pit_y
    pit_x = (out - width - 0.030 + pit_y * 0.018) * (1.0 / 0.044)
    pit_x *= pit_x
    pit_x += pit_y
    np.subtract(np.float32(1.0), pit_x, out=pit_x)
    np.maximum(pit_x, 0.0, out=pit_x)
    pit_x *= np.where(right, f.dimple_r, f.dimple_l) * 0.58 + 0.06
    fold += pit_x
    droop = stroke(out - (width + 0.015 + (y - corner_y) * 0.35), 0.030)
    droop *= stroke(y - corner_y - 0.075, 0.075)
    droop *= f.down * 0.42
    fold += droop
    dent = wave(x * 11.0 + y * 2.0)
    dent *= wave(y * 12.0)
    dent *= stroke(x.copy(), 0.17)
    dent *= stroke(y - 0.84, 0.13)
    dent *= f.chin_raise * 0.45
    fold += dent
    np.minimum(fold, 0.8, out=fold)
    np.subtract(np.float32(1.0), fold, out=fold)
    w.shade(fold)


def moustache(c: Canvas) -> None:
    """Hair between nose and upper lip, drawn before the lips."""
    rows = np.flatnonzero(c.f.moustache[:, 0] > 0)
    if not len(rows):
        return
    f = c.f.some(rows)
    where = place(f, PROUD * f.tan_yaw, f.mouth_y - 0.08)
    w = Window(c, rows, (0.40, 0.16), where)
    x = np.abs(w.x - PROUD * f.tan_yaw)
    middle = 0.5 * (f.nose_y + 0.09 + f.seam_y - f.lip_up_h) + 0.02 * f.tan_pitch
    d = w.y - (middle + x * x * 0.75)
    half = 0.5 * (f.seam_y - f.lip_up_h - f.nose_y - 0.07)
    np.abs(d, out=d)
    taper = x * (0.9 / f.mouth_w)
    taper *= taper
    np.subtract(np.float32(1.15), taper, out=taper)
    taper *= np.maximum(half, 0.02)
    d -= taper
    np.maximum(d, (x - f.mouth_w * 1.05) * 0.6, out=d)
    alpha = cover(d, 22.0)
    alpha *= f.moustache
    tone = f.ambient + 0.4 * f.key
    w.paint(alpha, [tone * hair for hair in f.colour("brow")])
    w.close()
