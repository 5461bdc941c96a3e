"""Everything about a picture that is not the person and not the expression: pose, light, background, camera,
occluders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.data.synthfer.people import Fields
from bench.data.synthfer.rng import Draws

OCCLUSIONS = ("none", "sunglasses", "mask", "hand")


@dataclass(frozen=True)
class Conditions:
    """Nuisance of a variant: the knobs of its difficulty besides the intensity of expressions.

    yaw, pitch: tangent of the half angle at one standard deviation of the frontal part; turned: share of strongly
    turned heads roll: half-angle tangent sd; shift, zoom: framing jitter; light: 0 even to 1 harsh; blur: 0 sharp to 1;
    noise: grey levels (of 1.0); occluded: share with an occluder; clutter: contrast of the background.
    """

    yaw: float = 0.06
    pitch: float = 0.04
    turned: float = 0.25
    roll: float = 0.04
    shift: float = 0.04
    zoom: float = 0.05
    light: float = 0.7
    blur: float = 0.4
    noise: float = 0.014
    occluded: float = 0.14
    clutter: float = 1.0


def draw_scene(d: Draws, c: Conditions) -> Fields:
    """Nuisance of N pictures. Angles are tangents of their halves: sine and cosine then need only exact arithmetic."""
    f: Fields = {}
    sign = np.where(d.chance(0.5), 1.0, -1.0)
    turned = d.chance(c.turned)
    up = d.chance(0.25)  # a turned head is mostly turned sideways
    f["yaw_t"] = np.where(turned & ~up, sign * d.uniform(0.26, 0.475), d.normal(c.yaw))
    f["pitch_t"] = np.where(turned & up, sign * d.uniform(0.22, 0.34), d.normal(c.pitch))
    f["roll_t"] = d.normal(c.roll)
    f["shift_x"], f["shift_y"] = d.normal(c.shift), d.normal(c.shift)
    f["zoom"] = 1.0 + d.normal(c.zoom)
    f["gaze_x"], f["gaze_y"] = d.normal(0.018), d.normal(0.008)
    # light: direction in the picture (x right, y down, z to the camera), key and ambient
    f["light_x"] = d.normal(0.65 * c.light)
    f["light_y"] = -0.35 + d.normal(0.35 * c.light)
    f["ambient"] = d.uniform(0.64 - 0.20 * c.light, 0.70)
    f["key"] = d.uniform(0.42, 0.58 + 0.12 * c.light)
    f["gain"] = 1.0 + d.normal(0.10 * (0.3 + c.light))
    f["lift"] = d.normal(0.03 * c.light)
    f["warm"] = d.normal(0.05 * c.light)
    # background: two colours, an edge between them, and a soft blob
    for name in ("back_a", "back_b"):
        grey = d.uniform(0.08, 0.92)
        tint = np.stack([d.normal(0.09), d.normal(0.07), d.normal(0.09)], axis=1)
        f[name] = np.clip(grey[:, None] + tint, 0.02, 0.98)
    f["back_b"] = f["back_a"] + (f["back_b"] - f["back_a"]) * c.clutter
    f["back_x"], f["back_y"] = d.uniform(-1.0, 1.0), d.uniform(-1.0, 1.0)
    f["back_edge"] = d.uniform(-0.9, 0.9)
    f["back_soft"] = d.uniform(0.15, 1.5)
    f["blur"] = np.clip(c.blur * d.uniform(0.2, 1.0), 0.0, 0.5)
    f["noise"] = c.noise * d.uniform(0.4, 1.6)
    # occluders
    occluded = d.chance(c.occluded)
    kind = d.choice([1.0, 0.7, 1.3]) + 1
    f["occlusion"] = np.where(occluded, kind, 0).astype(np.float64)
    grey = d.uniform(0.05, 0.95)
    f["occluder"] = np.clip(np.stack([grey, grey + d.normal(0.05), grey + d.normal(0.08)], axis=1), 0.03, 0.97)
    f["hand_side"] = np.where(d.chance(0.5), 1.0, -1.0)
    f["hand_y"] = d.uniform(-0.2, 0.65)
    f["hand_x"] = d.uniform(0.1, 0.45)
    f["hand_slope"] = d.uniform(-0.5, 0.5)
    return f


def sine_cosine(half_tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sin and cos of 2 atan(t), by the rational formulas."""
    square = half_tangent * half_tangent
    return 2.0 * half_tangent / (1.0 + square), (1.0 - square) / (1.0 + square)


def degrees(half_tangent: np.ndarray) -> np.ndarray:
    """The angle itself, for attributes."""
    return np.asarray(np.degrees(2.0 * np.arctan(half_tangent)))
