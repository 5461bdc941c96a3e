"""The gate of `run_all.py check`: results against results/baseline.csv.

A baseline row holds experiment, protocol, profile, selection, metric, value (a fraction), band (a fraction; empty means
the default) and n. It is compared with the mean over the seeds in runs.csv; folds of one seed are pooled by their test
images first. Below value - band is a regression and a row without any result is missing: both are errors. Above value +
band is reported, so that the baseline gets renewed, and is no error.

A band has to cover the retraining noise of its entry (sampling at n and spread over seeds: see bench/statistics.py),
not the last digit: only re-scoring the same checkpoint repeats a number exactly.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from bench.errors import UserError, unknown

ENTRY = ("experiment", "protocol", "profile", "selection")
BASELINE = (*ENTRY, "metric", "value", "band", "n")
METRICS = ("accuracy", "mean_class_accuracy", "macro_f1")
_EPSILON = 1e-9  # runs.csv has six digits; a value exactly on the band's edge is inside
Row = dict[str, str]
Key = tuple[str, ...]


class Status(StrEnum):
    """What a baseline row and the results say about each other, where they do not agree."""

    REGRESSION = "regression"
    MISSING = "missing"
    IMPROVED = "improved"
    OTHER_TEST_SET = "other test set"


@dataclass(frozen=True)
class Regression:
    """One baseline row that the results do not agree with. Values are fractions."""

    status: Status
    experiment: str
    protocol: str
    profile: str
    selection: str
    metric: str
    expected: float
    band: float
    n: int  # test images the baseline was measured on
    got: float | None = None
    got_n: int | None = None
    seeds: tuple[int, ...] = ()
    table: str = ""

    @property
    def is_error(self) -> bool:
        return self.status is not Status.IMPROVED

    @property
    def commands(self) -> tuple[str, str]:
        """How to look at the entry, and how to run it again."""
        table = f"--table {self.table}" if self.table else "--all"
        seeds = f" --seeds {' '.join(map(str, self.seeds))}" if self.seeds else ""
        return (
            f"python run_all.py show {self.experiment}:{self.protocol}",
            f"python run_all.py {table} --profile {self.profile}{seeds} --force",
        )


def check(
    results_csv: Path,
    baseline_csv: Path,
    band: float = 0.01,
    tables: Mapping[tuple[str, str], str] | None = None,
) -> list[Regression]:
    """Compare every baseline row with the results.

    Args:
        results_csv: runs.csv. Where a run (entry, seed, fold) occurs twice, the later row counts.
        baseline_csv: see the module docstring.
        band: the band of rows that state none, a fraction.
        tables: (experiment, protocol) -> a table that contains it, for the command to see it again.
    Returns:
        Disagreements in the baseline's order; empty when all agree. `any(r.is_error for r in ...)` is the gate.
    Raises:
        UserError: a file or column is missing, or a number cannot be read; names file and row.
    """
    results = _seed_means(_read(results_csv, (*ENTRY, "seed", "fold", "n", "accuracy")), results_csv)
    found = []
    for number, row in enumerate(_read(baseline_csv, BASELINE), start=2):
        where = f"{baseline_csv}, row {number}"
        if row["metric"] not in METRICS:
            error = unknown("metric", row["metric"], METRICS)
            raise UserError(f"{where}: {error.message}", error.hint)
        entry = tuple(row[field] for field in ENTRY)
        base = Regression(
            status=Status.MISSING,
            experiment=row["experiment"],
            protocol=row["protocol"],
            profile=row["profile"],
            selection=row["selection"],
            metric=row["metric"],
            expected=_number(row, "value", where),
            band=_number(row, "band", where) if row["band"].strip() else band,
            n=int(_number(row, "n", where)),
            table=(tables or {}).get((row["experiment"], row["protocol"]), ""),
        )
        judged = _judge(base, results.get((*entry, row["metric"])))
        if judged:
            found.append(judged)
    return found


def _judge(base: Regression, seeds: Mapping[int, tuple[float, float]] | None) -> Regression | None:
    if not seeds:
        return base
    got = math.fsum(value for value, _ in seeds.values()) / len(seeds)
    n = round(math.fsum(images for _, images in seeds.values()) / len(seeds))
    status = None
    if n != base.n:
        status = Status.OTHER_TEST_SET
    elif got < base.expected - base.band - _EPSILON:
        status = Status.REGRESSION
    elif got > base.expected + base.band + _EPSILON:
        status = Status.IMPROVED
    return replace(base, status=status, got=got, got_n=n, seeds=tuple(sorted(seeds))) if status else None


def format(found: Sequence[Regression]) -> str:
    """The report of `check`: per disagreement the numbers in percent, and the commands to see it again."""
    if not found:
        return "check: every baseline row is within its band"
    errors = sum(r.is_error for r in found)
    lines = [f"check: {errors} error(s), {len(found) - errors} improvement(s)"]
    for r in found:
        synthetic = " SYNTHETIC, not comparable" if r.profile == "quick" else ""
        lines.append(
            f"\n{r.status}: {r.experiment} on {r.protocol} ({r.metric}, {r.selection}, profile {r.profile}){synthetic}"
        )
        lines.append(f"  {_numbers(r)}")
        if r.status is Status.IMPROVED:
            lines.append("  not an error: renew this row of the baseline if the improvement is meant")
        lines += [f"  {command}" for command in r.commands]
    return "\n".join(lines)


def _numbers(r: Regression) -> str:
    expected = f"expected {100 * r.expected:.2f} - band {100 * r.band:.2f}"
    if r.got is None:
        return f"{expected}, got nothing: runs.csv has no such run (n {r.n})"
    images = f"n {r.got_n}" if r.got_n == r.n else f"n {r.got_n} where the baseline has {r.n}"
    seeds = f"seed{'s' * (len(r.seeds) != 1)} {' '.join(map(str, r.seeds))}"
    return f"{expected}, got {100 * r.got:.2f}, difference {100 * (r.got - r.expected):+.2f}, {images}, {seeds}"


def _seed_means(rows: Iterable[Row], path: Path) -> dict[Key, dict[int, tuple[float, float]]]:
    """(entry fields, metric) -> seed -> (value, n). Folds are averaged weighted by n, which pools accuracy exactly."""
    latest = {(*(row[f] for f in ENTRY), row["seed"], row["fold"]): (i, row) for i, row in enumerate(rows, start=2)}
    folds: dict[Key, dict[int, list[tuple[float, float]]]] = {}
    for i, row in latest.values():
        where = f"{path}, row {i}"
        seed, n = int(_number(row, "seed", where)), _number(row, "n", where)
        for metric in METRICS:
            if row.get(metric):
                key = (*(row[f] for f in ENTRY), metric)
                folds.setdefault(key, {}).setdefault(seed, []).append((_number(row, metric, where), n))
    return {key: {seed: _weighted(values) for seed, values in seeds.items()} for key, seeds in folds.items()}


def _weighted(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    total = math.fsum(n for _, n in values)
    return math.fsum(value * n for value, n in values) / total, total


def _read(path: Path, columns: Sequence[str]) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: no column {', '.join(missing)}", f"columns needed: {', '.join(columns)}")
            rows = list(reader)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file", "run a table first; the baseline is committed under results/"
        ) from None
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UserError(f"{path}, row {number}: {len(columns)} or more fields expected, as in the header")
    return rows


def _number(row: Row, column: str, where: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} '{row[column]}' is not a number")
    return value
