"""Several processes share one run: the same training as in one, one set of files, and stops that all agree on.

The processes are forked with the environment that torchrun gives (see helpers_engine); one test has torchrun itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers_engine
import pytest
import torch
from filelock import FileLock
from helpers_engine import Job, Server, forget, house, install, predictions, quiet_environment, specify, write_spec
from safetensors.torch import load_file

from bench import declare, job, launch, loop, matrix, parallel, store
from bench.errors import UserError

MODEL = '''
"""A network without batch statistics, which may be split."""
import os
from torch import nn
from bench import parallel
from bench.method import Supervised
from bench.registry import method
from tinyfer.model import TinyNet

@method("tinyeven", version=1, parallel=True)
def build(entry, recipe, context):
    """Two layers and a norm."""
    return Even(entry, recipe, context)

class Even(TinyNet):
    def __init__(self, entry, recipe, context):
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.GELU(), nn.Flatten(),
            nn.Linear(100, 16), nn.LayerNorm(16), nn.Linear(16, 4),
        )
        parallel.BUCKET_BYTES = 512  # so that there are several
        Supervised.__init__(self, net, recipe, context)
        self.options = {}
        self.arm()

    def update(self, images, targets):
        if os.environ.get("TINYEVEN_FAILS"):
            raise RuntimeError("tinyeven was told to fail")
        return super().update(images, targets)
'''
MORE = """
  even: {method: tinyeven, backbone: small, augmentation: none, recipe: tiny}
  even-drawn: {method: tinyeven, backbone: small, augmentation: fervt-common, recipe: tiny}
tables:"""
STEPS = 3 * (70 // 16)


@pytest.fixture(scope="session")
def with_even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outside package of helpers_engine, and one whose method may be split."""
    folder = install(tmp_path_factory.mktemp("even"))
    package, info = folder / "tinyeven", folder / "tinyeven-1.0.dist-info"
    for made in (package, info):
        made.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text(MODEL)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinyeven\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ferbench.methods]\ntinyeven = tinyeven.model\n")
    (folder / "tiny.yaml").write_text(helpers_engine.TABLES.replace("\ntables:", MORE))
    return folder


@pytest.fixture(scope="session")
def even_server(with_even: Path) -> Iterator[Server]:
    """One job server for all tests of this process."""
    server = Server(with_even)
    yield server
    server.close()


