"""The local queue: failures stay their own, Ctrl-C waits for checkpoints, and outcomes say what happened.

The jobs here are a stand-in module of a few lines (the queue knows jobs by their files and exit status alone).
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import declare, queue, store
from bench.queue import Local, Outcome, Task

JOB = """
import json, os, signal, sys, time
from pathlib import Path
spec = json.loads(Path(sys.argv[1]).read_text())
folder = Path(sys.argv[1]).parent
(folder / "given.json").write_text(Path(sys.argv[1]).read_text())
(folder / "environment.json").write_text(json.dumps(dict(os.environ)))
stop = []
signal.signal(signal.SIGINT, lambda *_: stop.append(1))
(folder / "begun").write_text(str(time.time()))
(folder / "progress.json").write_text(json.dumps({"epoch": 0, "epochs": 1, "step": 1, "steps": 2, "rate": 1.0}))
print("a word from the job", flush=True)
do = spec["do"]
if do == "fail":
    (folder / "error.txt").write_text("RuntimeError: it broke\\n\\nTraceback: here\\n")
    sys.exit(1)
if do == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if do == "exit":
    sys.exit(7)
end = time.time() + spec.get("seconds", 0)
while time.time() < end:
    if stop and do != "deaf":
        (folder / "checkpoint-a").write_text("saved")
        sys.exit(130)
    time.sleep(0.01)
(folder / "result.json").write_text("{}")
"""
LAUNCHED = """
from pathlib import Path
(Path(sys.argv[1]).parent / "processes").write_text(shared)
"""


@pytest.fixture(autouse=True)
def fake_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `bench.job` of our own, found through the PYTHONPATH that the queue gives its jobs."""
    (tmp_path / "fake" / "bench").mkdir(parents=True)
    (tmp_path / "fake" / "bench" / "__init__.py").write_text("")
    (tmp_path / "fake" / "bench" / "job.py").write_text(JOB)
    (tmp_path / "fake" / "bench" / "launch.py").write_text("import sys\nshared = sys.argv.pop(1)" + LAUNCHED + JOB)
    monkeypatch.setattr(declare, "ROOT", tmp_path / "fake")
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.02)


def task(key: str, do: str = "work", **more: Any) -> Task:
    return Task(key, f"run {key}", {"key": key, "do": do, **more})


def statuses(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.task.key: outcome.status for outcome in outcomes}


def test_a_failure_stays_its_own_and_its_traceback_is_kept() -> None:
    seen: list[Outcome] = []
    outcomes = Local(2, ended=seen.append).run(
        [task("a", "fail"), task("b"), task("c", "die"), task("d", "exit"), task("e")]
    )
    assert statuses(outcomes) == {"a": "failed", "b": "done", "c": "failed", "d": "failed", "e": "done"}
    assert seen == outcomes
    errors = {outcome.task.key: outcome.error for outcome in outcomes}
    error = store.run_folder("a") / "error.txt"
    assert errors["a"] == f"RuntimeError: it broke (traceback: {error})"
    assert "Traceback: here" in error.read_text()
    assert "killed by signal 9" in errors["c"]
    assert "last checkpoint" in errors["c"]
    assert "exit status 7" in errors["d"]
    assert str(store.run_folder("d") / "log.txt") in errors["d"]
    assert errors["b"] == ""
    first, second = (store.run_folder("b") / "log.txt").read_text().splitlines()
    assert first.startswith("--- ")
    assert first.endswith(f"process {os.getpid()} starts a job on auto")
    assert second == "a word from the job"
    assert not list(store.run_folder("b").glob("specification-*"))


def test_an_old_error_is_not_told_again() -> None:
    Local().run([task("a", "fail")])
    (outcome,) = Local().run([task("a", "die")])
    assert "killed by signal 9" in outcome.error


