"""How a printed number is judged against our runs. No scipy.

The rule
--------
1. *Ours* is the mean over seeds. A seed's accuracy is k/n of its test images; where the protocol has folds, k and n are
   pooled over the folds of that seed first, so every test image counts once per seed.
2. *Sampling.* The Wilson interval of our mean at n test images (n, not n x seeds: the seeds share their test images)
   gives a half-width on each side. One interval and not two: the paper's network and ours answer the same images, and
   two trainings of one method agree on most of them. With a correlation of one half between their answers, the variance
   of their difference is that of a single proportion; at 92 % that is 7 % of images decided differently, as is usual.
3. *Seeds.* The paper prints one training; ours is the mean of S. With our standard deviation s over seeds, the
   difference of the two varies by s * sqrt(1 + 1/S).
4. Both standard errors are added in quadrature, and the 95 % quantile is Student's t at the Welch-Satterthwaite degrees
   of freedom, so that a spread known from three seeds is not taken for one known exactly. A spread of zero leaves the
   Wilson interval. With one seed the spread is unknown: the interval is then Wilson alone, too narrow, and the
   judgement says so.
5. The printed number stands for every value that rounds to it: half a unit of its last digit is added on both sides.
6. Inside: `reproduced`. Outside: `below` when our mean is below the paper's, else `above`.

This errs towards calling a number reproduced, since a single lucky training in a paper cannot be told from a better
method by one printed number; `detectable` says how large a true difference has to be for the rule to call it in four of
five repetitions.

No such verdict is given where a comparison would mislead, in this order: nothing run (`blocked`), synthetic data (`not
comparable`), a shortened recipe (`not compared`), a protocol that is not the paper's (`different protocol`), fewer
seeds than asked for (`partial`). The first three also have no difference from the paper.

Test images are taken as independent. Frames of one video sequence (CK+) are not: intervals there are too narrow.

Mean class accuracy is a mean of K proportions. Its interval combines the classes' Wilson intervals by the method of
variance estimates recovery (Zou & Donner, Statistics in Medicine 27, 2008); with K = 1 it is Wilson's.

Values in a `Judgement` are percent, like the papers' numbers; functions on counts return fractions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache

import numpy as np

from bench.errors import UserError

Z = 1.96  # 97.5 % quantile of the normal distribution
POWER_Z = 0.8416  # 80 % quantile: `detectable` is stated at 80 % power
Part = tuple[float, float]  # (k, n)
Score = Sequence[Part]  # one seed: a mean of proportions; plain accuracy is ((k, n),)


class Kind(StrEnum):
    """What a verdict can be."""

    REPRODUCED = "reproduced"
    ABOVE = "above"
    BELOW = "below"
    DIFFERENT = "different protocol"
    PARTIAL = "partial"
    BLOCKED = "blocked"
    NOT_RUN = "not run"
    SHORTENED = "not compared"
    SYNTHETIC = "not comparable"
    CITED = "cited"
    EXTRA = "extra"  # a row that the paper does not print: a number of ours, no verdict


@dataclass(frozen=True)
class Judgement:
    """A verdict with the numbers behind it, in percent; None where there is nothing to say."""

    kind: Kind
    reason: str = ""
    mean: float | None = None
    sd: float | None = None  # over seeds (S - 1); None with one seed
    interval: tuple[float, float] | None = None
    delta: float | None = None  # ours - paper; None where the two may not be compared
    detectable: float | None = None  # smallest true difference, on the paper's side, called in 4 of 5 repetitions

    @property
    def text(self) -> str:
        """The verdict in one line, with its reason."""
        return f"{self.kind} ({self.reason})" if self.reason else str(self.kind)

    @property
    def label(self) -> str:
        """The verdict as a table cell prints it: long reasons go to a footnote, short ones stay."""
        return self.text if self.kind in (Kind.PARTIAL, Kind.SHORTENED, Kind.SYNTHETIC) else str(self.kind)


# ---------------------------------------------------------------------------------------------------------- intervals
def wilson(k: float, n: float, z: float = Z) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson, JASA 22, 1927).

    Args:
        k: successes; a mean over epochs or seeds may be fractional.
        n: trials, > 0.
        z: normal quantile; 1.96 gives 95 %.
    Returns:
        (low, high), fractions within 0..1.
    """
    if n <= 0 or not 0 <= k <= n:
        raise ValueError(f"need 0 <= k <= n and n > 0, got k={k}, n={n}")
    p, zz = k / n, z * z / n
    centre, half = (p + zz / 2) / (1 + zz), z * math.sqrt(p * (1 - p) / n + zz / (4 * n)) / (1 + zz)
    # At k = 0 and k = n the bound is exactly 0 or 1; rounding may leave it a hair inside.
    return (0.0 if k == 0 else max(0.0, centre - half)), (1.0 if k == n else min(1.0, centre + half))


