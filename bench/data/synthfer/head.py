"""The head: background, neck, hair, ears and lit skin."""

from __future__ import annotations

import numpy as np

from bench.data.synthfer.canvas import Canvas, Plane, bump, cover, ramp, stroke, wave


def background(c: Canvas) -> None:
    """Two colours with a soft edge between them, and one soft blob."""
    f = c.f
    blend = c.u * f.back_x + c.v * f.back_y
    blend -= f.back_edge
    blend *= 1.0 / f.back_soft
    blend += 0.5
    ramp(blend)
    blend += (
        bump(np.broadcast_to(c.u, blend.shape), np.broadcast_to(c.v, blend.shape), f.back_y, f.back_x, 0.9, 0.7) * 0.4
    )
    for plane, a, b in zip(c.planes, f.colour("back_a"), f.colour("back_b"), strict=True):
        np.multiply(blend, b - a, out=plane)
        plane += a


def body(c: Canvas) -> None:
    """Neck and clothes below the head."""
    f = c.f
    shoulders = np.abs(c.px)
    shoulders -= 0.40
    np.maximum(shoulders, 0.0, out=shoulders)
    shoulders *= 0.45
    cloth = (1.22 + 0.55 * f.stretch) - c.py
    cloth += shoulders
    neck = np.abs(c.px)
    neck -= 0.46
    neck = np.maximum(neck, 0.6 - c.py)
    alpha = cover(neck, c.per_pixel)
    dark = 0.55 * f.ambient + 0.18
    c.paint(alpha, [skin * dark for skin in f.colour("skin")])
    c.paint(cover(cloth, c.per_pixel), [tone * (f.ambient + 0.2) for tone in f.colour("cloth")])


def back_hair(c: Canvas) -> None:
    """Hair behind the face: the head's outline enlarged, going straight down at the sides to the hair's length."""
    f = c.f
    x = c.px + 0.16 * f.sin_yaw
    outline = x * (1.0 / (f.head_a + np.minimum(0.035, f.hair_top) + 0.8 * f.hair_top))
    outline *= outline
    y = c.py - (-0.10 - 0.12 * f.sin_pitch)
    rough = wave(x * 2.2 + y * 2.7)
    rough *= rough * (3.0 - 2.0 * rough)
    np.minimum(y, 0.0, out=y)
    y *= 1.0 / (1.10 + f.hair_top)
    y *= y
    outline += y
    np.sqrt(outline, out=outline)
    rough *= f.hair_rough
    outline += rough
    outline -= 1.0
    length = c.py - f.hair_length
    np.maximum(outline, length, out=outline)
    alpha = cover(outline, c.per_pixel)
    tone = 0.55 * f.ambient + 0.2
    c.paint(alpha, [hair * tone for hair in f.colour("hair")])


def ears(c: Canvas) -> None:
    """An ear on each side, hidden by hair that covers the sides."""
    f = c.f
    shown = np.where(f.hair_length > 0.3, 0.0, 1.0).astype(np.float32)
    for sign in (-1.0, 1.0):
        centre = sign * (f.head_a + 0.015) * f.cos_yaw - 0.15 * f.sin_yaw
        ear = (c.px - centre) * (1.0 / 0.085)
        ear *= ear
        y = c.py - (0.06 - 0.15 * f.sin_pitch)
        y *= 1.0 / 0.20
        y *= y
        ear += y
        ear -= 1.0
        tone = ear * 0.12 + 0.85 * (f.ambient + 0.42 * f.key)
        ear *= 0.09
        alpha = cover(ear, c.per_pixel)
        alpha *= shown
        c.paint(alpha, [tone * skin for skin in f.colour("skin")])


def relief(c: Canvas) -> Plane:
    """Height of the face above the ellipsoid, in face units."""
    f, side = c.f, np.abs(c.x)
    y = c.y
    # nose: a ridge that rises from the bridge to the tip and leans with the turn of the head (parallax)
    rise = (y + 0.16) * (1.0 / (f.nose_y + 0.16))
    fall = (f.nose_y + 0.085) - y
    fall *= 1.0 / 0.085
    ramp(rise)
    ramp(fall)
    rise_low = rise * fall
    ridge = rise * (f.nose_h * f.tan_yaw)
    np.subtract(c.x, ridge, out=ridge)
    rise *= 0.75 * f.nose_w
    rise += 0.075
    ridge /= rise
    ridge *= ridge
    np.subtract(np.float32(1.0), ridge, out=ridge)
    np.maximum(ridge, 0.0, out=ridge)
    ridge *= rise_low
    ridge *= f.nose_h
    height = ridge
    height -= bump(side, y, f.eye_x, f.eye_y - 0.01, 0.24, 0.17) * 0.075
    height += bump(side, y, 0.26, -0.30, 0.34, 0.13) * f.brow_ridge
    apple = np.where(c.x > 0, f.apple_r, f.apple_l)
    apple *= 0.075
    apple += f.cheek
    apple *= bump(side, y, 0.40, 0.22 - 0.05 * np.maximum(f.apple_l, f.apple_r), 0.27, 0.24)
    height += apple
    height += bump(c.x, y, 0.0, f.mouth_y, 0.38, 0.28) * (0.075 - 0.02 * f.tight)
    height += bump(c.x, y, 0.0, 0.86, 0.20, 0.16) * (0.06 + 0.05 * f.chin_raise)
    return np.asarray(height)


