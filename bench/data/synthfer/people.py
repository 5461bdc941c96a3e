"""Who is in the picture: the identity vector of every person, drawn once per identity."""

from __future__ import annotations

import numpy as np

from bench.data.synthfer.rng import Draws

Fields = dict[str, np.ndarray]  # name -> (N,) numbers, or (N, 3) colours in [0, 1]

SKIN = np.array([
    [0.97, 0.83, 0.74], [0.93, 0.75, 0.63], [0.85, 0.64, 0.50], [0.74, 0.53, 0.40], [0.59, 0.41, 0.30],
    [0.46, 0.31, 0.23],
])  # fmt: skip
HAIR = np.array([
    [0.07, 0.06, 0.06], [0.16, 0.11, 0.08], [0.30, 0.19, 0.12], [0.45, 0.22, 0.11], [0.76, 0.60, 0.36],
    [0.58, 0.57, 0.56],
    [0.88, 0.87, 0.85],
])  # fmt: skip
IRIS = np.array([[0.20, 0.12, 0.07], [0.33, 0.21, 0.11], [0.30, 0.36, 0.22], [0.30, 0.44, 0.58]])
CLOTH = np.array([
    [0.15, 0.17, 0.22], [0.55, 0.17, 0.17], [0.20, 0.32, 0.50], [0.85, 0.85, 0.83], [0.30, 0.42, 0.28],
    [0.72, 0.60, 0.35],
])  # fmt: skip

# Hair styles: top volume, hairline height, curve of the hairline towards the temples, length (y down to which the sides
# reach), side cover (x from which the sides hide the face), roughness of the outline. Face units, see geometry.py.
STYLES = np.array([
    [0.00, -1.60, 0.00, -0.60, 1.50, 0.00],  # bald
    [0.05, -0.74, 0.30, -0.05, 0.74, 0.01],  # short
    [0.13, -0.70, 0.40, 0.05, 0.73, 0.03],  # full
    [0.09, -0.47, 0.12, 0.10, 0.70, 0.02],  # fringe
    [0.14, -0.72, 0.75, 1.60, 0.62, 0.02],  # long
    [0.12, -0.66, 0.65, 0.72, 0.64, 0.01],  # bob
    [0.26, -0.68, 0.45, 0.30, 0.70, 0.08],  # curls
    [0.03, -0.72, 0.50, -0.10, 0.76, 0.00],  # tied back
    [0.10, -0.62, 0.55, 1.80, 0.58, 0.00],  # headscarf
])  # fmt: skip
BALD, SCARF = 0, 8


