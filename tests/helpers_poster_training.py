"""POSTER's method at a small size, with weight files for every role, and images for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench import registry
from bench.declare import RECIPE_FIELDS
from bench.method import Context, Spec
from methods.poster.ir50 import IR50
from methods.poster.mobilefacenet import MobileFaceNet
from methods.poster.onet import ONet
from methods.poster.training import Training

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
SIZE, STEPS = 48, 10  # pixels; steps in an epoch
SMALL = {
    "inner_size": 32, "ir_width": 4, "ir_units": [1, 2, 1], "landmark_width": 4, "dims": [16, 8, 4], "heads": 2,
    "depth": 2, "drop_path": 0.0,
}  # fmt: skip
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 8, "epochs": 1, "input_size": SIZE,
    "schedule": "exponential", "schedule_factor": 0.98, "loss": "twice-smoothed-plus-plain", "label_smoothing": 0.2,
}  # fmt: skip
TARGETS = torch.arange(8)
VARIANTS: dict[str, dict[str, Any]] = {
    "code": {},
    "affectnet": {"token_mixing": False},
    "paper": {
        "tokens": "patches", "token_mixing": False, "query_projection": True, "pre_norm": False,
        "squeeze_excitation": False, "released_extras": False, "landmark_batch_statistics": False, "sam_rho": 0.0,
    },
    "baseline": {"cross_fusion": False, "pyramid": False},
    "pyramid": {"cross_fusion": False},
    "cross-fusion": {"pyramid": False},
    "landmark-only": {"streams": "landmark", "cross_fusion": False, "pyramid": False},
    "image-only": {"streams": "image", "cross_fusion": False, "pyramid": False},
    "onet": {"landmark": "onet"},
}  # fmt: skip


def write_weights(folder: Path) -> dict[str, Path]:
    """A weight file for every role, for the small network; running statistics are not those of a fresh network."""
    torch.manual_seed(42)
    nets = {
        "mobilefacenet-300w": MobileFaceNet(4, 16, 32),
        "mobilefacenet-synthfer": MobileFaceNet(4, 16, 32),
        "ir50-ms1m": IR50(4, (1, 2, 1), head_size=32),
        "mtcnn-onet": ONet(2),
    }
    with torch.no_grad():
        for role, net in nets.items():
            for name, tensor in net.state_dict().items():
                if name.endswith(("running_mean", "running_var")):
                    tensor.uniform_(0.1, 1.0)
            save_file(net.state_dict(), folder / f"{role}.safetensors")
    return {role: folder / f"{role}.safetensors" for role in nets}


def build_small(
    files: dict[str, Path], options: dict[str, Any] | None = None, seed: int = 0, **changes: Any
) -> Training:
    """The registered method with a small network and, unless `weights` says otherwise, the landmark file it needs.

    Args:
        changes: of the context, the experiment (pretraining, backbone) or the recipe.
    """
    options = SMALL | (options or {})
    landmark = {"onet": "mtcnn-onet"}.get(options.get("landmark", ""), "mobilefacenet-300w")
    needed = [landmark] * (options.get("streams") != "image")
    weights = changes.pop("weights", {role: files[role] for role in needed})
    context = Context(CLASSES, SIZE, STEPS, torch.device("cpu"), seed=seed, weights=weights)
    context = replace(context, **{name: changes.pop(name) for name in list(changes) if hasattr(context, name)})
    backbone = changes.pop("backbone", f"ir50-{options.get('landmark', 'mobilefacenet')}")
    spec = Spec("test", backbone, changes.pop("pretraining", "none"), options)
    torch.manual_seed(seed)
    return registry.find("method", "poster").load()(spec, RECIPE | changes, context)


def faces(count: int = 8, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth random images, about normalised."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, SIZE // 4, SIZE // 4, generator=generator, dtype=torch.double)
    fine = torch.randn(count, 3, SIZE, SIZE, generator=generator, dtype=torch.double)
    return (F.interpolate(coarse, SIZE, mode="bilinear") + 0.2 * fine).to(dtype)


def snapshot(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def changed(net: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
