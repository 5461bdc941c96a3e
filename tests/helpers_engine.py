"""A tiny method and dataset for tests of the engine, in an outside package, and processes that train with them.

The package is installed the way any outside package is (a folder of modules and a dist-info with entry points, on
sys.path), so nothing of it lies in the product. `job_server` forks job processes from one that has imported torch: a
job starts in milliseconds instead of seconds, and can be killed for real.

Used with `pytest_plugins = ("helpers_engine",)`; its asserts need no rewriting (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("neutral", "happiness", "surprise", "sadness")
COUNTS = {"train": 70, "val": 20, "test": 30}

DATA = '''
"""Striped 12-pixel images: the class is the stripe's direction and place, under noise."""
import numpy as np
import pandas as pd
from bench.data.base import Dataset
from bench.registry import dataset

@dataset("tinyfaces", version=1)
class TinyFaces(Dataset):
    """Seventy training, twenty validation and thirty test images, made on the spot."""
    shape = (12, 12)
    splits_at = ["train"] * 70 + ["val"] * 20 + ["test"] * 30

    @classmethod
    def detect(cls, root):
        return None

    def fingerprint(self):
        return self.protocol.rule

    def names(self):
        return [f"tiny-{i:03d}" for i in range(120)]

    def index(self, protocol):
        labels = [protocol.classes[i % 4] for i in range(120)]
        frame = pd.DataFrame({"name": self.names(), "label": labels, "split": self.splits_at})
        if protocol.folds:
            frame["fold"] = [i // 4 % protocol.folds for i in range(120)]
        if protocol.subset_of:
            frame = frame[frame["split"] == "test"].iloc[::2]
        return frame

    def pixels(self, names):
        for name in names:
            number = int(name.split("-")[1])
            image = np.random.default_rng(number).integers(0, 170, (12, 12), dtype=np.uint8)
            stripe = slice(2, 5) if number % 2 else slice(7, 10)
            image[(stripe, slice(None)) if number % 4 < 2 else (slice(None), stripe)] += 60
            yield image
'''

MODEL = '''
"""A small network with batch norm and dropout that can be told when to die."""
import os
import signal
import time
from torch import nn
from bench.method import Supervised
from bench.registry import method

@method("tinynet", version=1)
def build(entry, recipe, context):
    """Convolution, batch norm, dropout, linear."""
    return TinyNet(entry, recipe, context)

class TinyNet(Supervised):
    def __init__(self, entry, recipe, context):
        width = int(entry.options.get("width", 6))
        net = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, len(context.classes)),
        )
        super().__init__(net, recipe, context)
        self.options = dict(entry.options)
        self.arm()

    def update(self, images, targets):
        if self.options.get("fail"):
            raise RuntimeError("tinynet was told to fail")
        self.strike("update")
        time.sleep(float(os.environ.get("TINYFER_SLEEP", 0)))
        return super().update(images, targets)

    def predict(self, images):
        self.strike("predict")
        return super().predict(images)

    def strike(self, what):
        """Count down to the moment TINYFER_KILL names, e.g. update:7:SIGKILL or fsync:3:SIGKILL."""
        if what == self.moment:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.signal)

    def arm(self):
        self.moment, number, name = os.environ.get("TINYFER_KILL", ":0:SIGKILL").split(":")
        self.left, self.signal = int(number), signal.Signals[name]
        if self.moment in ("fsync", "replace"):
            original = getattr(os, self.moment)

            def struck(*arguments):
                self.strike(self.moment)
                return original(*arguments)

            setattr(os, self.moment, struck)