def test_a_second_queue_leaves_the_first_one_its_log_and_specification() -> None:
    """Its job would wait for the run's lock; what the first one is given and says stays as it is."""
    first, second = Local(devices=("cpu",)), Local(devices=("cuda:1",))
    first._start((0,), task("a", seconds=30))
    folder = store.run_folder("a")
    while not (folder / "begun").exists():
        time.sleep(0.01)
    (given,) = folder.glob("specification-*.json")
    before, said = given.read_bytes(), (folder / "log.txt").read_text()
    assert "a word from the job" in said
    (outcome,) = second.run([task("a", "exit")])
    assert given.read_bytes() == before
    assert list(folder.glob("specification-*.json")) == [given]
    assert json.loads((folder / "given.json").read_text())["device"] == "cuda:1"
    log = (folder / "log.txt").read_text()
    assert log.startswith(said)
    assert log.count("a word from the job") == 2
    assert str(folder / "log.txt") in outcome.error
    first._stop()
    assert not list(folder.glob("specification-*.json"))


def test_fail_fast_starts_nothing_more() -> None:
    outcomes = Local(1, fail_fast=True).run([task("a"), task("b", "fail"), task("c")])
    assert statuses(outcomes) == {"a": "done", "b": "failed"}
    assert not (store.run_folder("c") / "begun").exists()


def test_fail_fast_lets_running_jobs_end() -> None:
    outcomes = Local(2, fail_fast=True).run([task("a", seconds=0.6), task("b", "fail"), task("c")])
    assert statuses(outcomes) == {"b": "failed", "a": "done"}


def test_slots_bound_what_runs_at_once() -> None:
    live: list[int] = []
    Local(2, report=lambda running, finished, total: live.append(len(running))).run(
        [task(str(i), seconds=0.15) for i in range(5)]
    )
    assert max(live) == 2


