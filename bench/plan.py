"""The plan: for each run whether it is cached, can run here, or is blocked, with the way to unblock it and the time."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench import registry, store, weights
from bench.data import source
from bench.declare import Entry, Experiment, Protocol
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


def plan(
    runs: Iterable[Run], root: Path | None, results: Path, force: bool = False, skip_bad: bool = False
) -> list[Planned]:
    """Decide about every run, reading only small files: no image is opened and torch is not imported.

    Args:
        runs: from `matrix.expand`.
        root: the data root, or None.
        results: the results folder (kept reference runs count as cached; earlier speeds give the estimate).
        force: treat finished runs as runnable.
        skip_bad: go on without images that cannot be used.
    """
    planner = Planner(root, skip_bad)
    rates = _rates(results / "runs.csv")
    return [_decide(planner, run, results, force, rates) for run in runs]


class Planner:
    """Answers about entries under one data root, each looked up once."""

    def __init__(self, root: Path | None, skip_bad: bool = False) -> None:
        self.copies = source.Copies(root)
        self.skip_bad = skip_bad
        self._blockers: dict[tuple[Any, ...], UserError | None] = {}
        self._manifests: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._weights: dict[tuple[str, ...], dict[str, str]] = {}

    def blocker(self, entry: Entry, roles: tuple[str, ...] | None = None, preprocessing: str = "") -> UserError | None:
        """What stops an entry here, or None: an unbuilt method, an absent dataset, missing weights.

        Args:
            roles: the weights needed, where a profile goes without the experiment's.
            preprocessing: the profile asked of the dataset; empty for its own.
        """
        experiment = entry.experiment
        roles = experiment.weights if roles is None else roles
        place = (experiment.method, experiment.augmentation, roles, entry.protocol.id, preprocessing)
        if place not in self._blockers:
            self._blockers[place] = self._find_blocker(entry, roles, preprocessing)
        return self._blockers[place]

    def built(self, experiment: Experiment) -> UserError | None:
        """What is not built of an experiment, or None."""
        kinds: tuple[tuple[registry.Kind, str], ...] = (
            ("method", experiment.method), ("augmentation", experiment.augmentation),
        )  # fmt: skip
        for kind, name in kinds:
            if name not in registry.available(kind):
                near = difflib.get_close_matches(name, registry.available(kind), n=3, cutoff=0.8)
                hint = f"did you mean {', '.join(near)}? Else add" if near else "add"
                return UserError(f"{kind} '{name}' is not built yet", f"{hint} it under {registry.HOMES[kind]}/")
        return None

    def _find_blocker(self, entry: Entry, roles: tuple[str, ...], preprocessing: str) -> UserError | None:
        unbuilt = self.built(entry.experiment)
        if unbuilt is not None:
            return unbuilt
        try:
            self.copies.check(entry.protocol, self.skip_bad, preprocessing)
            weights.require(roles)
        except UserError as error:
            return error
        return None

    def manifest(self, protocol: Protocol, preprocessing: str = "") -> dict[str, Any] | None:
        """Hash and sizes of a protocol's data as read before; None when it has to be read first."""
        place = (protocol.id, preprocessing)
        if place not in self._manifests:
            self._manifests[place] = source.known_manifest(protocol, self.copies, self.skip_bad, preprocessing)
        return self._manifests[place]

    def weight_hashes(self, roles: tuple[str, ...]) -> dict[str, str]:
        """SHA-256 of each external file."""
        if roles not in self._weights:
            self._weights[roles] = weights.hashes(roles)
        return self._weights[roles]


def _decide(planner: Planner, run: Run, results: Path, force: bool, rates: Rates) -> Planned:
    blocked = planner.blocker(run.entry, run.weights, run.preprocessing)
    if blocked:
        return Planned(run, "blocked", reason=blocked.message, unblock=blocked.hint)
    manifest = planner.manifest(run.entry.protocol, run.preprocessing)
    planned = Planned(run, "runnable", seconds=_seconds(run, manifest, rates))
    if manifest is None:
        return planned
    key = run.key(manifest["hash"], planner.weight_hashes(run.weights))
    folder = store.find_result(key, results)
    if folder is None or force:
        return replace(planned, key=key)
    return Planned(run, "cached", key, folder, reason=_changed_source(run, folder))


def has_gpu() -> bool:
    """Whether this machine shows an NVIDIA device (also under WSL); asks no driver, so it costs nothing."""
    return Path("/dev/dxg").exists() or any(Path("/dev").glob("nvidia[0-9]*"))


# What a rate was measured as: (experiment or method, profile) -> (images per second, input size).
Rates = dict[tuple[str, str], tuple[float, int]]


def _seconds(run: Run, manifest: dict[str, Any] | None, rates: Rates) -> float | None:
    """Training images over the slowest measured rate of the same experiment, else of the same method.

    A real profile that has not run yet takes the other one's rate, by the ratio of pixels: an order of magnitude.
    """
    images = manifest["train"][run.fold] if manifest else run.entry.protocol.counts.get("train", 0)
    size = int(run.recipe["input_size"])
    profiles = [run.profile] if run.profile == "quick" else [run.profile, "paper", "short"]
    names = (run.entry.experiment.id, run.entry.experiment.method)
    for place in ((name, profile) for profile in profiles for name in names):
        if place in rates and images:
            rate, measured_size = rates[place]
            return float(images * int(run.recipe["epochs"]) / rate * (size / measured_size) ** 2)
    return None


def _rates(path: Path) -> Rates:
    """The slowest rate seen on this kind of device, from runs.csv."""
    found: Rates = {}
    for row in store.read_rows(path):
        if row.get("device", "").startswith("CPU") == has_gpu() or not row.get("input_size"):
            continue  # another kind of device, or written by an earlier version
        rate = (float(row["images_per_second"] or 0), int(row["input_size"]))
        for place in ((row["experiment"], row["profile"]), (row["method"], row["profile"])):
            if rate[0] > 0:
                found[place] = min(rate, found.get(place, rate))
    return found


def _changed_source(run: Run, folder: Path) -> str:
    """Says when a cached run was made with other source than today's (the declared versions being the same)."""
    try:
        made_with = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["code"]
        changed = {
            part for part, now in run.source_hashes().items() if any(c["source"].get(part) != now for c in made_with)
        }
    except (OSError, ValueError, KeyError, TypeError):
        return "its manifest.json cannot be read"
    return f"source of {', '.join(sorted(changed))} changed since, same version" if changed else ""
