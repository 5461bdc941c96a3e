"""Which dataset and which class order a copy's counts are: the class histogram decides, never a folder's name.

Public code numbers the same seven folders in ten orders. Published counts per class differ enough to tell them apart.

    which_dataset(histogram)         "rafdb", "affectnet", ... where the counts are those of a published set, else ""
    closest(histogram, known)        the best Fit, for how near a copy is
    detect(histogram, known, where)  the Fit whose order numbers are read in, or UserError where several or none fit
    Fit.label(token)                 class name of a number or word

A histogram is {split: {token: images}} as `Items.histogram` and `class_folders.count` give it; tokens are whole numbers
or words for expressions; split "" where there is none. `known` is {id: {split: {class name: images}}}, by default the
counts of every protocol that declares them.

The rule that tells a re-laid copy of a published set from a user's own folders is here and only here: `Fit.near`, at
most 2 % of the published images more or fewer, summed over classes and splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from bench.data.class_folders import number
from bench.data.classes import ORDERS, class_name
from bench.errors import UserError

NEAR = 0.02  # of the published images
CLEAR = 4  # times nearer than the next order, to be taken where no order fits exactly

Histogram = Mapping[str, Mapping[str, int]]
Counts = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Fit:
    """A reading of a histogram, and how far it is from published counts.

    Attributes:
        known: id of the counts (a protocol).
        order: name in `ORDERS`; "" where classes are words.
        first: number of the order's first class, 0 or 1.
        distance: images more or fewer than published, summed over classes and the splits that are there.
        total: images published in those splits.
        absent: published splits that are not there.
        next_best: distance under the next order, where `detect` compared them; -1 elsewhere.
    """

    known: str
    order: str
    first: int
    distance: int
    total: int
    absent: tuple[str, ...] = ()
    next_best: int = -1

    @property
    def near(self) -> bool:
        """Whether the counts are those of the published set, but for a few images."""
        return self.total > 0 and self.distance <= NEAR * self.total

    @property
    def remark(self) -> str:
        """How sure the order is, where the counts are not exactly the published ones; "" where they are."""
        if not self.order or not self.distance:
            return ""
        rival = f"; the next order would be {self.next_best:,} off" if self.next_best >= 0 else ""
        return f"counts per class are {self.distance:,} images off those of {self.known} in order {self.title}{rival}"

    @property
    def title(self) -> str:
        """The order in words: "raf from 1"; "class names" where there are no numbers."""
        return f"{self.order} from {self.first}" if self.order else "class names"

    def label(self, token: str) -> str | None:
        """The expression a token stands for; None where it is a number outside the order, or no word for one."""
        value = number(token)
        if value is None:
            return class_name(token)
        classes = ORDERS.get(self.order, ())
        return classes[value - self.first] if 0 <= value - self.first < len(classes) else None


@lru_cache(maxsize=1)
def published() -> dict[str, Counts]:
    """Counts per split and class of every protocol on real images that declares them, subsets apart."""
    from bench import declare

    protocols = declare.load().protocols.values()
    return {p.id: p.class_counts for p in protocols if p.class_counts and not p.subset_of and not p.synthetic}


def which_dataset(histogram: Histogram) -> str:
    """The dataset whose published counts these are, exactly or but for 2 % of the images; "" for a user's own folders.

    A tree without a train split is nobody's: a test set of equal classes could be anyone's.
    """
    fit = closest(histogram)
    if fit is None or not fit.near or "train" in fit.absent:
        return ""
    from bench import declare

    return declare.load().protocols[fit.known].dataset


def closest(histogram: Histogram, known: Mapping[str, Counts] | None = None) -> Fit | None:
    """The nearest reading of a histogram; None where it has no classes."""
    return next(iter(fits(histogram, known)), None)


def detect(histogram: Histogram, known: Mapping[str, Counts] | None = None, where: str = "the class folders") -> Fit:
    """The reading that fits published counts exactly, or else clearly better than every other one.

    Clearly: near (see `Fit.near`) and at least four times nearer than the next order.

    Args:
        histogram: images per split and token.
        known: counts to compare with.
        where: names the copy in messages.

    Raises:
        UserError: several orders fit equally well (a balanced set, an empty one), or none does.
    """
    found = fits(histogram, known)
    if not found:
        raise UserError(f"{where}: there are no classes", _hint(histogram))
    best, *rest = _one_of_each_order(found, histogram)
    rival = rest[0] if rest else None
    if rival is None or best.distance < rival.distance:
        clear = rival is None or best.distance * CLEAR <= rival.distance
        if best.distance == 0 or (best.near and clear):
            return replace(best, next_best=rival.distance if rival else -1)
        near = f"the nearest, {best.title}, is {best.distance:,} images from {best.known}"
        raise UserError(f"{where}: the counts per class fit no known order ({near})", _hint(histogram))
    same = [fit.title for fit in (best, *rest) if fit.distance == best.distance]
    raise UserError(f"{where}: the counts per class fit several orders alike: {', '.join(same)}", _hint(histogram))


def fits(histogram: Histogram, known: Mapping[str, Counts] | None = None) -> list[Fit]:
    """Every reading of a histogram, nearest first; images whose class has no name under it count as too many."""
    tokens = {token for tokens in histogram.values() for token in tokens}
    numbered = any(number(token) is not None for token in tokens)
    readings = [(name, first) for name in ORDERS for first in (0, 1)] if numbered else [("", 0)]
    counts = published() if known is None else known
    found = [_fit(histogram, name, counts[name], *reading) for reading in readings for name in counts] if tokens else []
    return sorted(found, key=lambda fit: fit.distance)  # stable: the first order of ORDERS wins among equals


def _fit(histogram: Histogram, known: str, counts: Counts, order: str, first: int) -> Fit:
    reading = Fit(known, order, first, 0, 0)
    named: dict[str, dict[str, int]] = {}
    for split, tokens in histogram.items():
        target = named.setdefault(_published_split(split, histogram, counts), {})
        for token, images in tokens.items():
            label = reading.label(token) or token
            target[label] = target.get(label, 0) + images
    if "" in named:  # no split: compared with the whole
        named = {"": named[""]}
        counts = {"": _whole(counts)}
    distance = total = 0
    for split in set(named) | set(counts):
        expected, found = counts.get(split, {}), named.get(split, {})
        if split in counts and split not in named:
            continue
        total += sum(expected.values())
        distance += sum(abs(found.get(label, 0) - expected.get(label, 0)) for label in set(found) | set(expected))
    absent = tuple(split for split in counts if split not in named)
    return Fit(known, order, first, distance, total, absent)


def _published_split(split: str, histogram: Histogram, counts: Counts) -> str:
    """The published split that a copy's split stands for.

    Where none is called val, a copy's val is the test split under another name, or was cut off train.
    """
    if len(counts) == 1:
        return next(iter(counts))  # a set without a fixed split: whatever split a copy has is its own
    if split == "val" and "val" not in counts:
        return "train" if "test" in histogram else "test"
    return split


def _whole(counts: Counts) -> dict[str, int]:
    whole: dict[str, int] = {}
    for classes in counts.values():
        for label, images in classes.items():
            whole[label] = whole.get(label, 0) + images
    return whole


def _one_of_each_order(found: list[Fit], histogram: Histogram) -> list[Fit]:
    """The best fit of each order; orders that name all classes alike are one."""
    tokens = sorted({token for tokens in histogram.values() for token in tokens})
    best: dict[tuple[str | None, ...], Fit] = {}
    for fit in found:
        best.setdefault(tuple(fit.label(token) for token in tokens), fit)
    return list(best.values())


def _hint(histogram: Histogram) -> str:
    counted = "; ".join(
        f"{split or 'all'}: " + ", ".join(f"{token} {images:,}" for token, images in sorted(tokens.items()))
        for split, tokens in histogram.items()
    )
    return f"found {counted[:300]}; restore what is missing, or say which number is which class: a label map (own data)"
