"""What the learnable resizer makes of faces, beside bilinear interpolation: Figure 2, section 3.3.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError
from bench.figure import Faces, write
from bench.registry import figure
from methods.nresizer.model import NeuralResizer
from methods.nresizer.resizer import Resizer, rescale

SHOWN = 9  # faces at most: the first with all three pictures, of the others the difference
PANEL = 1.7  # inches
SAID = (
    "Bilinear: by the resizer's factor, no antialiasing; where there is an STN, both get what it makes of a face. Both "
    "are shown in one scale for each channel, from the darkest to the brightest value of the bilinear output, clipped "
    "beyond. Difference: absolute, mean of the channels; each picture runs up to its own largest value, which stands "
    "below it in the units of the network's normalised images."
)


@dataclass(frozen=True)
class Outputs:
    """Normalised images of n faces at the size of the backbone, all float (n, 3, s, s) on the CPU."""

    bilinear: Tensor
    trained: Tensor

    @property
    def difference(self) -> Tensor:
        """Absolute, mean of the channels: (n, s, s)."""
        return (self.trained - self.bilinear).abs().mean(1)


@figure("resizer-output", version=1)
def draw(nets: Mapping[str, NeuralResizer], faces: Faces, path: Path) -> None:
    """Draw for each network the bilinear output, its resizer's output and their difference, then more differences.

    Args:
        nets: networks by title.
        faces: the first is shown in all three pictures, the next ones, up to SHOWN in all, by their difference.

    Raises:
        UserError: a network has no learnable resizer.
    """
    at = np.arange(min(len(faces), SHOWN))
    names = [faces.classes[label] for label in faces.labels[at]]
    found = {title: outputs(net, faces.inputs(title, at), title) for title, net in nets.items()}
    write(_draw(found, names), faces, path, SAID)


@torch.no_grad()
def outputs(net: NeuralResizer, images: Tensor, title: str) -> Outputs:
    """What interpolation and the resizer make of normalised images (n, 3, S, S), on any device.

    Raises:
        UserError: the network has no learnable resizer.
    """
    if not isinstance(net.res, Resizer):
        raise UserError(f"{title}: has no learnable resizer to show", "take an experiment with the option down: ltr")
    view = net.stn(images.to(next(net.parameters()).device))
    return Outputs(rescale(view, net.res.factor).float().cpu(), net.res(view).float().cpu())


def displayed(images: Tensor, like: Tensor) -> Tensor:
    """Images (n, 3, s, s) as pictures (n, s, s, 3) in [0, 1], each channel in the range it has in `like`.

    A network does not know what its images were normalised with; scaled so, grey faces are grey again.
    """
    low, high = like.amin((2, 3), keepdim=True), like.amax((2, 3), keepdim=True)
    return ((images - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).permute(0, 2, 3, 1)


def _draw(found: Mapping[str, Outputs], names: Sequence[str]) -> Any:
    from matplotlib.figure import Figure

    columns = max(3, len(names) - 1)
    rows = len(found) * (1 + (len(names) > 1))
    drawn = Figure(figsize=(PANEL * columns, (PANEL + 0.4) * rows + 0.9), layout="constrained")
    grid = drawn.subplots(rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.set_axis_off()
    lines = iter(grid)
    for title, output in found.items():
        first = next(lines)
        pictures = [displayed(images, output.bilinear)[0] for images in (output.bilinear, output.trained)]
        for axis, picture, told in zip(first, pictures, (f"{names[0]}: bilinear", title), strict=False):
            axis.imshow(picture.numpy())
            axis.set_title(told, fontsize=8)
        _show_difference(first[2], output.difference[0], "difference")
        if len(names) > 1:
            for axis, values, name in zip(next(lines), output.difference[1:], names[1:], strict=False):
                _show_difference(axis, values, name)
    return drawn


def _show_difference(axis: Any, values: Tensor, title: str) -> None:
    largest = float(values.max())
    axis.imshow(values.numpy(), cmap="gray", vmin=0, vmax=max(largest, 1e-12))
    axis.set_title(title, fontsize=8)
    axis.text(0.5, -0.03, f"up to {largest:.3g}", transform=axis.transAxes, ha="center", va="top", fontsize=7)
