"""FERPlus: the 48x48 grey faces of FER2013 with ten crowd votes each (Barsoum et al. 2016, arXiv 1608.01041).

Two layouts: the official folders FER2013{Train,Valid,Test} of PNG files with a label.csv each, and fer2013.csv (pixels)
beside fer2013new.csv (votes), joined by row order. The benchmark needs the votes of label.csv; a copy that has only
fer2013new.csv serves the protocols whose rule ends in `/fer2013new`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.data.base import SPLITS, Dataset, check_counts
from bench.data.ferplus import labels
from bench.data.ferplus.files import FOLDERS, SIZE, Found, PixelRows, look, read_png
from bench.data.listing import ALIGNED, is_aligned
from bench.data.subsets import subset_blocked, subset_index
from bench.declare import Protocol
from bench.errors import UserError, unknown
from bench.registry import dataset

if TYPE_CHECKING:
    import pandas as pd

OTHER_SOURCE = "/fer2013new"  # ends a rule that takes votes from fer2013new.csv, not label.csv
EXCHANGED = "/exchanged"  # ends a rule whose validation images are PrivateTest and whose test images are PublicTest
GET = "get it from github.com/microsoft/FERPlus"


@dataset("ferplus", version=1)
class FERPlus(Dataset):
    """FERPlus, 48x48 grey, 8 expressions by ten votes per image."""

    shape = (SIZE, SIZE)
    layouts: ClassVar[tuple[str, ...]] = ("folders", "csv+label.csv", "csv")
    looked_for: ClassVar[str] = (
        "FER2013Train, FER2013Valid, FER2013Test with a label.csv of 'name,box,10 votes' and PNG files (or in data/), "
        "or a table with the columns emotion, pixels, Usage beside one whose header starts 'Usage,Image name'"
    )
    benchmark: ClassVar[str] = "ferplus-8@majority"
    known_files: ClassVar[dict[str, str]] = {
        "a82c40c825505cd30e139195c246bc38f8ac39de0e8968cbf15e1dab7837658c": "FER2013Train/label.csv",
        "aad6298bed23cad816550362c2c00ae49b99513c7cae7d49651f347afd9ab860": "FER2013Valid/label.csv",
        "425142295cc23872651271be9f45a99dac11af426f948d1b60967c8845b7bdf2": "FER2013Test/label.csv",
        "9206e20d62f56475939f516847d61753e4860caeac9718b560129541b776fc2c": "fer2013new.csv",
    }
    known_manifests: ClassVar[dict[str, str]] = {
        "ferplus-8@majority": "e5410c423dd5ad4aa3efe858212cb8e889e1f71576b186074d9ccd5f769054ee"
    }
    published_sizes = ("48x48 grey",)
    known_pixels: ClassVar[str] = "8b5d49e3390b40ab80f97103ddf8c99f29aef1b1d781e9f372a62cb1235ecd1f"
    # Names used for two pictures: the official exporter leaves the second one's pixels under the name, fer2013.csv
    # joined by row gives the first one's.
    unstable_images: ClassVar[frozenset[str]] = frozenset(
        {"fer0006953.png", "fer0008403.png", "fer0011785.png", "fer0033120.png"}
    )

    def __init__(self, root: Path | None, protocol: Protocol) -> None:
        super().__init__(root, protocol)
        if root is None:
            raise UserError("FERPlus is read from disk and needs a folder", "set --data-root or FERBENCH_DATA")
        self.folder = root
        self.found: Found = look(root)
        if self.found.layout is None:
            raise UserError(self.found.lacks() or f"{root} is not a FERPlus copy", f"looked for {self.looked_for}")
        self.layout: str = self.found.layout

    @classmethod
    def detect(cls, root: Path) -> str | None:
        """`folders`, `csv+label.csv` or `csv`; None when labels or pictures are lacking."""
        return look(root).layout

    @classmethod
    def near_miss(cls, root: Path) -> str:
        """What an incomplete copy lacks; also says when fer2013.csv is really fer2013new.csv."""
        return look(root).lacks()

    @property
    def decode(self) -> dict[str, object]:  # type: ignore[override]
        """Grey, 48x48, and what aligned the images where `data align` did."""
        return {"mode": "L", "size": [SIZE, SIZE]} | self.aligned_by()

    @cached_property
    def alignment(self) -> dict[str, Any] | None:
        """As `Dataset.alignment`; pixels in a table are copied, not aligned."""
        return super().alignment if self.layout == "folders" else None

    def places(self) -> list[Path]:
        return [self.folder, self.folder / "data"]

    def fingerprint(self) -> str:
        """Hash of layout, names, sizes and times of label files, fer2013.csv and the image folders.

        A picture overwritten in place is not seen (adding, removing and replacing files is).
        """
        found = self.found
        files = [*found.labels.values(), *(p for p in (found.votes, found.pixels) if p)]
        parts = [self.layout]
        for path in files:
            stat = path.stat()
            parts.append(f"{path.relative_to(self.folder)} {stat.st_size} {stat.st_mtime_ns}")
        if self.layout == "folders":
            parts += [f"{f.name} {f.stat().st_mtime_ns}" for f in found.folders.values() if f.is_dir()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def blocked(self, protocol: Protocol) -> UserError | None:
        """The reason this copy lacks the votes (or the list) that `protocol` needs."""
        stop = self.alignment_blocked()
        if stop is not None:
            return stop
        if protocol.subset_of:
            return subset_blocked(self, protocol)
        rule, from_new = _source(protocol)
        if rule not in labels.RULES:
            known = [known + ending for known in labels.RULES for ending in ("", OTHER_SOURCE, EXCHANGED)]
            return unknown("FERPlus label rule", protocol.rule, known)
        if from_new and self.found.votes is None:
            return UserError(f"protocol {protocol.id} needs fer2013new.csv, which is not in {self.folder}", GET)
        if not from_new and self.layout == "csv":
            return UserError(
                f"protocol {protocol.id} needs the votes of label.csv; {self.folder} has only fer2013new.csv, "
                "whose votes differ for 1,602 images and give another test set",
                "put FER2013Train, FER2013Valid and FER2013Test with their label.csv (data/ of "
                f"github.com/microsoft/FERPlus) beside it, or use ferplus-8@{rule}-fer2013new",
            )
        return None

    def index(self, protocol: Protocol) -> pd.DataFrame:
        """Columns name, label, split, votes_<class> (8); under the soft rule also soft_<class>, which sum to 1."""
        import pandas as pd

        problem = self.blocked(protocol)
        if problem:
            raise problem
        if protocol.subset_of:
            return subset_index(self, protocol)
        rule, from_new = _source(protocol)
        table = self._from_votes() if from_new else self._from_labels
        numbers = np.where(self._present(table), labels.RULES[rule](table.votes), labels.NONE)
        kept = np.flatnonzero(numbers != labels.NONE)
        frame = pd.DataFrame(
            {
                "name": np.array(table.names, dtype=object)[kept],
                "label": np.array(labels.EMOTIONS, dtype=object)[numbers[kept]],
                "split": np.array(table.splits, dtype=object)[kept],
            }
        )
        if protocol.rule.endswith(EXCHANGED):
            frame["split"] = frame["split"].replace({"val": "test", "test": "val"})
        for column, emotion in enumerate(labels.EMOTIONS):
            frame[f"votes_{emotion}"] = table.votes[kept, column].astype(np.int16)
        if rule == "soft":
            targets = labels.soft_targets(table.votes[kept]).astype(np.float32)
            for column, emotion in enumerate(labels.EMOTIONS):
                frame[f"soft_{emotion}"] = targets[:, column]
        source = "fer2013new.csv" if from_new else "label.csv"
        check_counts(frame, protocol, f"{self.folder}: {source} with rule '{rule}'", skipped=len(self.skipped))
        return frame

    def names(self) -> list[str]:
        return self._storage.names

    def splits(self) -> list[str]:
        return self._storage.splits

    def pixels(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        for found in self.decoded(names):
            if isinstance(found, UserError):
                raise found
            yield found

    def decoded(self, names: Sequence[str]) -> Iterator[np.ndarray | UserError]:
        for name in names:
            try:
                image = self.read(name)
            except UserError as error:
                yield error
                continue
            if image.shape == self.shape:
                yield image
                continue
            size = f"{image.shape[1]}x{image.shape[0]}{' colour' if image.ndim == 3 else ''}"
            message = f"{self._place(name)} is {size}, not 48x48 grey"
            yield UserError(message, "use FER2013's own images, not a resized copy")

    def read(self, name: str) -> np.ndarray:
        if name not in self._positions:
            raise unknown("FERPlus image", name, self._positions)
        if self.layout == "folders":
            return read_png(self._place(name))
        return self._pixel_rows.read(self._row_of[name])

    def image_file(self, name: str) -> Path | None:
        return self._place(name) if self.layout == "folders" else None

    def label_files(self) -> dict[str, Path]:
        files = [*self.found.labels.values(), *([self.found.votes] if self.found.votes else [])]
        return {str(path.relative_to(self.folder)): path for path in files}

    def missing(self) -> list[str]:
        if self.layout != "folders":
            return []
        there = self._pictures
        return [n for n, s in zip(self.names(), self.splits(), strict=True) if n not in there[s]]

    def extra(self) -> list[str]:
        if self.layout != "folders":
            return []
        listed = set(zip(self.splits(), self.names(), strict=True))
        there = [(split, name) for split, names in self._pictures.items() for name in sorted(names)]
        return [f"{FOLDERS[split]}/{name}" for split, name in there if (split, name) not in listed]

    def remarks(self) -> list[str]:
        aligned = self.alignment_remark()
        name = "fer0033120.png"
        if name not in self._positions:
            return aligned
        if self.layout == "folders":
            kept = "the official exporter keeps the second, a 'missing image' warning triangle"
        else:
            kept = "this layout gives the first; PNG copies have the second, a 'missing image' warning triangle"
        return [*aligned, f"{name} (test, neutral in the benchmark) names two pictures: {kept}"]

    @property
    def _left_out(self) -> dict[str, str] | None:
        """Where wrong rows are entered; None where they are an error."""
        return self.skipped if self.skip_bad else None

    @cached_property
    def _from_labels(self) -> labels.Votes:
        """The three label.csv; the first row of a repeated name counts."""
        names: list[str] = []
        splits: list[str] = []
        votes = []
        for split in SPLITS:
            path = self.found.folders[split] / "label.csv"
            if split not in self.found.labels:
                what = path if path.parent.is_dir() else path.parent
                raise UserError(f"{what} is missing: there is no {split} split", GET)
            some, table = labels.read_label_csv(path, self._left_out)
            names += some
            splits += [split] * len(some)
            votes.append(table)
        if len(set(names)) != len(names):
            split_of: dict[str, str] = {}
            for name, split in zip(names, splits, strict=True):
                if split_of.setdefault(name, split) != split:
                    message = f"{self.folder}: '{name}' is in the label.csv of {split_of[name]} and of {split}"
                    raise UserError(message, GET)
        return labels.Votes(names, splits, np.concatenate(votes))

    @cached_property
    def _rows(self) -> labels.Rows:
        if self.found.votes is None:
            raise UserError(f"fer2013new.csv is not in {self.folder}", GET)
        return labels.read_fer2013new(self.found.votes, self._left_out)

    def _from_votes(self) -> labels.Votes:
        """fer2013new.csv without nameless rows, the first row of a repeated name."""
        first = self._rows.first_of_each_name()
        splits = [labels.USAGES[self._rows.usage[i]] for i in first]
        return labels.Votes([self._rows.names[i] for i in first], splits, self._rows.votes[first])

    @cached_property
    def _storage(self) -> labels.Votes:
        return self._from_labels if self.layout == "folders" else self._from_votes()

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._storage.names)}

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {self._rows.names[i]: i for i in self._rows.first_of_each_name()}

    @cached_property
    def _pixel_rows(self) -> PixelRows:
        assert self.found.pixels is not None  # the csv layouts have it
        return PixelRows(self.found.pixels, self._rows.usage)

    @cached_property
    def _pictures(self) -> dict[str, set[str]]:
        """Files other than label.csv in each split's folder."""
        found: dict[str, set[str]] = {}
        for split, folder in self.found.folders.items():
            others = {"label.csv", *(ALIGNED if is_aligned(folder) else ())}
            found[split] = set(os.listdir(folder)) - others if folder.is_dir() else set()
        return found

    def _present(self, table: labels.Votes) -> np.ndarray:
        """Which images of `table` (N) have a picture: a file in its split's folder, or a row of fer2013.csv.

        Raises:
            UserError: one has none and nothing may be left out, or a folder has none at all.
        """
        if self.layout != "folders":
            absent = {
                name: f"{self.found.votes} has no row for '{name}'"
                for name in table.names
                if name not in self._positions
            }
            self._leave_out(absent, GET)
        else:
            absent = {}
            for split in SPLITS:
                folder, there = self.found.folders[split], self._pictures[split]
                listed = [n for n, s in zip(table.names, table.splits, strict=True) if s == split]
                if listed and not there:
                    message = f"{folder} holds no images; its labels name {len(listed):,}"
                    raise UserError(message, "restore its PNG files")
                absent |= {name: f"{folder / name} is missing" for name in listed if name not in there}
            self._leave_out(absent, "restore the PNG files")
        return np.array([name not in absent for name in table.names], dtype=bool)

    def _leave_out(self, absent: dict[str, str], hint: str) -> None:
        """Record images without a picture; raise where none may be left out."""
        if absent and not self.skip_bad:
            more = f" (and {len(absent) - 1:,} more)" if len(absent) > 1 else ""
            raise UserError(f"{next(iter(absent.values()))}{more}; the labels name it", hint)
        self.skipped.update(absent)

    def _place(self, name: str) -> Path:
        """File (and row) of a picture, for reading and for messages."""
        position = self._positions[name]
        if self.layout == "folders":
            return self.found.folders[self._storage.splits[position]] / name
        return Path(f"{self.found.pixels}, row {self._row_of[name] + 2}")


def _source(protocol: Protocol) -> tuple[str, bool]:
    """A protocol's rule without its endings, and whether its source is fer2013new.csv."""
    return protocol.rule.removesuffix(EXCHANGED).removesuffix(OTHER_SOURCE), protocol.rule.endswith(OTHER_SOURCE)
