"""Metrics of one run, all derived from one confusion matrix, itself counted from a predictions file.

Rows of a confusion matrix are the true classes, columns the predicted ones. The predicted class is the one with the
largest probability (the first of them on an exact tie). Fractions are 0..1 everywhere; percent exists only where tables
are drawn.

A `last-k` predictions file holds several epochs of one run. Each epoch is scored alone; the numbers of the run are the
mean over the epochs, with their standard deviation beside it. `n` stays the number of test images: k epochs of one
network do not make the test set larger.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError, unknown
from bench.statistics import Part

if TYPE_CHECKING:
    import pandas as pd

Matrix = NDArray[Any]
METRICS = ("accuracy", "mean_class_accuracy", "macro_f1", "class_accuracy", "prediction_share")
_METRIC = re.compile(r"(?P<name>\w+)(?:\[(?P<truth>[\w-]+)(?:>(?P<predicted>[\w-]+))?\])?")


# ---------------------------------------------------------------------------------------------------- pure functions
def confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Counts of (true class, predicted class).

    Args:
        truth: (n,) integer class ids, 0 <= id < `classes`.
        predicted: (n,) likewise.
        classes: number of classes K.
    Returns:
        (K, K) int64; rows are the truth.
    Raises:
        ValueError: lengths differ or an id is outside the range.
    """
    truth, predicted = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"truth {truth.shape} and predicted {predicted.shape} must be equally long vectors")
    for ids in (truth, predicted):
        if ids.size and (ids.min() < 0 or ids.max() >= classes):
            raise ValueError(f"class ids must lie in 0..{classes - 1}")
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def accuracy(matrix: Matrix) -> float:
    """Correct images over all images; NaN for an empty matrix."""
    return _ratio(float(np.trace(matrix)), float(matrix.sum()))


def class_accuracy(matrix: Matrix) -> NDArray[np.float64]:
    """(K,) recall of each class; NaN for a class without a test image."""
    images = matrix.sum(axis=1).astype(np.float64)
    recall: NDArray[np.float64] = np.divide(np.diag(matrix), images, out=np.full(len(images), np.nan), where=images > 0)
    return recall


def mean_class_accuracy(matrix: Matrix) -> float:
    """Unweighted mean of the class accuracies. Classes without a test image are excluded: they have no accuracy."""
    present = matrix.sum(axis=1) > 0
    return float(class_accuracy(matrix)[present].mean()) if present.any() else float("nan")


def macro_f1(matrix: Matrix) -> float:
    """Unweighted mean of F1 over the classes that have a test image (the same classes as `mean_class_accuracy`)."""
    truth, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    present = truth > 0
    if not present.any():
        return float("nan")
    return float((2 * np.diag(matrix)[present] / (truth + predicted)[present]).mean())


def prediction_shares(matrix: Matrix) -> NDArray[np.float64]:
    """(K, K) share of each true class's images by predicted class: rows sum to 1, or are NaN without images."""
    images = matrix.sum(axis=1, keepdims=True).astype(np.float64)
    shares: NDArray[np.float64] = np.divide(matrix, images, out=np.full(matrix.shape, np.nan), where=images > 0)
    return shares


# ------------------------------------------------------------------------------------------------ metrics by their name
def metric_parts(metric: str, classes: Sequence[str], matrix: Matrix) -> tuple[Part, ...]:
    """The counts behind a claim's metric: its value is the mean of k/n over these (k, n).

    One pair for `accuracy`, `class_accuracy[fear]` and `prediction_share[fear>happiness]`; one per class with test
    images for `mean_class_accuracy`. A class named without a test image gives no pair at all.

    Raises:
        UserError: unknown metric or class, or a metric that is no mean of proportions (macro_f1).
    """
    name, truth, predicted = parse_metric(metric)
    if name == "accuracy":
        parts = [(float(np.trace(matrix)), float(matrix.sum()))]
    elif name == "mean_class_accuracy":
        parts = [(float(row[i]), float(row.sum())) for i, row in enumerate(matrix)]
    elif name in ("class_accuracy", "prediction_share"):
        row = matrix[_class_id(truth, classes)]
        parts = [(float(row[_class_id(predicted or truth, classes)]), float(row.sum()))]
    else:
        raise UserError(f"metric '{metric}' is not a mean of proportions, so it has no sampling interval")
    return tuple((k, n) for k, n in parts if n > 0)


def metric_value(metric: str, classes: Sequence[str], *matrices: Matrix) -> float:
    """A metric by the name a claim uses, over one confusion matrix or several pooled (folds of one seed); NaN if
    undefined.

    Raises:
        UserError: unknown metric or class.
    """
    matrix = np.sum(matrices, axis=0)
    if metric == "macro_f1":
        return macro_f1(matrix)
    parts = metric_parts(metric, classes, matrix)
    return sum(k / n for k, n in parts) / len(parts) if parts else float("nan")


