"""Whether a result would be better if its class numbers meant another order of classes.

A prediction is a number before it is a name, and public code numbers the same classes in ten orders. Predictions named
in the wrong order score near chance although the network is good. Every reading of a result renames what was predicted,
class by class, so all follows from its confusion matrix: images of class i predicted as class j are right under a
reading p exactly if p[j] = i.

When a reading explains a result better
---------------------------------------
Two tests, each at 1 % after Bonferroni's correction (a false alarm costs somebody a day):

1. McNemar's exact test on the images that only one of the two readings gets right.
2. More images right than class sizes alone give. A network that always answers "happiness" gets more right if that is
   read as the largest class, whatever it was trained on. With truth and predictions dealt out independently (a random
   permutation of the predictions), the number of images won has a known mean and variance; it must lie above.

Known orders are corrected for the number of them tried. The best of all n! readings is corrected for n!, since among
so many some always fit better. A reading is not believed where a class that it renames was right before: networks take
some classes for others. Two classes that a weak network swaps can still pass, and the verdict says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench import statistics
from bench.data.classes import ORDERS
from bench.errors import UserError

LEVEL = 0.01
MOST = 16  # classes: the best reading is found among 2^n sets of them
Matrix = NDArray[np.int64]
Permutation = tuple[int, ...]  # predicted class -> class it means


@dataclass(frozen=True)
class Result:
    """A confusion matrix and what its numbers meant.

    Attributes:
        classes: (n,) names.
        matrix: (n, n) images; rows are the truth, columns the predictions, as named in the file.
        order: the classes in the order in which the file's names stand for numbers; empty where it is not known.
        remark: how the file was read, where that was a choice.
    """

    classes: tuple[str, ...]
    matrix: Matrix
    order: tuple[str, ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class Reading:
    """One meaning of the predicted classes.

    Attributes:
        means: predicted class -> class meant, as positions.
        titles: what must have happened for it, in words ("the predictions are numbered in the order 'raf'").
        right: images right.
        p: corrected p-value of the two tests (the larger one) that it explains the result better than as given.
    """

    means: Permutation
    titles: tuple[str, ...]
    right: int
    p: float = 1.0


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        verdict: "right", "wrong" (a known order explains the result better), "unknown order" or "undecided".
        why: the reason, where undecided.
        named: known orders that are the file's own.
        known: readings under other known orders, best first.
        best: the best of all n! readings.
        chance: p-value of "as given is no better than chance".
    """

    result: Result
    given: Reading
    known: tuple[Reading, ...]
    best: Reading
    chance: float
    verdict: str = "undecided"
    why: str = ""
    named: tuple[str, ...] = ()

    @property
    def wrong(self) -> bool:
        """Whether another reading explains the result better."""
        return self.verdict in ("wrong", "unknown order")


def diagnose(result: Result) -> Diagnosis:
    """Compare a result as given with every known order and with the best of all.

    Raises:
        UserError: no image, fewer than two classes, or too many of them.
    """
    n = len(result.classes)
    if not 2 <= n <= MOST or not result.matrix.sum():
        size = f"{n} classes, {int(result.matrix.sum())} images"
        raise UserError(f"there is nothing to compare: {size}", f"give 2 to {MOST} classes, and at least one image")
    identity = tuple(range(n))
    given = Reading(identity, (), right(result.matrix, identity))
    others = known_readings(result)
    known = [
        Reading(means, titles, right(result.matrix, means), better(result.matrix, identity, means, len(others)))
        for means, titles in others.items()
    ]
    known.sort(key=lambda reading: -reading.right)  # stable: predictions before labels, orders as they are listed
    means = best_of_all(result.matrix)
    everything = math.factorial(n)
    best = Reading(
        means, others.get(means, ()), right(result.matrix, means), better(result.matrix, identity, means, everything)
    )
    named = tuple(name for name, order in orders(result.classes) if order == result.order)
    found = Diagnosis(result, given, tuple(known), best, _chance(result.matrix), named=named)
    verdict, why = _verdict(found)
    return replace(found, verdict=verdict, why=why)


def _verdict(found: Diagnosis) -> tuple[str, str]:
    matrix, identity, best = found.result.matrix, found.given.means, found.best
    everything = math.factorial(len(identity))
    winner = next(iter(found.known), None)
    if winner is not None and (winner.p >= LEVEL or _forced(matrix, winner.means)):
        winner = None
    # an order that puts only some classes right may beat the one given and still not be the answer
    beaten = winner is None or better(matrix, winner.means, best.means, everything) < LEVEL
    if best.p < LEVEL and beaten and not _forced(matrix, best.means):
        return "unknown order", ""
    if winner is not None:
        return "wrong", ""
    if found.chance >= LEVEL:
        return "undecided", "as given it is no better than chance, and no other order explains it"
    apart = [r for r in found.known if discordant(matrix, identity, r.means) != (0, 0)]
    if all(better(matrix, r.means, identity, len(found.known)) < LEVEL for r in apart):
        return "right", ""
    return "undecided", "no order is clearly better than the others"