def bootstrap(values: np.ndarray, per: np.ndarray | None = None, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean over images, or of the ratio of two means over the same images.

    The draws are always the same, so that a table drawn again has the same digits.

    Args:
        values: (N,), N > 0.
        per: (N,), of the denominator.
    """
    count = len(values)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=draws)
    means = drawn @ values / (count if per is None else drawn @ per)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1) of at least one value; the deviation is None for a single one."""
    if not values:
        raise ValueError("no values")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def sampling_interval(score: Score, z: float = Z) -> tuple[float, float]:
    """95 % sampling interval of a mean of proportions (fractions): Wilson for one, variance recovery for several."""
    mean = _value(score)
    low = high = 0.0
    for k, n in score:
        bounds = wilson(k, n, z)
        low += (k / n - bounds[0]) ** 2
        high += (bounds[1] - k / n) ** 2
    return mean - math.sqrt(low) / len(score), mean + math.sqrt(high) / len(score)


def combined_interval(seeds: Sequence[Score]) -> tuple[float, float]:
    """95 % interval of steps 2 to 4 of the rule (fractions) around the mean over seeds.

    It is the range in which a single training by the paper's authors is expected if their method is ours.
    """
    mean, sd = mean_sd([_value(score) for score in seeds])
    low, high = sampling_interval(_pooled(seeds))
    if not sd:
        return low, high
    seed_error = sd * math.sqrt(1 + 1 / len(seeds))
    below, above = (_half((mean - low) / Z, seed_error, len(seeds)), _half((high - mean) / Z, seed_error, len(seeds)))
    return mean - below, mean + above


def _half(sampling: float, seed: float, seeds: int) -> float:
    """Half-width from two standard errors, the second known from `seeds` values."""
    variance = sampling**2 + seed**2
    freedom = (seeds - 1) * variance**2 / seed**4
    return t_critical(freedom) * math.sqrt(variance)


def t_critical(freedom: float, confidence: float = 0.95) -> float:
    """Two-sided critical value of Student's t, for `freedom` >= 1 (need not be whole). Accurate to about 1e-4.

    With t = sqrt(f) tan(a) the density of the angle is proportional to cos(a)^(f - 1), which is bounded: it is summed
    up on a grid and read backwards.
    """
    return _t_critical(round(min(max(freedom, 1.0), 1e4), 2), confidence)


@lru_cache(maxsize=4096)
def _t_critical(freedom: float, confidence: float) -> float:
    # Beyond 12 / sqrt(f) the mass is negligible; the grid is laid where the mass is.
    angle = np.linspace(0.0, min(math.pi / 2, 12 / math.sqrt(freedom)), 4001)
    density = np.cos(angle) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(confidence, mass / mass[-1], angle)))


# ------------------------------------------------------------------------------------------------------- paired tests
def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test of two classifiers on the same images (McNemar, Psychometrika 12, 1947).

    Args:
        only_a: images that only the first gets right.
        only_b: images that only the second gets right.
    Returns:
        p-value: twice the binomial(only_a + only_b, 1/2) tail up to the smaller count, at most 1.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"counts must not be negative: {only_a}, {only_b}")
    total = only_a + only_b
    log_total = math.lgamma(total + 1) - total * math.log(2)
    tail = math.fsum(
        math.exp(log_total - math.lgamma(i + 1) - math.lgamma(total - i + 1)) for i in range(min(only_a, only_b) + 1)
    )
    return min(1.0, 2 * tail)


# ---------------------------------------------------------------------------------------------------- printed numbers
def decimals(printed: str) -> int:
    """Digits after the point of a number as printed: 2 for '92.50'."""
    return len(printed.partition(".")[2])


