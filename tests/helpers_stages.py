"""Tiny stages and runs that need them, added to the outside package of helpers_engine.

Used with `pytest_plugins = ("helpers_engine", "helpers_stages")`; it asserts nothing (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import helpers_engine
import pytest
from helpers_engine import Server, forget, install

from bench import declare, job, matrix, store
from bench.data import source
from bench.declare import Declarations

POINTS = '''
"""The striped images again, with two numbers of each to learn, or with no label at all."""
import numpy as np
import pandas as pd
from bench.registry import dataset
from tinyfer.data import TinyFaces

@dataset("tinypoints", version=1)
class TinyPoints(TinyFaces):
    """Images without classes."""

    def index(self, protocol):
        split = self.splits_at if protocol.targets else ["train"] * 120
        return pd.DataFrame({"name": self.names(), "label": "", "split": split})

    def targets(self, kind, names):
        return np.stack([[image.mean(), image.std()] for image in self.pixels(names)]).astype(np.float32) / 255
'''

STAGE = '''
"""A network that learns two numbers of an image, and one for classes that starts from it."""
from safetensors.torch import load_file
from torch import nn
from bench.errors import UserError
from bench.method import Supervised, require_weights
from bench.registry import method
from tinyfer.model import TinyNet

@method("tinystage", version=1)
def stage(entry, recipe, context):
    """Convolution, batch norm and dropout, then the two numbers."""
    return TinyStage(entry, recipe, context)

@method("tinybuilt", version=1)
def built(entry, recipe, context):
    """Classes from the features of a stage."""
    return TinyBuilt(entry, recipe, context)

class Tiny(TinyNet):
    def __init__(self, entry, recipe, context):
        features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        if "on" in entry.options and not context.restoring:
            made = load_file(require_weights(context, entry.options["on"]))
            features.load_state_dict({name[2:]: value for name, value in made.items() if name.startswith("0.")})
        answers = len(context.classes) if self.classifies else 2
        net = nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, answers))
        Supervised.__init__(self, net, recipe, context)
        self.options = dict(entry.options)
        self.arm()

class TinyStage(Tiny):
    classifies = False

    def errors(self, images, targets):
        if targets.ndim == 1:  # no targets: the image's own brightness
            targets = images.mean(dim=(2, 3))[:, :2]
        return (self.net(images) - targets).abs().mean(dim=1)

    def loss(self, images, targets):
        return self.errors(images, targets).mean()

    def validate(self, images, targets):
        self.strike("predict")
        found = self.errors(images, targets)
        return {"error": found * float("nan") if self.options.get("infinite") else found}

class TinyBuilt(Tiny):
    def load_released(self, state):
        try:
            self.net.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(str(error)) from None
'''

INFO = """
[ferbench.methods]
tinystage = tinystages.stage

[ferbench.datasets]
tinypoints = tinystages.points
"""

PROTOCOLS = """
  - {id: tiny-points, dataset: tinypoints, targets: points-2, synthetic: true, counts: {train: 70, val: 20, test: 30}}
  - {id: tiny-bare, dataset: tinypoints, synthetic: true, counts: {train: 120}}
  - {id: tiny-away, dataset: nowhere, targets: points-2, stand_in: tiny-points, access: ask its owners}
"""

FIELDS = """
      optimizer: {value: adamw, source: paper, at: "1"}
      learning_rate: {value: 0.01, source: paper, at: "1"}
      batch_size: {value: 16, source: paper, at: "1"}
      epochs: {value: 2, source: paper, at: "1"}
      input_size: {value: 12, source: paper, at: "1"}
"""

TABLES = f"""
paper: {{id: tiny, title: A tiny paper, venue: Nowhere, year: 2024}}
recipes:
  points:
    fields: &fields {FIELDS}
    profiles: {{quick: {{why: fewer, fields: {{epochs: 1}}}}}}
  built:
    fields: *fields
    profiles: {{short: {{why: as declared}}, quick: {{why: as declared}}}}
  scaled:
    fields: *fields
    profiles:
      short: {{why: none of its size, without_pretraining: true}}
      quick: {{why: none of its size, without_pretraining: true, instead: {{released: points}}}}
  hidden:
    fields:
      <<: *fields
      input_size: {{value: 24, source: paper, at: "1"}}
      loss: {{value: masked-pixels, source: paper, at: "1"}}
      method.scale_down: {{value: quick, source: choice, why: small}}
    profiles: {{quick: {{why: as declared}}}}
