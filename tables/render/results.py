"""Results, indexed once: what runs.csv, per_class.csv and the confusion files say, found by dictionary lookup."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.errors import UserError
from bench.metrics import metric_parts, parse_metric
from bench.statistics import Part

if TYPE_CHECKING:
    import pandas as pd


class Key(NamedTuple):
    """An entry under one profile and one selection."""

    experiment: str
    protocol: str
    profile: str
    selection: str


@dataclass
class SeedRuns:
    """The runs of one seed: one, or one per fold. Rows of runs.csv by fold."""

    folds: dict[int, dict[str, Any]] = field(default_factory=dict)

    def complete(self, folds: int) -> bool:
        """Whether every fold of the protocol is there (0 folds: a fixed split, one run)."""
        return len(self.folds) >= max(folds, 1)


class Results:
    """Everything measured, as dictionaries.

    Where the same (entry, profile, selection, seed, fold) occurs twice in runs.csv, the later row counts.

    Args:
        runs: runs.csv; one row per run and selection.
        per_class: per_class.csv (run, protocol, selection, class, n, correct, ...); None where no table needs it.
        confusion: folder with `<run>-<selection>.csv`; read when a cell asks for it.
    """

    def __init__(
        self, runs: pd.DataFrame, per_class: pd.DataFrame | None = None, confusion: Path | None = None
    ) -> None:
        self._runs: dict[Key, dict[int, SeedRuns]] = {}
        for row in _rows(runs):
            key = Key(row["experiment"], row["protocol"], row["profile"], row["selection"])
            fold = int(row["fold"]) if _given(row.get("fold")) else 0
            self._runs.setdefault(key, {}).setdefault(int(row["seed"]), SeedRuns()).folds[fold] = row
        self._frame = per_class
        self._confusion = confusion
        self._matrices: dict[tuple[str, str], tuple[list[str], np.ndarray]] = {}

    def seeds(self, key: Key) -> Mapping[int, SeedRuns]:
        """Seed -> its runs; empty where nothing was run."""
        return self._runs.get(key, {})

    def score(self, key: Key, seed: int, metric: str) -> tuple[Part, ...] | None:
        """The counts behind `metric` for one seed, folds pooled; None where the results do not hold them.

        Raises:
            UserError: unknown metric, or a damaged confusion file.
        """
        runs = list(self._runs[key][seed].folds.values())
        name, truth, _ = parse_metric(metric)
        if name == "accuracy":
            return ((float(sum(r["correct"] for r in runs)), float(sum(r["n"] for r in runs))),)
        if name == "prediction_share":
            return self._share(metric, runs, key.selection)
        classes: dict[str, Part] = {}
        for run in runs:
            for label, (k, n) in self._classes.get((run["run"], key.protocol, key.selection), {}).items():
                old = classes.get(label, (0.0, 0.0))
                classes[label] = (old[0] + k, old[1] + n)
        if name == "class_accuracy":
            return (classes[truth],) if truth in classes else None
        return tuple(classes[label] for label in sorted(classes)) or None

    def _share(self, metric: str, runs: Iterable[Mapping[str, Any]], selection: str) -> tuple[Part, ...] | None:
        k = n = 0.0
        for run in runs:
            classes, matrix = self.confusion(run["run"], selection)
            # The file covers the protocol the run was made for; on a subset of it the run has other counts.
            if not set(parse_metric(metric)[1:]) <= set(classes) or abs(matrix.sum() - run["n"]) > 1e-3:
                return None
            for part in metric_parts(metric, classes, matrix):
                k, n = k + part[0], n + part[1]
        return ((k, n),) if n else None

    def confusion(self, run: str, selection: str) -> tuple[list[str], np.ndarray]:
        """(class names, (K, K) counts) of one run; no classes where its file does not exist.

        Raises:
            UserError: the file is damaged; the message names it.
        """
        if (run, selection) not in self._matrices:
            path = self._confusion / f"{run}-{selection}.csv" if self._confusion else None
            found = read_confusion(path) if path and path.is_file() else ([], np.zeros((0, 0)))
            self._matrices[run, selection] = found
        return self._matrices[run, selection]

    @cached_property
    def _classes(self) -> dict[tuple[str, str, str], dict[str, Part]]:
        """(run, protocol, selection) -> class -> counts. A run scored on subsets too has rows for each of them."""
        found: dict[tuple[str, str, str], dict[str, Part]] = {}
        if self._frame is None or self._frame.empty:
            return found
        columns = (self._frame[c].tolist() for c in ("run", "protocol", "selection", "class", "correct", "n"))
        for run, protocol, selection, label, k, n in zip(*columns, strict=True):
            if n > 0:
                found.setdefault((run, protocol, selection), {})[label] = (float(k), float(n))
        return found


def read_confusion(path: Path) -> tuple[list[str], np.ndarray]:
    """Read a confusion CSV (first column `truth`, then one column of counts per predicted class).

    Returns:
        (class names, (K, K) float64 counts).
    Raises:
        UserError: not a square table of counts under its own class names; names the file and the row.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    classes = rows[0][1:] if rows else []
    hint = "delete it and render again: it is computed from the predictions"
    if not classes or [row[0] for row in rows[1:] if row] != classes:
        raise UserError(f"{path}: rows and columns do not name the same classes", hint)
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(classes) + 1 or not all(_is_count(value) for value in row[1:]):
            raise UserError(f"{path}, row {number}: {len(classes)} counts expected", hint)
    return classes, np.array([[float(value) for value in row[1:]] for row in rows[1:]])


def _rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    names = list(frame.columns)
    for values in zip(*(frame[name].tolist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def _given(value: Any) -> bool:
    return value is not None and value == value  # NaN, an empty CSV field, is not equal to itself


def _is_count(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False
