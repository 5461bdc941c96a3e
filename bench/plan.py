"""The plan: for each run whether it is cached, can run here, or is blocked, with the way to unblock it and the time.

A stage (a run whose network another run needs) is listed in front of the runs that need it, and only where one of them
is to run.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bench import registry, store, weights
from bench.data import source
from bench.declare import Entry, Experiment
from bench.errors import UserError
from bench.matrix import Run

Status = Literal["cached", "runnable", "blocked"]
Identity = tuple[str, str, str, int, int]
Broken = Mapping[tuple[str, str], UserError]  # protocol and preprocessing -> what is wrong with its data


@dataclass(frozen=True)
class Planned:
    """One run and what would happen to it.

    Attributes:
        key: content key; empty while data (its own or a stage's) has not been read yet, or when blocked.
        folder: where the finished run lies, when cached.
        reason: why it is blocked; else what is remarkable about the run that is cached, or about its cached stages.
        unblock: what to do about it.
        seconds: estimated time to run, None where nothing like it has run yet.
        data_hash: of its own data, once everything that it needs of that has been read.
        stages: role -> what would happen to the stage that fills it.
        only_stage: nobody asked for it but the runs that need its network.
    """

    run: Run
    status: Status
    key: str = ""
    folder: Path | None = None
    reason: str = ""
    unblock: str = ""
    seconds: float | None = None
    data_hash: str = ""
    stages: Mapping[str, Planned] = field(default_factory=dict)
    only_stage: bool = False


def plan(
    runs: Iterable[Run],
    root: Path | None,
    results: Path,
    force: bool = False,
    skip_bad: bool = False,
    broken: Broken | None = None,
) -> list[Planned]:
    """Decide about every run, reading only small files: no image is opened and torch is not imported.

    Args:
        runs: from `matrix.expand`.
        root: the data root, or None.
        results: the results folder (kept reference runs count as cached; earlier speeds give the estimate).
        force: treat finished runs as runnable; stages only where they are among `runs`.
        skip_bad: go on without images that cannot be used.
        broken: data that could not be read: what needs it is blocked.

    Returns:
        The runs in their order, each behind the stages that it waits for.
    """
    decisions = _Decisions(Planner(root, skip_bad, broken), results, force)
    return _with_stages([decisions.of(run) for run in runs])


def _with_stages(asked: list[Planned]) -> list[Planned]:
    """The runs asked for and, in front of those to run, the stages they need, each once."""
    wanted = {planned.run.identity for planned in asked}
    found: dict[Identity, Planned] = {}
    for planned in asked:
        needed = _stages_of(planned) if planned.status == "runnable" else ()
        for one in (*needed, planned):
            before = found.get(one.run.identity)
            # asked for as well as needed: it runs where either is without it (its predictions may be kept elsewhere)
            if before is None or before.status == "cached":
                found[one.run.identity] = replace(one, only_stage=one.run.identity not in wanted)
    return list(found.values())


def _stages_of(planned: Planned) -> Iterator[Planned]:
    """Everything that a run waits for, in the order in which it has to be made."""
    for stage in planned.stages.values():
        yield from _stages_of(stage) if stage.status == "runnable" else ()
        yield stage


class Planner:
    """Answers about entries under one data root, each looked up once."""

    def __init__(self, root: Path | None, skip_bad: bool = False, broken: Broken | None = None) -> None:
        self.copies = source.Copies(root)
        self.skip_bad = skip_bad
        self.broken = broken or {}
        self._blockers: dict[tuple[Any, ...], UserError | None] = {}
        self._manifests: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._weights: dict[tuple[str, ...], dict[str, str]] = {}

    def stop(self, run: Run, votes: bool = True) -> UserError | None:
        """What stops a run here, or None: what stops its entry, votes it would learn from, or a stage that it needs.

        Args:
            votes: False leaves out the votes, which only what was read before can tell: it opens the data's adapter.
        """
        found = self.blocker(run.entry, run.weights, run.preprocessing) or (self._no_votes(run) if votes else None)
        for role, stage in run.stages.items():
            behind = self.stop(stage, votes) if found is None else None
            if behind is not None:
                found = UserError(f"stage {role} ({stage.entry.id}): {behind.message}", behind.hint)
        return found

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
        return _not_built("method", experiment.method) or _not_built("augmentation", experiment.augmentation)

    def _find_blocker(self, entry: Entry, roles: tuple[str, ...], preprocessing: str) -> UserError | None:
        drawn = entry.protocol.test_transform
        stopped = self.built(entry.experiment) or (_not_built("augmentation", drawn) if drawn else None)
        stopped = stopped or self.broken.get((entry.protocol.id, preprocessing))
        if stopped is not None:
            return stopped
        try:
            self.copies.check(entry.protocol, self.skip_bad, preprocessing)
            weights.require(roles)
        except UserError as error:
            return error
        return None

    def _no_votes(self, run: Run) -> UserError | None:
        """That a run reads votes and its data, read before, has none; None where it has, or is still to be read."""
        manifest = self.manifest(run) if run.reads_votes else None
        if manifest is not None:
            try:
                run.data_part(manifest["hash"], manifest["votes"])
            except UserError as error:
                return error
        return None

    def manifest(self, run: Run) -> dict[str, Any] | None:
        """Hashes and sizes of a run's data as read before; None when it has to be read first."""
        protocol, preprocessing = run.entry.protocol, run.preprocessing
        place = (protocol.id, preprocessing)
        if place not in self._manifests:
            self._manifests[place] = source.known_manifest(protocol, self.copies, self.skip_bad, preprocessing)
        found = self._manifests[place]
        if found is not None and run.reads_votes and "votes" not in found:
            return None  # read by a version that did not look for votes
        return found

    def weight_hashes(self, roles: tuple[str, ...]) -> dict[str, str]:
        """SHA-256 of each external file."""
        if roles not in self._weights:
            self._weights[roles] = weights.hashes(roles)
        return self._weights[roles]


def _not_built(kind: registry.Kind, name: str) -> UserError | None:
    if name in registry.available(kind):
        return None
    near = difflib.get_close_matches(name, registry.available(kind), n=3, cutoff=0.8)
    hint = f"did you mean {', '.join(near)}? Else add" if near else "add"
    return UserError(f"{kind} '{name}' is not built yet", f"{hint} it under {registry.HOMES[kind]}/")


@dataclass
class _Decisions:
    """What happens to runs and to their stages, each stage decided once."""

    planner: Planner
    results: Path
    force: bool
    _stages: dict[Identity, Planned] = field(default_factory=dict)

    def of(self, run: Run) -> Planned:
        """About a run that was asked for."""
        found = self._decide(run, self._rates)
        folder = store.find_result(found.key, self.results) if found.key and not self.force else None
        return self._cached(found, folder)

    def _of_stage(self, run: Run) -> Planned:
        """About a run whose network is needed: kept reference runs do not have it."""
        if run.identity not in self._stages:
            found = self._decide(run, self._stage_rates)
            folder = store.find_network(found.key) if found.key else None
            self._stages[run.identity] = self._cached(found, folder)
        return self._stages[run.identity]

    def _decide(self, run: Run, rates: Rates) -> Planned:
        stopped = self.planner.stop(run)
        if stopped:
            return Planned(run, "blocked", reason=stopped.message, unblock=stopped.hint)
        stages = {role: self._of_stage(stage) for role, stage in run.stages.items()}
        manifest = self.planner.manifest(run)
        told = "; ".join(f"stage {role}: {stage.reason}" for role, stage in stages.items() if stage.reason)
        planned = Planned(run, "runnable", reason=told, seconds=_seconds(run, manifest, rates), stages=stages)
        if manifest is None:
            return planned
        planned = replace(planned, data_hash=manifest["hash"])
        keys = {role: stage.key for role, stage in stages.items()}
        if not all(keys.values()):
            return planned
        data = run.data_part(manifest["hash"], manifest.get("votes", ""))
        return replace(planned, key=run.key(data, self.planner.weight_hashes(run.weights), keys))

    def _cached(self, planned: Planned, folder: Path | None) -> Planned:
        if folder is None:
            return planned
        told = "; ".join(filter(None, [_changed_source(planned.run, folder), planned.reason]))
        return replace(planned, status="cached", folder=folder, reason=told, seconds=None)

    @cached_property
    def _rates(self) -> Rates:
        return _slowest(store.read_rows(self.results / "runs.csv"))

    @cached_property
    def _stage_rates(self) -> Rates:
        return self._rates | _slowest(_finished_stages())


def has_gpu() -> bool:
    """Whether this machine shows an NVIDIA device (also under WSL); asks no driver, so it costs nothing."""
    return Path("/dev/dxg").exists() or any(Path("/dev").glob("nvidia[0-9]*"))


# What a rate was measured as: (experiment or method, profile) -> (images per second, input size).
Rates = dict[tuple[str, str], tuple[float, int]]


def _seconds(run: Run, manifest: dict[str, Any] | None, rates: Rates) -> float | None:
    """Images to pass over the slowest measured rate of the same experiment, else of the same method.

    A real profile that has not run yet takes the other one's rate, by the ratio of pixels: an order of magnitude.
    """
    counts = run.entry.protocol.counts
    if run.checkpoint:
        images = counts.get("test", 0)  # forward passes alone, so this is an upper bound
    else:
        per_epoch = manifest["train"][run.fold] if manifest else counts.get("train", 0)
        per_epoch += counts.get("val", 0) if "val" in run.recipe["train_splits"] else 0
        images = int(run.recipe["epochs"]) * per_epoch
    size = int(run.recipe["input_size"])
    profiles = [run.profile] if run.profile == "quick" else [run.profile, "paper", "short"]
    names = (run.entry.experiment.id, run.entry.experiment.method)
    for place in ((name, profile) for profile in profiles for name in names):
        if place in rates and images:
            rate, measured_size = rates[place]
            return float(images / rate * (size / measured_size) ** 2)
    return None


def _slowest(rows: Iterable[Mapping[str, Any]]) -> Rates:
    """The slowest rate seen on this kind of device, from rows as in runs.csv."""
    found: Rates = {}
    for row in rows:
        if row.get("device", "").startswith("CPU") == has_gpu() or not row.get("input_size"):
            continue  # another kind of device, or written by an earlier version
        rate = (float(row["images_per_second"] or 0), int(row["input_size"]))
        for place in ((row["experiment"], row["profile"]), (row["method"], row["profile"])):
            if rate[0] > 0:
                found[place] = min(rate, found.get(place, rate))
    return found


def _finished_stages() -> Iterator[dict[str, Any]]:
    """Runs of the cache that made no predictions, which no CSV lists; with `input_size` as in runs.csv."""
    for file in (store.cache_root() / "runs").glob("*/result.json"):
        try:
            text = file.read_bytes()
            if b'"selections": {}' in text:
                result = json.loads(text)
                yield {**result, "input_size": result["recipe"]["input_size"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # whoever needs that run is told


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