def parse_metric(metric: str) -> tuple[str, str, str]:
    """(name, true class, predicted class) of a metric string; classes are '' where the metric names none.

    Raises:
        UserError: unknown name, or brackets that do not fit it.
    """
    match = _METRIC.fullmatch(metric)
    if not match or match["name"] not in METRICS:
        raise unknown("metric", metric, METRICS)
    name, truth, predicted = match["name"], match["truth"] or "", match["predicted"] or ""
    wanted = {"class_accuracy": (True, False), "prediction_share": (True, True)}.get(name, (False, False))
    if (bool(truth), bool(predicted)) != wanted:
        raise UserError(
            f"metric '{metric}' has the wrong brackets",
            "write accuracy, mean_class_accuracy, macro_f1, class_accuracy[fear] or prediction_share[fear>happiness]",
        )
    return name, truth, predicted


# -------------------------------------------------------------------------------------------------- predictions files
@dataclass(frozen=True)
class EpochScores:
    """One epoch of one run: its confusion matrix (K, K) int64 and what follows from it."""

    epoch: int
    matrix: NDArray[np.int64]

    @property
    def n(self) -> int:
        return int(self.matrix.sum())

    @property
    def correct(self) -> int:
        return int(np.trace(self.matrix))

    @cached_property
    def values(self) -> dict[str, float]:
        """accuracy, mean_class_accuracy and macro_f1 as fractions."""
        m = self.matrix
        return {"accuracy": accuracy(m), "mean_class_accuracy": mean_class_accuracy(m), "macro_f1": macro_f1(m)}


@dataclass(frozen=True)
class Scores:
    """What one predictions file says: one `EpochScores` per epoch in it, lowest epoch first."""

    classes: tuple[str, ...]
    epochs: tuple[EpochScores, ...]

    @property
    def n(self) -> int:
        """Test images (not images x epochs)."""
        return self.epochs[0].n

    @property
    def correct(self) -> float:
        """Correct images, mean over the epochs (a whole number when there is one epoch)."""
        return sum(e.correct for e in self.epochs) / len(self.epochs)

    @property
    def matrix(self) -> NDArray[Any]:
        """Confusion matrix; its mean over the epochs (float64) where there are several, so rows still sum to images."""
        if len(self.epochs) == 1:
            return self.epochs[0].matrix
        return np.asarray(np.mean([e.matrix for e in self.epochs], axis=0))

    def mean(self, metric: str) -> float:
        """Mean over epochs of accuracy, mean_class_accuracy or macro_f1."""
        return float(np.mean([e.values[metric] for e in self.epochs]))

    def sd(self, metric: str) -> float:
        """Standard deviation over epochs (n - 1); NaN with one epoch."""
        values = [e.values[metric] for e in self.epochs]
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    def row(self) -> dict[str, float]:
        """The metric columns of runs.csv: n, correct, accuracy, mean_class_accuracy, macro_f1."""
        return {
            "n": self.n,
            "correct": _whole(self.correct),
            **{m: round(self.mean(m), 6) for m in ("accuracy", "mean_class_accuracy", "macro_f1")},
        }

    def class_rows(self) -> list[dict[str, Any]]:
        """The metric columns of per_class.csv: class, n, correct, accuracy; one row per class with a test image."""
        matrix = self.matrix
        rows = zip(self.classes, matrix.sum(axis=1), np.diag(matrix), strict=True)
        return [
            {"class": name, "n": _whole(n), "correct": _whole(k), "accuracy": round(float(k / n), 6)}
            for name, n, k in rows
            if n > 0
        ]


def from_predictions(source: Path | str | pd.DataFrame, name: str = "") -> Scores:
    """Score a predictions file.

    Args:
        source: `predictions-<selection>.parquet`, or the table in it: columns name, label, epoch and p_<class> per
            class.
        name: what errors call a DataFrame (its file, usually).
    Raises:
        UserError: unreadable file, missing column, NaN probability, unknown label, image named twice in an epoch, or
            epochs that do not cover the same number of images. The message names the file.
    """
    frame, where = _read(source, name)
    classes = tuple(c[2:] for c in frame.columns if c.startswith("p_"))
    missing = {"name", "label", "epoch"} - set(frame.columns)
    if missing or not classes:
        raise UserError(f"{where}: no column {', '.join(sorted(missing)) or 'p_<class>'}", _AGAIN)
    if frame.empty:
        raise UserError(f"{where}: no predictions in it", _AGAIN)
    probabilities = frame[[f"p_{c}" for c in classes]].to_numpy(dtype=np.float32)
    _check_finite(probabilities, frame, where)
    truth = _codes(frame, classes, where)
    predicted = probabilities.argmax(axis=1)
    epoch = frame["epoch"].to_numpy()
    twice = frame.duplicated(["name", "epoch"]).to_numpy()
    if twice.any():
        raise UserError(f"{where}: image {frame['name'].iloc[int(twice.argmax())]} appears twice in one epoch", _AGAIN)
    scores = tuple(
        EpochScores(int(e), confusion(truth[epoch == e], predicted[epoch == e], len(classes))) for e in np.unique(epoch)
    )
    if len({s.n for s in scores}) > 1:
        counts = ", ".join(f"epoch {s.epoch}: {s.n}" for s in scores)
        raise UserError(f"{where}: epochs cover different numbers of images ({counts})", _AGAIN)
    return Scores(classes, scores)


