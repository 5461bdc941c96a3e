"""What only a CUDA device can show. Left out of the default run; `pytest -m gpu` where there is one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import loop
from bench.checkpoints import Checkpoints
from bench.data.augment import fervt_common, poster_code
from bench.data.nresizer_augment import nresizer_code
from bench.data.pfvit_augment import mae as mae_augment
from bench.declare import RECIPE_FIELDS, REQUIRED
from bench.method import Context, Spec, Supervised
from methods.face_network.networks import make_network
from methods.fervt import build
from methods.mae import Pretraining
from methods.mae.model import MAE
from methods.mae.sizes import size_of
from methods.nresizer import build as build_nresizer
from methods.pfvit.constraint import Constraint, pixels
from methods.pfvit.model import PFViT
from methods.pfvit.options import Options as PFViTOptions
from methods.pfvit.training import Training as PFViTTraining
from methods.poster.model import POSTER
from methods.poster.options import Options
from methods.poster.training import Training

FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
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


def make_poster(precision: str) -> tuple[Training, loop.Job]:
    """With SAM, the landmark net's statistics shared or not by precision, so that both ways are taken."""
    device = torch.device("cuda")
    wanted = recipe(precision) | {"loss": "twice-smoothed-plus-plain", "label_smoothing": 0.2, "colour": "bgr"}
    options = Options(
        inner_size=48, ir_width=16, ir_units=(1, 1, 2), landmark_width=16, dims=(128, 64, 32), depth=2,
        landmark_batch_statistics=precision == "fp32",
    )  # fmt: skip
    method = Training(POSTER(7, options), wanted, Context(tuple("abcdefg"), 96, 4, device, precision))
    generator = torch.Generator().manual_seed(0)
    split = loop.Split(
        torch.randint(0, 256, (128, 100, 100, 3), dtype=torch.uint8, generator=generator).to(device),
        torch.randint(0, 7, (128,), generator=generator).to(device),
    )
    return method, loop.Job(split, {"test": split}, wanted, poster_code, 0, device, Checkpoints(Path()))


def make_nresizer(precision: str) -> tuple[Supervised, loop.Job]:
    """STN and resizer at a size of their own, behind a front that is computed for every batch."""
    device = torch.device("cuda")
    wanted = recipe(precision) | {"loss": "f-pdls"}
    options = {"up": "bilinear", "down": "ltr", "stn": True, "stn_rate": 0.1, "scale_down": "quick", "head_hidden": 64}
    context = Context(FERPLUS, 96, 4, device, precision)
    method = build_nresizer(Spec("nresizer", "swin_small", "none", options), wanted, context)
    assert isinstance(method, Supervised)
    generator = torch.Generator().manual_seed(0)
    split = loop.Split(
        torch.randint(0, 256, (128, 48, 48), dtype=torch.uint8, generator=generator).to(device),
        torch.randint(0, 8, (128,), generator=generator).to(device),
        front=method.front,
    )
    return method, loop.Job(split, {"test": split}, wanted, nresizer_code, 0, device, Checkpoints(Path()))


def make_pfvit(precision: str) -> tuple[PFViTTraining, loop.Job]:
    """With a constraint network; by precision with all patches seen, or some."""
    device = torch.device("cuda")
    wanted = recipe(precision)
    masked: dict[str, Any] = {"multitask": True, "train_mask": 0.5} if precision == "bf16" else {}
    options = PFViTOptions(constraint_network="resnet18", balancing_steps=2, scale_down="quick", **masked)
    context = Context(FERPLUS, 96, 4, device, precision)
    constraint = Constraint(make_network("resnet18", "quick"), pixels(wanted, device))
    net = PFViT(size_of("vit_tiny_patch16", "quick", 96), 96, len(FERPLUS), options)
    method = PFViTTraining(net, constraint, wanted, context)
    generator = torch.Generator().manual_seed(0)
    split = loop.Split(
        torch.randint(0, 256, (128, 96, 96, 3), dtype=torch.uint8, generator=generator).to(device),
        torch.randint(0, 8, (128,), generator=generator).to(device),
    )
    return method, loop.Job(split, {"test": split}, wanted, fervt_common, 0, device, Checkpoints(Path()))


def make_mae(precision: str) -> tuple[Pretraining, loop.Job]:
    """Masked pretraining, patches hidden by draws on the device."""
    device = torch.device("cuda")
    wanted = recipe(precision) | {"loss": "masked-pixels"}
    net = MAE(size_of("vit_tiny_patch16", "quick", 96), 96, normalised_targets=precision == "bf16")
    method = Pretraining(net, wanted, Context((), 96, 4, device, precision))
    generator = torch.Generator().manual_seed(0)
    split = loop.Split(
        torch.randint(0, 256, (128, 96, 96, 3), dtype=torch.uint8, generator=generator).to(device),
        torch.zeros(128, dtype=torch.long, device=device),
    )
    return method, loop.Job(split, {}, wanted, mae_augment, 0, device, Checkpoints(Path()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("made", [make, make_poster, make_nresizer, make_pfvit, make_mae])
def test_a_training_step_never_waits_for_the_device(
    made: Callable[[str], tuple[Supervised, loop.Job]], precision: str, no_synchronisation: None
) -> None:
    torch.cuda.set_sync_debug_mode("default")  # building may wait
    method, job = made(precision)
    order = loop.epoch_order(job, 0).to(job.device)
    method.train()
    for step in range(4):
        if step == 1:  # the first step puts constants on the device
            torch.cuda.set_sync_debug_mode("error")
        rows = order[step * 32 : (step + 1) * 32]
        generator = loop.seed_step(job, 0, step)
        images = loop.prepare(job.train.images[rows], job.recipe, job.augment, generator, job.train.front)
        method.update(images, job.train.labels[rows])


def test_a_sharpness_aware_step_is_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps in full precision give the losses that they give on the CPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as a job does
    method, job = make_poster("fp32")
    elsewhere = copy.deepcopy(method.net).to("cpu")
    context = replace(method.context, device=torch.device("cpu"))
    reference = Training(elsewhere, job.recipe, context)
    reference.net.blocks.apply(_without_drop_path), method.net.blocks.apply(_without_drop_path)
    for step in range(2):
        images = loop.prepare(job.train.images[step * 32 : (step + 1) * 32], job.recipe)
        labels = job.train.labels[step * 32 : (step + 1) * 32]
        found = method.update(images, labels)["loss"]
        expected = reference.update(images.cpu(), labels.cpu())["loss"]
        torch.testing.assert_close(found.cpu(), expected, rtol=0.02, atol=0)


def _without_drop_path(module: nn.Module) -> None:
    if hasattr(module, "drop_prob"):
        module.drop_prob = 0.0


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