def blend(palette: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(N, 3) colours at `position` (N,) in [0, 1] along a palette (K, 3)."""
    scaled = np.clip(position, 0.0, 1.0) * (len(palette) - 1)
    low = np.minimum(scaled.astype(np.int64), len(palette) - 2)
    weight = (scaled - low)[:, None]
    return np.asarray(palette[low] + (palette[low + 1] - palette[low]) * weight)


def people(key: int, identities: np.ndarray) -> Fields:
    """The identity vector of each of N identities: the same whatever else is asked for."""
    d = Draws(key, identities)
    f: Fields = {}
    man, age = d.unit(), d.unit()
    masculine = np.where(man < 0.5, d.uniform(0.5, 1.0), d.uniform(0.0, 0.5))
    tone = d.unit()
    f["skin"] = blend(SKIN, tone) * (1.0 + 0.05 * d.normal())[:, None]
    f["skin"] = np.clip(f["skin"] + np.stack([d.normal(0.012), d.normal(0.006), d.normal(0.012)], axis=1), 0.05, 0.99)
    # head
    f["head_a"] = d.uniform(0.74, 0.84)
    f["head_c"] = d.uniform(0.88, 1.0)
    f["jaw"] = d.uniform(-0.05, 0.14) - 0.17 * masculine
    f["chin"] = d.uniform(-0.06, 0.08)
    f["cheek"] = d.uniform(0.02, 0.07)
    f["brow_ridge"] = 0.01 + 0.05 * masculine
    f["age"] = np.maximum(age - 0.25, 0.0) * 1.3
    # eyes and brows
    f["eye_x"] = d.uniform(0.305, 0.35)
    f["eye_y"] = d.uniform(-0.13, -0.07)
    f["eye_w"] = d.uniform(0.145, 0.178)
    f["eye_open"] = d.uniform(0.058, 0.080) - 0.012 * f["age"]
    f["eye_tilt"] = d.uniform(-0.05, 0.16)
    f["lid_fold"] = d.uniform(0.15, 0.6)
    f["iris"] = blend(IRIS, np.where(tone > 0.45, 0.4, 1.0) * d.unit())
    f["lashes"] = 0.55 + 0.4 * (1.0 - masculine) * d.unit()
    f["brow_y"] = d.uniform(-0.335, -0.275) - 0.02 * (1.0 - masculine)
    f["brow_arch"] = d.uniform(0.015, 0.065)
    f["brow_slope"] = d.uniform(-0.03, 0.03)
    f["brow_h"] = d.uniform(0.018, 0.028) + 0.012 * masculine
    f["brow_x"] = d.uniform(0.11, 0.15)
    f["brow_alpha"] = d.uniform(0.65, 0.95)
    # nose and mouth
    f["nose_w"] = d.uniform(0.105, 0.15) + 0.015 * tone
    f["nose_y"] = d.uniform(0.26, 0.33)
    f["nose_h"] = d.uniform(0.12, 0.19)
    f["mouth_y"] = d.uniform(0.545, 0.605)
    f["mouth_w"] = d.uniform(0.235, 0.285)
    f["mouth_rest"] = d.normal(0.011)  # resting corners, up is negative
    f["lip_up"] = d.uniform(0.035, 0.06) + 0.012 * tone - 0.012 * f["age"]
    f["lip_low"] = d.uniform(0.05, 0.08) + 0.012 * tone - 0.012 * f["age"]
    lipstick = d.chance(0.35) & (masculine < 0.45)
    rouge = np.stack([d.uniform(0.60, 0.82), d.uniform(0.14, 0.30), d.uniform(0.20, 0.34)], axis=1)
    natural = f["skin"] * np.array([0.88, 0.60, 0.62]) + np.array([0.04, 0.0, 0.01])
    f["lips"] = np.where(lipstick[:, None], rouge, natural)
    # hair
    grey = np.where(age > 0.72, 0.80 + 0.20 * d.unit(), np.where(tone > 0.5, 0.25, 0.72) * d.unit())
    f["hair"] = blend(HAIR, grey)
    short = d.choice([0.12 if style == BALD else w for style, w in enumerate([0, 4, 2, 1, 0.2, 0, 0.8, 0.2, 0])])
    long = d.choice([0.02, 0.6, 0.8, 1.4, 2.6, 1.6, 1.0, 1.3, 0.5])
    style = np.where(masculine > 0.5, short, long)
    for column, name in enumerate(("hair_top", "hairline", "hairline_curve", "hair_length", "hair_side", "hair_rough")):
        f[name] = STYLES[style, column]
    f["hair_top"] = f["hair_top"] * d.uniform(0.8, 1.25)
    f["hairline"] = f["hairline"] + d.normal(0.03) - 0.12 * np.maximum(f["age"] - 0.4, 0.0) * masculine
    f["hair_part"] = d.normal(0.12) * (style != SCARF)
    scarf = np.stack([d.uniform(0.15, 0.8), d.uniform(0.15, 0.7), d.uniform(0.2, 0.75)], axis=1)
    f["brow"] = f["hair"] * 0.75 * np.where(grey > 0.6, 0.75, 1.0)[:, None]
    f["hair"] = np.where((style == SCARF)[:, None], scarf, f["hair"])
    f["strands"] = np.where(style == SCARF, 0.05, d.uniform(0.12, 0.28))
    beard = d.choice([0.5, 0.2, 0.1, 0.2])  # none, stubble, moustache, full
    beard = np.where(masculine > 0.55, beard, 0)
    f["beard"] = np.choose(beard, [0.0, 0.28, 0.0, 0.85]) * d.uniform(0.8, 1.0)
    f["moustache"] = np.choose(beard, [0.0, 0.25, 0.85, 0.8]) * d.uniform(0.8, 1.0)
    f["glasses"] = d.chance(0.14).astype(np.float64)
    f["frame"] = np.where(d.chance(0.7), 0.12, 0.5)
    f["cloth"] = blend(CLOTH, d.unit())
    return f
