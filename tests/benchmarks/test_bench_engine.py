"""Speed of the engine (`make bench`): augmentation, the loop around an update, planning, start-up; asserts no time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench import declare, loop, matrix, plan
from bench.checkpoints import Checkpoints
from bench.data.augment import fervt_common, none
from bench.declare import RECIPE_FIELDS, REQUIRED, ROOT
from bench.method import Context, Supervised

CPU = torch.device("cpu")
STEPS, BATCH, SIZE = 20, 32, 48


def recipe() -> dict[str, Any]:
    plain = {name: value for name, value in RECIPE_FIELDS.items() if value is not REQUIRED}
    return {**plain, "optimizer": "adam", "learning_rate": 1e-3, "batch_size": BATCH, "epochs": 1, "input_size": SIZE}


def build() -> Supervised:
    """A network of a few million multiply-adds an image: small, so that what the loop adds shows."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 8),
    )  # fmt: skip
    return Supervised(net, recipe(), Context(tuple("abcdefgh"), SIZE, STEPS, CPU))


@pytest.fixture(scope="module")
def faces() -> loop.Split:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (STEPS * BATCH, SIZE, SIZE), dtype=np.uint8)
    return loop.Split(torch.from_numpy(images), torch.from_numpy(draw.integers(0, 8, len(images))))


def test_augmentation_of_a_batch(benchmark) -> None:  # type: ignore[no-untyped-def]
    """64 images at once; `extra_info` has how many times faster than one by one."""
    images = torch.rand(64, 1, SIZE, SIZE)
    generator = torch.Generator().manual_seed(0)
    found = benchmark(lambda: fervt_common(images, generator))
    assert found.shape == images.shape
    begun = time.perf_counter()
    for image in images:
        fervt_common(image[None], generator)
    seconds = time.perf_counter() - begun
    if benchmark.stats:  # absent with --benchmark-disable
        benchmark.extra_info["times_faster_than_one_by_one"] = round(seconds / benchmark.stats.stats.min, 1)


@pytest.mark.parametrize("augment", [none, fervt_common], ids=["plain", "augmented"])
def test_an_epoch_of_the_loop(benchmark, faces: loop.Split, tmp_path: Path, augment: Any) -> None:  # type: ignore[no-untyped-def]
    """Twenty steps of the loop; `extra_info` has the share that is not the method's update (data wait)."""
    method, spent = build(), 0.0
    update = method.update

    def timed(images: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal spent
        begun = time.perf_counter()
        found = update(images, targets)
        spent += time.perf_counter() - begun
        return found

    method.update = timed  # type: ignore[method-assign]
    held_out = loop.Split(faces.images[:1], faces.labels[:1])
    job = loop.Job(faces, {"test": held_out}, recipe(), augment, 0, CPU, Checkpoints(tmp_path), 1e9)
    whole, trained = 0.0, 0.0

    def epoch() -> None:
        nonlocal whole, trained, spent
        spent = 0.0
        state = loop.train(method, job)
        whole, trained = state.train_seconds, spent

    benchmark.pedantic(epoch, rounds=3, warmup_rounds=1)
    assert 0 < trained < whole
    if benchmark.stats:
        benchmark.extra_info["data_wait_percent"] = round(100 * (whole - trained) / whole, 1)


def test_a_bare_update(benchmark, faces: loop.Split) -> None:  # type: ignore[no-untyped-def]
    """Twenty updates on input that is ready: what an epoch of the loop is compared with."""
    method = build()
    images, targets = loop.prepare(faces.images[:BATCH], recipe()), faces.labels[:BATCH]

    def updates() -> None:
        for _ in range(STEPS):
            method.update(images, targets)

    benchmark.pedantic(updates, rounds=3, warmup_rounds=1)
    assert method.steps >= STEPS


def test_a_checkpoint(benchmark, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Writing the state of a network of 20 million parameters under Adam (240 MB)."""
    state = {"net": torch.zeros(20_000_000), "m": torch.zeros(20_000_000), "v": torch.zeros(20_000_000)}
    small = {name: value[:200_000] for name, value in state.items()} if not benchmark.enabled else state
    found = Checkpoints(tmp_path)
    benchmark.pedantic(lambda: found.save({k: v.clone() for k, v in small.items()}), rounds=2)
    assert Checkpoints(tmp_path).load() is not None


def test_declarations(benchmark) -> None:  # type: ignore[no-untyped-def]
    """Reading and checking every YAML file."""
    declared = benchmark(lambda: declare.load_from(declare.table_files(), declare.protocol_files()))
    assert declared.tables


@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_plan_everything(benchmark, tmp_path: Path, profile: declare.ProfileName) -> None:  # type: ignore[no-untyped-def]
    """Three seeds of every cell of every table."""
    declared = declare.load()

    def everything() -> list[plan.Planned]:
        return plan.plan(matrix.expand(declared, declared.claims(), profile, [0, 1, 2]), None, tmp_path)

    assert len(benchmark(everything)) > 100


@pytest.mark.parametrize("words", [["list"], ["--all", "--plan"], ["claims", "--csv"]], ids=" ".join)
def test_start_up(benchmark, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    """A command line from the shell to its end."""
    command = [sys.executable, "run_all.py", *words]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=False), rounds=3, warmup_rounds=1
    )
    assert done.returncode in (0, 3)
    assert done.stdout
