"""The local queue: a subprocess for each run (or several that share it), so many at a time, failures kept apart.

A job's whole contract is files: it is given a JSON specification, writes progress.json while it runs and result.json or
error.txt at its end. So the queue can die at any moment without losing anything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import declare, provenance, store

POLL_SECONDS = 0.1
PATIENCE_SECONDS = 60.0  # for a job to write its checkpoint when it is asked to stop


@dataclass(frozen=True)
class Task:
    """One run to execute: its key, how messages call it, its specification, and the keys of tasks it waits for.

    Keys in `after` that are no task of the queue are taken as done. `processes` share the run, on GPUs one each.
    """

    key: str
    name: str
    specification: dict[str, Any]
    after: tuple[str, ...] = ()
    processes: int = 1


@dataclass
class Outcome:
    """How a task ended: `done` or `failed` (see `error`); one whose stage failed never began."""

    task: Task
    status: str
    seconds: float
    error: str = ""


@dataclass
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    begun: float
    log: Path
    specification: Path
    slots: tuple[int, ...]


@dataclass
class Local:
    """Runs tasks on this machine, `slots` at a time.

    Args:
        slots: jobs at once. A job of several processes takes a slot for each GPU, or one on the processor.
        devices: device of each slot in turn ("cpu", "cuda:0", ...); as many GPUs as a task has processes.
        fail_fast: start nothing more after the first failure.
        report: called with every task's live progress, a few times a second.
    """

    slots: int = 1
    devices: Sequence[str] = ("auto",)
    fail_fast: bool = False
    report: Callable[[list[tuple[Task, dict[str, Any]]], int, int], None] = lambda live, finished, total: None
    ended: Callable[[Outcome], None] = lambda outcome: None
    _running: dict[int, _Running] = field(default_factory=dict)

    def run(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Execute every task; returns their outcomes in order of ending. Ctrl-C stops jobs after their checkpoint."""
        waiting, outcomes = list(tasks), []
        try:
            while waiting or self._running:
                while (task := self._ready(waiting)) and (slots := self._places(task)):
                    waiting.remove(task)
                    self._start(slots, task)
                for outcome in self._reap():
                    failed = outcome.status == "failed"
                    for told in (outcome, *(_dependents(outcome, waiting) if failed else ())):
                        outcomes.append(told)
                        self.ended(told)
                    if self.fail_fast and failed:
                        waiting.clear()
                self.report(
                    [(job.task, _progress(job.task)) for job in self._running.values()], len(outcomes), len(tasks)
                )
                time.sleep(POLL_SECONDS)
        finally:
            self._stop()
        return outcomes

    def _ready(self, waiting: Sequence[Task]) -> Task | None:
        """The first task that waits for none of the others; None when all of them wait."""
        unfinished = {task.key for task in waiting} | {job.task.key for job in self._running.values()}
        ready = next((task for task in waiting if unfinished.isdisjoint(task.after)), None)
        if ready is None and waiting and not self._running:
            raise ValueError(f"tasks wait for each other: {', '.join(task.name for task in waiting)}")
        return ready

    def _device(self, slot: int) -> str:
        return self.devices[slot % len(self.devices)]

    def _places(self, task: Task) -> tuple[int, ...]:
        """Free slots for a task: one, or on GPUs one for each of its processes; () where they are not free."""
        taken = {slot for job in self._running.values() for slot in job.slots}
        free = {self._device(slot): slot for slot in reversed(range(self.slots)) if slot not in taken}
        places = sorted(free.values())
        wanted = task.processes if self.devices[0].startswith("cuda") else 1
        if len(places) < wanted and not self._running:
            raise ValueError(f"{task.name} needs {wanted} GPUs, here are {len(places)}")
        return tuple(places[:wanted]) if len(places) >= wanted else ()

    def _start(self, slots: tuple[int, ...], task: Task) -> None:
        folder = store.run_folder(task.key)
        folder.mkdir(parents=True, exist_ok=True)
        for stale in ("progress.json", "error.txt"):
            (folder / stale).unlink(missing_ok=True)
        device = ",".join(self._device(slot) for slot in slots)
        # another queue's job may hold the run's lock: its log goes on, and each queue has a specification of its own
        specification = folder / f"specification-{os.getpid()}-{id(self)}.json"
        store.write_json(specification, {**task.specification, "device": device})
        log = folder / "log.txt"
        with log.open("ab") as stream:
            stream.write(f"--- {provenance.now()} process {os.getpid()} starts a job on {device}\n".encode())
            stream.flush()
            started = ["bench.job"] if task.processes == 1 else ["bench.launch", str(task.processes)]
            process = subprocess.Popen(
                [sys.executable, "-m", *started, str(specification)], stdout=stream, stderr=subprocess.STDOUT,
                env=_environment(self.slots * task.processes // len(slots)), start_new_session=True,
            )  # fmt: skip
        self._running[slots[0]] = _Running(task, process, time.monotonic(), log, specification, slots)

    def _reap(self) -> list[Outcome]:
        found = []
        for slot, job in list(self._running.items()):
            status = job.process.poll()
            if status is None:
                continue
            del self._running[slot]
            job.specification.unlink(missing_ok=True)
            seconds = time.monotonic() - job.begun
            if status == 0:
                found.append(Outcome(job.task, "done", seconds))
            else:
                found.append(Outcome(job.task, "failed", seconds, _last_words(job, status)))
        return found

    def _stop(self) -> None:
        """Ask every job still running to write its checkpoint and leave; kill those that do not."""
        for job in self._running.values():
            if job.process.poll() is None:
                job.process.send_signal(signal.SIGINT)
        for job in self._running.values():
            try:
                job.process.wait(PATIENCE_SECONDS)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):  # the second Ctrl-C means now
                job.process.kill()
                job.process.wait()
            job.specification.unlink(missing_ok=True)
        self._running.clear()


def _dependents(failed: Outcome, waiting: list[Task]) -> list[Outcome]:
    """Take out the tasks that wait for a failed one, and those that wait for them: they failed too."""
    causes = {failed.task.key: failed}
    while task := next((task for task in waiting if not causes.keys().isdisjoint(task.after)), None):
        cause = next(causes[key] for key in task.after if key in causes)
        causes[task.key] = Outcome(task, "failed", 0.0, f"stage {cause.task.name} failed: {cause.error}")
        waiting.remove(task)
    return list(causes.values())[1:]


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(processes: int) -> dict[str, str]:
    """Threads shared out among processes; passive waiting, since spinning threads starve each other on shared cores."""
    threads = max(1, cores() // processes)
    path = os.pathsep.join(filter(None, [str(declare.ROOT), os.environ.get("PYTHONPATH", "")]))
    return {
        **os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip


def _progress(task: Task) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((store.run_folder(task.key) / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _last_words(job: _Running, status: int) -> str:
    folder = store.run_folder(job.task.key)
    error = folder / "error.txt"
    if error.is_file():
        lines = error.read_text(encoding="utf-8").strip().splitlines()
        return f"{lines[0] if lines else 'failed'} (traceback: {error})"
    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return f"{how}; its output is in {job.log}; the next call continues from the last checkpoint"
