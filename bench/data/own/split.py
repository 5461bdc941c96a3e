"""Dealing out a user's images to train, val and test, or to folds, where the data does not say.

The order comes from a hash of each name (of the image, or of its subject), so it is the same on every machine and does
not follow the order of files. By image, every class is dealt out for itself, so small classes reach every part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from bench.data.own.file import Split
from bench.errors import UserError


def deal(names: Sequence[str], labels: Sequence[str], subjects: Sequence[str], split: Split) -> list[str | int]:
    """The part of each image: train | val | test, or its fold (0 to folds - 1) where `split` asks for folds.

    Args:
        names, labels: of the images.
        subjects: of the images; read only where `split.by` is subject.

    Raises:
        UserError: there are fewer subjects than parts.
    """
    if split.by == "subject":
        part_of = _parts([_by_hash(subjects, split.seed)], split)
        return [part_of[subject] for subject in subjects]
    of_class: dict[str, list[str]] = {}
    for name, label in zip(names, labels, strict=True):
        of_class.setdefault(label, []).append(name)
    part_of = _parts([_by_hash(of_class[label], split.seed) for label in sorted(of_class)], split)
    return [part_of[name] for name in names]


def _by_hash(units: Sequence[str], seed: int) -> list[str]:
    return sorted(set(units), key=lambda unit: hashlib.sha256(f"{seed}\n{unit}".encode()).digest())


def _parts(groups: Sequence[list[str]], split: Split) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for units in groups:
        if split.folds:
            # going on counting from group to group keeps the folds equally large
            found |= {unit: (len(found) + rank) % split.folds for rank, unit in enumerate(units)}
            continue
        test, val = _sizes(len(units), split)
        for rank, unit in enumerate(units):
            found[unit] = "test" if rank < test else "val" if rank < test + val else "train"
    if split.by == "subject" and len(found) < (split.folds or (3 if split.val else 2)):
        raise UserError(f"{split} needs more than {len(found)} subjects", "split by image, or add subjects")
    return found


def _sizes(units: int, split: Split) -> tuple[int, int]:
    """Units of test and val: the fractions, but at least one each while train keeps one."""
    test = min(max(1, round(split.test * units)), units - 1)
    val = min(max(1, round(split.val * units)), units - test - 1) if split.val else 0
    return max(test, 0), max(val, 0)