def skin(c: Canvas) -> None:
    """Lit skin over everything inside the head's outline."""
    f = c.f
    height = relief(c).reshape(c.count, c.size, c.size)
    slope = np.zeros_like(height)
    lean = 0.50 * c.per_pixel[:, :, None]
    slope[:, :, 1:-1] = (height[:, :, :-2] - height[:, :, 2:]) * (f.light_x[:, :, None] * lean)
    slope[:, 1:-1] += (height[:, :-2] - height[:, 2:]) * (f.light_y[:, :, None] * lean)
    # light in the head's axes
    z1 = f.light_x * f.sin_yaw + f.cos_yaw
    lx = f.light_x * f.cos_yaw - f.sin_yaw
    ly = f.light_y * f.cos_pitch - z1 * f.sin_pitch
    lz = f.light_y * f.sin_pitch + z1 * f.cos_pitch
    norm = 1.0 / np.sqrt(lx * lx + ly * ly + lz * lz)
    nx = c.x * (1.0 / (f.head_a * f.head_a))
    ny = (c.y + 0.10) * np.float32(1.0 / 1.21)
    nz = c.z * (1.0 / (f.head_c * f.head_c))
    lambert = nx * (lx * norm)
    lambert += ny * (ly * norm)
    lambert += nz * (lz * norm)
    nx *= nx
    ny *= ny
    nz *= nz
    nx += ny
    nx += nz
    np.sqrt(nx, out=nx)
    lambert /= nx
    np.maximum(lambert, 0.0, out=lambert)
    shine = lambert * lambert
    shine *= shine
    shine *= shine
    shine *= 0.10
    bent = slope.reshape(lambert.shape) * norm
    steep = np.abs(bent)
    steep *= 1.6
    steep += 1.0
    bent /= steep  # steep slopes saturate: neither burnt out nor black
    lambert += bent
    np.maximum(lambert, 0.0, out=lambert)
    lambert *= f.key
    lambert += f.ambient
    edge = c.root * 0.55
    edge += 0.58
    np.minimum(edge, 1.0, out=edge)
    lambert *= edge
    outline = c.rho - 1.0
    outline *= 0.85
    alpha = cover(outline, c.per_pixel)
    flush = bump(np.abs(c.x), c.y, 0.42, 0.22, 0.30, 0.26)
    flush *= 0.10
    tints = (0.2, 1.0, 0.9) if len(c.planes) == 3 else (0.75,)
    c.lambert = lambert
    c.paint(
        alpha, [tone * (lambert - flush * tint) + shine for tone, tint in zip(f.colour("skin"), tints, strict=True)]
    )


def front_hair(c: Canvas) -> None:
    """Hair on the head: above the hairline, and beside the face down to the hair's length."""
    f = c.f
    line = c.x * f.hairline_curve
    line += f.hair_part
    line *= c.x
    line += f.hairline
    top = c.y - line
    sides = f.hair_side - np.abs(c.x)
    np.maximum(sides, c.y - f.hair_length, out=sides)
    hair = np.minimum(top, sides)
    strands = wave(c.x * 5.0 + c.y * 1.1 + c.x * c.x * 2.0)
    strands *= strands * (3.0 - 2.0 * strands)
    hair += (strands - 0.5) * (0.022 + 0.6 * f.hair_rough)
    np.maximum(hair, (c.rho - 1.0) * 0.85, out=hair)
    alpha = cover(hair, c.per_pixel * 0.6)
    strands *= 0.35
    strands += wave(c.x * 23.0 - c.y * 2.0)
    strands -= 0.675
    strands *= f.strands
    strands += 0.9
    strands *= c.lambert
    gloss = stroke(c.y + 0.95, 0.25)
    gloss *= 0.10
    c.paint(alpha, [strands * hair_tone + gloss * f.strands for hair_tone in f.colour("hair")])


def beard(c: Canvas) -> None:
    """Beard along the jaw for those who have one."""
    rows = np.flatnonzero(c.f.beard[:, 0] > 0)
    if not len(rows):
        return
    f = c.f.some(rows)
    x, y = c.x[rows], c.y[rows]
    edge = x * x
    edge *= -1.35
    edge += f.mouth_y + 0.20
    grow = y - edge
    grow *= 7.0
    ramp(grow)
    inside = (1.0 - c.rho[rows]) * c.per_pixel[rows]
    ramp(inside)
    grow *= inside
    texture = wave(x * 17.0 + y * 9.0)
    texture *= 0.25
    texture += 0.8
    texture *= c.lambert[rows]
    grow *= f.beard
    for plane, tone in zip(c.planes, f.colour("brow"), strict=True):
        part = plane[rows]
        part += grow * (texture * tone - part)
        plane[rows] = part
