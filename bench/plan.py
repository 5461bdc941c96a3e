"""The plan: for each run whether it is cached, can run here, or is blocked, with the way to unblock it and the time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from bench import registry, store, weights
from bench.data import source
from bench.declare import Protocol
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
    rates = _rates(results / "runs.csv")
    return [_decide(run, root, results, force, rates) for run in runs]


def _decide(run: Run, root: Path | None, results: Path, force: bool, rates: dict[tuple[str, str], float]) -> Planned:
    blocked = blocker(run, root)
    if blocked:
        return Planned(run, "blocked", reason=blocked.message, unblock=blocked.hint)
    manifest = _manifest(run.entry.protocol, root)
    planned = Planned(run, "runnable", seconds=_seconds(run, manifest, rates))
    if manifest is None:
        return planned
    key = run.key(manifest["hash"], weights.hashes(run.entry.experiment.weights))
    folder = store.find_result(key, results)
    if folder is None or force:
        return replace(planned, key=key)
    return Planned(run, "cached", key, folder, reason=_changed_source(run, folder))


def blocker(run: Run, root: Path | None) -> UserError | None:
    """What stops a run here, or None: an unbuilt method, an absent dataset, missing weights."""
    return _entry_blocker(run.entry.experiment.method, run.entry.experiment.augmentation,
                          run.entry.experiment.weights, run.entry.protocol.id, _Held(run.entry.protocol), root)  # fmt: skip


class _Held:
    """Lets lru_cache key on a protocol's id while handing the protocol itself through."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.protocol.id == self.protocol.id

    def __hash__(self) -> int:
        return hash(self.protocol.id)


@lru_cache(maxsize=512)
def _entry_blocker(
    method: str, augmentation: str, roles: tuple[str, ...], protocol_id: str, held: _Held, root: Path | None
) -> UserError | None:
    for kind, name in (("method", method), ("augmentation", augmentation)):
        if name not in registry.available(kind):  # type: ignore[arg-type]
            return UserError(f"{kind} '{name}' is not built yet", f"add it under {registry.HOMES[kind]}/")  # type: ignore[index]
    try:
        source.locate(held.protocol, root)
        weights.require(roles)
    except UserError as error:
        return error
    return None


def _manifest(protocol: Protocol, root: Path | None) -> dict[str, Any] | None:
    return _manifest_cached(protocol.id, _Held(protocol), root)


@lru_cache(maxsize=128)
def _manifest_cached(protocol_id: str, held: _Held, root: Path | None) -> dict[str, Any] | None:
    return source.known_manifest(held.protocol, root)


def forget() -> None:
    """Drop what was read, after data has been decoded or results have changed."""
    _entry_blocker.cache_clear()
    _manifest_cached.cache_clear()


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
