"""What all layouts share: who is seen in a tree, how its pictures are dealt into blocks, how a file is written."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from bench import declare
from bench.data.synthfer.rng import key_of, mix64, streams
from bench.data.synthfer.sample import Facts, facts_of
from bench.data.synthfer.variants import VARIANTS, Roster, Variant

Item = TypeVar("Item")
WORK = ".synthfer"  # folder at the root of an unfinished tree: lock, finished blocks, parts of large tables
PICTURES_EACH = 2  # of a person, on average


class Tree(ABC):
    """One official layout, of certain counts and a seed.

    A tree is described once and then sent to every worker process, so it holds plain data only. Blocks may be written
    in any order, by any process, and again after a crash; the bytes depend on layout, counts and seed alone.

    Attributes:
        blocks: (split, rows) of each block; a row is one picture, or one sequence of pictures.
    """

    bytes_each: ClassVar[int]
    """Room one row needs on the disk, all of its files together, measured."""
    files_each: ClassVar[int] = 1
    """Files of one row."""
    pictures_each: ClassVar[int] = 1

    def __init__(self, like_counts: bool, seed: int) -> None:
        self.like_counts = like_counts
        self.seed = seed
        self.blocks: list[tuple[str, range]] = []

    @property
    def rows(self) -> int:
        return sum(len(rows) for _, rows in self.blocks)

    @property
    def pictures(self) -> int:
        return self.rows * self.pictures_each

    @abstractmethod
    def begin(self, root: Path) -> None:
        """Folders, and label files that are known without drawing anything."""

    @abstractmethod
    def write(self, root: Path, block: int) -> None:
        """The pictures of one block, with the labels that lie beside them."""

    def finish(self, root: Path) -> None:  # noqa: B027  (most layouts have nothing left to do)
        """Tables that are put together from what the blocks left."""


@dataclass(frozen=True)
class Cast:
    """The faces of a tree: who shows what in which split, numbered from 0 on, split by split."""

    variant: Variant
    seed: int
    roster: Roster
    first: dict[str, int]  # number of the first face (or sequence) of each split

    def facts(self, numbers: Iterable[int]) -> Facts:
        """All that is known of some images; with sequences, image = sequence * frames + frame."""
        return facts_of(self.variant, self.roster, self.seed, np.fromiter(numbers, np.int64))

    def label(self, number: int) -> str:
        """Class of a face or sequence."""
        return self.roster.label[number]


def cast(
    name: str,
    like: str,
    labels: Mapping[str, Sequence[str]],
    seed: int,
    persons: Sequence[int] | None = None,
) -> Cast:
    """Faces with the given labels, in the given order.

    Args:
        name: part of every random draw: two casts of one name and seed show the same faces.
        like: the SynthFER variant whose size, colour and conditions are used.
        labels: {split: class of each face or sequence}.
        persons: of each face or sequence; drawn at random where they are not given, none of them in two splits.
    """
    base = VARIANTS[like]
    counts = {split: dict(Counter(names)) for split, names in labels.items()}
    pool = {split: max(1, len(names) // PICTURES_EACH) for split, names in labels.items()}
    variant = replace(base, name=f"official-{name}", splits=counts, persons=pool)
    first = dict(zip(labels, accumulate((len(names) for names in labels.values()), initial=0), strict=False))
    if persons is None:
        before = dict(zip(pool, accumulate(pool.values(), initial=0), strict=False))
        draws = mix64(streams(key_of("person", variant.name, seed), np.arange(variant.units)))
        chosen = np.concatenate(
            [draws[n : n + len(labels[s])] % np.uint64(pool[s]) + np.uint64(before[s]) for s, n in first.items()]
        ).astype(np.int64)
    else:
        chosen = np.array(persons)
    splits = tuple(split for split, names in labels.items() for _ in names)
    return Cast(variant, seed, Roster(splits, tuple(chain.from_iterable(labels.values())), chosen), first)


def declared(protocol: str, share: float | Mapping[str, float] = 1.0) -> dict[str, dict[str, int]]:
    """Images per split and class of a declared protocol, or that share of them, at least one of each class."""
    counts = declare.load().protocol(protocol).class_counts
    shares = share if isinstance(share, Mapping) else dict.fromkeys(counts, share)
    return {split: {c: some(n, shares[split]) for c, n in classes.items()} for split, classes in counts.items()}


def some(number: int, share: float) -> int:
    """A share of a number, not less than one unless the number is zero."""
    return math.ceil(number * share)


def spread(counts: Mapping[Item, int], *key: object) -> list[Item]:
    """Every item as often as it is counted, in an order shuffled by `key`."""
    items = [item for item, n in counts.items() for _ in range(n)]
    return [items[k] for k in shuffled(len(items), *key)]


def shuffled(number: int, *key: object) -> list[int]:
    """The numbers below `number` in an order that depends on `key` alone."""
    order: list[int] = np.argsort(streams(key_of(*key), np.arange(number)), kind="stable").tolist()
    return order


def in_blocks(rows: Mapping[str, int], size: int) -> list[tuple[str, range]]:
    """Rows of every split cut into blocks of at most `size`."""
    return [(split, range(k, min(k + size, n))) for split, n in rows.items() for k in range(0, n, size)]


def write_file(path: Path | str, data: bytes) -> None:
    """Write a file in place. A half-written one is written again with its block, so nothing is renamed or synced."""
    with open(path, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def link_file(source: Path, path: Path) -> None:
    """The same file under a second name; a copy where the file system knows no links."""
    path.unlink(missing_ok=True)
    try:
        os.link(source, path)
    except OSError:
        write_file(path, source.read_bytes())


def part(root: Path, table: str, block: int) -> Path:
    """Where a block leaves its rows of a table."""
    return root / WORK / f"{table}-{block:06d}"


def join_parts(root: Path, table: str, blocks: Iterable[int], path: Path, header: bytes = b"") -> None:
    """Put a table together from its blocks' parts, in order; it appears under its name only when it is whole."""
    partial = root / WORK / path.name
    with partial.open("wb") as file:
        file.write(header)
        for block in blocks:
            file.write(part(root, table, block).read_bytes())
    os.replace(partial, path)
