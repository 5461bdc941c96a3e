"""CK+: posed expressions of 118 subjects from the neutral face to the peak (Lucey et al. 2010), and its protocols.

Layouts (bench/data/ckplus/layouts.py): the official sequences with landmarks, and the copy known as CK+48. Folds:
bench/data/ckplus/folds.py. Rules: `last3` takes the last three frames of each labelled sequence and, where a protocol
has the class neutral, the first three; `last1` takes the last and the first. `-random` deals images out to the folds;
else folds go by subject.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.data.ckplus.folds import SUBJECTS, at_random, by_subject
from bench.data.ckplus.layouts import CK48, Official, ckextended
from bench.data.listed import ListedDataset
from bench.data.listing import Layout, Listing
from bench.declare import Protocol
from bench.errors import UserError, unknown
from bench.registry import dataset

if TYPE_CHECKING:
    import pandas as pd

RULES = {"last3": (0, 1, 2, -3, -2, -1), "last1": (0, -1)}  # positions in a sequence, see ckplus_layouts.COLUMNS
RANDOM = "-random"
# SHA-256 over the sorted lines `sequence,class` of the 327 labelled sequences, from the list published with Emotion-FAN
SEQUENCES_SHA256 = "690cf30e4926a1f01d3c934f6a1512d2e591e9600e4f94bd89df32d465f07a35"


@dataset("ckplus", version=1)
class CKPlus(ListedDataset):
    """CK+, 327 labelled sequences, 7 expressions and neutral, ten folds."""

    formats: ClassVar[tuple[Layout, ...]] = (Official(), CK48())
    layouts: ClassVar[tuple[str, ...]] = tuple(layout.name for layout in formats)
    looked_for: ClassVar[str] = (
        "folders S005/001/... with frames (cohn-kanade-images) beside such folders with *_emotion.txt (Emotion) and "
        "*_landmarks.txt (Landmarks), or class folders with images named like S010_004_00000019.png (CK+48)"
    )
    default_preprocessing: ClassVar[str] = "ckplus-face-96"
    benchmark: ClassVar[str] = "ckplus-7@last3"
    official_names: ClassVar[str] = r"S\d{3}_\d{3}_\d{8}\.png"
    published_sizes = ("640x490", "640x480")

    @classmethod
    def near_miss(cls, root: Path) -> str:
        """What an incomplete copy lacks; also why ckextended.csv cannot be used."""
        return super().near_miss(root) or ckextended(root)

    def read_listing(self) -> Listing:
        """As the layout reads it; landmarks are those of the whole frames, so aligned ones have no boxes."""
        if isinstance(self.format, Official):
            return self.format.read(self.base, cropped=self.alignment is not None)
        return super().read_listing()

    def blocked(self, protocol: Protocol) -> UserError | None:
        """CK+48 has no neutral frames."""
        rule = protocol.rule.removesuffix(RANDOM)
        if not protocol.subset_of and rule not in RULES:
            return unknown("CK+ rule", protocol.rule, [*RULES, *(known + RANDOM for known in RULES)])
        if "neutral" in protocol.classes and isinstance(self.format, CK48):
            message = f"protocol {protocol.id} needs neutral frames, and {self.base} (CK+48) has the last three of each"
            hint = "use the official CK+ images and labels, or the protocols with 7 or 6 classes"
            return UserError(f"{message} sequence only", hint)
        return super().blocked(protocol)

    def select(self, frame: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
        """Frames the rule takes of sequences whose expression is in the protocol, with their fold; all are `test`."""
        rule = protocol.rule.removesuffix(RANDOM)
        classes = protocol.classes
        wanted = frame["position"].isin(RULES[rule]) & frame["expression"].isin(classes) & frame["label"].isin(classes)
        own = frame[wanted]
        if "neutral" in classes and not self.skip_bad:
            _enough_neutral(own, sum(position >= 0 for position in RULES[rule]), protocol)
        if protocol.rule.endswith(RANDOM):
            fold = own["name"].map(at_random(own["name"], protocol.folds))
        else:
            fold = own["subject"].map(by_subject(frame["subject"], protocol.folds))
        return own.assign(split="test", fold=fold.astype(int))

    def remarks(self) -> list[str]:
        found = super().remarks() + _labels_known(self.listing.frame)
        if isinstance(self.format, CK48) and self.profile.id == self.default_preprocessing:
            found.append(
                f"its 48x48 faces are enlarged to {self.profile.size}x{self.profile.size} by {self.profile.id}; "
                "--preprocessing ckplus-face-48 keeps them as they are"
            )
        return found


def _enough_neutral(own: pd.DataFrame, wanted: int, protocol: Protocol) -> None:
    """UserError where a sequence is so short that its first frames are also its last."""
    sequences = own.drop_duplicates("sequence")["sequence"].tolist()
    neutral = own.loc[own["position"] >= 0, "sequence"].value_counts()
    short = [sequence for sequence in sequences if neutral.get(sequence, 0) < wanted]
    if short:
        message = f"protocol {protocol.id}: {', '.join(short[:5])} ({len(short):,} in all) have fewer than {wanted}"
        hint = "restore the frames, or use the protocols with 7 or 6 classes"
        raise UserError(f"{message} frames before the last three, so there are too few neutral ones", hint)


def _labels_known(frame: pd.DataFrame) -> list[str]:
    """Whether the labelled sequences and their classes are the published ones; silent for other people's."""
    each = frame.drop_duplicates("sequence")
    lines = sorted(f"{name},{label}\n" for name, label in zip(each["sequence"], each["expression"], strict=True))
    if hashlib.sha256("".join(lines).encode()).hexdigest() == SEQUENCES_SHA256:
        return ["its 327 labelled sequences and their expressions are those of the list published with Emotion-FAN"]
    if len(each) and set(each["subject"]) <= set(SUBJECTS):
        return [f"its {len(each):,} labelled sequences and their expressions are not quite the 327 published ones"]
    return []