def check_number(printed: str, n: int) -> tuple[int, ...] | None:
    """The whole k for which k of n, in percent, can have been printed like this.

    Rounding half up, half to even and truncation all count. None means that no count of correct images among n gives
    the number, so it was measured on another test set, is a mean of several runs, or is a misprint.

    Raises:
        UserError: `printed` is no plain decimal number.
        ValueError: n < 1.
    """
    if n < 1:
        raise ValueError("n must be at least 1")
    try:
        value = Fraction(printed)
    except ValueError as error:
        raise UserError(f"'{printed}' is not a number", "write it as the paper prints it, e.g. 92.50") from error
    unit = Fraction(1, 10 ** decimals(printed))
    # Rounding half up reaches the number from half a unit below it (that tie included), truncation from up to one unit
    # above.
    low, high = value - unit / 2, value + unit
    candidates = range(max(0, math.floor(low * n / 100)), min(n, math.ceil(high * n / 100)) + 1)
    found = tuple(k for k in candidates if low <= Fraction(100 * k, n) < high)
    return found or None


# ----------------------------------------------------------------------------------------------------------- verdicts
def verdict(
    printed: str,
    seeds: Sequence[Score],
    wanted: int,
    *,
    protocol_differs: str = "",
    profile: str = "paper",
    blocked: str = "",
) -> Judgement:
    """Judge a printed percentage against our runs by the rule of this module.

    Args:
        printed: the paper's number in percent, with its digits ('92.50').
        seeds: one `Score` per finished seed: ((k, n),) for accuracy, one (k, n) per class for mean class accuracy.
        wanted: seeds asked for.
        protocol_differs: why the paper's protocol is not the one we ran; empty if it is.
        profile: 'paper' is compared; 'short' and 'quick' (or any other) never are.
        blocked: why there is no run, used when `seeds` is empty.
    """
    if not seeds:
        return Judgement(Kind.BLOCKED, blocked or "not run")
    mean, sd = mean_sd([_value(score) for score in seeds])
    low, high = combined_interval(seeds)
    ours = Judgement(
        Kind.SYNTHETIC,
        f"profile {profile}",
        mean=100 * mean,
        sd=None if sd is None else 100 * sd,
        interval=(100 * low, 100 * high),
    )
    if profile == "short":
        return replace(ours, kind=Kind.SHORTENED, reason="shortened recipe")
    if profile != "paper":
        return ours
    claim, slack = float(printed), 0.5 * 10.0 ** -decimals(printed)
    kind, reason = _call(100 * low - slack, claim, 100 * high + slack), ""
    if protocol_differs:
        kind, reason = Kind.DIFFERENT, protocol_differs
    elif len(seeds) < wanted:
        kind, reason = Kind.PARTIAL, f"{len(seeds)} of {wanted} seeds"
    elif sd is None:
        reason = "one seed: the interval leaves out the spread over seeds"
    half = 100 * (high - mean if claim > 100 * mean else mean - low) + slack
    return replace(ours, kind=kind, reason=reason, delta=100 * mean - claim, detectable=half * (Z + POWER_Z) / Z)


def verdict_exact(printed: str, ours: float | None, *, blocked: str = "") -> Judgement:
    """Judge a number without chance in it, such as a parameter count in millions: equal as printed, or not."""
    if ours is None:
        return Judgement(Kind.BLOCKED, blocked or "not built")
    claim, unit = float(printed), 10.0 ** -decimals(printed)
    # A count may be printed rounded or cut, so it stands for anything from half a unit below to one unit above.
    within = claim - unit / 2 - 1e-9 <= ours < claim + unit
    kind = Kind.REPRODUCED if within else Kind.BELOW if ours < claim else Kind.ABOVE
    return Judgement(kind, mean=ours, delta=ours - claim)


def _call(low: float, claim: float, high: float) -> Kind:
    """Where the paper's number lies from our interval; a claim above it means that we are below the paper."""
    if claim > high + 1e-9:
        return Kind.BELOW
    return Kind.ABOVE if claim < low - 1e-9 else Kind.REPRODUCED


def _value(score: Score) -> float:
    return math.fsum(k / n for k, n in score) / len(score)


def _pooled(seeds: Sequence[Score]) -> Score:
    """Counts averaged over seeds part by part: the mean seed, at the test set's own size."""
    if len({len(score) for score in seeds}) > 1:
        raise ValueError("seeds cover different classes")
    return [
        (math.fsum(k for k, _ in part) / len(part), math.fsum(n for _, n in part) / len(part))
        for part in zip(*seeds, strict=True)
    ]
