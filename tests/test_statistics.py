"""Statistics against scipy (present through scikit-learn) and against the numbers in the papers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import statistics
from bench.errors import UserError
from bench.statistics import Kind, check_number, combined_interval, mcnemar, t_critical, verdict, verdict_exact, wilson

oracle = pytest.importorskip("scipy.stats", reason="scipy is the oracle; it comes with scikit-learn")


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(case: tuple[int, int]) -> None:
    k, n = case
    expected = oracle.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n, oracle.norm.ppf(0.975)) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("value", "n", "half"), [(0.9207, 3068, 0.96), (0.6410, 4000, 1.49), (0.6723, 3500, 1.55)])
def test_half_widths_of_the_papers_claims(value: float, n: int, half: float) -> None:
    low, high = wilson(value * n, n)
    assert 100 * (high - low) / 2 == pytest.approx(half, abs=0.006)


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 3, 4.7, 10, 30, 200, 5000])
def test_student_quantiles_agree_with_scipy(freedom: float) -> None:
    assert t_critical(freedom) == pytest.approx(oracle.t.ppf(0.975, freedom), rel=2e-4)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(a: int, b: int) -> None:
    expected = oracle.binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert mcnemar(a, b) == mcnemar(b, a)


def test_mean_and_spread() -> None:
    assert statistics.mean_sd([2.0]) == (2.0, None)
    mean, sd = statistics.mean_sd([1.0, 2.0, 4.0])
    assert (mean, sd) == pytest.approx((7 / 3, np.std([1, 2, 4], ddof=1)))


# ----------------------------------------------------------------------------------------------- printed numbers
def brute_force(printed: str, n: int) -> tuple[int, ...]:
    """Every k of n whose percentage prints like this, by rounding exact integers in the three ways."""
    scale = 10 ** statistics.decimals(printed)
    wanted = round(float(printed) * scale)
    found = []
    for k in range(n + 1):
        whole, rest = divmod(100 * scale * k, n)
        half_up = whole + (2 * rest >= n)
        half_even = whole + (2 * rest > n or (2 * rest == n and whole % 2 == 1))
        if wanted in (whole, half_up, half_even):
            found.append(k)
    return tuple(found)


@given(st.integers(1, 400), st.integers(0, 2), st.data())
def test_reachable_counts_are_those_of_a_brute_force_search(n: int, digits: int, data: st.DataObject) -> None:
    printed = f"{data.draw(st.integers(0, 100 * 10**digits)) / 10**digits:.{digits}f}"
    assert (check_number(printed, n) or ()) == brute_force(printed, n)


def test_numbers_of_the_papers() -> None:
    assert check_number("92.07", 3068) is not None  # PF-ViT on RAF-DB
    assert check_number("84.31", 3068) is None  # FER-VT on RAF-DB, three tables
    assert check_number("97.80", 91) == (89,)
    assert check_number("99.79", 948) == (946,)
    assert check_number("99.79", 91) is None
    assert check_number("100", 7) == (7,)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(UserError, match=r"64\.86\.62"):
        check_number("64.86.62", 100)


# ----------------------------------------------------------------------------------------------------- intervals
def seeds(*counts: float, n: float = 3000) -> list[list[tuple[float, float]]]:
    return [[(k, n)] for k in counts]


def test_one_seed_and_equal_seeds_leave_wilson_alone() -> None:
    assert combined_interval(seeds(2700)) == pytest.approx(wilson(2700, 3000))
    assert combined_interval(seeds(2700, 2700, 2700)) == pytest.approx(wilson(2700, 3000))


def test_more_seeds_do_not_enlarge_the_test_set() -> None:
    low, high = combined_interval(seeds(*[2700] * 100))
    assert high - low == pytest.approx(wilson(2700, 3000)[1] - wilson(2700, 3000)[0])


def test_combination_follows_the_stated_rule() -> None:
    counts = (2700, 2712, 2691)
    values = [k / 3000 for k in counts]
    mean, error = np.mean(values), np.std(values, ddof=1) * math.sqrt(1 + 1 / 3)
    sampling = (mean - wilson(3000 * mean, 3000)[0]) / 1.96
    variance = sampling**2 + error**2
    expected = mean - oracle.t.ppf(0.975, 2 * variance**2 / error**4) * math.sqrt(variance)
    assert combined_interval(seeds(*counts))[0] == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.integers(1500, 2900), min_size=1, max_size=5))
def test_the_interval_holds_the_mean_and_at_least_the_sampling(counts: list[int]) -> None:
    low, high = combined_interval(seeds(*counts))
    mean = sum(counts) / len(counts)
    inner = wilson(mean, 3000)
    assert low <= inner[0] + 1e-9
    assert high >= inner[1] - 1e-9


def test_mean_class_accuracy_of_one_class_is_wilson() -> None:
    assert statistics.sampling_interval([(40, 50)]) == pytest.approx(wilson(40, 50))


def test_mean_class_accuracy_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    rates, sizes = np.array([0.95, 0.8, 0.6, 0.4]), np.array([900, 300, 80, 40])
    hits = 0
    for draw in rng.binomial(sizes, rates, size=(2000, 4)):
        low, high = statistics.sampling_interval(list(zip(draw.tolist(), sizes.tolist(), strict=True)))
        hits += low <= rates.mean() <= high
    assert 0.935 < hits / 2000 < 0.968


# ------------------------------------------------------------------------------------------------------ verdicts
def test_verdicts_inside_and_outside() -> None:
    ours = seeds(2760, 2766, 2754)  # 92.0
    for printed, kind in (("92.07", Kind.REPRODUCED), ("94.50", Kind.BELOW), ("89.50", Kind.ABOVE)):
        judgement = verdict(printed, ours, 3)
        assert judgement.kind is kind
        assert judgement.delta == pytest.approx(92.0 - float(printed))
        assert judgement.mean == pytest.approx(92.0)


def test_the_printed_digits_widen_the_claim() -> None:
    high = 100 * wilson(2760, 3000)[1]
    assert verdict(f"{high + 0.4:.0f}", seeds(2760), 1).kind is Kind.REPRODUCED
    assert verdict(f"{high + 0.4:.2f}", seeds(2760), 1).kind is Kind.BELOW


def test_a_bad_comparison_gets_no_verdict() -> None:
    far = seeds(1500, 1510, 1490)
    assert verdict("92.07", far, 3, profile="quick").text == "not comparable (profile quick)"
    assert verdict("92.07", far, 3, profile="short").text == "not compared (shortened recipe)"
    assert verdict("92.07", far, 5).text == "partial (3 of 5 seeds)"
    assert verdict("92.07", far, 3, protocol_differs="7 classes").text == "different protocol (7 classes)"
    assert verdict("92.07", [], 3, blocked="no data").text == "blocked (no data)"
    assert verdict("92.07", [], 3).kind is Kind.BLOCKED
    for profile in ("quick", "short", "anything else"):
        assert verdict("92.07", far, 3, profile=profile, protocol_differs="x").delta is None


def test_synthetic_comes_before_every_other_reason() -> None:
    for differs, wanted in itertools.product(("", "7 classes"), (1, 5)):
        assert verdict("50.00", seeds(1500), wanted, profile="quick", protocol_differs=differs).kind is Kind.SYNTHETIC


def test_one_seed_says_that_its_interval_is_too_narrow() -> None:
    assert "one seed" in verdict("92.07", seeds(2760), 1).reason
    assert verdict("92.07", seeds(2760), 1).label == "reproduced"


def test_detectable_has_the_power_it_states() -> None:
    """A paper that is `detectable` better than we are is called in about four of five repetitions."""
    rng = np.random.default_rng(1)
    judgement = verdict("95.00", seeds(2760), 1)
    assert judgement.detectable is not None
    paper = 92.0 + judgement.detectable
    error = 100 * math.sqrt(0.92 * 0.08 / 3000)
    called = sum(
        verdict(f"{paper:.2f}", seeds(30 * float(rng.normal(92.0, error))), 1).kind is Kind.BELOW for _ in range(1500)
    )
    assert 0.74 < called / 1500 < 0.87


def test_parameter_counts_are_equal_or_not() -> None:
    assert verdict_exact("5.34", 5.338).kind is Kind.REPRODUCED
    assert verdict_exact("5.34", 5.3499).kind is Kind.REPRODUCED  # cut, not rounded
    assert verdict_exact("5.34", 5.36).kind is Kind.ABOVE
    assert verdict_exact("5.34", 5.32).kind is Kind.BELOW
    assert verdict_exact("5.34", None, blocked="not built").text == "blocked (not built)"
