"""Progress of a queue: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from bench.queue import Outcome, Task

PLAIN_SECONDS = 15.0


def duration(seconds: float) -> str:
    """8 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Prints how far a queue is and how long it will take."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.begun = time.monotonic()
        self.at_start: dict[str, float] = {}  # what earlier calls had done of each run
        self.last = 0.0
        self.width = 0
        self.live = sys.stdout.isatty()

    def update(self, running: list[tuple[Task, dict[str, Any]]], finished: int, total: int) -> None:
        """Redraw; called several times a second."""
        now = time.monotonic()
        if now - self.last < (0.5 if self.live else PLAIN_SECONDS) or not running:
            return
        self.last = now
        parts = {task.key: fraction(progress) for task, progress in running}
        for task, progress in running:
            if "epoch" in progress:
                self.at_start.setdefault(task.key, parts[task.key])
        done = (finished + sum(parts.values())) / total
        here = done - sum(self.at_start.values()) / total
        left = (now - self.begun) * (1 - done) / here if here > 0.01 else None
        heads = "; ".join(f"{task.name}: {doing(progress)}" for task, progress in running)
        self._print(f"[{finished}/{total}] {done:4.0%}" + (f", {duration(left)} left" if left else "") + f" | {heads}")

    def ended(self, outcome: Outcome) -> None:
        """One line for every run that ends."""
        mark = {"done": "done", "failed": "FAILED"}[outcome.status]
        self._clear()
        print(
            f"{mark}: {outcome.task.name} {f'after {duration(outcome.seconds)}' if outcome.seconds else '(not run)'}"
            + (f": {outcome.error}" if outcome.error else ""),
            flush=True,
        )

    def _print(self, line: str) -> None:
        if not self.live:
            print(line, flush=True)
            return
        self._clear()
        line = line[:118]
        print(line, end="", flush=True)
        self.width = len(line)

    def _clear(self) -> None:
        if self.live and self.width:
            print("\r" + " " * self.width + "\r", end="")
            self.width = 0


def doing(progress: dict[str, Any]) -> str:
    """What a run is at, in words."""
    if not progress:
        return "starting"
    rate = progress["rate"]
    if "preparing" in progress:
        done, images = progress["preparing"], progress["images"]
        left = f", {duration((images - done) / rate)} left" if rate else ""
        return f"preparing images {done:,}/{images:,}{left}"
    return f"epoch {progress['epoch'] + 1}/{progress['epochs']}, {rate:.0f} images/s"


def fraction(progress: dict[str, Any]) -> float:
    """Share of a run's training that is done, 0..1."""
    if "epoch" not in progress:
        return 0.0
    return float((progress["epoch"] + progress["step"] / progress["steps"]) / progress["epochs"])
