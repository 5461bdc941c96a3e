"""The Neural Resizer's method at a small size, images for it, and a small network for super-resolution."""

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
from methods.nresizer.model import NeuralResizer
from methods.nresizer.options import Options
from methods.nresizer.training import Training
from methods.superres.network import SuperResolution

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
SIZE, STEPS = 48, 10  # pixels; steps in an epoch
SMALL: dict[str, Any] = {"up": "none", "scale_down": "quick", "head_hidden": 32, "resizer_channels": 4}
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 8, "epochs": 1, "input_size": SIZE, "loss": "f-pdls",
}  # fmt: skip
TARGETS = torch.arange(8)
# Table 2: backbone, pixels of the network's images, options.
SETTINGS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "a": ("swin_small", 224, {"stn": False, "up": "bilinear", "down": "none"}),
    "b": ("swin_small", 384, {"stn": False, "up": "bilinear", "down": "ltr"}),
    "c": ("swin_small", 384, {"stn": False, "up": "sr", "down": "bilinear"}),
    "d": ("swin_small", 384, {"stn": False, "up": "sr", "down": "ltr"}),
    "e": ("swin_base", 384, {"stn": True, "up": "sr", "down": "ltr"}),
}


def full(backbone: str, size: int, **options: Any) -> NeuralResizer:
    """A network of published size for eight classes, without memory for its numbers."""
    with torch.device("meta"):
        return NeuralResizer(8, backbone, size, Options.parse(options))


def small(backbone: str = "swin_small", seed: int = 0, **options: Any) -> NeuralResizer:
    torch.manual_seed(seed)
    return NeuralResizer(8, backbone, SIZE, Options.parse(SMALL | options))


def build_small(options: dict[str, Any] | None = None, seed: int = 0, **changes: Any) -> Training:
    """The registered method with a small network.

    Args:
        changes: of the context, the experiment (pretraining, backbone) or the recipe.
    """
    size = int(changes.pop("input_size", SIZE))
    context = Context(CLASSES, size, STEPS, torch.device("cpu"), seed=seed)
    context = replace(context, **{name: changes.pop(name) for name in list(changes) if hasattr(context, name)})
    backbone = changes.pop("backbone", "swin_small")
    spec = Spec("test", backbone, changes.pop("pretraining", "none"), SMALL | (options or {}))
    torch.manual_seed(seed)
    return registry.find("method", "nresizer").load()(spec, RECIPE | changes | {"input_size": size}, context)


def faces(count: int = 8, size: int = SIZE, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth random images, about normalised."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, size // 4, size // 4, generator=generator, dtype=torch.double)
    fine = torch.randn(count, 3, size, size, generator=generator, dtype=torch.double)
    return (F.interpolate(coarse, size, mode="bilinear") + 0.2 * fine).to(dtype)


def still(net: nn.Module) -> nn.Module:
    """The network without anything random in its steps."""
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    return net


def write_superres(folder: Path, scale: int = 2, seed: int = 0) -> Path:
    """A file of a network for super-resolution that is no plain enlargement."""
    torch.manual_seed(seed)
    net = SuperResolution(width=4, blocks=1, scale=scale)
    nn.init.normal_(net.tail.weight, std=0.1)
    path = folder / f"superres-x{scale}-{seed}.safetensors"
    save_file(net.state_dict(), path)
    return path
