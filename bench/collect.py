"""From finished runs to results/: runs.csv, per_class.csv, confusion/, and the kept reference runs.

Every number comes from a predictions file. Rows of a run replace earlier rows of the same experiment, protocol,
profile, seed and fold, so that each has one current result. A run is scored on the subsets of its protocol too, also
long after it finished: once a list is at hand, the kept predictions give the missing rows.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from bench import metrics, store
from bench.data import source
from bench.declare import Declarations, Protocol
from bench.errors import UserError
from bench.store import read_rows as read_rows

if TYPE_CHECKING:
    import pandas as pd

RUN_COLUMNS = (
    "run", "experiment", "method", "backbone", "pretraining", "augmentation", "options", "protocol", "selection", "n",
    "correct", "accuracy", "accuracy_sd", "mean_class_accuracy", "macro_f1", "epoch", "seconds", "images_per_second",
    "peak_memory_mb", "parameters", "device", "versions", "commit", "data_hash", "input_size", "profile", "seed",
    "fold", "synthetic", "preprocessing", "skipped", "departures", "finished",
)  # fmt: skip
CLASS_COLUMNS = (
    "run", "experiment", "protocol", "profile", "seed", "fold", "selection", "class", "n", "correct", "accuracy",
)  # fmt: skip
IDENTITY = ("experiment", "protocol", "profile", "seed", "fold")
Rows = list[dict[str, Any]]


def collect(folders: Iterable[Path], results: Path, declared: Declarations, root: Path | None = None) -> list[str]:
    """Score finished runs into `results`: those that are not there yet, were made again since, or lack a subset.

    Args:
        folders: run folders.
        results: the results folder.
        declared: gives the subsets that a run's predictions are scored on as well.
        root: the data root, for the subsets' lists.

    Returns:
        What went wrong, one message each: a run that could not be scored (damaged files), or a subset that does not fit
        the data or the predictions. Everything else is in.
    """
    results.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    subsets = Subsets(declared, root)
    with FileLock(results / ".lock"):
        runs, classes = read_rows(results / "runs.csv"), read_rows(results / "per_class.csv")
        before = {row["run"] for row in runs}
        changed = False
        for folder in folders:
            try:
                result = store.read_result(folder)
                if not result.selections:
                    continue  # a stage that does not classify: its product is its network
                if _complete(result, results, runs, classes, subsets.of(result)):
                    continue
                result = store.read_result(folder, verify=True)
                new_runs, new_classes = _score(result, folder, results, subsets, problems)
            except UserError as error:
                problems.append(f"{error.message}; the next call makes this run again")
                continue
            changed = True
            runs, classes = _without_older(result, declared, runs, classes, {row["protocol"] for row in new_runs})
            runs, classes = runs + new_runs, classes + new_classes
            if not result.synthetic:
                _keep(folder, results / "runs" / folder.name)
        if changed:
            _write_rows(results / "per_class.csv", CLASS_COLUMNS, classes)
            _write_rows(results / "runs.csv", RUN_COLUMNS, runs)
            _remove(results, before - {row["run"] for row in runs})
    return list(dict.fromkeys(problems))


def kept_folders(results: Path) -> list[Path]:
    """Folders of the runs of runs.csv that are kept beside it: subsets can be scored from them at any time."""
    runs = dict.fromkeys(row["run"] for row in read_rows(results / "runs.csv"))
    return [folder for run in runs if ((folder := results / "runs" / run) / "result.json").is_file()]


class Subsets:
    """The subsets of protocols under one data root, each read once."""

    def __init__(self, declared: Declarations, root: Path | None) -> None:
        self._declared = declared
        self._copies = source.Copies(root)
        self._available: dict[tuple[str, bool], list[Protocol]] = {}
        self._images: dict[tuple[str, bool], Counter[str] | UserError] = {}

    def of(self, result: store.Result) -> list[Protocol]:
        """Subsets of a run's protocol whose images can be named here; the plan says why others cannot."""
        place = (result.protocol, result.skipped > 0)
        if place not in self._available:
            subsets = [p for p in self._declared.protocols.values() if p.subset_of == result.protocol]
            self._available[place] = [p for p in subsets if self._can_be_named(p, result.skipped > 0)]
        return self._available[place]

    def _can_be_named(self, subset: Protocol, skip_bad: bool) -> bool:
        try:
            self._copies.check(subset, skip_bad)
        except UserError:
            return False
        return True

    def images(self, subset: Protocol, skip_bad: bool) -> Counter[str]:
        """How often each image is in a subset.

        Raises:
            UserError: its list does not fit the data.
        """
        place = (subset.id, skip_bad)
        if place not in self._images:
            try:
                index = self._copies.open(subset, skip_bad).index(subset)
                self._images[place] = Counter(index["name"].tolist())
            except UserError as error:
                self._images[place] = error
        found = self._images[place]
        if isinstance(found, UserError):
            raise found
        return found


def _complete(result: store.Result, results: Path, runs: Rows, classes: Rows, subsets: Sequence[Protocol]) -> bool:
    """Whether everything that can be made of a run is there: its rows, those on its subsets, and its files."""
    wanted = {result.protocol, *(subset.id for subset in subsets)}
    scored = {row["protocol"] for row in runs if (row["run"], row["finished"]) == (result.run, result.finished)}
    counted = {row["protocol"] for row in classes if row["run"] == result.run}
    confusions = (results / "confusion" / f"{result.run}-{selection}.csv" for selection in result.selections)
    kept = result.synthetic or (results / "runs" / result.run / "result.json").is_file()
    return kept and wanted <= scored & counted and all(path.is_file() for path in confusions)


