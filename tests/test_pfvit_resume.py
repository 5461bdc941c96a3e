"""PF-ViT's training, killed and continued, ends where an uninterrupted one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pfvit import CLASSES, STEPS, build_small, changed, snapshot, write_weights

from bench import loop
from bench.checkpoints import Checkpoints

NETWORK = {"constraint_network": "resnet18"}
PLAIN, STEM = "vit_tiny_patch16", "vit_small_patch16"  # here with a linear patch embedding, with convolutions


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_weights(tmp_path_factory.mktemp("weights"))


def job_of(folder: Path, progress: Callable[..., None] = lambda *_: None) -> loop.Job:
    generator = torch.Generator().manual_seed(0)
    split = loop.Split(
        torch.randint(0, 256, (5 * STEPS, 24, 24, 3), dtype=torch.uint8, generator=generator),
        torch.randint(0, len(CLASSES), (5 * STEPS,), generator=generator),
    )
    recipe = build_small().recipe
    return loop.Job(
        split, {"test": split}, recipe, lambda images, _: images, 0, torch.device("cpu"), Checkpoints(folder),
        checkpoint_seconds=0.0, progress=progress,
    )  # fmt: skip


class Killed(BaseException):
    """What no one catches."""


@pytest.mark.parametrize(("options", "backbone"), [
    (NETWORK | {"balancing_steps": 5}, PLAIN), ({"multitask": True, "train_mask": 0.5}, STEM),
])  # fmt: skip
def test_a_killed_run_ends_as_an_uninterrupted_one(
    options: dict[str, Any], backbone: str, files: dict[str, Path], tmp_path: Path
) -> None:
    """Killed after a step in the middle of each epoch, while weights are still being balanced, and once after that."""
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = build_small(options, files, backbone=backbone)
    expected = loop.train(whole, job_of(tmp_path / "whole"))

    for moment in ((0, 2), (1, 2), None):

        def progress(epoch: int, step: int, *_: Any, at: Any = moment) -> None:
            if (epoch, step) == at:
                raise Killed

        continued = build_small(options, files, backbone=backbone)
        if moment is None:
            found = loop.train(continued, job_of(tmp_path / "killed", progress))
        else:
            with pytest.raises(Killed):
                loop.train(continued, job_of(tmp_path / "killed", progress))
    assert found.history == expected.history
    assert (found.kept["last"]["probabilities"] == expected.kept["last"]["probabilities"]).all()
    assert changed(continued.net, snapshot(whole.net)) == set()
    for ours, theirs in zip(*(m.discriminator_optimizer.state.values() for m in (continued, whole))):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
