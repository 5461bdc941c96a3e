"""SynthFER as a dataset: protocols whose rule names a variant, e.g. `variant=ferplus seed=0`.

Words of a rule: `variant` and `seed` (both needed), `frames` (last3, or first3+last3 where the first three frames of a
sequence are its neutral images) and `subset` (occlusion, pose30, pose45: test images by attribute).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bench.data.base import Dataset, check_counts
from bench.data.synthfer.actions import VOTES
from bench.data.synthfer.rng import key_of, streams
from bench.data.synthfer.sample import RENDERER_VERSION, Facts, facts, images, landmarks
from bench.data.synthfer.targets import targets
from bench.data.synthfer.variants import Variant, variant_of
from bench.declare import Protocol
from bench.errors import UserError, unknown
from bench.registry import dataset

if TYPE_CHECKING:
    import pandas as pd

BLOCK_PIXELS = 512 * 64 * 64  # rendered at a time: large pictures too arrive soon and one after the other
FRAMES = {"all": range(8), "last3": (5, 6, 7), "first3+last3": (0, 1, 2, 5, 6, 7)}
SUBSETS = ("occlusion", "pose30", "pose45")
UNLABELLED = "unlabelled"


@dataset("synthfer", version=1)
class SynthFER(Dataset):
    """SynthFER, faces this project renders itself; stands in for every dataset of the papers."""

    layouts: ClassVar[tuple[str, ...]] = ()
    looked_for: ClassVar[str] = "nothing on disk: the images are made"

    def __init__(self, root: Path | None, protocol: Protocol) -> None:
        super().__init__(None, protocol)
        self.rule = parse_rule(protocol)
        self.variant: Variant = variant_of(self.rule["variant"])
        self.seed = int(self.rule["seed"])
        self.shape = self.variant.shape

    @classmethod
    def detect(cls, root: Path) -> str | None:
        """Never found on disk."""
        return None

    @property
    def storage(self) -> str:
        """Protocols of one variant and seed share their pixels."""
        return f"synthfer-{self.variant.name}-{self.seed}"

    def fingerprint(self) -> str:
        """Hash of renderer version, seed, and everything the variant declares."""
        return hashlib.sha256(f"{RENDERER_VERSION} {self.seed} {self.variant!r}".encode()).hexdigest()

    def names(self) -> list[str]:
        return [self._name(k) for k in range(self.variant.images)]

    def splits(self) -> list[str]:
        return list(self._facts.split)

    def pixels(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        return self._render(names, neutral=False)

    def twins(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        """The neutral twin of each image: same person, pose, light, background, occluder and noise, no expression."""
        return self._render(names, neutral=True)

    def landmarks(self, names: Sequence[str]) -> np.ndarray:
        """68 iBUG landmarks (N, 68, 2) float32, x and y in pixels."""
        return landmarks(self.facts(names))

    def targets(self, kind: str, names: Sequence[str]) -> np.ndarray:
        """As targets.py has them: `landmarks-68`, `identity` (int64) and `scene`."""
        return targets(kind, self.facts(names))

    def facts(self, names: Sequence[str]) -> Facts:
        """All that is known of the images `names`: action units, votes, identity, pose and so on."""
        return facts(self.variant.name, self.seed, [self._number(name) for name in names])

    def index(self, protocol: Protocol) -> pd.DataFrame:
        """Columns name, label, split, votes_<class, unknown, NF>, identity, subject, occlusion, yaw, pitch, roll,
        intensity.

        Sequences also have sequence and frame; `fold` is there where the protocol has folds (no subject in two of
        them).
        """
        import pandas as pd

        rule = parse_rule(protocol)
        if (rule["variant"], int(rule["seed"])) != (self.variant.name, self.seed):
            message = f"protocol {protocol.id} is not of variant '{self.variant.name}' seed {self.seed}"
            raise UserError(message, "open it by itself")
        known = self._facts
        frame = pd.DataFrame({"name": self.names(), "label": known.label, "split": known.split})
        for column, name in enumerate(VOTES):
            frame[f"votes_{name}"] = known.votes[:, column]
        frame["identity"] = known.identity
        frame["subject"] = [f"P{person:04d}" for person in known.identity]
        frame["occlusion"] = known.occlusion
        frame["yaw"], frame["pitch"], frame["roll"] = known.yaw, known.pitch, known.roll
        frame["intensity"] = known.intensity
        if self.variant.frames > 1:
            frame["sequence"], frame["frame"] = known.sequence, known.frame
            frame = frame[frame["frame"].isin(list(FRAMES[rule.get("frames", "all")]))]
        if protocol.classes:
            # a sequence counts where its expression does: its neutral frames go with it
            whole = frame.groupby("sequence")["label"].transform("last") if self.variant.frames > 1 else frame["label"]
            frame = frame[whole.isin(protocol.classes) & frame["label"].isin(protocol.classes)]
        else:
            frame["label"] = UNLABELLED
        if "subset" in rule:
            frame = frame[(frame["split"] == "test") & belongs(rule["subset"], frame)]
        if protocol.folds:
            frame = frame.assign(fold=self._fold(frame["identity"].to_numpy(), protocol.folds), split="test")
        frame = frame.reset_index(drop=True)
        check_counts(frame, protocol, f"SynthFER rule '{protocol.rule}'")
        return frame

    @cached_property
    def _facts(self) -> Facts:
        return facts(self.variant.name, self.seed, range(self.variant.images))

    def _fold(self, identity: np.ndarray, folds: int) -> np.ndarray:
        """Fold of each image, by person: persons are dealt out in a shuffled order."""
        persons = np.unique(identity)
        order = np.argsort(streams(key_of("fold", self.variant.name, self.seed), persons), kind="stable")
        fold = np.empty(len(persons), np.int64)
        fold[order] = np.arange(len(persons)) % folds
        return fold[np.searchsorted(persons, identity)]

    def _render(self, names: Sequence[str], neutral: bool) -> Iterator[np.ndarray]:
        block = max(1, BLOCK_PIXELS // self.variant.size**2)
        for first in range(0, len(names), block):
            yield from images(self.facts(names[first : first + block]), neutral)

    def _name(self, number: int) -> str:
        return f"{self.variant.name}-{self.seed}-{number:06d}"

    def _number(self, name: str) -> int:
        head, _, tail = name.rpartition("-")
        if head != f"{self.variant.name}-{self.seed}" or not tail.isdigit():
            message = f"'{name}' is no image of SynthFER variant '{self.variant.name}' seed {self.seed}"
            raise UserError(message, "see names()")
        return int(tail)


def belongs(subset: str, frame: pd.DataFrame) -> np.ndarray:
    """Which rows lie in a subset: an occluder is there, or yaw or pitch is at least 30 or 45 degrees."""
    if subset == "occlusion":
        return (frame["occlusion"] != "none").to_numpy()
    turned = np.maximum(np.abs(frame["yaw"].to_numpy()), np.abs(frame["pitch"].to_numpy()))
    return np.asarray(turned >= float(subset.removeprefix("pose")))


def parse_rule(protocol: Protocol) -> dict[str, str]:
    """The words of a protocol's rule, checked."""
    words = dict(word.split("=", 1) for word in protocol.rule.split() if "=" in word)
    for word in words:
        if word not in ("variant", "seed", "frames", "subset"):
            raise unknown(f"word in the rule of {protocol.id}", word, ("variant", "seed", "frames", "subset"))
    if "variant" not in words or not words.get("seed", "").isdigit():
        message = f"protocol {protocol.id}: rule '{protocol.rule}' lacks variant or seed"
        raise UserError(message, "write 'variant=ferplus seed=0'")
    if words.get("frames", "all") not in FRAMES:
        raise unknown(f"frames of {protocol.id}", words["frames"], FRAMES)
    if words.get("subset", "pose30") not in SUBSETS:
        raise unknown(f"subset of {protocol.id}", words["subset"], SUBSETS)
    return words