def _without_older(
    result: store.Result, declared: Declarations, runs: Rows, classes: Rows, scored: set[str]
) -> tuple[Rows, Rows]:
    """Rows of both files but those that a run replaces: of its experiment, profile, seed and fold, subsets included.

    Its own rows on a subset that could not be scored this time stay: the predictions are the same.

    Args:
        scored: protocols the run has new rows for.
    """
    family = {result.protocol, *(p.id for p in declared.protocols.values() if p.subset_of == result.protocol)}
    place = [result.experiment, result.profile, str(result.seed), str(result.fold)]

    def replaced(row: Mapping[str, Any]) -> bool:
        if row["protocol"] not in family or [str(row[n]) for n in IDENTITY if n != "protocol"] != place:
            return False
        return row["protocol"] in scored or (row["run"], row["finished"]) != (result.run, result.finished)

    left = [row for row in runs if not replaced(row)]
    gone = {(row["run"], row["protocol"]) for row in runs} - {(row["run"], row["protocol"]) for row in left}
    return left, [row for row in classes if (row["run"], row["protocol"]) not in gone]


def _score(
    result: store.Result, folder: Path, results: Path, subsets: Subsets, problems: list[str]
) -> tuple[Rows, Rows]:
    """Rows for every selection, on the run's protocol and on each of its subsets; adds what went wrong with these."""
    import pandas as pd

    base = {
        **result.model_dump(include={
            "run", "experiment", "method", "backbone", "pretraining", "augmentation", "seconds", "images_per_second",
            "peak_memory_mb", "parameters", "device", "commit", "data_hash", "profile", "seed", "fold", "synthetic",
            "finished", "preprocessing", "skipped",
        }),
        "options": json.dumps(result.options, sort_keys=True),
        "departures": "; ".join(result.departures),
        "input_size": result.recipe["input_size"],
        "versions": json.dumps(result.versions, sort_keys=True),
    }  # fmt: skip
    run_rows, class_rows = [], []
    for selection, selected in result.selections.items():
        predictions = pd.read_parquet(folder / selected.file)
        for protocol, frame in _scored(predictions, result, subsets, problems):
            scores = metrics.from_predictions(frame, f"{folder / selected.file} [{protocol}]")
            epochs = (
                f"{selected.epochs[0]}-{selected.epochs[-1]}" if len(selected.epochs) > 1 else str(selected.epochs[0])
            )
            spread = scores.sd("accuracy")
            run_rows.append({
                **base, "protocol": protocol, "selection": selection, "epoch": epochs, **scores.row(),
                "accuracy_sd": "" if spread != spread else round(spread, 6),
            })  # fmt: skip
            shared = {
                **{name: base[name] for name in ("run", "experiment", "profile", "seed", "fold")},
                "protocol": protocol,
            }
            class_rows += [{**shared, "selection": selection, **row} for row in scores.class_rows()]
            if protocol == result.protocol:
                path = results / "confusion" / f"{result.run}-{selection}.csv"
                store.write_text(path, metrics.confusion_csv(scores.classes, scores.matrix))
    return run_rows, class_rows


def _scored(
    predictions: pd.DataFrame, result: store.Result, subsets: Subsets, problems: list[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """The run's protocol with all predictions, then each subset of it whose images can be named here."""
    yield result.protocol, predictions
    for subset in subsets.of(result):
        try:
            images = subsets.images(subset, result.skipped > 0)
            yield subset.id, _part(predictions, images, result.skipped)
        except UserError as error:
            problems.append(f"{subset.id} is not scored: {error.message}")


def _part(predictions: pd.DataFrame, images: Counter[str], skipped: int) -> pd.DataFrame:
    """Predictions of a subset's images. One that is listed twice counts twice, the second time under a name of its own.

    Raises:
        UserError: more of the images were not predicted than the run left out.
    """
    part = predictions[predictions["name"].isin(list(images))]
    lacking = len(images) - part["name"].nunique()
    if lacking > skipped:
        raise UserError(f"only {len(images) - lacking} of its {len(images)} images were predicted")
    if part.empty:
        raise UserError("it holds no images")
    if images.total() == len(images):
        return part
    part = part.reset_index(drop=True)
    part = part.loc[part.index.repeat(part["name"].map(images).to_numpy())].reset_index(drop=True)
    copy = part.groupby(["epoch", "name"]).cumcount()
    part["name"] = part["name"].where(copy == 0, part["name"] + " #" + (copy + 1).astype(str))
    return part


def _keep(folder: Path, kept: Path) -> None:
    """Copy a run on real data without its weights; result.json last."""
    if folder.resolve() == kept.resolve():
        return
    kept.mkdir(parents=True, exist_ok=True)
    for file in [*sorted(folder.glob("predictions-*.parquet")), folder / "manifest.json", folder / "result.json"]:
        if file.is_file():
            store.write_bytes(kept / file.name, file.read_bytes())


def _remove(results: Path, replaced: set[str]) -> None:
    """Remove what runs left here that newer runs of the same entry, seed and fold have replaced."""
    for run in replaced:
        for path in (results / "confusion").glob(f"{run}-*"):
            path.unlink()
        shutil.rmtree(results / "runs" / run, ignore_errors=True)


def _write_rows(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: [str(row[name]) for name in (*IDENTITY, "selection")]))
    store.write_text(path, text.getvalue())
