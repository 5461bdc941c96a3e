"""The pictures of a copy, each decoded once: sizes, what cannot be read, identical and nearly identical images.

A hash of each picture stays in memory and, where near duplicates are asked for, a thumbnail: 0.3 GB for AffectNet.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bench.data import near
from bench.data.base import SPLITS, Dataset
from bench.data.listed import in_threads
from bench.data.progress import Progress
from bench.errors import UserError

QUIET_SECONDS = 5.0
FEW = 3  # examples of duplicates


@dataclass
class Duplicates:
    """Images with identical pixels, over all images of the copy."""

    images: int = 0
    distinct: int = 0
    groups: int = 0
    surplus: dict[str, int] = field(default_factory=dict)  # per split: images less distinct images
    across: dict[str, int] = field(default_factory=dict)  # "train+test" -> groups with members in both
    members: list[list[str]] = field(default_factory=list)  # names of each group, those across splits first
    examples: list[str] = field(default_factory=list)  # the first groups, with splits


@dataclass
class NearDuplicates:
    """The same picture in another crop, brightness or compression, in different splits (or folds)."""

    pairs: list[tuple[str, str, float]] = field(default_factory=list)  # names, the later split first; likeness 0..1
    across: dict[str, int] = field(default_factory=dict)  # "train+test" -> pairs
    images: int = 0  # with such a copy in another split
    limit: float = 0.0  # likeness from which a pair counts, found on this set
    false_share: float = 0.0  # estimated share of pairs that are different pictures
    mirrored: list[tuple[str, str]] = field(default_factory=list)  # mirror images of each other
    examples: list[str] = field(default_factory=list)  # the first pairs, with splits or folds


class _Seen(NamedTuple):
    digest: bytes
    size: str
    thumbnail: np.ndarray | None


@dataclass
class Images:
    """What was found in the pictures of `names`.

    Attributes:
        names: images that were read.
        digests: (N, 32) uint8, SHA-256 over shape and pixels.
        thumbnails: (N, near.SIDE, near.SIDE) uint8; None where near duplicates are not asked for.
        sizes: "100x100 colour" -> images, the most frequent first.
        unreadable: image -> why it cannot be used.
    """

    names: list[str]
    digests: np.ndarray
    thumbnails: np.ndarray | None
    sizes: dict[str, int]
    unreadable: dict[str, str]

    def twin_groups(self) -> np.ndarray:
        """(N,) the same number for identical images."""
        _, group = np.unique(self.digests.view("V32").ravel(), return_inverse=True)
        return np.asarray(group, dtype=np.int64)

    def sha256(self, unstable: frozenset[str]) -> str:
        """Over names and pixels of all images but the unstable ones."""
        whole = hashlib.sha256()
        for row in sorted(range(len(self.names)), key=self.names.__getitem__):
            if self.names[row] not in unstable:
                whole.update(self.names[row].encode() + self.digests[row].tobytes())
        return whole.hexdigest()


def read_all(ds: Dataset, names: Sequence[str], thumbnails: bool) -> Images:
    """Decode `names`, in as many threads as the dataset decodes in; tells on stderr how long it will take."""
    digests = np.zeros((len(names), 32), dtype=np.uint8)
    small = np.zeros((len(names), near.SIDE, near.SIDE), dtype=np.uint8) if thumbnails else None
    sizes: Counter[str] = Counter()
    unreadable: dict[str, str] = {}
    read = np.zeros(len(names), dtype=bool)
    progress = Progress(f"reading {ds.protocol.dataset}", len(names))
    progress.next = progress.start + QUIET_SECONDS
    for row, seen in enumerate(_looked_at(ds, names, thumbnails)):
        progress.report(row + 1)
        if isinstance(seen, UserError):
            unreadable[names[row]] = seen.message
            continue
        read[row] = True
        sizes[seen.size] += 1
        digests[row] = np.frombuffer(seen.digest, dtype=np.uint8)
        if small is not None and seen.thumbnail is not None:
            small[row] = seen.thumbnail
    kept = [name for name, there in zip(names, read, strict=True) if there]
    if unreadable:
        digests, small = digests[read], small[read] if small is not None else None
    return Images(kept, digests, small, dict(sizes.most_common()), unreadable)


def _looked_at(ds: Dataset, names: Sequence[str], thumbnails: bool) -> Iterator[_Seen | UserError]:
    def look(name: str) -> _Seen | UserError:
        try:
            image = ds.read(name)
            part = ds.part(name, image)
        except UserError as error:
            return error
        size = f"{image.shape[1]}x{image.shape[0]} {'grey' if image.ndim == 2 else 'colour'}"
        digest = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest()
        return _Seen(digest, size, near.thumbnail(part) if thumbnails else None)

    return in_threads(look, names, getattr(ds, "threads", 1))


def duplicates(images: Images, group: np.ndarray, split_of: Mapping[str, str]) -> Duplicates:
    """Groups of identical images, and the splits they lie in."""
    found = Duplicates(images=len(images.names), distinct=int(group.max()) + 1 if len(group) else 0)
    order = np.argsort(group, kind="stable")
    bounds = np.flatnonzero(np.diff(group[order])) + 1
    repeated = [rows for rows in np.split(order, bounds) if len(rows) > 1]
    found.groups = len(repeated)
    members = sorted([images.names[row] for row in rows] for rows in repeated)
    found.members = sorted(members, key=lambda names: len({split_of[name] for name in names}) == 1)  # keeps the order
    found.examples = [" = ".join(_placed(name, split_of) for name in names[:4]) for names in found.members[:FEW]]
    counted = [Counter(split_of[name] for name in names) for names in found.members]
    for split in dict.fromkeys(split_of.values()):
        found.surplus[split] = sum(splits[split] - 1 for splits in counted if splits[split])
    for i, one in enumerate(SPLITS):
        for other in SPLITS[i + 1 :]:
            shared = sum(1 for splits in counted if splits[one] and splits[other])
            if shared:
                found.across[f"{one}+{other}"] = shared
    return found


def near_duplicates(images: Images, group: np.ndarray, part_of: Mapping[str, str | int]) -> NearDuplicates:
    """Pairs across parts, each a split or a fold; images without a part are left out."""
    assert images.thumbnails is not None  # read_all was asked for them
    ranks = {part: k for k, part in enumerate(_in_order(set(part_of.values())))}
    rank = np.array([ranks[part_of[name]] if name in part_of else -1 for name in images.names], dtype=np.int64)
    pairs = near.find(images.thumbnails, rank, group)
    name = images.names
    found = NearDuplicates(limit=pairs.limit, false_share=round(pairs.false_share, 4))
    found.pairs = [
        (name[i], name[j], round(float(score), 3))
        for i, j, score in zip(pairs.first, pairs.second, pairs.score, strict=True)
    ]
    found.examples = [
        f"{_placed(one, part_of)} ~ {_placed(two, part_of)}, {score:.2f}" for one, two, score in found.pairs[:FEW]
    ]
    found.mirrored = [(name[i], name[j]) for i, j in pairs.mirrored]
    found.images = len({one for pair in found.pairs for one in pair[:2]})
    if all(isinstance(part, str) for part in ranks):
        across = Counter(f"{part_of[two]}+{part_of[one]}" for one, two, _ in found.pairs)
        found.across = dict(sorted(across.items()))
    else:
        found.across = {"different folds": len(found.pairs)} if found.pairs else {}
    return found


def _placed(name: str, part_of: Mapping[str, str] | Mapping[str, str | int]) -> str:
    part = part_of[name]
    return f"{name} ({part})" if isinstance(part, str) and part else f"{name} (fold {part})" if part != "" else name


def _in_order(parts: set[str | int]) -> list[str | int]:
    known = [split for split in SPLITS if split in parts]
    return [*known, *sorted(part for part in parts if not isinstance(part, str))]
