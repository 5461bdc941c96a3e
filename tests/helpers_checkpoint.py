"""Tiny declarations, networks and files for `run --checkpoint`.

Used with `pytest_plugins = ("helpers_engine", "helpers_checkpoint")`; it asserts nothing (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers_engine
import numpy as np
import pytest
import torch
from helpers_engine import Server, forget, install

import run_all
from bench import collect, declare, matrix, queue, store
from bench.method import Context, Method, Spec
from bench.registry import find

FIELDS = """
      optimizer: {value: adamw, source: paper, at: "1"}
      learning_rate: {value: 0.01, source: paper, at: "1"}
      batch_size: {value: 16, source: paper, at: "1"}
      input_size: {value: 12, source: paper, at: "1"}
"""
COLOURS = '''
@dataset("tinycolours", version=1)
class TinyColours(TinyFaces):
    """The striped images, each channel another one."""
    shape = (12, 12, 3)

    def pixels(self, names):
        for image in super().pixels(names):
            yield np.stack([image, image // 3, 255 - image], axis=2)
'''
POSTER = """
      method.depth: {value: 1, source: choice, why: small}
      method.dims: {value: [16, 8, 4], source: choice, why: small}
      method.heads: {value: 2, source: choice, why: small}
      method.ir_width: {value: 8, source: choice, why: small}
      method.ir_units: {value: [1, 1, 1], source: choice, why: small}
      method.landmark_width: {value: 8, source: choice, why: small}
      method.inner_size: {value: 32, source: choice, why: small}
"""
TABLES = f"""
paper: {{id: tiny, title: A tiny paper, venue: Nowhere, year: 2024}}
recipes:
  tiny:
    fields: {FIELDS}
      epochs: {{value: 40, source: paper, at: "1"}}
      method.width: {{value: 4, source: choice, why: small}}
    profiles: {{quick: {{why: fewer, fields: {{epochs: 1}}}}}}
  wide:
    fields: {FIELDS}
      epochs: {{value: 1, source: paper, at: "1"}}
      method.width: {{value: 8, source: choice, why: wide}}
    profiles: {{quick: {{why: small, options: {{width: 4}}}}}}
  poster:
    fields: {FIELDS} {POSTER}
      epochs: {{value: 1, source: paper, at: "1"}}
      colour: {{value: bgr, source: code, at: "1"}}
    profiles: {{quick: {{why: as declared}}}}
experiments:
  tiny: {{method: tinynet, backbone: small, augmentation: none, recipe: tiny}}
  wide: {{method: tinynet, backbone: small, augmentation: none, recipe: wide, weights: [nowhere]}}
  unbuilt: {{method: nowherenet, backbone: small, augmentation: none, recipe: tiny}}
  poster: &poster {{method: poster, backbone: ir50-mobilefacenet, pretraining: ms1m, augmentation: none, recipe: poster,
                    weights: [ir50-ms1m, mobilefacenet-300w]}}
  poster-affectnet: {{<<: *poster, options: {{token_mixing: false}}}}
tables:
  - id: tiny-table1
    title: Small networks
    where: Table 1
    columns:
      - {{id: four, title: Four, protocol: tiny-4}}
      - {{id: half, title: Half, protocol: tiny-half}}
      - {{id: folds, title: Folds, protocol: tiny-folds}}
    rows:
      - {{id: ours, title: Ours, experiment: tiny, cells: {{four: "50.00", half: "50.00", folds: "50.00"}}}}
      - {{id: unbuilt, title: Unbuilt, experiment: unbuilt, cells: {{four: "50.00"}}}}
      - {{id: theirs, title: Theirs, cited: "Theirs [1]", cells: {{four: "49.00"}}}}
  - id: tiny-table2
    title: Of another size in profile quick
    where: Table 2
    columns: [{{id: four, title: Four, protocol: tiny-4}}]
    rows: [{{id: wide, title: Wide, experiment: wide, cells: {{four: "50.00"}}}}]
  - id: colours
    title: POSTER on colours
    where: Table 4
    columns: [{{id: four, title: Four, protocol: tiny-colours}}]
    rows: [{{id: raf, title: RAF, experiment: poster, cells: {{four: "50.00"}}}}]
  - id: poster-table
    title: POSTER
    where: Table 3
    columns:
      - {{id: four, title: Four, protocol: tiny-4}}
      - {{id: two, title: Two, protocol: tiny-two}}
    rows:
      - {{id: raf, title: RAF, experiment: poster, cells: {{four: "50.00", two: "50.00"}}}}
      - {{id: affectnet, title: AffectNet, experiment: poster-affectnet, cells: {{four: "50.00"}}}}
