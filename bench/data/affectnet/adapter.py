"""AffectNet (Mollahosseini et al. 2017, arXiv 1708.03985): the manually labelled part, 287,651 training images.

Two releases differ in names and by one test image: that of 2017 has 4,000 (affectnet-8@4000), that of 2021 has 3,999
(affectnet-8@3999). Seven classes are the same index without contempt and alike in both. Layouts: the csv files of 2017,
the npy files of 2021, and what public code makes of either: lists, one table, class folders.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.data.affectnet.folders import ClassFolders
from bench.data.affectnet.layouts import CLASSES, NAMES_OF, RELEASE_2017, RELEASE_2021, AffectNetLayout
from bench.data.affectnet.lists import PhaseTable, SplitLists
from bench.data.affectnet.others import not_affectnet
from bench.data.affectnet.release_2017 import Release2017
from bench.data.affectnet.release_2021 import Release2021
from bench.data.listed import ListedDataset
from bench.data.listing import Layout
from bench.declare import Protocol
from bench.errors import UserError, unknown
from bench.registry import dataset

if TYPE_CHECKING:
    import pandas as pd

SEVEN = "affectnet-7"
EIGHT = {RELEASE_2017: "affectnet-8@4000", RELEASE_2021: "affectnet-8@3999"}
RELEASE_OF_RULE = {"manual-2017": RELEASE_2017, "manual-2021": RELEASE_2021}
UNLABELLED, ALIGNED = "unlabelled", "aligned-faces"
RULES = ("manual", *RELEASE_OF_RULE, UNLABELLED, ALIGNED)
FACES = "affectnet-faces@287651"
RAN = "ran-"  # starts the rule of a subset whose list has names of 2017
CONTEMPT = "contempt"
UNMAPPED = "the names of the two releases cannot be mapped to each other"
RELEASE_OF_CONTEMPT = {500: RELEASE_2017, 499: RELEASE_2021}  # contempt images in the test split


@dataset("affectnet", version=1)
class AffectNet(ListedDataset):
    """AffectNet, colour faces of any size, 7 or 8 expressions by one annotator each."""

    formats: ClassVar[tuple[Layout, ...]] = (Release2017(), Release2021(), SplitLists(), PhaseTable(), ClassFolders())
    layouts: ClassVar[tuple[str, ...]] = tuple(layout.name for layout in formats)
    looked_for: ClassVar[str] = (
        "training.csv and validation.csv with Manually_Annotated_Images/<number>/<56 hex digits>.jpg (2017), "
        "train_set and val_set with images/<number>.jpg and annotations/<number>_exp.npy (2021), either with lists of "
        "POSTER, QCS or DAN, or train/ and val/ (valid/, test/) with a folder per class"
    )
    default_preprocessing: ClassVar[str] = "affectnet-224"
    official_names: ClassVar[str] = r"[0-9a-f]{56}|(train|test)/\d+"

    @classmethod
    def found_layouts(cls, root: Path) -> list[tuple[Layout, Path]]:
        """As in every dataset, but a set that only carries AffectNet's name is none."""
        found = super().found_layouts(root)
        return [] if found and not_affectnet(root) else found

    @classmethod
    def near_miss(cls, root: Path) -> str:
        """What an incomplete copy lacks, or that a set of this name is another one."""
        return not_affectnet(root) or super().near_miss(root)

    @property
    def benchmark(self) -> str:  # type: ignore[override]
        """The protocol the literature reports for this copy: of eight classes, of its release, or of seven."""
        return EIGHT.get(self.release, SEVEN) if self.classes == len(CLASSES) else SEVEN

    @property
    def published_sizes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of 2021 are faces of 224x224; those of 2017 whole pictures of any size."""
        return ("224x224",) if self.named == RELEASE_2021 else ()

    @cached_property
    def release(self) -> str:
        """ "2017" or "2021", by names or else by the number of contempt test images; "" where neither tells."""
        if self.named:
            return self.named
        try:
            frame = self.listing.frame
        except UserError:  # it is told when the labels are asked for
            return ""
        contempt = int(((frame["label"] == CONTEMPT) & (frame["split"] == "test")).sum())
        return RELEASE_OF_CONTEMPT.get(contempt, "")

    @cached_property
    def named(self) -> str:
        """The release whose names the files have; "" where they have other names."""
        assert isinstance(self.format, AffectNetLayout)
        return self.format.release(self.base)

    @cached_property
    def classes(self) -> int:
        """8, or 7 in a copy without contempt."""
        assert isinstance(self.format, AffectNetLayout)
        told = self.format.classes(self.base)
        if told:
            return told
        try:
            return int(self.listing.frame["label"].nunique())
        except UserError:
            return len(CLASSES)

    def blocked(self, protocol: Protocol) -> UserError | None:
        """Another release, seven classes where eight are asked for, or a list that is not published."""
        if protocol.subset_of:
            return self._ran_blocked(protocol) or super().blocked(protocol)
        if protocol.rule not in RULES:
            return unknown("AffectNet label rule", protocol.rule, RULES)
        if protocol.rule == ALIGNED:
            message = f"protocol {protocol.id}: the list of faces that PF-ViT kept after alignment is not published"
            return UserError(message, f"use {FACES}: all labelled training faces")
        needed = RELEASE_OF_RULE.get(protocol.rule, "")
        if needed and self.release != needed:
            return self._other_release(protocol, needed)
        if (CONTEMPT in protocol.classes or protocol.rule == UNLABELLED) and self.classes < len(CLASSES):
            message = f"protocol {protocol.id} needs 8 classes; {self.folder} has 7, contempt was left out of it"
            return UserError(message, f"use {SEVEN}, or point --data-root at a copy with contempt")
        return super().blocked(protocol)

    def select(self, frame: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
        """The protocol's classes from one index; for the unlabelled faces the training split, label "unlabelled"."""
        if protocol.rule == UNLABELLED:
            return frame[frame["split"] == "train"].assign(label=UNLABELLED)
        return super().select(frame, protocol)

    def _ran_blocked(self, protocol: Protocol) -> UserError | None:
        """RAN's lists name images of 2017, and no public table maps those names to others."""
        if not protocol.rule.startswith(RAN) or self.named == RELEASE_2017:
            return None
        what = self._is_what() if self.named else f"the files of {self.folder} have other names"
        message = f"protocol {protocol.id} needs AffectNet's release of 2017, whose names RAN's lists have, and {what}"
        return UserError(message, f"point --data-root at the release of 2017; {UNMAPPED}")

    def _other_release(self, protocol: Protocol, needed: str) -> UserError:
        message = f"protocol {protocol.id} is of AffectNet's release of {needed}, and {self._is_what()}"
        instead = EIGHT.get(self.release, SEVEN) if self.classes == len(CLASSES) else SEVEN
        return UserError(message, f"use {instead}, or point --data-root at the release of {needed}")

    def _is_what(self) -> str:
        if not self.release:
            return f"the file names of {self.folder} are of neither release"
        return f"{self.folder} is that of {self.release} ({NAMES_OF[self.release]})"
