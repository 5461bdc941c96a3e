"""What only a CUDA device can show. Left out of the default run; `pytest -m gpu` where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench import loop
from bench.checkpoints import Checkpoints
from bench.data.augment import fervt_common
from bench.declare import RECIPE_FIELDS, REQUIRED
from bench.method import Context, Spec, Supervised
from methods.fervt import build

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture
def no_synchronisation() -> Iterator[None]:
    """Any operation that makes the host wait for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def recipe(precision: str) -> dict[str, object]:
    defaults = {name: value for name, value in RECIPE_FIELDS.items() if value is not REQUIRED}
    return defaults | {
        "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 32, "epochs": 1, "input_size": 96,
        "precision": precision, "channels_last": True,
    }  # fmt: skip


def make(precision: str) -> tuple[Supervised, loop.Job]:
    device = torch.device("cuda")
    context = Context(tuple("abcdefgh"), 96, 4, device, precision)
    method = build(Spec("fervt", "resnet34", "none", {}), recipe(precision), context)
    generator = torch.Generator().manual_seed(0)
    split = loop.Split(
        torch.randint(0, 256, (128, 48, 48), dtype=torch.uint8, generator=generator).to(device),
        torch.randint(0, 8, (128,), generator=generator).to(device),
    )
    job = loop.Job(split, {"test": split}, recipe(precision), fervt_common, 0, device, Checkpoints(Path()))
    return method, job


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_step_never_waits_for_the_device(precision: str, no_synchronisation: None) -> None:
    torch.cuda.set_sync_debug_mode("default")  # building may wait
    method, job = make(precision)
    order = loop.epoch_order(job, 0).to(job.device)
    method.train()
    for step in range(4):
        if step == 1:  # the first step puts constants on the device
            torch.cuda.set_sync_debug_mode("error")
        rows = order[step * 32 : (step + 1) * 32]
        images = loop.prepare(job.train.images[rows], job.recipe, job.augment, loop.seed_step(job, 0, step))
        method.update(images, job.train.labels[rows])


def test_the_loss_falls_on_the_device() -> None:
    method, job = make("bf16")
    order = loop.epoch_order(job, 0).to(job.device)
    method.train()
    losses = []
    for step in range(40):
        rows = order[(step % 4) * 32 : (step % 4 + 1) * 32]
        images = loop.prepare(job.train.images[rows], job.recipe)
        losses.append(method.update(images, job.train.labels[rows])["loss"])
    found = torch.stack(losses).cpu()
    assert found[-4:].mean() < found[:4].mean()
