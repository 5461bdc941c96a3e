"""Kill a run at any moment and start it again: it ends with the same bytes, and nothing half-written counts as done."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers_engine import Server, house, predictions, quiet_environment, specify, write_spec

from bench import store
from bench.errors import UserError

pytest_plugins = ("helpers_engine",)
STEPS = 3 * (70 // 16)  # of the tiny recipe
FILES = [f"predictions-{name}.parquet" for name in ("last", "last-k", "test-best", "val-best")]


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    """Predictions of the uninterrupted run, filled by the first test that needs them."""
    return {}


@pytest.fixture
def whole(tiny: Any, job_server: Server, reference: dict[str, Any], tmp_path: Path) -> dict[str, bytes]:
    """Predictions files of the run `tiny` trained without any interruption."""
    if not reference:
        spec = specify(tiny, checkpoint_seconds=1e9)
        environment = {"FERBENCH_CACHE": str(tmp_path / "whole")}
        job = job_server.start(write_spec(tmp_path, spec), tmp_path / "whole.log", **environment)
        assert job.wait() == 0, (tmp_path / "whole.log").read_text()
        folder = tmp_path / "whole" / "runs" / spec["key"]
        reference.update(predictions(folder))
        result = store.read_result(folder, verify=True)
        assert result.selections["last-k"].epochs == (2, 3)
        assert not list(folder.glob("checkpoint-*"))
    return reference


def until_done(server: Server, spec: Path, folder: Path, moments: list[str], log: Path) -> int:
    """Start the job again and again, killed at each of `moments` in turn, then left alone; gives how often it died."""
    killed = 0
    for moment in [*moments, ""]:
        job = server.start(spec, log, **({"TINYFER_KILL": f"{moment}:SIGKILL"} if moment else {}))
        status = job.wait()
        if status == 0:
            break
        assert status == -signal.SIGKILL, log.read_text()
        killed += 1
        assert not (folder / "result.json").exists(), moment
    assert status == 0, log.read_text()
    return killed


@pytest.mark.parametrize(
    "moments",
    [
        ["update:1", "update:2", "update:3", "update:4"],  # in every step of an epoch
        ["update:6", "predict:1", "predict:2", "update:3"],  # in the evaluations between epochs
        ["fsync:1", "fsync:2", "fsync:5", "replace:3", "replace:4"],  # while a checkpoint is being written
    ],
)
def test_killed_at_chosen_moments(
    tiny: Any, job_server: Server, whole: dict[str, bytes], tmp_path: Path, moments: list[str]
) -> None:
    spec = specify(tiny)
    folder = store.run_folder(spec["key"])
    killed = until_done(job_server, write_spec(tmp_path, spec), folder, moments, tmp_path / "log")
    assert killed == len(moments)
    assert list(whole) == sorted(FILES)
    assert predictions(folder) == whole
    assert store.read_result(folder, verify=True).run == spec["key"]


def test_killed_while_the_result_is_written(
    tiny: Any, job_server: Server, whole: dict[str, bytes], tmp_path: Path
) -> None:
    spec = specify(tiny, checkpoint_seconds=1e9)  # so that every fsync belongs to the result
    path, folder = write_spec(tmp_path, spec), store.run_folder(spec["key"])
    # four predictions files, manifest.json, result.json
    killed = until_done(job_server, path, folder, [f"fsync:{i}" for i in range(1, 7)], tmp_path / "log")
    assert killed == 6
    assert predictions(folder) == whole


def test_killed_at_random_moments(tiny: Any, job_server: Server, whole: dict[str, bytes], tmp_path: Path) -> None:
    spec = specify(tiny)
    path, folder, draw = write_spec(tmp_path, spec), store.run_folder(spec["key"]), random.Random(0)
    killed = 0
    for _ in range(60):
        job = job_server.start(path, tmp_path / "log", TINYFER_SLEEP="0.02")
        if killed < 6:
            time.sleep(draw.uniform(0.02, 0.35))
            job.send_signal(signal.SIGKILL)
        status = job.wait()
        if status == 0:
            break
        assert status == -signal.SIGKILL, (tmp_path / "log").read_text()
        killed += 1
    assert killed
    assert predictions(folder) == whole


def test_a_real_process_killed_and_continued(
    tiny: Any, job_server: Server, whole: dict[str, bytes], outside: Path, tmp_path: Path
) -> None:
    """`python -m bench.job SPEC` itself, with its imports, in a copy of the product (test_cli lets one end)."""
    home = house(tmp_path / "house", outside)
    spec = specify(tiny)
    path, folder = write_spec(tmp_path, spec), store.run_folder(spec["key"])
    environment = quiet_environment(
        PYTHONPATH=os.pathsep.join([str(home), str(outside)]), TINYFER_KILL="update:7:SIGKILL"
    )
    command = [sys.executable, "-m", "bench.job", str(path)]
    killed = subprocess.run(command, cwd=home, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(folder.glob("checkpoint-*"))) == 2
    assert not (folder / "result.json").exists()
    assert job_server.start(path, tmp_path / "log").wait() == 0
    assert predictions(folder) == whole


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_job_writes_a_checkpoint_and_exits_130(
    tiny: Any, job_server: Server, whole: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    spec = specify(tiny, checkpoint_seconds=1e9)
    path, folder = write_spec(tmp_path, spec), store.run_folder(spec["key"])
    job = job_server.start(path, tmp_path / "log", TINYFER_KILL=f"update:6:{name}")
    assert job.wait() == 130
    assert len(list(folder.glob("checkpoint-*"))) == 1
    assert not (folder / "result.json").exists()
    assert not (folder / "error.txt").exists()
    job = job_server.start(path, tmp_path / "log", TINYFER_KILL=f"update:{STEPS - 6 + 1}:SIGKILL")
    assert job.wait() == 0  # six steps were done before: the kill is never reached
    assert predictions(folder) == whole


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: len(data) // 2] if how == "truncate" else b"" if how == "empty" else data)


@pytest.mark.parametrize(
    ("how", "slots"),
    [("flip", ["newest"]), ("truncate", ["newest"]), ("flip", ["oldest"]), ("empty", ["newest", "oldest"])],
)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    tiny: Any, job_server: Server, whole: dict[str, bytes], tmp_path: Path, how: str, slots: list[str]
) -> None:
    spec = specify(tiny)
    path, folder, log = write_spec(tmp_path, spec), store.run_folder(spec["key"]), tmp_path / "log"
    assert job_server.start(path, log, TINYFER_KILL="update:6:SIGKILL").wait() == -signal.SIGKILL
    by_age = sorted(folder.glob("checkpoint-*"), key=lambda file: file.stat().st_mtime_ns)
    damaged = [by_age[-1 if slot == "newest" else 0] for slot in slots]
    for file in damaged:
        damage(file, how)
    assert job_server.start(path, log).wait() == 0
    said = log.read_text()
    for file in by_age:
        assert (f"{file}: damaged checkpoint" in said) == (file in damaged)
    assert predictions(folder) == whole


def test_two_processes_one_run(tiny: Any, job_server: Server, whole: dict[str, bytes], tmp_path: Path) -> None:
    """One trains, the other waits and finds it done."""
    spec = specify(tiny)
    path, folder = write_spec(tmp_path, spec), store.run_folder(spec["key"])
    first = job_server.start(path, tmp_path / "first", TINYFER_SLEEP="0.03")
    wait_for(folder / "progress.json")
    # were it to train, the first step would kill it
    second = job_server.start(path, tmp_path / "second", TINYFER_KILL="update:1:SIGKILL")
    assert first.wait() == 0
    finished = (folder / "result.json").stat().st_mtime_ns
    assert second.wait() == 0, (tmp_path / "second").read_text()
    assert (folder / "result.json").stat().st_mtime_ns == finished
    assert predictions(folder) == whole


def test_the_waiting_process_takes_over_from_a_killed_one(
    tiny: Any, job_server: Server, whole: dict[str, bytes], tmp_path: Path
) -> None:
    spec = specify(tiny)
    path, folder = write_spec(tmp_path, spec), store.run_folder(spec["key"])
    first = job_server.start(path, tmp_path / "first", TINYFER_SLEEP="0.03")
    wait_for(folder / "progress.json")
    second = job_server.start(path, tmp_path / "second")
    time.sleep(0.1)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    assert second.wait() == 0, (tmp_path / "second").read_text()
    assert predictions(folder) == whole


def test_a_process_that_waits_for_another_can_be_interrupted(tiny: Any, job_server: Server, tmp_path: Path) -> None:
    spec = specify(tiny)
    path, folder = write_spec(tmp_path, spec), store.run_folder(spec["key"])
    first = job_server.start(path, tmp_path / "first", TINYFER_SLEEP="1")
    wait_for(folder / "progress.json")
    second = job_server.start(path, tmp_path / "second")
    time.sleep(0.5)
    second.send_signal(signal.SIGINT)
    try:
        assert second.wait(2.0) == 130
    finally:
        for job in (first, second):
            job.kill()
            job.wait()


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)


# ------------------------------------------------------------------------------------------------------- full disks


@pytest.mark.parametrize(
    "file", ["checkpoint-", "predictions-last.parquet", "model.safetensors", "manifest.json", "result.json"]
)
def test_a_full_disk_leaves_no_result_and_names_the_file(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str
) -> None:
    from bench import job

    spec = specify(tiny)
    folder = store.run_folder(spec["key"])
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.startswith(f".{file}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="disk is full") as caught:
            job.execute(spec, folder)
    assert str(folder / file) in caught.value.message
    assert "free some space" in caught.value.hint
    assert not (folder / "result.json").exists()
    assert not list(folder.glob(".*.tmp"))
    job.execute(spec, folder)  # with space again, it ends
    assert store.read_result(folder, verify=True).run == spec["key"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 128 KiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("this user may not mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.parametrize("free", [0, 16, 40])
def test_a_disk_that_is_really_full(
    tiny: Any, job_server: Server, whole: dict[str, bytes], small_disk: Path, tmp_path: Path, free: int
) -> None:
    """KiB free: none, not enough for a checkpoint, for the predictions, for the end."""
    spec = specify(tiny)
    folder = store.run_folder(spec["key"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(bytes((128 - free) * 1024 - 4096 if free else 128 * 1024))
    path, log = write_spec(tmp_path, spec), tmp_path / "log"
    job = job_server.start(path, log)
    status = job.wait()
    said = log.read_text()
    if status:
        assert status == 1, said
        assert not (folder / "result.json").exists()
        assert f"{folder}/" in said, said
        assert "full" in said, said
    else:
        assert free > 28, said
    filler.unlink()
    assert job_server.start(path, log).wait() == 0, log.read_text()
    assert predictions(folder) == whole


def test_a_failed_job_keeps_its_traceback(tiny: Any, job_server: Server, tmp_path: Path) -> None:
    spec = specify(tiny, "tiny-fails")
    folder = store.run_folder(spec["key"])
    assert job_server.start(write_spec(tmp_path, spec), tmp_path / "log").wait() == 1
    error = (folder / "error.txt").read_text()
    assert error.splitlines()[0] == "RuntimeError: tinynet was told to fail"
    assert "Traceback" in error
    assert "in update" in error
    assert not (folder / "result.json").exists()


def test_a_job_refuses_a_key_that_is_not_its_own(tiny: Any, job_server: Server, tmp_path: Path) -> None:
    spec = {**specify(tiny), "key": "0123456789abcdef"}
    assert job_server.start(write_spec(tmp_path, spec), tmp_path / "log").wait() == 1
    assert "changed after planning" in (tmp_path / "log").read_text()
    assert not (store.run_folder(spec["key"]) / "result.json").exists()


def test_what_a_run_leaves(tiny: Any, whole: dict[str, bytes], job_server: Server, tmp_path: Path) -> None:
    import io

    import numpy as np
    import pyarrow.parquet as pq

    spec = specify(tiny)
    assert job_server.start(write_spec(tmp_path, spec), tmp_path / "log").wait() == 0
    folder = store.run_folder(spec["key"])
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names >= {"result.json", "manifest.json", "model.safetensors", *FILES}
    assert not {"error.txt", "checkpoint-a", "checkpoint-b"} & names
    result = store.read_result(folder, verify=True)
    assert len(result.history) == 3
    assert set(result.selections) == set(store.TRAINED_SELECTIONS)
    assert result.synthetic
    for selection, selected in result.selections.items():
        table = pq.read_table(io.BytesIO(whole[selected.file]))
        about = json.loads(table.schema.metadata[b"ferbench"])
        assert (about["run"], about["selection"]) == (spec["key"], selection)
        frame = table.to_pandas()
        assert len(frame) == 30 * len(selected.epochs)
        assert sorted(set(frame["epoch"])) == list(selected.epochs)
        chances = frame[[f"p_{name}" for name in about["classes"]]].to_numpy()
        assert np.allclose(chances.sum(axis=1), 1, atol=1e-5)
    for name in ("test_accuracy", "val_accuracy", "loss"):
        assert all(name in record for record in result.history)
