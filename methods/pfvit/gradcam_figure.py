"""Where vision transformers look for an expression, by Grad-CAM++: Figure 4, section 4.4."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.figure import Faces, Row, grid, write
from bench.registry import figure

HEAT = 0.55  # share of the map in a picture
SAID = (
    "Grad-CAM++ (Chattopadhay et al., WACV 2018; package grad-cam) for the class each face is labelled with, of the "
    "patch tokens behind the first norm of the last block; each map is scaled from its smallest value to its largest. "
    "Below: the class that the network answers with."
)


@figure("gradcam", version=1)
def draw(nets: Mapping[str, nn.Module], faces: Faces, path: Path) -> None:
    """Draw faces in columns; below each the attention map of every network.

    Args:
        nets: networks by title, each with an `encoder` of methods/mae/vit.py; they answer with logits.
        faces: those shown.

    Raises:
        UserError: the package grad-cam is not installed.
    """
    at = np.arange(len(faces))
    rows: list[Row] = []
    for title, net in nets.items():
        images = faces.inputs(title, at)
        original = faces.pictures(title, images)
        rows = rows or [Row("original", original)]
        maps, answers = attention_maps(net, images, faces.labels)
        rows.append(Row(title, _overlaid(original, maps), [faces.classes[answer] for answer in answers]))
    write(grid(rows, [faces.classes[label] for label in faces.labels]), faces, path, SAID)


def attention_maps(net: Any, images: Tensor, labels: np.ndarray) -> tuple[Tensor, list[int]]:
    """Grad-CAM++ maps of normalised images (k, 3, S, S) on any device.

    Args:
        net: images to logits; has an `encoder` of methods/mae/vit.py. Its gradients are cleared.
        labels: int64 (k,), the classes that the maps are of.

    Returns:
        Maps (k, S, S) on the CPU, each from 0 to 1, and the classes that the network answers with.

    Raises:
        UserError: the package grad-cam is not installed.
    """
    try:
        from pytorch_grad_cam import GradCAMPlusPlus
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        raise UserError("Grad-CAM++ needs the package grad-cam", "pip install 'ferbench[figures]'") from None
    side = net.encoder.side

    def as_map(tokens: Tensor) -> Tensor:
        """Tokens (k, 1 + N, L), the class token first, as (k, L, side, side)."""
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))

    images = images.to(next(net.parameters()).device)
    wanted = [ClassifierOutputTarget(int(label)) for label in labels]
    with torch.enable_grad(), GradCAMPlusPlus(net, [net.encoder.blocks[-1].norm1], reshape_transform=as_map) as cam:
        maps = cam(images, wanted)
        answers = cam.outputs.argmax(dim=1).tolist()
    net.zero_grad(set_to_none=True)
    return torch.from_numpy(maps), answers


def _overlaid(pictures: Tensor, maps: Tensor) -> Tensor:
    """Maps (k, S, S) in colour over grey pictures, (k, S, S, 3)."""
    from matplotlib import colormaps

    heat = torch.from_numpy(colormaps["inferno"](maps.numpy())[..., :3]).float()
    return HEAT * heat + (1 - HEAT) * pictures.mean(dim=3, keepdim=True)
