"""RAF-DB basic: 15,339 aligned colour faces of 100x100, seven expressions, official train and test (Li et al. 2017).

Official ids are 1 to 7 = surprise, fear, disgust, happiness, sadness, anger, neutral. There is no official validation
split. Layouts are in rafdb_layouts.py (label lists) and rafdb_folders.py (class folders); whichever it is, an image has
its official name (train_00001.jpg) where the file tells it, so that copies in any layout give the same manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench.data.listed import ListedDataset
from bench.data.rafdb.folders import Folders, Renamed
from bench.data.rafdb.layouts import Apvit, ListPerSplit, Nr, Official, OneList, Scn, about_images
from bench.data.rafdb.names import BENCHMARK, image_folder
from bench.declare import Protocol
from bench.errors import UserError, unknown
from bench.registry import dataset

if TYPE_CHECKING:
    from bench.data.listing import Layout

RULE = "official"


@dataset("rafdb", version=1)
class RAFDB(ListedDataset):
    """RAF-DB basic, 100x100 colour, 7 expressions, official split."""

    formats: ClassVar[tuple[Layout, ...]] = (Official(), Nr(), Apvit(), Scn(), Folders(), Renamed())
    layouts: ClassVar[tuple[str, ...]] = tuple(layout.name for layout in formats)
    looked_for: ClassVar[str] = (
        "EmoLabel/list_patition_label.txt with lines such as 'train_00001.jpg 5' and Image/aligned or Image/original, "
        "or that list beside aligned/, or class folders in train and test with RAF-DB's names or counts"
    )
    default_preprocessing: ClassVar[str] = "rafdb-aligned-100"
    benchmark: ClassVar[str] = BENCHMARK
    official_names: ClassVar[str] = r"train_\d{5}\.jpg|test_\d{4}\.jpg"
    published_sizes = ("100x100",)

    def blocked(self, protocol: Protocol) -> UserError | None:
        """An unknown rule; for subsets, what `subset_blocked` finds."""
        if not protocol.subset_of and protocol.rule != RULE:
            return unknown("RAF-DB label rule", protocol.rule, [RULE])
        return super().blocked(protocol)

    def departures(self) -> list[str]:
        """Besides names and sizes: images that are the originals, or aligned by others."""
        images = self.format.images if isinstance(self.format, OneList | ListPerSplit) else ()
        return [*filter(None, [about_images(image_folder(self.base, images))]), *super().departures()]
