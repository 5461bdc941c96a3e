"""What a network may be asked of a SynthFER image in place of its class: landmarks, who it shows, the scene.

None of the last two says anything of the expression: action units are drawn apart from person and scene.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.data.synthfer.sample import Facts, landmarks
from bench.errors import unknown


@dataclass(frozen=True)
class Fact:
    """One fact of a picture, (value - centre) / spread: about mean 0 and standard deviation 1 in variant `identities`.

    Attributes:
        of: person or scene, whose field it is.
        centre, spread: one number, or one for each channel of a colour.
    """

    name: str
    of: str
    centre: tuple[float, ...]
    spread: tuple[float, ...]


SCENE = (
    # pose, as tangents of half angles, and framing
    Fact("yaw_t", "scene", (0.0,), (0.17,)),
    Fact("pitch_t", "scene", (0.0,), (0.08,)),
    Fact("roll_t", "scene", (0.0,), (0.04,)),
    Fact("shift_x", "scene", (0.0,), (0.04,)),
    Fact("shift_y", "scene", (0.0,), (0.04,)),
    Fact("zoom", "scene", (1.0,), (0.05,)),
    # light and camera
    Fact("light_x", "scene", (0.0,), (0.52,)),
    Fact("light_y", "scene", (-0.35,), (0.28,)),
    Fact("gain", "scene", (1.0,), (0.11,)),
    Fact("warm", "scene", (0.0,), (0.04,)),
    # background and what hides the face
    Fact("back_a", "scene", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    Fact("back_b", "scene", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    Fact("occluded", "scene", (0.14,), (0.35,)),
    # how the person looks, whatever the face does
    Fact("skin", "person", (0.77, 0.59, 0.47), (0.16, 0.16, 0.16)),
    Fact("hair", "person", (0.39, 0.34, 0.30), (0.28, 0.28, 0.28)),
    Fact("cloth", "person", (0.48, 0.45, 0.43), (0.16, 0.20, 0.19)),
    Fact("hair_length", "person", (0.35,), (0.61,)),
    Fact("beard", "person", (0.08,), (0.22,)),
    Fact("moustache", "person", (0.13,), (0.27,)),
    Fact("glasses", "person", (0.13,), (0.33,)),
)
SCENE_NUMBERS = sum(len(fact.centre) for fact in SCENE)


def points(known: Facts) -> np.ndarray:
    """68 landmarks, float32 (N, 68, 2): x and y as fractions of the image side, (pixel + 0.5) / size."""
    found = (landmarks(known) + np.float32(0.5)) / np.float32(known.variant.size)
    return np.asarray(found, np.float32)


def persons(known: Facts) -> np.ndarray:
    """Who it is, int64 (N,): persons of a variant are numbered from 0, those of the training split first."""
    return known.identity


def scene(known: Facts) -> np.ndarray:
    """The facts of `SCENE`, float32 (N, SCENE_NUMBERS), a colour as three numbers."""
    occluded = {"occluded": (known.scene["occlusion"] > 0).astype(np.float64)}
    fields = {"scene": {**known.scene, **occluded}, "person": known.person}
    columns = [
        (fields[fact.of][fact.name].reshape(len(known.index), -1) - np.array(fact.centre)) / np.array(fact.spread)
        for fact in SCENE
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)


KINDS: dict[str, Callable[[Facts], np.ndarray]] = {"landmarks-68": points, "identity": persons, "scene": scene}


def targets(kind: str, known: Facts) -> np.ndarray:
    """The targets of N images.

    Raises:
        UserError: no such kind.
    """
    if kind not in KINDS:
        raise unknown("targets of synthfer", kind, KINDS)
    return KINDS[kind](known)
