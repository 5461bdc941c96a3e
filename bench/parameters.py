"""Parameter counts of networks as the papers build them: nothing is trained, no data and no weights are read.

They are kept in <results>/parameters.csv, one file for all profiles. A row counts as long as its method has the version
it was counted with and the experiment still names that network.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench import backbones, matrix, provenance, registry, store
from bench.declare import Claim, Declarations, Entry
from bench.errors import UserError

FILE = "parameters.csv"
METRIC = "parameters_millions"
COLUMNS = ("experiment", "part", "parameters", "method", "version", "backbone", "options", "commit", "finished")
NETWORK = ("method", "version", "backbone", "options")  # the columns that say which network was counted


def asked(claims: Iterable[Claim]) -> list[str]:
    """The experiments whose parameters claims are about, each once."""
    return list(dict.fromkeys(c.experiment for c in claims if c.experiment and c.metric.startswith(METRIC)))


def known(declared: Declarations, results: Path) -> dict[tuple[str, str], int]:
    """(experiment, part) -> parameters, of the networks as they are declared today."""
    return {
        (row["experiment"], row["part"]): int(row["parameters"])
        for row in store.read_rows(results / FILE)
        if _current(declared, row)
    }


def outdated(declared: Declarations, results: Path, experiments: Collection[str]) -> list[str]:
    """Which of the experiments were counted on another network than today's, one message each."""
    rows = (row for row in store.read_rows(results / FILE) if row["experiment"] in experiments)
    old = {row["experiment"]: row for row in rows if not _current(declared, row)}
    found = []
    for experiment, row in old.items():
        now = _network(declared, experiment)
        changed = [name for name in NETWORK if now and row[name] != now[name]]
        was = ", ".join(f"{name} {row[name]} (now {now[name]})" for name in changed) or "a method that is gone"
        found.append(f"{results / FILE}: {experiment} was counted with {was} and is not used")
    return found


def count(
    declared: Declarations, experiments: Iterable[str], results: Path, force: bool = False
) -> tuple[list[str], list[str]]:
    """Build the networks in the paper profile, without memory, and write the counts of their parts.

    An experiment whose rows say the same stays as it is, unless `force`.

    Returns:
        Which rows of today's networks said something else, and what could not be counted, one message each;
        everything that could is in the file.
    """
    found: list[dict[str, str]] = []
    problems = []
    code = provenance.commit()
    for experiment in experiments:
        try:
            parts = _parts(declared, experiment)
        except UserError as error:
            problems.append(f"{experiment}: {error}")
            continue
        about = {"experiment": experiment, **_network(declared, experiment), "commit": code}
        about["finished"] = provenance.now()
        found += [{**about, "part": part, "parameters": str(number)} for part, number in parts.items()]
    return _write(declared, found, results, force), problems


def _write(declared: Declarations, found: Iterable[dict[str, str]], results: Path, force: bool) -> list[str]:
    """Bring the file up to date; which of its rows of today's networks were wrong, a message each."""
    counted: dict[str, list[dict[str, str]]] = {}
    for row in found:
        counted.setdefault(row["experiment"], []).append(row)
    wrong = []
    with FileLock(_created(results) / ".lock"):
        before = store.read_rows(results / FILE)
        for experiment, rows in list(counted.items()):
            said = [row for row in before if row["experiment"] == experiment]
            if _numbers(said) == _numbers(rows) and not force:
                del counted[experiment]
            elif said and all(_current(declared, row) for row in said) and _numbers(said) != _numbers(rows):
                wrong.append(f"{results / FILE}: the rows of {experiment} are not what its network has")
        kept = [row for row in before if row["experiment"] not in counted]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *(row for rows in counted.values() for row in rows)])
        if counted:
            store.write_text(results / FILE, text.getvalue())
    return wrong


def _numbers(rows: Iterable[dict[str, str]]) -> list[tuple[str, ...]]:
    """What rows say, but for who counted when."""
    return sorted(tuple(row[name] for name in ("part", "parameters", *NETWORK)) for row in rows)


def _created(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _parts(declared: Declarations, experiment: str) -> dict[str, int]:
    """Parameters of each part of an experiment's network.

    Raises:
        UserError: it cannot be built, or its method counts no parts.
    """
    entry = _entry(declared, experiment)
    if entry.experiment.method not in registry.available("method"):
        raise UserError(f"method '{entry.experiment.method}' is not built yet")
    method = backbones.built(matrix.runs_of(declared, entry, "paper", [0])[0], "none")
    if isinstance(method, UserError):
        raise method
    parts = method.parameter_parts()
    if not parts:
        raise UserError(f"method '{entry.experiment.method}' does not say which part its parameters belong to")
    return parts


def _entry(declared: Declarations, experiment: str) -> Entry:
    """The experiment on any protocol: what is counted depends neither on images nor on their classes."""
    return Entry(experiment=declared.experiment(experiment), protocol=next(iter(declared.protocols.values())))


def _network(declared: Declarations, experiment: str) -> dict[str, Any]:
    """What decides about the counts of an experiment, as the file has it; nothing where there is no such experiment."""
    one = declared.experiments.get(experiment)
    if one is None or one.method not in registry.available("method"):
        return {}
    options = json.dumps(matrix.options_of(declared, _entry(declared, experiment), "paper"), sort_keys=True)
    version = str(registry.find("method", one.method).version)
    return {"method": one.method, "version": version, "backbone": one.backbone, "options": options}


def _current(declared: Declarations, row: dict[str, str]) -> bool:
    now = _network(declared, row["experiment"])
    return bool(now) and all(row[name] == now[name] for name in NETWORK)