def correctness(source: Path | str | pd.DataFrame, name: str = "") -> dict[str, bool]:
    """Image name -> predicted rightly, of the last epoch in a predictions file; what paired tests are made of.

    Raises:
        UserError: as `from_predictions`.
    """
    frame, where = _read(source, name)
    from_predictions(frame, where)
    frame = frame[frame["epoch"] == frame["epoch"].max()]
    classes = [c[2:] for c in frame.columns if c.startswith("p_")]
    predicted = np.asarray(classes)[frame[[f"p_{c}" for c in classes]].to_numpy().argmax(axis=1)]
    right = predicted == frame["label"].to_numpy(dtype=str)
    return dict(zip(frame["name"].tolist(), right.tolist(), strict=True))


@dataclass(frozen=True)
class BatchMean:
    """Mean of the accuracies of test batches, which weighs the images of a smaller last batch more; fractions.

    Attributes:
        value: with the images in the order given.
        least, most: with the right and wrong answers in any order: those of the last batch all wrong, or all right.
        last: images in the last batch.
    """

    value: float
    least: float
    most: float
    last: int


def batch_mean(right: Sequence[bool], size: int) -> BatchMean:
    """Accuracy as code reports it that averages over batches of `size` images, from each image's correctness.

    With 3,137 images and batches of 64 the last batch is one image, which then counts for two points of a hundred.

    Raises:
        ValueError: no image, or a size below one.
    """
    n, correct = len(right), int(np.sum(right))
    if not n or size < 1:
        raise ValueError(f"{n} images in batches of {size}")
    batches, last = -(-n // size), n - (n - 1) // size * size

    def mean(right_in_last: int) -> float:
        return ((correct - right_in_last) / size + right_in_last / last) / batches

    fewest, most = max(0, correct - (n - last)), min(last, correct)
    return BatchMean(mean(int(np.sum(right[n - last :]))), mean(fewest), mean(most), last)


def confusion_csv(classes: Sequence[str], matrix: Matrix) -> str:
    """A confusion matrix as CSV text: first column `truth`, then one column of counts per predicted class."""
    lines = [",".join(["truth", *classes])]
    lines += [",".join([name, *(f"{v:.10g}" for v in row)]) for name, row in zip(classes, matrix, strict=True)]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------- internals
_AGAIN = "delete the run's folder and run it again"


def _ratio(k: float, n: float) -> float:
    return k / n if n else float("nan")


def _whole(value: float) -> float:
    """An int where the number is whole, so CSV files show 2812 and not 2812.0."""
    return int(value) if float(value).is_integer() else round(float(value), 6)


def _class_id(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise unknown("class", name, classes)
    return list(classes).index(name)


def _read(source: Path | str | pd.DataFrame, name: str) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source.reset_index(drop=True), name or "predictions"
    try:
        return pd.read_parquet(source), str(source)
    except Exception as error:  # pyarrow raises several unrelated types for a damaged or missing file
        raise UserError(f"{source}: not a readable predictions file ({error})", _AGAIN) from error


def _check_finite(probabilities: NDArray[np.float32], frame: pd.DataFrame, where: str) -> None:
    bad = ~np.isfinite(probabilities).all(axis=1)
    if bad.any():
        first = frame["name"].iloc[int(bad.argmax())]
        raise UserError(
            f"{where}: {int(bad.sum())} of {len(frame)} predictions are not finite, the first for image {first}",
            "training diverged: look at the losses in result.json, lower the learning rate or use fp32, and run again",
        )


def _codes(frame: pd.DataFrame, classes: Sequence[str], where: str) -> NDArray[np.int64]:
    ids = {c: i for i, c in enumerate(classes)}
    codes = frame["label"].map(ids)
    if codes.isna().any():
        row = int(codes.isna().to_numpy().argmax())
        label, image = frame["label"].iloc[row], frame["name"].iloc[row]
        raise UserError(
            f"{where}: label '{label}' of image {image} is no class of the file ({', '.join(classes)})", _AGAIN
        )
    return np.asarray(codes, dtype=np.int64)