experiments:
  hidden: {{method: mae, backbone: vit_tiny_patch16, augmentation: fervt-common, recipe: hidden}}
  points: &stage {{method: tinystage, backbone: none, augmentation: fervt-common, recipe: points}}
  bare: {{<<: *stage, backbone: bare}}
  chained: {{<<: *stage, options: {{"on": bare}}, weights: [bare]}}
  failing: {{<<: *stage, options: {{fail: true}}}}
  infinite: {{<<: *stage, options: {{infinite: true}}}}
  unbuilt: {{<<: *stage, method: nowherenet}}
  built: &built {{method: tinybuilt, backbone: small, augmentation: none, recipe: built, options: {{"on": points}},
                  weights: [points]}}
  built-too: {{<<: *built, augmentation: fervt-common}}
  built-on-chained: {{<<: *built, options: {{"on": chained}}, weights: [chained]}}
  built-on-failing: {{<<: *built, options: {{"on": failing}}, weights: [failing]}}
  built-on-unbuilt: {{<<: *built, weights: [unbuilt]}}
  built-on-away: {{<<: *built, weights: [away]}}
  scaled: {{<<: *built, recipe: scaled, weights: [released, other]}}
  plain: {{method: tinynet, backbone: small, augmentation: none, recipe: points}}
stages:
  points: "points:tiny-points"
  bare: "bare:tiny-bare"
  chained: "chained:tiny-points"
  failing: "failing:tiny-points"
  unbuilt: "unbuilt:tiny-points"
  away: "points:tiny-away"
tables:
  - id: both
    title: Two runs on one stage
    where: Table 1
    columns: [{{id: four, title: Four, protocol: tiny-4}}]
    rows:
      - {{id: built, title: Built, experiment: built, cells: {{four: "50.00"}}}}
      - {{id: too, title: Too, experiment: built-too, cells: {{four: "49.00"}}}}
  - id: failing
    title: A stage that fails
    where: Table 2
    columns: [{{id: four, title: Four, protocol: tiny-4}}]
    rows:
      - {{id: failing, title: Failing, experiment: built-on-failing, cells: {{four: "50.00"}}}}
      - {{id: plain, title: Plain, experiment: plain, cells: {{four: "49.00"}}}}
"""


def install_stages(folder: Path) -> Path:
    """The outside package of helpers_engine and one with stages beside it; declared is what stands above."""
    install(folder)
    package, info = folder / "tinystages", folder / "tinystages-1.0.dist-info"
    for made in (package, info):
        made.mkdir()
    (package / "__init__.py").write_text("")
    (package / "points.py").write_text(POINTS)
    (package / "stage.py").write_text(STAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinystages\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(INFO)
    (folder / "protocols.yaml").write_text(helpers_engine.PROTOCOLS + PROTOCOLS)
    (folder / "tiny.yaml").write_text(TABLES)
    return folder


@pytest.fixture(scope="session")
def with_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder the packages are installed in."""
    return install_stages(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="session")
def stage_server(with_stages: Path) -> Iterator[Server]:
    """One job server for all tests of this process."""
    server = Server(with_stages)
    yield server
    server.close()


@pytest.fixture
def staged(with_stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Declarations]:
    """The declarations with stages in force, with a cache of their own."""
    monkeypatch.syspath_prepend(str(with_stages))
    monkeypatch.setattr(declare, "table_files", lambda: [with_stages / "tiny.yaml"])
    monkeypatch.setattr(declare, "protocol_files", lambda: [with_stages / "protocols.yaml"])
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    forget()
    yield declare.load()
    forget()


def one(declared: Declarations, entry: str, profile: declare.ProfileName = "quick", seed: int = 0) -> matrix.Run:
    """The run of an entry with one fold."""
    return matrix.runs_of(declared, declared.entry(entry), profile, [seed])[0]


def read(declared: Declarations, *names: str) -> None:
    """Read the data of protocols, so that their hashes are known."""
    for name in names:
        source.open_data(declared.protocol(name), None)


def made(declared: Declarations, entry: str) -> str:
    """Train the run here, with everything that it needs; gives its key."""
    run = one(declared, entry)
    stages = {role: made(declared, stage.entry.id) for role, stage in run.stages.items()}
    data = source.open_data(run.entry.protocol, None)
    key = run.key(data.hash, {}, stages)
    folder = store.run_folder(key)
    if not (folder / "result.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        spec = matrix.specification(run, key, None, "cpu", 1e9, stages=stages)
        job.execute(json.loads(json.dumps(spec)), folder)
    return key
