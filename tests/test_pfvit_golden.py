"""PF-ViT's golden numbers: losses of seeded steps for every choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pfvit import TARGETS, build_small, faces, write_weights

from bench import registry
from methods.pfvit.training import Training

PLAIN, STEM = "vit_tiny_patch16", "vit_small_patch16"  # here with a linear patch embedding, with convolutions

# Losses of three seeded steps per variant, and the method version they belong to. If one changes, results of earlier
# runs no longer come from this code: raise `version` in methods/pfvit/__init__.py and record the new numbers here.
# Both values of every choice are among them; "declared" is the miniature that profile quick trains.
GOLDEN_VERSION = 1
GOLDEN: dict[str, tuple[dict[str, Any], list[float]]] = {
    "plain": ({}, [6.406547, 5.373406, 5.256376]),
    "token": ({"separator": "token", "separator_reduction": 4}, [7.251684, 5.813494, 5.478901]),
    "self": ({"fusion": "self"}, [7.663232, 6.325037, 6.072988]),
    "random-fusion": ({"fusion_start": "random"}, [6.406547, 5.404671, 5.312386]),
    "encoder-stem": ({"discriminator_stem": "encoder"}, [6.406547, 5.272752, 5.149117]),
    "norm": ({"reconstruction": "norm"}, [6.406547, 5.343165, 5.238452]),
    "literal": ({"adversarial_sign": "literal"}, [3.203273, 2.539959, 2.493728]),
    "real-faces": ({"discriminator_emotions": "real-faces"}, [6.406547, 5.364845, 5.245255]),
    "remains": ({"discriminator_emotions": "remains"}, [6.406547, 5.368567, 5.248325]),
    "ramp": ({"adversarial_ramp": 4, "neutral_weight": 2.0}, [4.80491, 4.608525, 4.878307]),
    "no-direct": ({"direct_constraint": False}, [4.80491, 3.94293, 3.990793]),
    "resnet18": ({"constraint_network": "resnet18"}, [8.008183, 6.822158, 6.655405]),
    "absolute": (
        {"orthogonality": "absolute-cosine", "constraint_network": "resnet18"},
        [8.008183, 6.854451, 6.859858],
    ),
    "same-identity": (
        {"constraint_network": "inception-resnet-v1", "constraint_goal": "same-identity"},
        [8.008183, 6.819596, 6.701224],
    ),
    "mae-encoder": ({"constraint_network": "mae-encoder", "loss_weights": "fixed"}, [8.15893, 6.23243, 6.246387]),
    "two-steps": ({"discriminator_steps": 2, "discriminator_learning_rate": 0.01}, [6.406547, 5.42463, 5.609601]),
    "multitask": ({"multitask": True}, [6.835294, 5.980193, 5.673902]),
    "masked": ({"multitask": True, "train_mask": 0.75}, [6.498563, 6.316203, 5.520645]),
    "stem": ({}, [6.325755, 6.963391, 6.668299]),
    "declared": ({}, [6.014474, 5.68106, 5.439299]),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_weights(tmp_path_factory.mktemp("weights"))


def golden(options: dict[str, Any], files: dict[str, Path], variant: str = "") -> list[float]:
    """In float64, and with SGD, since Adam makes much of gradients near zero; D's Adam hardly moves it."""
    declared = variant == "declared"
    backbone, given = (STEM if variant == "stem" else PLAIN), (None if declared else files)
    method: Training = build_small(
        options, given, backbone=backbone, declared=declared, optimizer="sgd", learning_rate=0.01
    )  # fmt: skip
    method.net.double()
    found = []
    for step in range(3):
        torch.manual_seed(step)
        found.append(float(method.update(faces(seed=10 + step, dtype=torch.double), TARGETS)["loss"]))
    return found


@pytest.mark.parametrize("variant", GOLDEN)
def test_golden_losses(variant: str, files: dict[str, Path]) -> None:
    options, expected = GOLDEN[variant]
    assert registry.find("method", "pfvit").version == GOLDEN_VERSION, "record the losses of the new version"
    assert golden(options, files, variant) == pytest.approx(expected, abs=1e-4), (
        "numbers changed: raise the method's version"
    )
