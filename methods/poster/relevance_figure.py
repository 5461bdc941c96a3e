"""Faces with their landmarks and with the relevance maps of both streams: Figure 7, section 4.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.figure import Faces, write
from bench.registry import figure
from methods.poster.mobilefacenet import MobileFaceNet
from methods.poster.model import POSTER
from methods.poster.relevance import relevance

CORNERS = (0.0, 1.0, 1.0, 0.0)  # of every face, whatever the cells of a map
METHOD = (
    "Relevance for the predicted class (below): attention weighted with its gradient and rolled out over the blocks of "
    "the large level (Chefer et al., ICCV 2021), without the LRP rules of Chefer et al., CVPR 2021, which do not cover "
    "these blocks. Each map is scaled to its own maximum."
)
TOKENS = {
    "channels": "An image token is a group of channels over the whole face; its relevance is shared out among its "
    "numbers by positive activation x gradient and summed over channels.",
    "patches": "An image token is 2x2 cells of the map; its relevance is shared out among them by positive activation "
    "x gradient.",
}


@dataclass(frozen=True)
class Line:
    """A row of the figure, one panel for each face.

    Attributes:
        name: said at the left.
        points: (B, n, 2), x and y as fractions of the image side; drawn on the face.
        heat: (B, s, s), laid over the face.
        below: words below each panel.
    """

    name: str
    points: Tensor | None = None
    heat: Tensor | None = None
    below: Sequence[str] = ()


@figure("relevance", version=1)
def draw(nets: Mapping[str, POSTER], faces: Faces, path: Path) -> None:
    """Draw faces in columns; below each, for every network, its landmarks and the relevance maps of its streams.

    Args:
        nets: networks by title.
        faces: those shown, one of each class in the paper.
    """
    at = np.arange(len(faces))
    lines = [Line("face")]
    for title, net in nets.items():
        lines += _lines(net, faces.inputs(title, at), faces.classes, f"{title}: " if len(nets) > 1 else "")
    tokens = {net.options.tokens for net in nets.values() if net.options.streams != "landmark"}
    said = " ".join([METHOD, *(TOKENS[how] for how in sorted(tokens))])
    write(_draw(lines, [faces.classes[label] for label in faces.labels], faces.pixels(at)), faces, path, said)


def _lines(net: POSTER, images: Tensor, classes: Sequence[str], title: str) -> list[Line]:
    """What is drawn below the faces for one network."""
    images = images.to(next(net.parameters()).device)
    found = relevance(net, images)
    lines = []
    if isinstance(getattr(net, "landmark_net", None), MobileFaceNet):  # O-Net is held without its landmarks
        lines.append(Line(f"{title}landmarks", points=_points(net, images)))
    if found.landmark is not None:
        lines.append(Line(f"{title}landmark stream", heat=found.landmark))
    if found.image is not None:
        lines.append(Line(f"{title}image stream", heat=found.image))
    predicted = [f"for {classes[label]}" for label in found.predicted]
    lines[-1] = Line(lines[-1].name, heat=lines[-1].heat, below=predicted)
    return lines


@torch.no_grad()
def _points(net: POSTER, images: Tensor) -> Tensor:
    """The landmarks (B, 68, 2) that the network's own landmark net finds."""
    points: Tensor = net.landmark_net(net._inner(images))
    return points.unflatten(1, (-1, 2)).float().cpu()


def _draw(lines: Sequence[Line], names: Sequence[str], pixels: Tensor) -> Any:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(1.35 * len(names) + 0.5, 1.45 * len(lines) + 1.2), layout="constrained")
    grid = drawn.subplots(len(lines), len(names), squeeze=False)
    for axis, name in zip(grid[0], names, strict=True):
        axis.set_title(name, fontsize=8)
    for axes, line in zip(grid, lines, strict=True):
        axes[0].set_ylabel(line.name, fontsize=8)
        for place, axis in enumerate(axes):
            _panel(axis, pixels[place], line, place)
            axis.set(xticks=[], yticks=[], xlim=CORNERS[:2], ylim=CORNERS[2:])
    return drawn


def _panel(axis: Any, face: Tensor, line: Line, place: int) -> None:
    grey = face if face.ndim == 2 or line.heat is None else face.float().mean(-1)  # only the heat has a colour
    axis.imshow(grey.numpy(), cmap="gray", vmin=0, vmax=255, extent=CORNERS)
    if line.points is not None:
        axis.plot(*line.points[place].T.numpy(), ".", markersize=2, color="#56B4E9")
    if line.heat is not None:
        values = line.heat[place]
        scaled = (values / values.max().clamp_min(1e-12)).numpy()
        axis.imshow(scaled, cmap="inferno", vmin=0, vmax=1, alpha=0.55, extent=CORNERS, interpolation="bilinear")
    if line.below:
        axis.set_xlabel(line.below[place], fontsize=7)
