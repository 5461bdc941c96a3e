"""The gate of `check`: what is an error, what is not, and what it tells the reader."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench import regression
from bench.errors import UserError
from bench.regression import Status, check

RUN = {"experiment": "fervt-r34", "protocol": "ferplus-8@majority", "profile": "paper", "selection": "last"}
BASE = {**RUN, "metric": "accuracy", "value": "0.850000", "band": "0.01", "n": "3000"}


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(accuracy: float, seed: int = 0, fold: int = 0, n: int = 3000, **changed: object) -> dict[str, object]:
    return {**RUN, "seed": seed, "fold": fold, "n": n, "accuracy": accuracy, "mean_class_accuracy": 0.7, **changed}


def checked(tmp_path: Path, runs: list[dict[str, object]], base: dict[str, str] = BASE, **options):  # type: ignore[no-untyped-def]
    return check(write(tmp_path / "runs.csv", runs), write(tmp_path / "baseline.csv", [base]), **options)


def test_within_the_band_there_is_nothing_to_say(tmp_path: Path) -> None:
    for value in (0.84, 0.85, 0.86):
        assert checked(tmp_path, [run(value)]) == []
    assert "within its band" in regression.format([])


def test_below_the_band_is_an_error_over_the_mean_of_seeds(tmp_path: Path) -> None:
    (found,) = checked(
        tmp_path,
        [run(0.85, 0), run(0.82, 1), run(0.81, 2)],
        tables={("fervt-r34", "ferplus-8@majority"): "fervt-table11"},
    )
    assert found.status is Status.REGRESSION
    assert found.is_error
    assert found.got == pytest.approx(0.826667, abs=1e-6)
    text = regression.format([found])
    for part in (
        "fervt-r34 on ferplus-8@majority", "expected 85.00", "band 1.00", "got 82.67", "difference -2.33", "n 3000",
        "seeds 0 1 2", "python run_all.py show fervt-r34:ferplus-8@majority",
        "python run_all.py --table fervt-table11 --profile paper --seeds 0 1 2 --force",
    ):  # fmt: skip
        assert part in text


def test_an_improvement_is_told_and_is_no_error(tmp_path: Path) -> None:
    (found,) = checked(tmp_path, [run(0.88)])
    assert (found.status, found.is_error) == (Status.IMPROVED, False)
    assert "not an error" in regression.format([found])


def test_a_row_without_result_is_an_error(tmp_path: Path) -> None:
    for other in ({"profile": "quick"}, {"selection": "test-best"}, {"protocol": "raf-db-7"}):
        (found,) = checked(tmp_path, [run(0.9, **other)])
        assert (found.status, found.is_error, found.got) == (Status.MISSING, True, None)
        assert "got nothing" in regression.format([found])


def test_another_test_set_is_an_error_whatever_the_value(tmp_path: Path) -> None:
    (found,) = checked(tmp_path, [run(0.85, n=2999)])
    assert (found.status, found.is_error) == (Status.OTHER_TEST_SET, True)
    assert "n 2999 where the baseline has 3000" in regression.format([found])


def test_folds_are_pooled_by_their_images(tmp_path: Path) -> None:
    runs = [run(0.80, fold=0, n=1000), run(0.875, fold=1, n=2000)]
    assert checked(tmp_path, runs) == []  # pooled 85.0; the plain mean would be 83.75
    assert checked(tmp_path, [run(0.80, fold=0, n=2000), run(0.875, fold=1, n=1000)])[0].got == pytest.approx(0.825)


def test_a_repeated_run_counts_once_and_the_later_row_wins(tmp_path: Path) -> None:
    assert checked(tmp_path, [run(0.10), run(0.85)]) == []


def test_an_empty_band_takes_the_default(tmp_path: Path) -> None:
    base = {**BASE, "band": ""}
    assert checked(tmp_path, [run(0.83)], base, band=0.03) == []
    assert checked(tmp_path, [run(0.83)], base, band=0.01)[0].band == 0.01


def test_other_metrics_are_gated_too(tmp_path: Path) -> None:
    base = {**BASE, "metric": "mean_class_accuracy"}
    assert checked(tmp_path, [run(0.99)], base)[0].status is Status.REGRESSION


def test_a_synthetic_row_says_so(tmp_path: Path) -> None:
    (found,) = checked(tmp_path, [run(0.5, profile="quick")], {**BASE, "profile": "quick"})
    assert "SYNTHETIC, not comparable" in regression.format([found])


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ({**BASE, "metric": "acuracy"}, "row 2: unknown metric 'acuracy'"),
        ({**BASE, "value": "85 %"}, "row 2: value '85 %' is not a number"),
        ({k: v for k, v in BASE.items() if k != "band"}, "no column band"),
    ],
)
def test_a_bad_baseline_is_refused_by_row(tmp_path: Path, base: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        checked(tmp_path, [run(0.85)], base)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"runs\.csv: no such file"):
        check(tmp_path / "runs.csv", tmp_path / "baseline.csv")
