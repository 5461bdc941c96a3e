"""From finished runs to results/: runs.csv, per_class.csv, confusion/, and the kept reference runs.

Every number comes from a predictions file. Rows of a run replace earlier rows of the same experiment, protocol,
profile, seed and fold, so that each has one current result.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterable
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
    "fold", "synthetic", "finished",
)  # fmt: skip
CLASS_COLUMNS = (
    "run", "experiment", "protocol", "profile", "seed", "fold", "selection", "class", "n", "correct", "accuracy",
)  # fmt: skip
IDENTITY = ("experiment", "protocol", "profile", "seed", "fold")


def collect(folders: Iterable[Path], results: Path, declared: Declarations, root: Path | None = None) -> list[str]:
    """Score finished runs into `results`: those that are not there yet, or were made again since.

    Args:
        folders: run folders.
        results: the results folder.
        declared: gives the subsets that a run's predictions are scored on as well.
        root: the data root, for the subsets' lists.

    Returns:
        One message for each run that could not be scored (damaged files); the others are in.
    """
    results.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    with FileLock(results / ".lock"):
        runs, classes = read_rows(results / "runs.csv"), read_rows(results / "per_class.csv")
        known = {(row["run"], row["finished"]) for row in runs}
        scored = {row["run"] for row in classes}
        gone: set[str] = set()
        changed = False
        for folder in folders:
            try:
                result = store.read_result(folder)
                if (result.run, result.finished) in known and _complete(result, results, scored):
                    continue
                new_runs, new_classes = _score(store.read_result(folder, verify=True), folder, results, declared, root)
            except UserError as error:
                problems.append(error.message)
                continue
            changed = True
            replaced = {tuple(str(row[name]) for name in IDENTITY) for row in new_runs}
            gone |= {row["run"] for row in runs if tuple(row[name] for name in IDENTITY) in replaced}
            runs = [row for row in runs if tuple(row[name] for name in IDENTITY) not in replaced] + new_runs
            classes = [row for row in classes if tuple(row[name] for name in IDENTITY) not in replaced] + new_classes
            if not result.synthetic:
                _keep(folder, results / "runs" / folder.name)
        if changed:
            _write_rows(results / "per_class.csv", CLASS_COLUMNS, classes)
            _write_rows(results / "runs.csv", RUN_COLUMNS, runs)
            _remove(results, gone - {row["run"] for row in runs})
    return problems


def _complete(result: store.Result, results: Path, scored: set[str]) -> bool:
    """Whether everything that is made from a run besides its row in runs.csv is there too."""
    confusions = (results / "confusion" / f"{result.run}-{selection}.csv" for selection in result.selections)
    kept = result.synthetic or (results / "runs" / result.run / "result.json").is_file()
    return kept and result.run in scored and all(path.is_file() for path in confusions)


def _score(
    result: store.Result, folder: Path, results: Path, declared: Declarations, root: Path | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows for every selection, on the run's protocol and on each of its subsets."""
    import pandas as pd

    base = {
        **result.model_dump(include={
            "run", "experiment", "method", "backbone", "pretraining", "augmentation", "seconds", "images_per_second",
            "peak_memory_mb", "parameters", "device", "commit", "data_hash", "profile", "seed", "fold", "synthetic",
            "finished",
        }),
        "options": json.dumps(result.options, sort_keys=True),
        "input_size": result.recipe["input_size"],
        "versions": json.dumps(result.versions, sort_keys=True),
    }  # fmt: skip
    run_rows, class_rows = [], []
    for selection, selected in result.selections.items():
        predictions = pd.read_parquet(folder / selected.file)
        for protocol, frame in _scored(predictions, declared.protocol(result.protocol), declared, root):
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
    predictions: pd.DataFrame, protocol: Protocol, declared: Declarations, root: Path | None
) -> Iterable[tuple[str, pd.DataFrame]]:
    """The run's protocol with all predictions, then each subset of it whose images can be named here.

    Raises:
        UserError: a subset's images are not the number its protocol declares.
    """
    yield protocol.id, predictions
    for subset in declared.protocols.values():
        if subset.subset_of != protocol.id:
            continue
        try:
            names = set(source.locate(subset, root).index(subset)["name"])
        except UserError:
            continue  # its lists are not at hand; the plan says how to get them
        part = predictions[predictions["name"].isin(names)]
        if part["name"].nunique() != len(names):
            raise UserError(f"{subset.id}: only {part['name'].nunique()} of its {len(names)} images were predicted")
        yield subset.id, part


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
