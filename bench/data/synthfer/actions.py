"""Expressions as facial action units (FACS), and the raters who judge them.

Prototypes follow EMFACS (Friesen and Ekman 1983), restricted to the units the renderer draws. Intensities run from 0
(absent) to 1 (FACS level E).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.data.synthfer.rng import Draws

UNITS = (1, 2, 4, 5, 6, 7, 9, 12, 14, 15, 17, 20, 23, 25, 26)
COLUMN = {unit: column for column, unit in enumerate(UNITS)}
EXPRESSIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTES = (*EXPRESSIONS, "unknown", "NF")
RATERS = 10


@dataclass(frozen=True)
class Act:
    """One unit of a prototype: present with probability `p`, at `level` times the intensity of the expression."""

    unit: int
    p: float
    level: float


PROTOTYPES: dict[str, tuple[Act, ...]] = {
    "neutral": (),
    "happiness": (Act(6, 0.85, 0.9), Act(12, 1.0, 1.0), Act(25, 0.6, 0.7), Act(26, 0.15, 0.4), Act(7, 0.15, 0.4)),
    "surprise": (Act(1, 0.95, 0.9), Act(2, 0.95, 1.0), Act(5, 0.85, 0.8), Act(25, 0.9, 0.6), Act(26, 0.85, 0.9)),
    "sadness": (Act(1, 0.95, 1.0), Act(4, 0.85, 0.6), Act(15, 0.95, 1.0), Act(17, 0.5, 0.6), Act(25, 0.1, 0.3)),
    "anger": (
        Act(4, 1.0, 1.0), Act(5, 0.55, 0.5), Act(7, 0.85, 0.8), Act(23, 0.85, 1.0), Act(17, 0.4, 0.5),
        Act(25, 0.15, 0.6),
    ),
    "disgust": (
        Act(9, 1.0, 1.0), Act(15, 0.55, 0.6), Act(17, 0.6, 0.6), Act(25, 0.4, 0.6), Act(4, 0.35, 0.5),
        Act(7, 0.35, 0.5),
    ),
    "fear": (
        Act(1, 0.95, 1.0), Act(2, 0.75, 0.6), Act(4, 0.9, 0.7), Act(5, 0.95, 1.0), Act(20, 0.95, 1.0),
        Act(25, 0.85, 0.7), Act(26, 0.35, 0.4),
    ),
    "contempt": (Act(12, 0.9, 0.5), Act(14, 1.0, 1.0), Act(7, 0.2, 0.3)),
}  # fmt: skip

# What a doubtful rater sees instead, shares over VOTES; the structure of FER+ and of printed confusion matrices.
CONFUSION: dict[str, dict[str, float]] = {
    "neutral": {
        "sadness": 0.40, "anger": 0.17, "happiness": 0.13, "contempt": 0.10, "surprise": 0.07, "fear": 0.03,
        "unknown": 0.10,
    },
    "happiness": {"neutral": 0.52, "surprise": 0.20, "contempt": 0.13, "unknown": 0.10, "NF": 0.05},
    "surprise": {"fear": 0.40, "neutral": 0.25, "happiness": 0.22, "unknown": 0.13},
    "sadness": {"neutral": 0.55, "anger": 0.14, "fear": 0.12, "disgust": 0.08, "unknown": 0.11},
    "anger": {"neutral": 0.30, "disgust": 0.30, "sadness": 0.17, "contempt": 0.08, "fear": 0.05, "unknown": 0.10},
    "disgust": {"anger": 0.48, "sadness": 0.17, "contempt": 0.12, "neutral": 0.11, "unknown": 0.12},
    "fear": {"surprise": 0.58, "sadness": 0.18, "neutral": 0.08, "anger": 0.05, "unknown": 0.11},
    "contempt": {"neutral": 0.48, "happiness": 0.27, "anger": 0.07, "sadness": 0.05, "unknown": 0.13},
}  # fmt: skip


@dataclass(frozen=True)
class Actions:
    """Units (N, 15), side (N,) of unilateral units (-1 left, +1 right of the image, 0 both), intensity (N,)."""

    units: np.ndarray
    side: np.ndarray
    intensity: np.ndarray


def draw_actions(draws: Draws, expression: np.ndarray, low: float, high: float, stray: float) -> Actions:
    """Action units of N faces whose `expression` (N,) indexes EXPRESSIONS.

    The overall intensity is uniform in [low, high]; every unit of the prototype comes or stays away by its probability
    and varies by itself; units foreign to the expression appear weakly with probability `stray` each.
    """
    n = len(draws)
    intensity = draws.uniform(low, high)
    side = np.where(draws.chance(0.5), 1.0, -1.0)
    units = np.zeros((n, len(UNITS)))
    slight = draws.chance(0.45)  # neutral faces that are not quite at rest
    for unit in UNITS:
        p, level = np.zeros(n), np.zeros(n)
        for number, name in enumerate(EXPRESSIONS):
            for act in PROTOTYPES[name]:
                if act.unit == unit:
                    p[expression == number] = act.p
                    level[expression == number] = act.level
        present = draws.chance(p)
        own = np.minimum(level * intensity * draws.uniform(0.7, 1.25), 1.0)
        foreign = draws.chance(stray) & ((expression != 0) | slight)
        weak = draws.uniform(0.05, 0.3)
        units[:, COLUMN[unit]] = np.where(present, own, np.where(foreign, weak, 0.0))
    neutral = expression == EXPRESSIONS.index("neutral")
    side = np.where(expression == EXPRESSIONS.index("contempt"), side, 0.0)
    # an intended neutral has no intensity: its clarity is the absence of stray units
    strongest = units.max(axis=1)
    return Actions(units, side, np.where(neutral, 1.0 - 2.0 * strongest, intensity))


def draw_votes(draws: Draws, expression: np.ndarray, intensity: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Ten raters' votes (N, 10) int64 over VOTES.

    A rater errs with a probability that falls with `intensity` and rises where the face is `hidden` (0..1), and then
    votes by CONFUSION. The set holds only images the raters agree on, as FER+'s majority rule keeps: where another
    class got the most votes its count is exchanged with the label's.
    """
    n = len(draws)
    table = np.zeros((len(EXPRESSIONS), len(VOTES)))
    for row, name in enumerate(EXPRESSIONS):
        for other, share in CONFUSION[name].items():
            table[row, VOTES.index(other)] = share
    edges = table.cumsum(axis=1)
    edges /= edges[:, -1:]
    doubt = 1.0 - np.clip(intensity, 0.0, 1.0)
    error = np.clip(0.03 + 0.62 * doubt * np.sqrt(doubt) + 0.15 * hidden, 0.0, 0.8)
    votes = np.zeros((n, len(VOTES)), np.int64)
    rows = np.arange(n)
    for _ in range(RATERS):
        wrong = draws.chance(error)
        other = (draws.unit()[:, None] >= edges[expression]).sum(axis=1)
        np.add.at(votes, (rows, np.where(wrong, np.minimum(other, len(VOTES) - 1), expression)), 1)
    top = votes.argmax(axis=1)
    beaten = votes[rows, top] > votes[rows, expression]
    winner, own = votes[rows, top].copy(), votes[rows, expression].copy()
    votes[rows[beaten], top[beaten]] = own[beaten]
    votes[rows[beaten], expression[beaten]] = winner[beaten]
    return votes
