"""From identity, action units and pose to the curves that are drawn, and to the 68 landmarks.

Face units: the head is an ellipsoid centred on (0, -0.1, 0) with half height 1.1, so the chin is at y = 1 and the crown
at -1.2; x grows to the right of the picture, y down, z to the camera. One unit is about 10 cm. A picture without zoom
shows x and y - 0.12 in [-1, 1]. Features are charts on the front of the head: a point is (x, y) before the head is
turned.
"""

from __future__ import annotations

import numpy as np

from bench.data.synthfer.actions import COLUMN
from bench.data.synthfer.people import Fields
from bench.data.synthfer.scene import sine_cosine

HALF_HEIGHT = 1.10
CENTRE_Y = -0.10
VIEW_Y = 0.12
STRETCH_FROM = 0.35  # the jaw drop lengthens what lies below
JAW_FROM = 0.05  # the jaw narrows or widens from here


def controls(person: Fields, scene: Fields, units: np.ndarray, side: np.ndarray) -> Fields:
    """All numbers the renderer and the landmarks need, (N,) each: expression applied to the person, pose applied to the
    head."""
    f = {**person, **scene}
    au = {unit: units[:, column] for unit, column in COLUMN.items()}
    _brows(f, au)
    _eyes(f, au)
    _mouth(f, au, side)
    _skin(f, au, side)
    _pose(f, au)
    return f


def _brows(f: Fields, au: dict[int, np.ndarray]) -> None:
    """Three points of the brow (inner, middle, outer), the same on both sides."""
    inner, middle, outer = f["brow_y"], f["brow_y"] - f["brow_arch"], f["brow_y"] + 0.035
    f["brow_in_y"] = inner + f["brow_slope"] - 0.14 * au[1] + 0.125 * au[4] + 0.07 * au[9]
    f["brow_mid_y"] = middle - 0.045 * au[1] - 0.125 * au[2] + 0.085 * au[4] + 0.045 * au[9] + 0.01 * au[6]
    f["brow_out_y"] = (
        outer - f["brow_slope"] + 0.03 * au[1] * (1.0 - au[2]) - 0.115 * au[2] + 0.005 * au[4] + 0.01 * au[6]
    )
    f["brow_in_x"] = f["brow_x"] - 0.055 * au[4] - 0.012 * au[9]
    f["brow_out_x"] = f["eye_x"] + f["eye_w"] * 1.25


def _eyes(f: Fields, au: dict[int, np.ndarray]) -> None:
    """Lid heights above and below the line of the eye's corners; below may become negative (a raised lower lid)."""
    squint = np.minimum(au[6] * 0.6 + au[7] * 0.75 + au[9] * 0.6, 1.0)
    f["lid_up"] = np.maximum(
        f["eye_open"] * (1.0 - 0.35 * squint) + 0.05 * au[5] + 0.012 * (au[1] + au[2]) - 0.012 * au[4], 0.012
    )
    f["lid_low"] = f["eye_open"] * 0.62 * (1.0 - 1.25 * squint) + 0.012 * au[5]
    f["squint"] = squint


def _mouth(f: Fields, au: dict[int, np.ndarray], side: np.ndarray) -> None:
    """Corners of each side, lip opening and thicknesses. Unilateral units act on the side they name."""
    drop = 0.30 * au[26]
    part = np.maximum(0.055 * au[25], 0.0)
    centre = f["mouth_y"] - 0.045 * au[9] - 0.03 * au[17] - 0.008 * au[12]
    for name, sign in (("l", -1.0), ("r", 1.0)):
        here = np.where(side * sign >= 0.0, 1.0, 0.06)
        smile, dimple = au[12] * here, au[14] * here
        width = f["mouth_w"] + 0.095 * smile + 0.035 * dimple + 0.095 * au[20] - 0.065 * au[23] + 0.005 * au[15]
        f[f"corner_{name}_x"] = width - 0.045 * au[26] - 0.02 * au[17]
        lift = 0.125 * smile + 0.06 * dimple - 0.105 * au[15] - 0.03 * au[17] - 0.03 * au[20] - 0.05 * au[9]
        f[f"corner_{name}_y"] = centre - lift + f["mouth_rest"] + 0.25 * drop
        f[f"fold_{name}"] = np.minimum(0.75 * smile + 0.75 * au[9] + 0.2 * au[20] + 0.15 * au[15], 1.0)
        f[f"dimple_{name}"] = np.minimum(0.95 * dimple + 0.15 * smile, 1.0)
        f[f"apple_{name}"] = 0.75 * au[6] + 0.55 * smile
    tight = np.minimum(0.75 * au[23] + 0.35 * au[17] + 0.25 * au[14], 0.9)
    thin = 1.0 - 0.62 * tight
    stretch = 1.0 - 0.28 * np.minimum(au[12] + au[20], 1.0)
    f["seam_y"] = centre
    f["open_up"] = 0.35 * part + 0.10 * drop + 0.07 * au[9] * np.minimum(3.0 * au[25], 1.0)
    f["open_low"] = 0.85 * part + 0.90 * drop + 0.03 * au[12] * au[25]
    f["lip_up_h"] = f["lip_up"] * thin * stretch * (1.0 + 0.30 * au[9])
    f["lip_low_h"] = f["lip_low"] * thin * stretch * (1.0 + 0.25 * au[17])
    f["chin_raise"] = au[17]
    f["teeth"] = np.clip(0.35 + au[12] + 0.8 * au[20] + 0.5 * au[9] - 0.5 * au[26], 0.2, 1.0)
    f["tight"] = tight
    f["sneer"] = au[9]
    f["down"] = au[15]
    f["jaw_drop"] = 0.22 * au[26] + 0.03 * au[25]


