"""A dataset that lies on disk as image files with labels: everything that does not depend on its layout.

A subclass names its layouts (bench/data/listing.py) and its preprocessing, and says how a protocol selects from the
listing. Listings of large copies are kept in the cache, so that AffectNet is read once and not at every start.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from bench.data import listing_cache
from bench.data.base import SPLITS, Dataset, check_counts
from bench.data.image import read_image
from bench.data.listing import Layout, Listing
from bench.data.preprocess import Preprocessing, apply, profile_of
from bench.data.subsets import subset_blocked, subset_index
from bench.declare import Protocol
from bench.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

BOX = ("box_x", "box_y", "box_width", "box_height")
Result = TypeVar("Result")
SAMPLED = 32  # images whose size is looked at in place of all
THREADS_FROM = 96  # pixels a side: decoding smaller images is not worth a thread (the interpreter lock)


class ListedDataset(Dataset):
    """Base of RAF-DB, AffectNet, CK+ and a user's own data."""

    formats: ClassVar[tuple[Layout, ...]] = ()
    """Layouts, the preferred one first; `layouts` repeats their names."""
    default_preprocessing: ClassVar[str] = ""

    def __init__(self, root: Path | None, protocol: Protocol) -> None:
        super().__init__(root, protocol)
        if root is None:
            raise UserError(f"{protocol.dataset} is read from disk and needs a folder", "set --data-root")
        self.folder = root
        found = self.found_layouts(root)
        if not found:
            raise UserError(f"{root} is not a copy of {protocol.dataset}", f"looked for {self.looked_for}")
        if len(found) > 1:
            names = " and ".join(f"'{layout.name}' in {base}" for layout, base in found)
            message = f"{root} holds two layouts of {protocol.dataset}: {names}"
            raise UserError(message, "keep one of them there, or point --data-root at the one you mean")
        ((self.format, self.base),) = found

    @classmethod
    def found_layouts(cls, root: Path) -> list[tuple[Layout, Path]]:
        """Every layout found under `root` with the folder it starts in."""
        found = [(layout, layout.find(root)) for layout in cls.formats]
        return [(layout, base) for layout, base in found if base is not None]

    @classmethod
    def detect(cls, root: Path) -> str | None:
        """Name of the layout under `root`."""
        found = cls.found_layouts(root)
        return found[0][0].name if found else None

    @classmethod
    def near_miss(cls, root: Path) -> str:
        return next((text for layout in cls.formats if (text := layout.lacks(root))), "")

    @property
    def profile(self) -> Preprocessing:
        """How pixels are made."""
        return profile_of(self.preprocessing or self.default_preprocessing, self.protocol.dataset)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.profile.shape

    @property
    def decode(self) -> dict[str, object]:  # type: ignore[override]
        """Preprocessing, and what aligned the images where `data align` did."""
        return {"preprocessing": self.profile.settings()} | self.aligned_by()

    @property
    def storage(self) -> str:
        own = self.preprocessing and self.preprocessing != self.default_preprocessing
        return super().storage + (f"-{self.preprocessing}" if own else "")

    def fingerprint(self) -> str:
        """Hash of layout, and of size and time of its label files and folders (see Layout.state)."""
        parts = [self.format.name]
        for path in self.format.state(self.base):
            stat = path.stat()
            parts.append(f"{path.relative_to(self.base)} {stat.st_size} {stat.st_mtime_ns}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def places(self) -> list[Path]:
        return [place for place in (self.base, *self.base.parents) if place.is_relative_to(self.folder)]

    @cached_property
    def listing(self) -> Listing:
        """What the copy holds, rows by split and name, the same order in every layout."""
        version = getattr(type(self), "registered", ("", "", 0))[2]
        identity = f"{self.protocol.dataset} {version} {self.base.resolve()} {self.fingerprint()}"
        return listing_cache.get(identity, lambda: in_order(self.read_listing()))

    def read_listing(self) -> Listing:
        """What the layout reads; a subclass may tell it more."""
        return self.format.read(self.base)

    def blocked(self, protocol: Protocol) -> UserError | None:
        """Why this copy cannot serve `protocol`; subclasses add their own reasons before calling this."""
        stop = self.alignment_blocked()
        if stop is None and protocol.subset_of:
            stop = subset_blocked(self, protocol)
        return stop

    def select(self, frame: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
        """Rows of the listing that belong to a protocol (not a subset), with columns fold and label as it needs."""
        return frame[frame["label"].isin(protocol.classes)]

    def index(self, protocol: Protocol) -> pd.DataFrame:
        problem = self.blocked(protocol)
        if problem:
            raise problem
        if protocol.subset_of:
            return subset_index(self, protocol)
        self._refuse_bad()
        frame = self.select(self.listing.frame, protocol).drop(columns="path").reset_index(drop=True)
        files = ", ".join(self.listing.label_files)
        lost = len(self.skipped) + sum(bad.images - 1 for bad in self.listing.bad)
        check_counts(frame, protocol, f"{self.folder}{f' ({files})' if files else ''}", skipped=lost)
        return frame

    def _refuse_bad(self) -> None:
        bad = self.listing.bad
        if not bad:
            return
        if self.skip_bad:
            self.skipped.update({one.name: one.message for one in bad})
            return
        more = f" (and {len(bad) - 1:,} more; `data verify` lists them)" if len(bad) > 1 else ""
        raise UserError(bad[0].message + more, f"{bad[0].hint}; --skip-bad goes on without it, as no benchmark")

    def names(self) -> list[str]:
        names: list[str] = self.listing.frame["name"].tolist()
        return names

    def splits(self) -> list[str]:
        splits: list[str] = self.listing.frame["split"].tolist()
        return splits if any(splits) else []

    def label_files(self) -> dict[str, Path]:
        return self.listing.label_files

    def missing(self) -> list[str]:
        return [bad.name for bad in self.listing.bad if bad.kind == "missing"]

    def extra(self) -> list[str]:
        return self.listing.extra

    def remarks(self) -> list[str]:
        notes = [f"class numbers are in the order '{self.listing.order}'"] if self.listing.order else []
        return notes + self.alignment_remark() + self.listing.remarks

    def departures(self) -> list[str]:
        """Besides names and alignment: images whose sizes are not the published ones."""
        found = super().departures()
        if not self.own_data and self.alignment is None:
            found += self._other_sizes()
        return found

    def _other_sizes(self) -> list[str]:
        """What the headers of a few images, spread over the copy, say about the sizes of all."""
        known = {size.split()[0] for size in self.published_sizes}
        names = self.names()
        sample = names[:: max(1, len(names) // SAMPLED)] if known else []
        for name in sample:
            size = _size_of(self.path(name))
            if size and size not in known:
                return [f"a re-aligned or re-distributed copy: {name} is {size}, not {' or '.join(sorted(known))}"]
        return []

    def pixels(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        for found in self.decoded(names):
            if isinstance(found, UserError):
                raise found
            yield found

    def decoded(self, names: Sequence[str]) -> Iterator[np.ndarray | UserError]:
        """Pixels or what is wrong with the file, in order, decoded by a few threads (Pillow frees the lock)."""
        return in_threads(self._decode, names, self.threads)

    @property
    def threads(self) -> int:
        return min(8, os.cpu_count() or 1) if self.profile.size >= THREADS_FROM else 1

    def read(self, name: str) -> np.ndarray:
        return read_image(self.path(name), convert=self.profile.convert)

    def path(self, name: str) -> Path:
        """The file of an image."""
        return self.base / str(self._row(name)["path"])

    def image_file(self, name: str) -> Path | None:
        return self.path(name)

    def part(self, name: str, image: np.ndarray) -> np.ndarray:
        box = self._box(name)
        return image if box is None else apply(image, self.profile, str(self.path(name)), box)

    def _decode(self, name: str) -> np.ndarray | UserError:
        try:
            return apply(self.read(name), self.profile, str(self.path(name)), self._box(name))
        except UserError as error:
            return error

    def _box(self, name: str) -> tuple[float, float, float, float] | None:
        # boxes are those of the images before they were aligned
        if self.profile.crop != "box" or self._boxes is None or self.alignment is not None:
            return None
        x, y, width, height = map(float, self._boxes[self._positions[name]])
        return None if width != width else (x, y, width, height)  # NaN: no box known

    @cached_property
    def _boxes(self) -> np.ndarray | None:
        frame = self.listing.frame
        return frame[list(BOX)].to_numpy(np.float32) if BOX[0] in frame else None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names())}

    def _row(self, name: str) -> Any:
        if name not in self._positions:
            raise unknown(f"{self.protocol.dataset} image", name, [])
        return {"path": self._paths[self._positions[name]]}

    @cached_property
    def _paths(self) -> list[str]:
        paths: list[str] = self.listing.frame["path"].tolist()
        return paths


def _size_of(file: Path) -> str:
    """Width and height as a file's header says, `100x100`; "" where it says nothing, which decoding reports."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return f"{image.width}x{image.height}"
    except Exception:  # as in bench/data/image.py: Pillow's plug-ins raise whatever their parsers do
        return ""


def in_order(found: Listing) -> Listing:
    """The listing with rows by split, then name: storage order must not depend on the layout."""
    rank = found.frame["split"].map({split: k for k, split in enumerate((*SPLITS, ""))})
    order = np.lexsort((found.frame["name"].to_numpy(dtype=str), rank.to_numpy()))
    found.frame = found.frame.iloc[order].reset_index(drop=True)
    return found


def in_threads(work: Callable[[str], Result], names: Sequence[str], threads: int) -> Iterator[Result]:
    """`work` over `names` in order, at most a few dozen results waiting at a time."""
    if threads == 1:
        yield from map(work, names)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for name in names:
                waiting.append(pool.submit(work, name))
                if len(waiting) >= 8 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
