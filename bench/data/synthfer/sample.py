"""`sample(variant, seed, indices)`: images with all that is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.data.synthfer.actions import EXPRESSIONS, Actions, draw_actions, draw_votes
from bench.data.synthfer.geometry import controls
from bench.data.synthfer.geometry import landmarks as landmark_points
from bench.data.synthfer.people import Fields, people
from bench.data.synthfer.render import render
from bench.data.synthfer.rng import Draws, key_of
from bench.data.synthfer.scene import OCCLUSIONS, degrees, draw_scene
from bench.data.synthfer.variants import Roster, Variant, roster, variant_of
from bench.errors import UserError

# Raised whenever the pixels or the facts of any (variant, seed, index) change; part of every fingerprint and cache key.
RENDERER_VERSION = 1
# Share of the peak intensity in each frame of a sequence of eight: three neutral frames, the onset, three near the
# peak.
RAMP = (0.0, 0.0, 0.0, 0.3, 0.6, 0.85, 0.95, 1.0)
HIDDEN = {"none": 0.0, "sunglasses": 0.6, "mask": 0.9, "hand": 0.4}


@dataclass(frozen=True)
class Facts:
    """What is known about N images.

    index, identity: (N,) int64; label, split, occlusion: N names; sequence, frame: (N,) int64 (frame 0 where no
    sequences) units: (N, 15) action units 0..1 in the order of actions.UNITS; side: (N,) -1, 0, +1 of unilateral units
    intensity: (N,) of the expression in the picture; votes: (N, 10) int64 in the order of actions.VOTES yaw, pitch,
    roll: (N,) degrees; fields: what the renderer reads.
    """

    variant: Variant
    seed: int
    index: np.ndarray
    label: tuple[str, ...]
    split: tuple[str, ...]
    identity: np.ndarray
    sequence: np.ndarray
    frame: np.ndarray
    units: np.ndarray
    side: np.ndarray
    intensity: np.ndarray
    votes: np.ndarray
    occlusion: tuple[str, ...]
    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    person: Fields
    scene: Fields


def facts(name: str, seed: int, indices: Sequence[int] | np.ndarray) -> Facts:
    """Everything about the images `indices` of a variant but their pixels."""
    variant = variant_of(name)
    index = np.asarray(indices, np.int64)
    if len(index) and (index.min() < 0 or index.max() >= variant.images):
        raise UserError(
            f"SynthFER variant '{name}' has images 0 to {variant.images - 1}", "ask for an index in this range"
        )
    return facts_of(variant, roster(name, seed), seed, index)


def facts_of(variant: Variant, known: Roster, seed: int, index: np.ndarray) -> Facts:
    """`facts` of a variant that stands in no list, with its own roster; its name is part of every draw."""
    name = variant.name
    unit, frame = index // variant.frames, index % variant.frames
    expression = np.array([EXPRESSIONS.index(known.label[k]) for k in unit], np.int64)
    identity = known.person[unit]
    person = people(key_of("people", seed), identity + 100_000 * key_of(name) % 2**40)
    draws = Draws(key_of("scene", name, seed), unit)
    actions = draw_actions(draws, expression, variant.low, variant.high, variant.stray)
    scene = draw_scene(draws, variant.conditions)
    occlusion = tuple(OCCLUSIONS[int(k)] for k in scene["occlusion"])
    actions, label = _frames(variant, actions, known.label, unit, frame)
    expression = np.array([EXPRESSIONS.index(one) for one in label], np.int64)
    hidden = np.array([HIDDEN[kind] for kind in occlusion])
    votes = draw_votes(Draws(key_of("votes", name, seed), index), expression, actions.intensity, hidden)
    return Facts(
        variant, seed, index, label,
        split=tuple(known.split[k] for k in unit), identity=identity, sequence=unit, frame=frame,
        units=actions.units, side=actions.side, intensity=actions.intensity, votes=votes, occlusion=occlusion,
        yaw=degrees(scene["yaw_t"]), pitch=degrees(scene["pitch_t"]), roll=degrees(scene["roll_t"]),
        person=person, scene=scene,
    )  # fmt: skip


def _frames(
    variant: Variant, peak: Actions, labels: tuple[str, ...], unit: np.ndarray, frame: np.ndarray
) -> tuple[Actions, tuple[str, ...]]:
    """The actions of each frame of a sequence; the first three frames are neutral by name and by face."""
    if variant.frames == 1:
        return peak, tuple(labels[k] for k in unit)
    share = np.array(RAMP)[frame]
    units = peak.units * share[:, None]
    intensity = np.where(share == 0, 1.0, peak.intensity * share)
    names = tuple("neutral" if s == 0 else labels[k] for k, s in zip(unit, share, strict=True))
    return Actions(units, peak.side, intensity), names


def _fields(known: Facts, neutral: bool) -> Fields:
    units = np.zeros_like(known.units) if neutral else known.units
    return controls(known.person, known.scene, units, known.side)


def images(known: Facts, neutral: bool = False) -> np.ndarray:
    """Pixels, uint8 (N, H, W) or (N, H, W, 3).

    With `neutral`, the neutral twins: same person, pose, light, background, occluder and sensor noise, all action units
    0.
    """
    variant = known.variant
    key = key_of("noise", variant.name, known.seed)
    return render(_fields(known, neutral), variant.size, variant.colour, key, known.index)


def landmarks(known: Facts, neutral: bool = False) -> np.ndarray:
    """The 68 iBUG landmarks (N, 68, 2) float32 in pixels (x, y)."""
    return landmark_points(_fields(known, neutral), known.variant.size)