def _skin(f: Fields, au: dict[int, np.ndarray], side: np.ndarray) -> None:
    """Strength of furrows, 0..1."""
    age = f["age"]
    f["line_brow"] = np.minimum(0.55 * age + 0.9 * np.maximum(au[1], au[2]), 1.0) * (1.0 - 0.6 * au[4] * (1.0 - au[1]))
    f["line_brow_side"] = np.minimum(au[2] + 0.55 * age + 0.3 * au[1], 1.0)
    f["line_glabella"] = np.minimum(0.9 * au[4] + 0.3 * au[9] + 0.2 * age, 1.0)
    f["line_nose"] = np.minimum(1.0 * au[9], 1.0)
    f["line_crow"] = np.minimum(0.8 * au[6] + 0.4 * age + 0.2 * au[7], 1.0)
    f["line_bag"] = np.minimum(0.15 + 0.45 * age + 0.55 * f["squint"], 1.0)
    f["line_forehead_age"] = 0.35 * age
    for name in ("l", "r"):
        f[f"fold_{name}"] = np.minimum(f[f"fold_{name}"] + 0.35 * age + 0.08, 1.0)


def _pose(f: Fields, au: dict[int, np.ndarray]) -> None:
    """Rotation of the head and the quadratic form of its outline (see `chart`)."""
    sy, cy = sine_cosine(f["yaw_t"])
    sp, cp = sine_cosine(f["pitch_t"])
    f["sin_roll"], f["cos_roll"] = sine_cosine(f["roll_t"])
    f["sin_yaw"], f["cos_yaw"], f["sin_pitch"], f["cos_pitch"] = sy, cy, sp, cp
    f["tan_yaw"], f["tan_pitch"] = sy / cy, sp / cp
    a2, b2, c2 = 1.0 / f["head_a"] ** 2, 1.0 / HALF_HEIGHT**2, 1.0 / f["head_c"] ** 2
    # ray (px, qy, t) in the head's axes: x = px cy - t sy, z1 = px sy + t cy, y = qy cp - z1 sp, z = qy sp + z1 cp
    quad = sy * sy * a2 + cy * cy * (sp * sp * b2 + cp * cp * c2)
    bend = cp * cp * c2 + sp * sp * b2
    lx = cy * sy * (bend - a2)
    ly = cy * sp * cp * (c2 - b2)
    cxx = cy * cy * a2 + sy * sy * bend
    cxy = sy * sp * cp * (c2 - b2)
    cyy = cp * cp * b2 + sp * sp * c2
    f["ray_a"] = 1.0 / quad
    f["ray_x"], f["ray_y"] = lx, ly
    f["rim_xx"] = (quad * cxx - lx * lx) / quad
    f["rim_xy"] = 2.0 * (quad * cxy - lx * ly) / quad
    f["rim_yy"] = (quad * cyy - ly * ly) / quad
    f["rim_root"] = quad
    # keep the face, not the head, in the middle of the picture
    f["stretch"] = f["jaw_drop"] * 0.55 + f["chin"]
    front_x = 0.70 * f["head_c"] * sy * cp
    front_y = 0.70 * f["head_c"] * sp
    f["origin_x"] = front_x + f["shift_x"]
    f["origin_y"] = VIEW_Y + front_y + 0.1 * f["stretch"] + f["shift_y"]