'''

ENTRY_POINTS = """
[ferbench.methods]
tinynet = tinyfer.model

[ferbench.datasets]
tinyfaces = tinyfer.data
"""

PROTOCOLS = """
protocols:
  - {id: tiny-4, dataset: tinyfaces, classes: [neutral, happiness, surprise, sadness], rule: plain, synthetic: true,
     counts: {train: 70, val: 20, test: 30}}
  - {id: tiny-half, dataset: tinyfaces, classes: [neutral, happiness, surprise, sadness], rule: plain, synthetic: true,
     subset_of: tiny-4, counts: {test: 15}}
  - {id: tiny-folds, dataset: tinyfaces, classes: [neutral, happiness, surprise, sadness], rule: plain, synthetic: true,
     folds: 3}
  - {id: tiny-absent, dataset: nowhere, classes: [neutral, happiness], stand_in: tiny-4, access: ask its owners}
"""

TABLES = """
paper: {id: tiny, title: A tiny paper, venue: Nowhere, year: 2024}
recipes:
  tiny:
    fields:
      optimizer: {value: adamw, source: paper, at: "1"}
      learning_rate: {value: 0.01, source: paper, at: "1"}
      batch_size: {value: 16, source: paper, at: "1"}
      epochs: {value: 3, source: paper, at: "1"}
      input_size: {value: 12, source: paper, at: "1"}
      schedule: {value: cosine, source: paper, at: "1"}
      weight_decay: {value: 0.01, source: paper, at: "1"}
      label_smoothing: {value: 0.1, source: paper, at: "1"}
      last_k: {value: 2, source: choice, why: short}
      method.width: {value: 4, source: choice, why: small}
    profiles:
      short: {why: fewer, fields: {epochs: 2}}
      quick: {why: as declared, fields: {}}
experiments:
  tiny: {method: tinynet, backbone: small, augmentation: fervt-common, recipe: tiny, options: {width: 6}}
  tiny-plain: {method: tinynet, backbone: small, augmentation: none, recipe: tiny}
  tiny-fails: {method: tinynet, backbone: small, augmentation: none, recipe: tiny, options: {fail: true}}
  tiny-unbuilt: {method: nowherenet, backbone: small, augmentation: none, recipe: tiny}
tables:
  - id: tiny-table1
    title: One row
    where: Table 1
    columns: [{id: four, title: Four, protocol: tiny-4}]
    rows:
      - {id: ours, title: Ours, experiment: tiny, cells: {four: "50.00"}}
      - {id: theirs, title: Theirs, cited: "Theirs [1]", cells: {four: "49.00"}}
  - id: tiny-table2
    title: A failing row and a good one
    where: Table 2
    columns: [{id: four, title: Four, protocol: tiny-4}]
    rows:
      - {id: fails, title: Fails, experiment: tiny-fails, cells: {four: "1.00"}}
      - {id: ours, title: Ours, experiment: tiny, cells: {four: "50.00"}}
  - id: tiny-table3
    title: A blocked row and a good one
    where: Table 3
    columns: [{id: four, title: Four, protocol: tiny-4}, {id: half, title: Half, protocol: tiny-half}]
    rows:
      - {id: unbuilt, title: Unbuilt, experiment: tiny-unbuilt, cells: {four: "1.00"}}
      - {id: ours, title: Ours, experiment: tiny, cells: {four: "50.00", half: "50.00"}}
"""

SERVER = """
import json, os, sys, traceback
from pathlib import Path
import pandas, pyarrow.parquet, safetensors.torch, torch.utils.flop_counter
import torch._dynamo  # what the first optimizer of a process imports
from bench import declare, job, registry
folder = Path(sys.argv[1])
declare.table_files = lambda: [folder / "tiny.yaml"]
declare.protocol_files = lambda: [folder / "protocols.yaml"]
declare.load()
for kind in ("method", "dataset", "augmentation"):
    registry.available(kind)
import tinyfer.data, tinyfer.model

def answer(request):
    if "poll" in request:
        pid, status = os.waitpid(request["poll"], os.WNOHANG)
        return None if not pid else os.waitstatus_to_exitcode(status)
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.environ.clear()
    os.environ.update(request["env"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    try:
        status = job.main([request["spec"]])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
"""


def install(folder: Path) -> Path:
    """Write the outside package `tinyfer`, its dist-info and its declarations; put `folder` on sys.path to use it."""
    package, info = folder / "tinyfer", folder / "tinyfer-1.0.dist-info"
    for made in (package, info):
        made.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "data.py").write_text(DATA)
    (package / "model.py").write_text(MODEL)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinyfer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "tiny.yaml").write_text(TABLES)
    (folder / "protocols.yaml").write_text(PROTOCOLS)
    return folder


def quiet_environment(**more: str) -> dict[str, str]:
    """This process's environment, with one thread for torch."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **more}


class Job:
    """A job process started by the server; looks like a Popen to the queue."""

    def __init__(self, server: Server, pid: int) -> None:
        self.server, self.pid = server, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = 60.0) -> int:
        end = time.monotonic() + (timeout or 60.0)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("job", timeout or 60.0)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Server:
    """Forks job processes: `python -m bench.job SPEC` without the imports."""

    STDOUT = subprocess.STDOUT
    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join([str(ROOT), str(folder)])
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=quiet_environment(PYTHONPATH=path), cwd=folder,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, spec: Path, log: Path, **environment: str) -> Job:
        """One job process, with extra environment variables."""
        env = quiet_environment(**environment)
        return Job(self, self.ask({"spec": str(spec), "log": str(log), "env": env}))

    def Popen(self, command: Sequence[str], stdout: Any, env: dict[str, str], **_: Any) -> Job:
        """Stands in for subprocess.Popen in bench.queue."""
        assert list(command[1:3]) == ["-m", "bench.job"]
        return Job(self, self.ask({"spec": command[3], "log": stdout.name, "env": env}))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.kill()  # it holds nothing; leaving politely takes torch seconds
        self.process.wait()


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder the outside package is installed in."""
    return install(tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="session")
def job_server(outside: Path) -> Iterator[Server]:
    """One server for all tests of this process."""
    server = Server(outside)
    yield server
    server.close()


def forget() -> None:
    """Empty every cache that holds declarations or plug-ins, modules of an outside package among them.

    Several folders hold a package of that name, each with plug-ins of its own.
    """
    from bench import declare, registry

    declare.installed.cache_clear()
    registry.available.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tinyfer"]:
        del sys.modules[name]


@pytest.fixture
def tiny(outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The tiny declarations in force in this process, with a cache of their own; gives the `Declarations`."""
    from bench import declare

    monkeypatch.syspath_prepend(str(outside))
    monkeypatch.setattr(declare, "table_files", lambda: [outside / "tiny.yaml"])
    monkeypatch.setattr(declare, "protocol_files", lambda: [outside / "protocols.yaml"])
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    forget()
    yield declare.load()
    forget()


def specify(
    declared: Any, experiment: str = "tiny", protocol: str = "tiny-4", seed: int = 0, fold: int = 0,
    checkpoint_seconds: float = 0.0, profile: str = "quick",
) -> dict[str, Any]:  # fmt: skip
    """The specification of one run, its data read."""
    from bench import matrix
    from bench.data import source

    run = matrix.runs_of(declared, declared.entry(f"{experiment}:{protocol}"), profile, [seed])[fold]
    key = run.key(source.open_data(run.entry.protocol, None).hash, {})
    return matrix.specification(run, key, None, "cpu", checkpoint_seconds)


def write_spec(folder: Path, spec: dict[str, Any]) -> Path:
    """The specification as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{spec['key']}.json"
    path.write_text(json.dumps(spec))
    return path


def predictions(folder: Path) -> dict[str, bytes]:
    """Bytes of every predictions file of a run."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("predictions-*.parquet"))}


def house(folder: Path, outside: Path) -> Path:
    """A copy of the product that declares the tiny table alone: what a fresh checkout with other tables is."""
    ignore = shutil.ignore_patterns("__pycache__", "protocols*.yaml", "*.pyc")
    for name in ("bench", "commands", "methods"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copytree(ROOT / "tables", folder / "tables", ignore=shutil.ignore_patterns("__pycache__", "*.yaml"))
    shutil.copy(ROOT / "run_all.py", folder)
    shutil.copy(outside / "tiny.yaml", folder / "tables")
    shutil.copy(outside / "protocols.yaml", folder / "bench" / "data")
    return folder