def test_slots_take_devices_in_turn_and_share_the_threads() -> None:
    Local(2, devices=("cuda:0", "cuda:1")).run([task("a", seconds=0.2), task("b", seconds=0.2)])
    used = {key: json.loads((store.run_folder(key) / "given.json").read_text())["device"] for key in "ab"}
    assert used == {"a": "cuda:0", "b": "cuda:1"}
    environment = json.loads((store.run_folder("a") / "environment.json").read_text())
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["OMP_NUM_THREADS"] == str(max(1, (os.cpu_count() or 1) // 2))


def test_progress_is_reported() -> None:
    seen: list[Any] = []
    Local(report=lambda running, finished, total: seen.append((running, finished, total))).run([task("a", seconds=0.3)])
    assert any(running and running[0][1].get("steps") == 2 for running, _, _ in seen)
    assert seen[-1][1:] == (1, 1)


def interrupt_when(begun: Callable[[], bool]) -> None:
    """Ctrl-C in the main thread, once."""

    def wait() -> None:
        end = time.monotonic() + 20
        while not begun() and time.monotonic() < end:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests were started in the background (SIGINT ignored)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_control_c_stops_jobs_after_their_checkpoint() -> None:
    folders = [store.run_folder(key) for key in "ab"]
    interrupt_when(lambda: all((folder / "begun").exists() for folder in folders))
    with pytest.raises(KeyboardInterrupt):
        Local(2).run([task("a", seconds=30), task("b", seconds=30), task("c")])
    for folder in folders:
        assert (folder / "checkpoint-a").read_text() == "saved"
        assert not (folder / "result.json").exists()
    assert not (store.run_folder("c") / "begun").exists()


@pytest.mark.usefixtures("interruptible")
def test_a_job_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "PATIENCE_SECONDS", 0.2)
    folder = store.run_folder("a")
    interrupt_when((folder / "begun").exists)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Local().run([task("a", "deaf", seconds=30)])
    assert time.monotonic() - begun < 25
    assert not (folder / "result.json").exists()


def test_an_error_in_the_queue_leaves_no_job_behind() -> None:
    def report(running: Any, finished: int, total: int) -> None:
        if (store.run_folder("a") / "begun").exists():
            raise ValueError("no terminal")

    with pytest.raises(ValueError, match="no terminal"):
        Local(report=report).run([task("a", seconds=30)])
    assert (store.run_folder("a") / "checkpoint-a").exists()


# ---------------------------------------------------------------------------------- tasks that several processes share


def given(key: str) -> tuple[str, str, str]:
    """Device, threads and processes that a task was started with; "" processes: by itself."""
    folder = store.run_folder(key)
    shared = (folder / "processes").read_text() if (folder / "processes").exists() else ""
    environment = json.loads((folder / "environment.json").read_text())
    return json.loads((folder / "given.json").read_text())["device"], environment["OMP_NUM_THREADS"], shared


def test_processes_that_share_a_task_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three GPUs: two tasks of one process leave too few for the third, which waits for one of them."""
    monkeypatch.setattr(queue, "cores", lambda: 12)
    tasks = [task("a", seconds=0.2), task("b", seconds=1.5), replace(task("c"), processes=2), task("d")]
    outcomes = Local(3, devices=("cuda:0", "cuda:1", "cuda:2")).run(tasks)
    assert statuses(outcomes) == dict.fromkeys("abcd", "done")
    assert given("a") == ("cuda:0", "4", "")
    assert given("b") == ("cuda:1", "4", "")
    assert given("c") == ("cuda:0,cuda:2", "4", "2")
    assert begun("a") < begun("c") < begun("d")


def test_a_gpu_is_given_to_no_two_processes_of_a_task() -> None:
    Local(4, devices=("cuda:0", "cuda:1")).run([replace(task("a"), processes=2)])
    assert given("a")[0] == "cuda:0,cuda:1"
    with pytest.raises(ValueError, match="run b needs 3 GPUs, here are 2"):
        Local(4, devices=("cuda:0", "cuda:1")).run([replace(task("b"), processes=3)])


def test_on_a_processor_a_task_of_several_processes_takes_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "cores", lambda: 12)
    Local(2, devices=("cpu",)).run([replace(task("a"), processes=3), task("b")])
    assert given("a") == ("cpu", "2", "3")
    assert given("b") == ("cpu", "6", "")


# ------------------------------------------------------------------------------------------ tasks that wait for others


def after(task: Task, *keys: str) -> Task:
    return replace(task, after=keys)


def begun(key: str) -> float:
    return float((store.run_folder(key) / "begun").read_text())


def test_a_task_waits_for_those_it_names_while_others_go_on() -> None:
    tasks = [after(task("c"), "b"), after(task("b"), "a"), task("a", seconds=0.3), task("x"), after(task("y"), "gone")]
    outcomes = Local(2).run(tasks)
    assert statuses(outcomes) == dict.fromkeys("abcxy", "done")
    ended = [outcome.task.key for outcome in outcomes]
    assert ended.index("a") < ended.index("b") < ended.index("c")
    assert begun("x") < begun("b")
    assert begun("y") < begun("b")  # what it waits for is no task: it was done before


def test_a_failure_fails_all_that_waits_for_it_without_running_it() -> None:
    seen: list[Outcome] = []
    tasks = [after(task("d"), "b", "c"), after(task("c"), "b"), after(task("b"), "a"), task("a", "fail"), task("x")]
    outcomes = Local(1, ended=seen.append).run(tasks)
    assert statuses(outcomes) == {"a": "failed", "b": "failed", "c": "failed", "d": "failed", "x": "done"}
    assert seen == outcomes
    errors = {outcome.task.key: outcome.error for outcome in outcomes}
    assert errors["b"].startswith("stage run a failed: RuntimeError: it broke (traceback: ")
    assert errors["c"].startswith("stage run b failed: stage run a failed: ")
    assert "run a failed" in errors["d"]
    assert not any((store.run_folder(key) / "begun").exists() for key in "bcd")
    assert [outcome.seconds for outcome in outcomes if outcome.task.key in "bcd"] == [0.0] * 3


def test_fail_fast_leaves_nothing_waiting() -> None:
    outcomes = Local(1, fail_fast=True).run(
        [task("a", "fail"), after(task("b"), "a"), task("x"), after(task("y"), "x")]
    )
    assert statuses(outcomes) == {"a": "failed", "b": "failed"}


def test_tasks_that_wait_for_each_other_are_an_error() -> None:
    with pytest.raises(ValueError, match="wait for each other: run a, run b"):
        Local().run([after(task("a"), "b"), after(task("b"), "a"), task("x")])
    assert (store.run_folder("x") / "result.json").exists()


@pytest.mark.usefixtures("interruptible")
def test_control_c_begins_nothing_that_waits() -> None:
    interrupt_when((store.run_folder("a") / "begun").exists)
    with pytest.raises(KeyboardInterrupt):
        Local(2).run([task("a", seconds=30), after(task("b"), "a")])
    assert (store.run_folder("a") / "checkpoint-a").exists()
    assert not (store.run_folder("b") / "begun").exists()
