"""PF-ViT's method at a small size, with the files it starts from, and images for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench import registry
from bench.declare import RECIPE_FIELDS
from bench.method import Context, Spec
from methods.face_network.networks import make_network
from methods.mae.model import MAE
from methods.mae.sizes import SIZES, Size
from methods.pfvit.model import PFViT
from methods.pfvit.options import Options
from methods.pfvit.training import Training

CLASSES = ("happiness", "neutral", "surprise", "sadness")
SIZE, STEPS = 32, 3  # pixels, 16 patches of them; steps in an epoch
# Smaller than the miniatures, and not tuned with them; STEM has convolutions, with batch norm, ahead of its blocks.
SMALLEST = Size(8, 16, 2, 2, 16, 2, 2)
STEM = replace(SMALLEST, stem=4)
OWN_SIZES = {"tiny": SMALLEST, "small": STEM}
NEUTRAL = 1
TARGETS = torch.tensor([0, 1, 2, 3, 1])
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 5, "epochs": 2, "input_size": SIZE,
}  # fmt: skip
MAE_ROLE, STEM_ROLE = "mae-vit-tiny-affectnet", "mae-vit-small-affectnet"
ROLES = {
    "inception-resnet-v1": "face-inception-synthfer",
    "resnet18": "face-resnet18-synthfer",
    "resnet50": "face-resnet50-synthfer",
}


def write_weights(folder: Path) -> dict[str, Path]:
    """Two masked autoencoders and a miniature of every face network; batch norm's statistics are no fresh network's."""
    torch.manual_seed(42)
    nets: dict[str, nn.Module] = {MAE_ROLE: MAE(SMALLEST, SIZE), STEM_ROLE: MAE(STEM, SIZE)}
    nets |= {role: make_network(kind, "quick") for kind, role in ROLES.items()}
    with torch.no_grad():
        for role, net in nets.items():
            for name, tensor in net.state_dict().items():
                if name.endswith("running_var"):
                    tensor.uniform_(0.1, 0.3)
            save_file(net.state_dict(), folder / f"{role}.safetensors")
    return {role: folder / f"{role}.safetensors" for role in nets}


def build_small(
    options: dict[str, Any] | None = None, files: dict[str, Path] | None = None, seed: int = 0, **changes: Any
) -> Training:
    """The registered method at size SMALLEST; with `files` pretrained, and with those that options need.

    Args:
        changes: of the context, the experiment (pretraining, backbone: vit_small_patch16 has size STEM) or the recipe;
            `declared` true takes the miniature's own size.
    """
    options = {"scale_down": "quick", "balancing_steps": 2, **(options or {})}
    backbone = changes.pop("backbone", "vit_tiny_patch16")
    masked = STEM_ROLE if "small" in backbone else MAE_ROLE
    needed = [masked, ROLES.get(options.get("constraint_network", ""), "")] if files else []
    context = Context(CLASSES, SIZE, STEPS, torch.device("cpu"), seed=seed)
    context = replace(context, weights={role: files[role] for role in needed if role} if files else {})
    context = replace(context, **{name: changes.pop(name) for name in list(changes) if hasattr(context, name)})
    pretraining = changes.pop("pretraining", "mae-affectnet" if files else "none")
    spec = Spec("test", backbone, pretraining, options)
    sizes = {} if changes.pop("declared", False) else OWN_SIZES
    torch.manual_seed(seed)
    with mock.patch.dict(SIZES["quick"], sizes):
        return registry.find("method", "pfvit").load()(spec, RECIPE | changes, context)


def small(seed: int = 0, **options: Any) -> PFViT:
    """A network of size SMALLEST."""
    torch.manual_seed(seed)
    return PFViT(SMALLEST, SIZE, len(CLASSES), Options(**options))


def faces(count: int = 5, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth random images, about normalised."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, SIZE // 4, SIZE // 4, generator=generator, dtype=torch.double)
    fine = torch.randn(count, 3, SIZE, SIZE, generator=generator, dtype=torch.double)
    return (F.interpolate(coarse, SIZE, mode="bilinear") + 0.2 * fine).to(dtype)


def snapshot(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def changed(net: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