@pytest.fixture
def even(with_even: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[declare.Declarations]:
    """The declarations in force, with a cache of their own."""
    monkeypatch.syspath_prepend(str(with_even))
    monkeypatch.setattr(declare, "table_files", lambda: [with_even / "tiny.yaml"])
    monkeypatch.setattr(declare, "protocol_files", lambda: [with_even / "protocols.yaml"])
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    forget()
    yield declare.load()
    forget()


def start(server: Server, spec: Path, log: Path, *each: dict[str, str], cache: Path | None = None) -> list[Job]:
    """A job in as many processes as there are environments, as torchrun would start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    shared |= {"WORLD_SIZE": str(len(each))} | ({"FERBENCH_CACHE": str(cache)} if cache else {})
    ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(len(each)))
    return [server.start(spec, log, **shared, **rank, **own) for rank, own in zip(ranks, each, strict=True)]


def statuses(jobs: list[Job]) -> list[int]:
    return [job.wait(30.0) for job in jobs]


@pytest.fixture(scope="session")
def whole() -> dict[str, bytes]:
    """Predictions of `even-drawn` in two processes that nothing interrupts, filled by the first that needs them."""
    return {}


@pytest.fixture
def uninterrupted(
    even: declare.Declarations, even_server: Server, whole: dict[str, bytes], tmp_path: Path
) -> dict[str, bytes]:
    if not whole:
        spec = specify(even, "even-drawn", checkpoint_seconds=1e9)
        jobs = start(even_server, write_spec(tmp_path, spec), tmp_path / "whole.log", {}, {}, cache=tmp_path / "whole")
        assert statuses(jobs) == [0, 0], (tmp_path / "whole.log").read_text()
        whole.update(predictions(tmp_path / "whole" / "runs" / spec["key"]))
    return whole


def test_two_processes_train_what_one_does_and_the_first_alone_writes(
    even: declare.Declarations, even_server: Server, tmp_path: Path
) -> None:
    spec = specify(even, "even")  # nothing is drawn; a checkpoint before every step
    path, log = write_spec(tmp_path, spec), tmp_path / "log"
    assert even_server.start(path, log, FERBENCH_CACHE=str(tmp_path / "one")).wait() == 0, log.read_text()
    # were the second to write any file, it would die of it
    jobs = start(even_server, path, log, {}, {"TINYFER_KILL": "fsync:1:SIGKILL"}, cache=tmp_path / "two")
    assert statuses(jobs) == [0, 0], log.read_text()
    one, two = (tmp_path / name / "runs" / spec["key"] for name in ("one", "two"))
    alone, shared = (store.read_result(folder, verify=True) for folder in (one, two))
    assert len(shared.history) == 3
    for before, after in zip(alone.history, shared.history, strict=True):
        assert after == pytest.approx(before, abs=1e-6)
    networks = [load_file(folder / store.NETWORK) for folder in (one, two)]
    for name, value in networks[0].items():
        torch.testing.assert_close(networks[1][name], value, atol=1e-6, rtol=0)
    listed = [{path.name for path in folder.iterdir()} for folder in (one, two)]
    assert listed[0] == listed[1]
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (one, two)]
    assert [(m["processes"], m["backend"]) for m in manifests] == [([1], ""), ([2], "gloo")]
    assert alone.device.endswith("(1 threads)")
    assert shared.device.endswith("(1 threads, 2 processes)")


@pytest.mark.parametrize(("name", "asked"), [("SIGTERM", 0), ("SIGINT", 1)])
def test_a_stop_asked_of_one_process_stops_all_at_one_step(
    even: declare.Declarations, even_server: Server, uninterrupted: dict[str, bytes], tmp_path: Path, name: str,
    asked: int,
) -> None:  # fmt: skip
    spec = specify(even, "even-drawn", checkpoint_seconds=1e9)
    path, log, folder = write_spec(tmp_path, spec), tmp_path / "log", store.run_folder(spec["key"])
    each: list[dict[str, str]] = [{}, {}]
    each[asked] = {"TINYFER_KILL": f"update:6:{name}"}
    assert statuses(start(even_server, path, log, *each)) == [130, 130], log.read_text()
    assert len(list(folder.glob("checkpoint-*"))) == 1
    assert not list(folder.glob("result.json")) + list(folder.glob("error.txt"))
    late = {"TINYFER_KILL": f"update:{STEPS - 6 + 1}:SIGKILL"}  # six steps were done before: it is never reached
    assert statuses(start(even_server, path, log, late, late)) == [0, 0], log.read_text()
    assert predictions(folder) == uninterrupted


@pytest.mark.parametrize("dead", [0, 1])
def test_a_process_that_dies_ends_the_job_which_then_continues(
    even: declare.Declarations, even_server: Server, uninterrupted: dict[str, bytes], tmp_path: Path, dead: int
) -> None:
    spec = specify(even, "even-drawn")
    path, log, folder = write_spec(tmp_path, spec), tmp_path / "log", store.run_folder(spec["key"])
    each: list[dict[str, str]] = [{}, {}]
    each[dead] = {"TINYFER_KILL": "update:7:SIGKILL"}
    ended = statuses(start(even_server, path, log, *each))
    assert (ended[dead], ended[1 - dead]) == (-signal.SIGKILL, 1), log.read_text()
    assert f"process {1 - dead} lost the others" in (folder / "error.txt").read_text().splitlines()[0]
    assert statuses(start(even_server, path, log, {}, {})) == [0, 0], log.read_text()
    assert predictions(folder) == uninterrupted


def test_what_is_shown_of_a_failure_is_its_cause(
    even: declare.Declarations, even_server: Server, tmp_path: Path
) -> None:
    spec = specify(even, "even")
    jobs = start(even_server, write_spec(tmp_path, spec), tmp_path / "log", {}, {"TINYEVEN_FAILS": "1"})
    assert statuses(jobs) == [1, 1]
    error = store.run_folder(spec["key"]) / "error.txt"
    assert error.read_text().splitlines()[0] == "RuntimeError: tinyeven was told to fail"


def test_another_number_of_processes_may_continue(
    even: declare.Declarations, even_server: Server, tmp_path: Path
) -> None:
    """Where nothing is drawn it ends as any number would."""
    spec = specify(even, "even", checkpoint_seconds=1e9)
    path, log, folder = write_spec(tmp_path, spec), tmp_path / "log", store.run_folder(spec["key"])
    asked = {"TINYFER_KILL": "update:6:SIGTERM"}
    assert statuses(start(even_server, path, log, asked, {})) == [130, 130], log.read_text()
    assert even_server.start(path, log).wait() == 0, log.read_text()
    assert "2 processes shared this run before, now 1: the same batches, but other draws" in log.read_text()
    assert json.loads((folder / "manifest.json").read_text())["processes"] == [2, 1]
    assert even_server.start(path, log, FERBENCH_CACHE=str(tmp_path / "one")).wait() == 0
    one = load_file(tmp_path / "one" / "runs" / spec["key"] / store.NETWORK)
    for name, value in load_file(folder / store.NETWORK).items():
        torch.testing.assert_close(value, one[name], atol=1e-6, rtol=0)


def test_processes_that_wait_for_another_job_can_be_stopped(
    even: declare.Declarations, even_server: Server, tmp_path: Path
) -> None:
    spec = specify(even, "even")
    path, log, folder = write_spec(tmp_path, spec), tmp_path / "log", store.run_folder(spec["key"])
    holding = even_server.start(path, log, TINYFER_SLEEP="1")
    wait_for(folder / "progress.json")
    waiting = start(even_server, path, log, {}, {})
    time.sleep(0.5)
    waiting[1].send_signal(signal.SIGTERM)
    try:
        assert statuses(waiting) == [130, 130]
    finally:
        for job in (holding, *waiting):
            job.kill()
            job.wait()


# ------------------------------------------------------------------------------------------------------------ refusals


def run_of(declared: declare.Declarations, experiment: str, **recipe: Any) -> matrix.Run:
    import dataclasses

    run = matrix.runs_of(declared, declared.entry(f"{experiment}:tiny-4"), "quick", [0])[0]
    return dataclasses.replace(run, recipe={**run.recipe, **recipe})


def test_a_method_that_cannot_be_split_is_refused(
    even: declare.Declarations, even_server: Server, tmp_path: Path
) -> None:
    launch.check(run_of(even, "tiny"), 1)
    launch.check(run_of(even, "even"), 2)
    with pytest.raises(UserError, match="method tinynet cannot be split over 2 processes") as caught:
        launch.check(run_of(even, "tiny"), 2)
    assert "tinyeven can be split" in caught.value.hint
    spec = specify(even)
    jobs = start(even_server, write_spec(tmp_path, spec), tmp_path / "log", {}, {})
    assert statuses(jobs) == [1, 1]
    assert "tinynet cannot be split" in (store.run_folder(spec["key"]) / "error.txt").read_text().splitlines()[0]


def test_a_network_with_batch_norm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A miniature of `mae`, whose networks at full size have none."""
    declared = declare.load()
    run = matrix.runs_of(declared, declared.entry("mae-vit-t:synth-ferplus-8"), "quick", [0])[0]
    job._build(run, {}, 10, torch.device("cpu"))
    monkeypatch.setattr(parallel, "size", lambda: 2)
    with pytest.raises(
        UserError, match=r"mae-vit-t.*has batch norm \(encoder\.patch_embed\.proj\.layers\.1\)"
    ) as caught:
        job._build(run, {}, 10, torch.device("cpu"))
    assert "2 processes cannot share it" in caught.value.message
    with torch.device("meta"):
        method = job._build(matrix.runs_of(declared, run.entry, "paper", [0])[0], {}, 10, torch.device("meta"))
    launch.check_network(run, method.net, 2)


@pytest.mark.parametrize(("processes", "near"), [(3, "2 or --processes 4"), (7, "4 or --processes 8"), (20, "16")])
def test_a_batch_that_does_not_divide_is_refused(even: declare.Declarations, processes: int, near: str) -> None:
    with pytest.raises(UserError, match=f"batch of 16 does not divide by {processes} processes") as caught:
        launch.check(run_of(even, "even"), processes)
    assert caught.value.hint == f"use --processes {near}"


# -------------------------------------------------------------------------------------------------------- who does what


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, processes: int) -> None:
    monkeypatch.setattr(parallel, "size", lambda: processes)
    monkeypatch.setattr(parallel, "rank", lambda: rank)


