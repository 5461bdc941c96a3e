"""The variants of SynthFER: one for each real data set it stands in for, with declared sizes and class imbalance."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from bench.data.synthfer.rng import key_of, mix64, streams
from bench.data.synthfer.scene import Conditions
from bench.errors import unknown

FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
RAF = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
AFFECTNET = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
CKPLUS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")


@dataclass(frozen=True)
class Variant:
    """What a stand-in looks like and how many images of which class each split holds.

    splits: {split: {class: images}} in index order, for sequences {split: {class: sequences}}.
    frames: images per unit; more than 1 means sequences from neutral to peak, one unit a sequence.
    persons: {split: identities}; splits never share a person.
    low, high: range of intensity; stray: chance of a foreign unit.
    """

    name: str
    size: int
    colour: bool
    splits: dict[str, dict[str, int]]
    persons: dict[str, int]
    frames: int = 1
    low: float = 0.3
    high: float = 1.0
    stray: float = 0.06
    conditions: Conditions = field(default_factory=Conditions)

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, 3)."""
        return (self.size, self.size, 3) if self.colour else (self.size, self.size)

    @property
    def units(self) -> int:
        """Images, or sequences where frames > 1."""
        return sum(sum(classes.values()) for classes in self.splits.values())

    @property
    def images(self) -> int:
        return self.units * self.frames


def _classes(order: tuple[str, ...], *numbers: int) -> dict[str, int]:
    return dict(zip(order, numbers, strict=True))


_LAB = Conditions(
    yaw=0.02, pitch=0.015, turned=0.0, roll=0.015, shift=0.02, zoom=0.03, light=0.3, blur=0.3, noise=0.010,
    occluded=0.0, clutter=0.25,
)  # fmt: skip
_ALIGNED = Conditions(roll=0.015, shift=0.025, zoom=0.035, blur=0.4, noise=0.012)
_STUDIO = Conditions(
    yaw=0.05, pitch=0.03, turned=0.1, roll=0.015, shift=0.02, zoom=0.03, light=0.5, blur=0.3, noise=0.008,
    occluded=0.05, clutter=0.6,
)  # fmt: skip
_WILD = Conditions(blur=0.5, noise=0.016, light=0.8)
_WIDE = Conditions(
    yaw=0.10, pitch=0.07, turned=0.35, roll=0.08, shift=0.06, zoom=0.08, light=1.0, blur=0.5, noise=0.02, occluded=0.2,
)  # fmt: skip
_SHARP = replace(_WIDE, blur=0.1, noise=0.003)  # what super-resolution is to answer with, so with little noise
_AFFECTNET_TRAIN = _classes(AFFECTNET, 368, 518, 198, 133, 79, 55, 195, 54)

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            "ferplus", 48, False,
            {
                "train": _classes(FERPLUS, 390, 344, 222, 212, 174, 80, 98, 80),
                "val": _classes(FERPLUS, 58, 50, 34, 32, 26, 13, 14, 13),
                "test": _classes(FERPLUS, 112, 98, 66, 64, 52, 28, 32, 28),
            },
            {"train": 1000, "val": 160, "test": 320},
        ),
        Variant(
            "rafdb", 100, True,
            {
                "train": _classes(RAF, 202, 70, 134, 500, 272, 132, 290),
                "test": _classes(RAF, 60, 24, 40, 148, 82, 40, 86),
            },
            {"train": 1000, "test": 320}, conditions=_ALIGNED,
        ),
        Variant(
            "affectnet7", 64, True,
            {
                "train": {name: n for name, n in _AFFECTNET_TRAIN.items() if name != "contempt"},
                "test": dict.fromkeys(AFFECTNET[:7], 60),
            },
            {"train": 1300, "test": 280}, low=0.2, stray=0.09, conditions=_WILD,
        ),
        Variant(
            "affectnet8", 64, True, {"train": _AFFECTNET_TRAIN, "test": dict.fromkeys(AFFECTNET, 60)},
            {"train": 1300, "test": 320}, low=0.2, stray=0.09, conditions=_WILD,
        ),
        Variant(
            "ckplus", 48, False, {"train": _classes(CKPLUS, 33, 13, 43, 18, 51, 21, 61)}, {"train": 86}, frames=8,
            low=0.7, stray=0.02, conditions=_LAB,
        ),
        Variant(
            "own", 64, True,
            {"train": dict.fromkeys(RAF, 40), "val": dict.fromkeys(RAF, 10), "test": dict.fromkeys(RAF, 20)},
            {"train": 200, "val": 60, "test": 100},
        ),
        Variant(
            "unlabelled", 64, True, {"train": _classes(FERPLUS, 1000, 850, 500, 500, 450, 250, 250, 200)},
            {"train": 3000},
        ),
        Variant(
            "landmarks", 112, True, {"train": dict.fromkeys(FERPLUS, 500), "test": dict.fromkeys(FERPLUS, 50)},
            {"train": 3000, "test": 320}, low=0.2, stray=0.12, conditions=_WIDE,
        ),
        Variant(
            "highres", 384, True, {"train": dict.fromkeys(FERPLUS, 50), "test": dict.fromkeys(FERPLUS, 8)},
            {"train": 360, "test": 60}, low=0.2, stray=0.12, conditions=_SHARP,
        ),
        Variant(
            "identities", 64, True, {"train": dict.fromkeys(FERPLUS, 500), "test": dict.fromkeys(FERPLUS, 64)},
            {"train": 400, "test": 40}, conditions=_WILD,
        ),
        Variant(
            "pokerface", 64, True,
            {
                "train": {**dict.fromkeys(RAF, 450), "neutral": 1300},
                "test": {**dict.fromkeys(RAF, 60), "neutral": 120},
            },
            {"train": 3000, "test": 320}, low=0.5, stray=0.04, conditions=_STUDIO,
        ),
    )
}  # fmt: skip


def variant_of(name: str) -> Variant:
    """The variant `name`; UserError with the nearest names."""
    if name not in VARIANTS:
        raise unknown("SynthFER variant", name, VARIANTS)
    return VARIANTS[name]


@dataclass(frozen=True)
class Roster:
    """Per unit (image or sequence) of a variant: split, class and person, in index order."""

    split: tuple[str, ...]
    label: tuple[str, ...]
    person: np.ndarray


@lru_cache(maxsize=32)
def roster(name: str, seed: int) -> Roster:
    """Who shows what in which split: exact class counts in an order shuffled by (variant, seed)."""
    variant = variant_of(name)
    splits: list[str] = []
    labels: list[str] = []
    persons: list[int] = []
    unit, base = 0, 0
    for split, classes in variant.splits.items():
        names = [label for label, n in classes.items() for _ in range(n)]
        units = np.arange(unit, unit + len(names), dtype=np.uint64)
        order = np.argsort(streams(key_of("order", name, seed), units), kind="stable")
        pool = variant.persons[split]
        if variant.frames > 1:  # every person poses in turn
            chosen = np.arange(len(names)) % pool
        else:
            chosen = (mix64(streams(key_of("person", name, seed), units)) % np.uint64(pool)).astype(np.int64)
        splits += [split] * len(names)
        labels += [names[k] for k in order]
        persons += (chosen + base).tolist()
        unit, base = unit + len(names), base + pool
    return Roster(tuple(splits), tuple(labels), np.array(persons))
