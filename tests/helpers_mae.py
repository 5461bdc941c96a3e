"""Masked autoencoders: the method at a small size, pictures for it, and a plain implementation from the equations.

The plain one works on tensors by name with elementary operations only, in the numbers' own precision: nothing of it is
shared with methods/mae. `prefix` is what stands before the names: "" and "decoder_" in public files, "encoder." and
"decoder." in ours. It asserts nothing (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import registry
from bench.method import Context, Method, Spec
from bench.recipe import RECIPE_FIELDS
from methods.mae import Pretraining
from methods.mae.model import MAE
from methods.mae.sizes import Size

SIZE = 32  # pixels: four patches of 8 a side
MINIATURE = Size(8, 24, 2, 3, 16, 2, 2)
WITH_STEM = replace(MINIATURE, stem=8)  # as miniatures of profiles have one
State = Mapping[str, Tensor]
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adamw", "learning_rate": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.05, "batch_size": 8,
    "epochs": 2, "input_size": SIZE, "loss": "masked-pixels", "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}  # fmt: skip


def build(options: dict[str, Any] | None = None, seed: int = 0, **changes: Any) -> Method:
    """The registered method, with the tiny miniature of profile quick unless options say otherwise.

    Args:
        changes: of the context, the experiment (pretraining, backbone) or the recipe.
    """
    size = int(changes.get("input_size", SIZE))
    context = Context((), size, 10, torch.device("cpu"), str(changes.get("precision", "fp32")))
    context = replace(context, **{name: changes.pop(name) for name in list(changes) if name in ("device", "classes")})
    backbone, pretraining = changes.pop("backbone", "vit_tiny_patch16"), changes.pop("pretraining", "none")
    spec = Spec("test", backbone, pretraining, {"scale_down": "quick"} | (options or {}))
    torch.manual_seed(seed)
    method: Method = registry.find("method", "mae").load()(spec, RECIPE | changes, context)
    return method


def small(size: Size = MINIATURE, mask_ratio: float = 0.75, normalised: bool = False, **changes: Any) -> Pretraining:
    """The method with a network of a size that no profile's tuning changes.

    Args:
        changes: of the recipe.
    """
    torch.manual_seed(0)
    context = Context((), SIZE, 10, torch.device("cpu"), str(changes.get("precision", "fp32")))
    return Pretraining(MAE(size, SIZE, mask_ratio, normalised), RECIPE | changes, context)


def miniature(seed: int = 0, mask_ratio: float = 0.75) -> MAE:
    """A network every tensor of which is drawn, norms and biases among them; the position tables are its own."""
    torch.manual_seed(seed)
    net = MAE(MINIATURE, SIZE, mask_ratio)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn_like(parameter) + (parameter == 1))
    return net


def pictures(count: int = 6, seed: int = 1, size: int = SIZE, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth random images, about normalised."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, size // 8, size // 8, generator=generator, dtype=torch.double)
    fine = torch.randn(count, 3, size, size, generator=generator, dtype=torch.double)
    return (F.interpolate(coarse, size, mode="bilinear") + 0.2 * fine).to(dtype)


# ------------------------------------------------------------------------------------------------ plain implementation
def plain_positions(dim: int, side: int) -> np.ndarray:
    """Sine and cosine of column and row, (1 + side², dim): a line of zeros, then row by row."""
    table = np.zeros((1 + side * side, dim))
    quarter = dim // 4
    for row in range(side):
        for column in range(side):
            for i in range(quarter):
                frequency = 1.0 / 10_000 ** (i / quarter)
                at = table[1 + row * side + column]
                at[i], at[quarter + i] = math.sin(column * frequency), math.cos(column * frequency)
                at[2 * quarter + i], at[3 * quarter + i] = math.sin(row * frequency), math.cos(row * frequency)
    return table


def plain_patches(images: Tensor, patch: int, channels_last: bool) -> Tensor:
    """(B, N, patch² x 3), row by row of patches; in a patch row by row of pixels, channels innermost or outermost."""
    found = []
    for top in range(0, images.shape[2], patch):
        for left in range(0, images.shape[3], patch):
            cut = images[:, :, top : top + patch, left : left + patch]
            found.append((cut.permute(0, 2, 3, 1) if channels_last else cut).reshape(len(images), -1))
    return torch.stack(found, dim=1)


def plain_norm(x: Tensor, state: State, name: str) -> Tensor:
    """Each token less its mean, over its deviation; scaled and shifted."""
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-6) * state[f"{name}.weight"] + state[f"{name}.bias"]


def plain_linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def plain_block(x: Tensor, state: State, name: str, heads: int) -> Tensor:
    """x + attention of its norm, then x + a hidden layer with GELU of its norm."""
    dim = x.shape[-1]
    asked, keys, values = plain_linear(plain_norm(x, state, f"{name}.norm1"), state, f"{name}.attn.qkv").split(dim, -1)
    width, answers = dim // heads, []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = asked[..., own] @ keys[..., own].transpose(1, 2) / math.sqrt(width)
        weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()  # less the largest: nothing overflows
        weights = weights / weights.sum(dim=-1, keepdim=True)
        answers.append(weights @ values[..., own])
    x = x + plain_linear(torch.cat(answers, dim=-1), state, f"{name}.attn.proj")
    hidden = plain_linear(plain_norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + plain_linear(hidden, state, f"{name}.mlp.fc2")


def plain_blocks(x: Tensor, state: State, name: str, heads: int) -> Tensor:
    """All blocks under a name, one behind the other."""
    number = 0
    while f"{name}.{number}.norm1.weight" in state:
        x = plain_block(x, state, f"{name}.{number}", heads)
        number += 1
    return x


def plain_encoder(state: State, images: Tensor, heads: int, kept: Tensor | None = None, prefix: str = "") -> Tensor:
    """Tokens (B, 1 + n, L) after the last norm."""
    kernel = state[f"{prefix}patch_embed.proj.weight"]
    patches = plain_patches(images, kernel.shape[-1], channels_last=False)
    tokens = patches @ kernel.reshape(len(kernel), -1).T + state[f"{prefix}patch_embed.proj.bias"]
    table = state[f"{prefix}pos_embed"][0]
    first, shown = state[f"{prefix}cls_token"][0, 0] + table[0], []
    for image, own in enumerate(tokens):
        order = range(len(own)) if kept is None else kept[image].tolist()
        shown.append(torch.stack([first, *(own[number] + table[1 + number] for number in order)]))
    return plain_norm(plain_blocks(torch.stack(shown), state, f"{prefix}blocks", heads), state, f"{prefix}norm")


def plain_decoder(
    state: State, tokens: Tensor, kept: Tensor, patches: int, heads: int, prefix: str = "decoder_",
    mask_token: str = "mask_token",
) -> Tensor:  # fmt: skip
    """Pixels (B, N, patch² x 3): seen tokens at their places, the mask token at all others."""
    embedded, table = plain_linear(tokens, state, f"{prefix}embed"), state[f"{prefix}pos_embed"][0]
    lines = []
    for image, own in enumerate(embedded):
        line = [own[0]] + [state[mask_token][0, 0]] * patches
        for place, number in enumerate(kept[image].tolist()):
            line[1 + number] = own[1 + place]
        lines.append(torch.stack(line) + table)
    found = plain_norm(plain_blocks(torch.stack(lines), state, f"{prefix}blocks", heads), state, f"{prefix}norm")
    return plain_linear(found, state, f"{prefix}pred")[:, 1:]


def plain_kept(noise: Tensor, mask_ratio: float) -> Tensor:
    """The patches with the least noise, the least first."""
    count = int(noise.shape[1] * (1 - mask_ratio))
    return torch.tensor([sorted(range(len(line)), key=line.__getitem__)[:count] for line in noise.tolist()])


def plain_error(predicted: Tensor, images: Tensor, kept: Tensor, patch: int, normalised: bool) -> Tensor:
    """Mean squared error (B,) of the patches that are not kept."""
    wanted = plain_patches(images, patch, channels_last=True)
    found = []
    for image in range(len(images)):
        errors = []
        for number in sorted(set(range(wanted.shape[1])) - set(kept[image].tolist())):
            target = wanted[image, number]
            if normalised:
                mean = target.sum() / len(target)
                variance = ((target - mean) ** 2).sum() / (len(target) - 1)
                target = (target - mean) / torch.sqrt(variance + 1e-6)
            errors.append(((predicted[image, number] - target) ** 2).sum() / len(target))
        found.append(torch.stack(errors).mean())
    return torch.stack(found)
