"""FER-VT's method with a small network, and images for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import registry
from bench.declare import RECIPE_FIELDS
from bench.method import Context, Method, Spec

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
SMALL = {"width": 8, "depth": 2, "dim": 32, "heads": 2, "head_dim": 8, "mlp_dim": 64, "c1": 16}
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 8, "epochs": 1, "input_size": 48, "label_smoothing": 0.1,
}  # fmt: skip


def build(options: dict[str, Any], backbone: str = "resnet18", seed: int = 0, **changes: Any) -> Method:
    """The registered method with a small network."""
    context = Context(CLASSES, 48, 10, torch.device("cpu"), seed=seed)
    context = replace(context, **{name: changes[name] for name in changes if hasattr(context, name)})
    torch.manual_seed(seed)
    spec = Spec("test", backbone, changes.get("pretraining", "none"), SMALL | options)
    recipe = RECIPE | {"input_size": context.input_size, "channels_last": changes.get("channels_last", False)}
    return registry.find("method", "fervt").load()(spec, recipe, context)


def faces(count: int, size: int = 48, seed: int = 1) -> Tensor:
    """Smooth random images, about normalised."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, size // 4, size // 4, generator=generator)
    return F.interpolate(coarse, size, mode="bilinear") + 0.2 * torch.randn(count, 3, size, size, generator=generator)
