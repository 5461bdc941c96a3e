"""The plan: for each run whether it is cached, can run here, or is blocked, with the way to unblock it and the time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench import registry, store, weights
from bench.data import source
from bench.declare import Entry, Protocol
from bench.errors import UserError
from bench.matrix import Run

Status = Literal["cached", "runnable", "blocked"]


@dataclass(frozen=True)
class Planned:
    """One run and what would happen to it.

    Attributes:
        key: content key; empty while the data has not been read yet, or when blocked.
        folder: where the finished run lies, when cached.
        reason: why it is blocked, or what is remarkable about a cached run.
        unblock: what to do about it.
        seconds: estimated time to run, None where nothing like it has run yet.
    """

    run: Run
    status: Status
    key: str = ""
    folder: Path | None = None
    reason: str = ""
    unblock: str = ""
    seconds: float | None = None


def plan(runs: Iterable[Run], root: Path | None, results: Path, force: bool = False) -> list[Planned]:
    """Decide about every run, reading only small files: no image is opened and torch is not imported.

    Args:
        runs: from `matrix.expand`.
        root: the data root, or None.
        results: the results folder (kept reference runs count as cached; earlier speeds give the estimate).
        force: treat finished runs as runnable.
    """
    planner = Planner(root)
    rates = _rates(results / "runs.csv")
    return [_decide(planner, run, results, force, rates) for run in runs]


class Planner:
    """Answers about entries under one data root, each looked up once."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._blockers: dict[tuple[Any, ...], UserError | None] = {}
        self._manifests: dict[str, dict[str, Any] | None] = {}
        self._weights: dict[tuple[str, ...], dict[str, str]] = {}

    def blocker(self, entry: Entry) -> UserError | None:
        """What stops an entry here, or None: an unbuilt method, an absent dataset, missing weights."""
        experiment = entry.experiment
        place = (experiment.method, experiment.augmentation, experiment.weights, entry.protocol.id)
        if place not in self._blockers:
            self._blockers[place] = self._find_blocker(entry)
        return self._blockers[place]

    def _find_blocker(self, entry: Entry) -> UserError | None:
        kinds: tuple[tuple[registry.Kind, str], ...] = (
            ("method", entry.experiment.method), ("augmentation", entry.experiment.augmentation),
        )  # fmt: skip
        for kind, name in kinds:
            if name not in registry.available(kind):
                return UserError(f"{kind} '{name}' is not built yet", f"add it under {registry.HOMES[kind]}/")
        try:
            source.check(entry.protocol, self.root)
            weights.require(entry.experiment.weights)
        except UserError as error:
            return error
        return None

    def manifest(self, protocol: Protocol) -> dict[str, Any] | None:
        """Hash and sizes of a protocol's data as read before; None when it has to be read first."""
        if protocol.id not in self._manifests:
            self._manifests[protocol.id] = source.known_manifest(protocol, self.root)
        return self._manifests[protocol.id]

    def weight_hashes(self, roles: tuple[str, ...]) -> dict[str, str]:
        """SHA-256 of each external file."""
        if roles not in self._weights:
            self._weights[roles] = weights.hashes(roles)
        return self._weights[roles]


def _decide(planner: Planner, run: Run, results: Path, force: bool, rates: dict[tuple[str, str], float]) -> Planned:
    blocked = planner.blocker(run.entry)
    if blocked:
        return Planned(run, "blocked", reason=blocked.message, unblock=blocked.hint)
    manifest = planner.manifest(run.entry.protocol)
    planned = Planned(run, "runnable", seconds=_seconds(run, manifest, rates))
    if manifest is None:
        return planned
    key = run.key(manifest["hash"], planner.weight_hashes(run.entry.experiment.weights))
    folder = store.find_result(key, results)
    if folder is None or force:
        return replace(planned, key=key)
    return Planned(run, "cached", key, folder, reason=_changed_source(run, folder))


def _seconds(run: Run, manifest: dict[str, Any] | None, rates: dict[tuple[str, str], float]) -> float | None:
    """Training images over the last measured rate of the same experiment, else of the same method."""
    experiment = run.entry.experiment
    rate = rates.get((experiment.id, run.profile)) or rates.get((experiment.method, run.profile))
    images = manifest["train"][run.fold] if manifest else run.entry.protocol.counts.get("train", 0)
    if not rate or not images:
        return None
    return float(images * int(run.recipe["epochs"]) / rate)


def _rates(path: Path) -> dict[tuple[str, str], float]:
    """Images per second by (experiment, profile) and (method, profile), the slowest seen."""
    found: dict[tuple[str, str], float] = {}
    if not path.is_file():
        return found
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            rate = float(row["images_per_second"] or 0)
            for name in (row["experiment"], row["method"]):
                if rate > 0:
                    found[name, row["profile"]] = min(rate, found.get((name, row["profile"]), rate))
    return found


def _changed_source(run: Run, folder: Path) -> str:
    """Says when a cached run was made with other source than today's (its declared version being the same)."""
    try:
        made_with = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["source"]
    except (OSError, ValueError, KeyError):
        return "its manifest.json cannot be read"
    now = registry.find("method", run.entry.experiment.method).source_hash()
    return "" if made_with.get("method") == now else "method source changed since, same version"
