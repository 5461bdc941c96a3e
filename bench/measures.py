"""What a report measures of finished networks, image by image: what a measure is given, its files, its numbers.

A measure is a function under a decorator, found like a method and imported only when it is taken:

    @measure("name", version=1)
    def take(net: nn.Module, faces: Faces, title: str, judges: Mapping[str, Judge]) -> dict[str, np.ndarray]

`net` is a trained network in evaluation mode on the device of the run, `title` its name in `faces`, the test images.
It answers with a number for each image and each thing measured, NaN where there is none. Those are kept, one file for
each run, and everything that the table shows is computed from the files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import registry, statistics, store
from bench.errors import UserError, unknown
from bench.report import Line, Report

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

NAMES = ("name", "label")  # columns of a file of measures ahead of what was measured


@dataclass(frozen=True)
class Judge:
    """A trained network that a measure asks about pictures.

    Attributes:
        net: in evaluation mode, on the device of the run.
        inputs: RGB pictures float (B, 3, H, W) in [0, 1] to what its own recipe makes of them, float (B, 3, S, S) on
            that device. As images that are stored, they have 8 bits.
    """

    net: nn.Module
    inputs: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Measures:
    """The measures of one run's network, a row for each test image, and what they were taken with.

    Attributes:
        about: JSON values: see `commands.reports`.
    """

    frame: pd.DataFrame
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """A number of a report, with its 95 % interval over `images` test images."""

    mean: float
    low: float
    high: float
    images: int


# --------------------------------------------------------------------------------------------------------------- files
def path_of(results: Path, report: str, experiment: str, profile: str, seed: int) -> Path:
    """Where the measures of a run lie; a later run of the same name takes the place of the earlier."""
    return results / "measures" / report / f"{experiment}-{profile}-seed{seed}.parquet"


def write(path: Path, names: Sequence[str], labels: Sequence[str], columns: Mapping[str, np.ndarray],
          about: Mapping[str, Any]) -> None:  # fmt: skip
    """Keep measures.

    Raises:
        ValueError: a measure has not one number for each image.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, values in columns.items():
        if values.shape != (len(names),):
            raise ValueError(f"measure '{name}' has shape {values.shape} for {len(names)} images")
    measured = {name: pa.array(values.astype(np.float64)) for name, values in columns.items()}
    found = pa.table({"name": pa.array(names), "label": pa.array(labels).dictionary_encode(), **measured})
    found = found.replace_schema_metadata({"ferbench": json.dumps(about, sort_keys=True)})
    store.write_stream(path, lambda stream: pq.write_table(found, stream, compression="zstd", compression_level=9))


def read(path: Path) -> Measures | None:
    """Measures as kept; None where there are none.

    Raises:
        UserError: the file is damaged; names it.
    """
    if not path.is_file():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_table(path)
        about = json.loads(found.schema.metadata[b"ferbench"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{path}: damaged measures ({error})", "delete it: the next run takes them again") from None
    return Measures(found.to_pandas(), about)


def kept(results: Path, report: Report, profile: str) -> dict[str, list[Measures]]:
    """Title -> measures of each seed of its runs under a profile, as kept."""
    found = {}
    for title, experiment in report.experiments.items():
        files = sorted(path_of(results, report.id, experiment, profile, 0).parent.glob(f"{experiment}-{profile}-seed*"))
        found[title] = [one for one in map(read, files) if one is not None]
    return found


def agreeing(
    report: Report, found: Mapping[str, Sequence[Measures]], today: Mapping[tuple[str, int], str],
    judges: Mapping[str, str],
) -> tuple[dict[str, list[Measures]], dict[str, list[str]]]:  # fmt: skip
    """What of kept measures may stand in one table: today's measure, of today's runs, by one set of judges.

    Args:
        found: of `kept`.
        today: (title, seed) -> the key that this run has today, where that is known.
        judges: what the report calls a judge -> its key, likewise.

    Returns:
        What is left of `found`, and reason -> what was left out, "title seed 0". Where files disagree about judges or
        images, those are right that most files have.
    """
    version = [report.measure, registry.find("measure", report.measure).version]
    rest = [(title, one) for title, seeds in found.items() for one in seeds]
    gone: dict[str, list[str]] = {}

    def keep(reason: str, right: Callable[[str, Measures], bool]) -> None:
        wrong = [f"{title} seed {one.about['seed']}" for title, one in rest if not right(title, one)]
        rest[:] = [(title, one) for title, one in rest if right(title, one)]
        gone.update({reason: wrong} if wrong else {})

    def asked(one: Measures) -> str:
        return json.dumps({name: [j["run"], j["network"]] for name, j in one.about["judges"].items()}, sort_keys=True)

    def run_of(title: str, one: Measures) -> str:
        return today.get((title, one.about["seed"]), one.about["run"])

    keep("another version of the measure", lambda _, one: one.about["measure"] == version)
    keep("another run than today's", lambda title, one: one.about["run"] == run_of(title, one))
    keep("other judges than today's", lambda _, one: {**_judged(one, report), **judges} == _judged(one, report))
    most = _commonest(asked(one) for _, one in rest)
    keep("other judges", lambda _, one: asked(one) == most)
    images = _commonest(tuple(one.frame["name"]) for _, one in rest)
    keep("other test images", lambda _, one: tuple(one.frame["name"]) == images)
    return {title: [one for other, one in rest if other == title] for title in found}, gone


def _judged(one: Measures, report: Report) -> dict[str, str]:
    """Judge -> key of the run that was asked; empty for one that was not."""
    return {name: one.about["judges"].get(name, {"run": ""})["run"] for name in report.judges}


def _commonest(values: Iterable[Any]) -> Any:
    """The value that occurs most often, the first of several; None of none."""
    return next((value for value, _ in Counter(values).most_common(1)), None)


# ------------------------------------------------------------------------------------------------------------- numbers
def value(line: Line, seeds: Sequence[Measures]) -> Value | None:
    """What a line says of one network, over the seeds of its training; None where no image has a number.

    An image counts once: its mean over seeds. Intervals are over images alone.

    Raises:
        UserError: the measures lack what the line is of, or are of different images.
    """
    columns = list(_columns(line, seeds))
    rows = np.isfinite(columns).all(axis=0) if columns else np.zeros(0, bool)
    if not rows.any():
        return None
    of, *per = (column[rows] for column in columns)
    if line.unit == "%":
        low, high = statistics.wilson(float(of.sum()), len(of))
        return Value(100 * float(of.mean()), 100 * low, 100 * high, len(of))
    mean = float(of.mean()) / (float(per[0].mean()) if per else 1.0)
    return Value(mean, *statistics.bootstrap(of, per[0] if per else None), len(of))


def _columns(line: Line, seeds: Sequence[Measures]) -> Iterator[np.ndarray]:
    """The line's measures, mean over seeds, of the images that count."""
    if any(list(one.frame["name"]) != list(seeds[0].frame["name"]) for one in seeds[1:]):
        raise UserError(f"line '{line.id}': seeds were measured on different images", "measure them again")
    for name in filter(None, (line.of, line.per)) if seeds else ():
        of_seeds = []
        for one in seeds:
            if name not in one.frame.columns[len(NAMES) :]:
                raise unknown(f"measure in line '{line.id}'", name, one.frame.columns[len(NAMES) :])
            counted = one.frame["label"] != line.without
            of_seeds.append(one.frame.loc[counted, name].to_numpy())
        yield np.mean(of_seeds, axis=0)
