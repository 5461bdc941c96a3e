"""A tiny method whose images go through a front, added to the outside packages of helpers_stages.

Used with `pytest_plugins = ("helpers_engine", "helpers_front")`; it asserts nothing (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_engine import Server, forget
from helpers_stages import TABLES, install_stages
from safetensors.torch import save_file

from bench import declare, job, matrix, registry, store, weights
from bench.data import source
from bench.declare import Declarations
from bench.method import Context, Method, Spec

MODEL = '''
"""The network of tinyfer behind a front: images twice as large, shaded by what a file of weights says."""
import hashlib
import os
import time
from pathlib import Path
import torch
from safetensors.torch import load_file
from bench.data import cache_build
from bench.method import Front, require_weights
from bench.registry import method
from tinyfer.model import TinyNet

@method("tinyfronted", version=1)
def build(entry, recipe, context):
    """TinyNet with a front."""
    return Fronted(entry, recipe, context)

class Fronted(TinyNet):
    def __init__(self, entry, recipe, context):
        super().__init__(entry, recipe, context)
        cache_build.FLUSH_BYTES = int(os.environ.get("TINYFER_FLUSH", cache_build.FLUSH_BYTES))
        role, kind = entry.options.get("by"), entry.options.get("kind", "batch")
        self.shade, once = torch.ones(()), "plain doubling"
        if role and not (context.restoring and role not in context.weights):
            file = require_weights(context, role)
            values = next(value for value in load_file(file).values() if value.is_floating_point())
            self.shade = torch.nn.Parameter(values.abs().mean().clamp(0.1, 0.9))
            once = "doubling by " + hashlib.sha256(Path(file).read_bytes()).hexdigest()
        if kind != "none":
            self.front = Front(self.double, once if kind == "once" else "", batch=7)
        self.votes, self.given = context.votes, dict(context.weights)

    def double(self, images):
        """Every pixel four times, darker or not."""
        self.strike("front")
        time.sleep(float(os.environ.get("TINYFER_FRONT_SLEEP", 0)))
        return images.repeat_interleave(2, -1).repeat_interleave(2, -2) * self.shade
'''

ENTRY_POINTS = """
[ferbench.methods]
tinyfronted = tinyfront.model
"""

EXPERIMENTS = """
  front-batch: &front {method: tinyfronted, backbone: small, augmentation: fervt-common, recipe: built}
  front-once: {<<: *front, options: {kind: once}}
  front-of-file: {<<: *front, options: {kind: once, by: shade}, weights: [shade, other], front: shade}
  front-of-file-batch: {<<: *front, options: {by: shade}, weights: [shade], front: shade}
  front-of-stage: {<<: *front, options: {kind: once, by: points}, weights: [points], front: points}
  front-missing: {<<: *front, options: {kind: none}, weights: [shade], front: shade}
stages:
"""

ROW = """
  - id: fronted
    title: A network behind a front that a stage made
    where: Table 3
    columns: [{id: four, title: Four, protocol: tiny-4}]
    rows:
      - {id: stage, title: Stage, experiment: front-of-stage, cells: {four: "50.00"}}
"""


def install_front(folder: Path) -> Path:
    """The packages of helpers_stages and one with a front beside them; the experiments above are declared as well."""
    install_stages(folder)
    package, info = folder / "tinyfront", folder / "tinyfront-1.0.dist-info"
    for made in (package, info):
        made.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text(MODEL)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinyfront\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "tiny.yaml").write_text(TABLES.replace("\nstages:\n", EXPERIMENTS) + ROW)
    return folder


@pytest.fixture(scope="session")
def with_front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder the packages are installed in."""
    return install_front(tmp_path_factory.mktemp("front"))


@pytest.fixture(scope="session")
def front_server(with_front: Path) -> Iterator[Server]:
    """One job server for all tests of this process."""
    server = Server(with_front)
    yield server
    server.close()


@pytest.fixture
def fronted(with_front: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Declarations]:
    """The declarations in force, with a cache of their own in which the files `shade` and `other` lie."""
    monkeypatch.syspath_prepend(str(with_front))
    monkeypatch.setattr(declare, "table_files", lambda: [with_front / "tiny.yaml"])
    monkeypatch.setattr(declare, "protocol_files", lambda: [with_front / "protocols.yaml"])
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    forget()
    for role, value in (("shade", 0.7), ("other", 0.2)):
        give(role, value)
    yield declare.load()
    forget()


def give(role: str, value: float) -> str:
    """A file of weights for a role; gives its SHA-256."""
    weights.folder().mkdir(parents=True, exist_ok=True)
    path = weights.folder() / f"{role}.safetensors"
    save_file({"shade": torch.tensor([value])}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def specify(run: matrix.Run, stages: dict[str, str] | None = None, checkpoint: Path | None = None) -> dict[str, Any]:
    """The specification of a run, its data read."""
    key = run.key(source.open_data(run.entry.protocol, None).hash, weights.hashes(run.weights), stages)
    return matrix.specification(run, key, None, "cpu", 1e9, stages=stages, checkpoint=checkpoint)


def kept() -> list[Path]:
    """Pixel files that hold a front's images."""
    return sorted((store.cache_root() / "pixels").glob("*-front-*.u8"))


def execute(spec: dict[str, Any]) -> Path:
    """Run it here; gives its folder."""
    folder = store.run_folder(spec["key"])
    folder.mkdir(parents=True, exist_ok=True)
    job.execute(json.loads(json.dumps(spec)), folder)
    return folder


def rows_of(file: Path) -> dict[str, dict[str, str]]:
    """Rows of the whole test split by selection."""
    return {row["selection"]: row for row in store.read_rows(file) if row["protocol"] == "tiny-4"}


def manifest(folder: Path) -> dict[str, Any]:
    """What a run notes of how it was made."""
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def built(run: matrix.Run, **given: Any) -> Method:
    """The run's method, with files for its roles."""
    context = Context(run.entry.protocol.classes, 12, 1, torch.device("cpu"), **given)
    model = Spec("tiny", "small", "none", run.options)
    found: Method = registry.find("method", run.entry.experiment.method).load()(model, run.recipe, context)
    return found