def _forced(matrix: Matrix, means: Permutation) -> bool:
    """Whether a renamed class was right before: its new name then only makes room for another's.

    So it is where a network takes one class for another: "neutral" read as sadness gains, "sadness" must go and loses.
    Shares of each class are compared, not counts, which a large class's errors would outweigh.
    """
    images = matrix.sum(axis=1)
    for named, meant in enumerate(means):
        if named != meant and images[named] and images[meant]:
            was = statistics.wilson(int(matrix[named, named]), int(images[named]))
            would = statistics.wilson(int(matrix[meant, named]), int(images[meant]))
            if was[0] > would[1]:
                return True
    return False


# ------------------------------------------------------------------------------------------------------------ readings
def orders(classes: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Known orders that have all of `classes`: name and classes in that order. Classes left out close the gap."""
    wanted = set(classes)
    return [
        (name, tuple(label for label in order if label in wanted))
        for name, order in ORDERS.items()
        if wanted <= set(order)
    ]


def known_readings(result: Result) -> dict[Permutation, tuple[str, ...]]:
    """Every reading but the one given that a known order gives, with what must have happened.

    Where the file's own order is known, its predictions or its labels are numbered in another one. Where it is not,
    numbers of any known order may have been named by any other.
    """
    place = {label: position for position, label in enumerate(result.classes)}
    found: dict[Permutation, list[str]] = {}

    def add(named: Sequence[str], meant: Sequence[str], title: str) -> None:
        means = dict(zip((place[label] for label in named), (place[label] for label in meant), strict=True))
        key = tuple(means[position] for position in range(len(place)))
        if key != tuple(range(len(place))):
            found.setdefault(key, []).append(title)

    known = orders(result.classes)
    if result.order:
        for name, order in known:
            add(result.order, order, f"the predictions are numbered in the order '{name}'")
        for name, order in known:
            add(order, result.order, f"the labels are numbered in the order '{name}'")
    else:
        for name, order in known:
            for other, named in known:
                add(named, order, f"predictions numbered in the order '{name}' were named by '{other}'")
    return {means: tuple(titles) for means, titles in found.items()}


def right(matrix: Matrix, means: Permutation) -> int:
    """Images right if predicted class j means class `means[j]`."""
    return int(matrix[list(means), np.arange(len(means))].sum())


def best_of_all(matrix: Matrix) -> Permutation:
    """The reading with most images right among all n!; of equals, the one that renames fewest classes.

    Dynamic programming over sets of classes: after j columns, only the set of classes already given away matters.
    """
    n = len(matrix)
    worth = matrix * (n + 1) + np.eye(n, dtype=np.int64)  # an image outweighs all n classes kept
    rows = worth.T.tolist()
    total = [0] * (1 << n)
    taken = [0] * (1 << n)
    for chosen in range(1, 1 << n):
        column = rows[chosen.bit_count() - 1]
        total[chosen], taken[chosen] = max(
            (total[chosen & ~(1 << i)] + column[i], -i) for i in range(n) if chosen >> i & 1
        )
    means = []
    left = (1 << n) - 1
    while left:
        means.append(-taken[left])
        left &= ~(1 << means[-1])
    return tuple(reversed(means))


# --------------------------------------------------------------------------------------------------------------- tests
def discordant(matrix: Matrix, first: Permutation, second: Permutation) -> tuple[int, int]:
    """Images that only the first reading gets right, and that only the second does."""
    moved = [j for j in range(len(first)) if first[j] != second[j]]
    return (
        int(sum(matrix[first[j], j] for j in moved)),
        int(sum(matrix[second[j], j] for j in moved)),
    )


def better(matrix: Matrix, first: Permutation, second: Permutation, tries: int) -> float:
    """Corrected p-value that the second reading explains the result better than the first; 1 where it is not better.

    The larger of McNemar's and of the test against class sizes alone, times `tries`.
    """
    only_first, only_second = discordant(matrix, first, second)
    if only_second <= only_first:
        return 1.0
    gain = np.zeros(matrix.shape)
    columns = np.arange(len(matrix))
    gain[list(second), columns] += 1
    gain[list(first), columns] -= 1
    p = max(statistics.mcnemar(only_first, only_second), _by_sizes(matrix, gain))
    return min(1.0, tries * p)


def _chance(matrix: Matrix) -> float:
    return _by_sizes(matrix, np.eye(len(matrix)))


def _by_sizes(matrix: Matrix, worth: NDArray[np.float64]) -> float:
    """One-sided p-value of the sum of `worth` over images, against predictions dealt out to the images at random.

    Mean and variance under all permutations of the predictions are exact; its distribution is taken as normal.
    """
    images = float(matrix.sum())
    truth, predicted = matrix.sum(axis=1) / images, matrix.sum(axis=0) / images
    by_truth, by_predicted = worth @ predicted, truth @ worth
    mean = float(truth @ worth @ predicted)
    rest = worth - by_truth[:, None] - by_predicted[None, :] + mean
    variance = images * images / max(images - 1, 1) * float(truth @ rest**2 @ predicted)
    excess = float((matrix * worth).sum()) - images * mean
    if variance < 1e-9 or excess <= 0:
        return 1.0
    return 0.5 * math.erfc(excess / math.sqrt(2 * variance))


# ---------------------------------------------------------------------------------------------------------------- text
SHOWN = 4  # readings printed one by one


def render(found: Diagnosis, name: str) -> str:
    """The diagnosis as text; its last line is the verdict."""
    result, n = found.result, len(found.result.classes)
    images = int(result.matrix.sum())
    own = f" in the order {' = '.join(repr(one) for one in found.named)}" if found.named else ""
    lines = [f"{name}: {images:,} images, {n} classes{own}: {', '.join(result.order or result.classes)}"]
    lines += [result.remark] if result.remark else []
    lines.append(f"as given: {_percent(found.given, images)} % of {images:,}")
    lines += [f"if {one.titles[0]}: {_percent(one, images)} % ({_p(one, found.given)})" for one in found.known[:SHOWN]]
    if len(found.known) > SHOWN:
        rest = found.known[SHOWN:]
        lines.append(f"{len(rest)} other readings by known orders: {_percent(rest[0], images)} % and less")
    elif not found.known:
        lines.append("no known order has these classes")
    kept = " (as given)" if found.best.means == found.given.means else f" ({_p(found.best, found.given)})"
    lines.append(
        f"best of all {math.factorial(n):,} assignments of the classes: {_percent(found.best, images)} %{kept}"
    )
    lines.append(
        "p: exact McNemar test against 'as given', or against what class sizes alone give where that is larger, times "
        "the number of readings tried"
    )
    return "\n".join([*lines, *_explained(found)])


def _explained(found: Diagnosis) -> list[str]:
    """The mapping, where there is one to tell, and the verdict."""
    if found.verdict == "right":
        confused = "\n  the best assignment only renames classes that the network takes for each other"
        return ["", "the class order is right" + (confused if found.best.p < LEVEL else "")]
    if found.verdict == "undecided":
        return ["", f"undecided: {found.why}"]
    if found.verdict == "wrong":
        winner = found.known[0]
        alike = [one.titles[0] for one in found.known[1:] if one.right == winner.right]
        also = "".join(f"\n  or {title}" for title in (*winner.titles[1:], *alike))
        return [*_mapping(found.result, winner), "", f"the class order is wrong: {winner.titles[0]}{also}"]
    caution = (
        "  look at the mapping before believing it: classes that a weak network takes for each other swap places too"
    )
    verdict = "the class order is wrong: no known order explains it, the best assignment is the one above"
    return [*_mapping(found.result, found.best), "", verdict, caution]


def _mapping(result: Result, reading: Reading) -> list[str]:
    """One line per class as named in the file, in the file's order."""
    place = {label: position for position, label in enumerate(result.classes)}
    shown = result.order or result.classes
    labels = reading.titles and reading.titles[0].startswith("the labels")
    back = {meant: named for named, meant in enumerate(reading.means)}
    wide = max(len(label) for label in shown)
    lines = ["", f"what the file calls, as {'a label' if labels else 'a prediction'} -> what it means"]
    for label in shown:
        position = place[label]
        meant = result.classes[back[position] if labels else reading.means[position]]
        lines.append(f"  {label:<{wide}} -> {meant}" + (" (the same)" if meant == label else ""))
    return lines


def _percent(reading: Reading, images: int) -> str:
    return f"{100 * reading.right / images:.1f}"


def _p(reading: Reading, given: Reading) -> str:
    if reading.right <= given.right:
        return "no better"
    return "p < 0.0001" if reading.p < 1e-4 else f"p = {reading.p:.4f}"