def project(f: Fields, x: np.ndarray, y: np.ndarray, out: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Where chart points (N, K), raised by `out` above the head, appear: picture coordinates in [-1, 1], x right, y
    down."""
    c = {name: f[name][:, None] for name in _POSE}
    a, depth = c["head_a"], c["head_c"]
    qy = y - CENTRE_Y
    z = depth * np.sqrt(np.maximum(1.0 - (x / a) ** 2 - (qy / HALF_HEIGHT) ** 2, 0.0)) + out
    y1 = qy * c["cos_pitch"] + z * c["sin_pitch"]
    z1 = z * c["cos_pitch"] - qy * c["sin_pitch"]
    px = x * c["cos_yaw"] + z1 * c["sin_yaw"]
    below = y1 + CENTRE_Y
    px = px * (1.0 - c["jaw"] * np.maximum(below - JAW_FROM, 0.0))
    py = below + np.maximum(below - STRETCH_FROM, 0.0) * c["stretch"]
    px, py = (px - c["origin_x"]) * c["zoom"], (py - c["origin_y"]) * c["zoom"]
    return px * c["cos_roll"] - py * c["sin_roll"], px * c["sin_roll"] + py * c["cos_roll"]


_POSE = (
    "head_a", "head_c", "cos_pitch", "sin_pitch", "cos_yaw", "sin_yaw", "cos_roll", "sin_roll", "jaw", "stretch",
    "origin_x", "origin_y", "zoom",
)  # fmt: skip


def landmarks(f: Fields, size: int) -> np.ndarray:
    """The 68 iBUG landmarks (N, 68, 2) float32, x and y in pixels, pixel centres at integers.

    Order: jaw 0-16 (left of the picture to right), brows 17-26, nose 27-35, eyes 36-47, mouth 48-67.
    """
    points: list[tuple[np.ndarray, np.ndarray, float | np.ndarray]] = []
    zero = np.zeros(len(f["head_a"]))
    for k in range(17):  # the jaw: on the side of the head from ear to ear, round the chin
        q = 0.95 * (k - 8) / 8.0
        points.append(
            (
                f["head_a"] * (0.96 * 2.0 * q / (1.0 + q * q)),
                CENTRE_Y + 0.97 * HALF_HEIGHT * (1.0 - q * q) / (1.0 + q * q) + zero,
                0.0,
            )
        )
    for sign in (-1.0, 1.0):
        order = (1.0, 0.75, 0.5, 0.25, 0.0) if sign < 0 else (0.0, 0.25, 0.5, 0.75, 1.0)
        for t in order:
            x = f["brow_in_x"] + (f["brow_out_x"] - f["brow_in_x"]) * t
            y = (
                f["brow_in_y"] * (1 - t) * (1 - 2 * t)
                + f["brow_mid_y"] * 4 * t * (1 - t)
                + f["brow_out_y"] * t * (2 * t - 1)
            )
            points.append((sign * x, y, 0.03))
    for t in (0.1, 0.4, 0.7, 1.0):  # bridge to tip
        points.append((zero, -0.12 + (f["nose_y"] + 0.12 - 0.03) * t, f["nose_h"] * t))
    base = f["nose_y"] + 0.05 - 0.025 * f["sneer"]
    for t in (-1.0, -0.5, 0.0, 0.5, 1.0):
        points.append(
            (f["nose_w"] * (t + 0.12 * t * f["sneer"]), base - 0.012 * abs(t), f["nose_h"] * (0.75 - 0.35 * abs(t)))
        )
    for sign in (-1.0, 1.0):
        upper = ((-1.0, 0), (-0.35, 1), (0.35, 1), (1.0, 0), (0.35, 2), (-0.35, 2))
        for t, lid in upper:  # t runs left to right in the picture
            u = t * f["eye_w"]
            curve = 1.0 - t * t
            height = np.choose(lid, [0.0, -1.0, 1.0]) * (f["lid_up"] if lid == 1 else f["lid_low"]) * curve
            points.append((sign * f["eye_x"] + u, f["eye_y"] - f["eye_tilt"] * u * sign * 0.5 + height, -0.03))
    for t, edge in _MOUTH:
        points.append((*mouth_point(f, t, edge), 0.05))
    x = np.stack([p[0] for p in points], axis=1)
    y = np.stack([p[1] for p in points], axis=1)
    out = np.stack([p[2] + zero for p in points], axis=1)
    px, py = project(f, x, y, out)
    return ((np.stack([px, py], axis=2) + 1.0) * (size / 2) - 0.5).astype(np.float32)


_MOUTH = (
    (-1.0, "seam"), (-0.6, "top"), (-0.22, "top"), (0.0, "top"), (0.22, "top"), (0.6, "top"), (1.0, "seam"),
    (0.6, "bottom"), (0.22, "bottom"), (0.0, "bottom"), (-0.22, "bottom"), (-0.6, "bottom"),
    (-0.9, "seam"), (-0.4, "inner top"), (0.0, "inner top"), (0.4, "inner top"), (0.9, "seam"),
    (0.4, "inner bottom"), (0.0, "inner bottom"), (-0.4, "inner bottom"),
)  # fmt: skip


def mouth_point(f: Fields, t: float, edge: str) -> tuple[np.ndarray, np.ndarray]:
    """The point at t in [-1, 1] (corner to corner) on an edge of the lips: the curves that features.mouth draws."""
    corner = "r" if t >= 0 else "l"
    x = t * f[f"corner_{corner}_x"]
    arch = 1.0 - t * t
    y = f["seam_y"] + (f[f"corner_{corner}_y"] - f["seam_y"]) * (t * t)
    if edge in ("top", "inner top"):
        y = y - f["open_up"] * arch
    if edge in ("bottom", "inner bottom"):
        y = y + f["open_low"] * arch
    if edge == "top":
        y = y - f["lip_up_h"] * arch * (1.0 - 0.22 * max(1.0 - 16.0 * t * t, 0.0))
    if edge == "bottom":
        y = y + f["lip_low_h"] * arch
    return x, y