def test_shares_make_up_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    order = torch.randperm(24)
    assert torch.equal(parallel.share(order, 8), order)
    shares = []
    for rank in range(4):
        as_rank(monkeypatch, rank, 4)
        shares.append(parallel.share(order, 8).reshape(3, 2))
    assert torch.equal(torch.cat(shares, dim=1).reshape(-1), order)


def test_processes_draw_apart_and_the_first_as_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    job: Any = SimpleNamespace(seed=1, device=torch.device("cpu"))

    def draws() -> tuple[float, float]:
        generator = loop.seed_step(job, 2, 3)
        return float(torch.rand(1)), float(torch.rand(1, generator=generator))

    alone, found = draws(), []
    for rank in range(3):
        as_rank(monkeypatch, rank, 3)
        found.append(draws())
    assert found[0] == alone
    assert len({value for pair in found for value in pair}) == 6


def test_an_environment_without_torchrun_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers set WORLD_SIZE for purposes of their own."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    with parallel.started("cpu"):
        assert (parallel.size(), parallel.rank(), parallel.first()) == (1, 0, True)
    assert parallel.own_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert parallel.own_device("cuda:2,cuda:5") == "cuda:5"


# ------------------------------------------------------------------------------------------------------ torchrun itself


QUEUE = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(600)"


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["by Ctrl-C", "by the death of the queue"])
def test_torchrun_stops_and_continues_a_job(
    even: declare.Declarations, even_server: Server, uninterrupted: dict[str, bytes], with_even: Path, tmp_path: Path,
    asked: str,
) -> None:  # fmt: skip
    """`python -m bench.launch 2 SPEC`, in a copy of the product: one checkpoint, status 130."""
    home = house(tmp_path / "house", with_even)
    spec = specify(even, "even-drawn", checkpoint_seconds=1e9)
    path, folder, said = write_spec(tmp_path, spec), store.run_folder(spec["key"]), tmp_path / "log"
    environment = quiet_environment(PYTHONPATH=os.pathsep.join([str(home), str(with_even)]), TINYFER_SLEEP="0.5")
    command = [sys.executable, "-m", "bench.launch", "2", str(path)]
    before = [] if asked == "by Ctrl-C" else [sys.executable, "-c", QUEUE]
    with said.open("w") as log:
        process = subprocess.Popen([*before, *command], cwd=home, env=environment, stdout=log, stderr=log)
        try:
            wait_for(folder / "progress.json")
            process.send_signal(signal.SIGKILL if before else signal.SIGINT)
            assert process.wait(30) == (-signal.SIGKILL if before else 130), said.read_text()
        finally:
            process.kill()
    with FileLock(folder / "lock", timeout=30):  # until the processes are gone
        assert len(list(folder.glob("checkpoint-*"))) == 1, said.read_text()
        assert not list(folder.glob("result.json")) + list(folder.glob("error.txt"))
    assert statuses(start(even_server, path, tmp_path / "rest", {}, {})) == [0, 0], (tmp_path / "rest").read_text()
    assert predictions(folder) == uninterrupted


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)