"""
PROTOCOLS = """
  - {id: tiny-colours, dataset: tinycolours, classes: [neutral, happiness, surprise, sadness], rule: plain,
     synthetic: true}
  - {id: tiny-two, dataset: tinyfaces, classes: [neutral, happiness], rule: plain, synthetic: true}
"""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outside package of helpers_engine under the declarations above; its jobs have imported POSTER already."""
    folder = install(tmp_path_factory.mktemp("checkpoints"))
    (folder / "tinyfer" / "__init__.py").write_text("import methods.poster\n")
    (folder / "tinyfer" / "data.py").write_text(helpers_engine.DATA + COLOURS)
    (folder / "tiny.yaml").write_text(TABLES)
    (folder / "protocols.yaml").write_text(helpers_engine.PROTOCOLS + PROTOCOLS)
    return folder


@pytest.fixture(scope="session")
def server(place: Path) -> Iterator[Server]:
    server = Server(place)
    yield server
    server.close()


@pytest.fixture
def door(place: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs command lines under the declarations above, with a cache and results of their own."""
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr(declare, "table_files", lambda: [place / "tiny.yaml"])
    monkeypatch.setattr(declare, "protocol_files", lambda: [place / "protocols.yaml"])
    monkeypatch.setattr(queue, "subprocess", server)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    forget()
    yield lambda *words: run_all.main([*words, "--results", str(tmp_path / "results")])
    forget()


def network(experiment: str, classes: int = 4, profile: declare.ProfileName = "quick") -> Method:
    """An experiment's method as declared, its weights random."""
    declared = declare.load()
    run = matrix.runs_of(declared, declared.entry(f"{experiment}:tiny-4"), profile, [0])[0]
    context = Context(tuple("abcdefgh"[:classes]), 12, 1, torch.device("cpu"), restoring=True)
    spec = Spec(experiment, run.entry.experiment.backbone, "none", run.options)
    torch.manual_seed(7)
    built: Method = find("method", run.entry.experiment.method).load()(spec, run.recipe, context)
    return built


def images(split: str, colour: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    """Images as a network gets them, and their classes; written apart from the loop's own code.

    Args:
        colour: rgb | bgr: those of tinycolours; empty: the grey ones of tinyfaces.
    """
    from tinyfer import data  # type: ignore[import-not-found]

    kind, protocol = (data.TinyColours, "tiny-colours") if colour else (data.TinyFaces, "tiny-4")
    faces = kind(None, declare.load().protocol(protocol))
    chosen = [i for i, name in enumerate(kind.splits_at) if name == split]
    pixels = np.stack(list(faces.pixels([faces.names()[i] for i in chosen]))).astype(np.float32) / 255
    if not colour:
        pixels = np.stack([pixels] * 3, axis=3)
    if colour == "bgr":
        pixels = pixels[..., ::-1]
    normal = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return torch.from_numpy(np.ascontiguousarray(normal.transpose(0, 3, 1, 2))), torch.tensor([i % 4 for i in chosen])


def probabilities(method: Method, colour: str = "") -> torch.Tensor:
    """Of the test images (30, 4)."""
    method.train(False)
    with torch.no_grad():
        return method.predict(images("test", colour)[0]).softmax(dim=1)


def right(method: Method) -> int:
    """Test images a network gets right."""
    return int((probabilities(method).argmax(dim=1) == images("test")[1]).sum())


KNOWS: dict[str, torch.Tensor] = {}  # trained once for all tests


@pytest.fixture
def trained(door: Any, tmp_path: Path) -> tuple[Path, Method]:
    """A file of a small network that knows the classes."""
    method = network("tiny")
    if not KNOWS:
        inputs, labels = images("train")
        for _ in range(60):
            method.update(inputs, labels)
        KNOWS.update(method.net.state_dict())
    method.net.load_state_dict(KNOWS)
    return save(tmp_path / "trained.pth", KNOWS), method


def save(path: Path, state: dict[str, Any]) -> Path:
    """As trainers do: DataParallel's prefix, other things beside the network."""
    network = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 216, "best_acc": 0.9205, "model_state_dict": network}, path)
    return path


def folder_of(results: Path, file: Path) -> Path:
    return results / "quick" / "checkpoints" / store.sha256_file(file)[:12]


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of runs.csv by protocol; folds as protocol/fold."""
    rows = collect.read_rows(folder / "runs.csv")
    return {row["protocol"] + (f"/{row['fold']}" if row["protocol"] == "tiny-folds" else ""): row for row in rows}


def permuted(state: dict[str, torch.Tensor], order: list[int], *heads: str) -> dict[str, torch.Tensor]:
    """The same classifier with its outputs in another order."""
    return {name: value[order] if name in heads else value for name, value in state.items()}
