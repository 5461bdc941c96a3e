"""Feature maps of two models side by side: FER-VT section 4.5, Figures 10 and 11.

Figure 10 sets FER-VT beside ResNet-34, Figure 11 the 3x3 grid beside the 3x2 grid. Both show the first eighteen maps of
the stem and of the second and third layer, which we read as conv1, conv2_x and conv3_x of Table 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.figure import Faces, write
from bench.registry import figure
from methods.fervt.backbone import MAPS
from methods.fervt.model import FERVT

SHOWN = MAPS[:3]
COUNT, COLUMNS = 18, 6


@figure("feature-maps", version=1)
def feature_maps(nets: Mapping[str, FERVT], faces: Faces, path: Path) -> None:
    """Draw a row per layer and a column per model, the maps as grey mosaics scaled one by one.

    Args:
        nets: models by title, in the order of the columns; left in evaluation mode.
        faces: the first one is shown, beside the maps.
        path: the PNG to write.
    """
    first = np.zeros(1, np.int64)
    maps = {title: _maps(net, faces.inputs(title, first)) for title, net in nets.items()}
    write(_draw(faces.pixels(first)[0], maps), faces, path)


@torch.no_grad()
def _maps(net: FERVT, images: Tensor) -> list[Tensor]:
    """The first maps (18, h, w) of each layer shown."""
    found = net.eval().feature_maps(images.to(next(net.parameters()).device))
    return [found[name][0, :COUNT].float().cpu() for name in SHOWN]


def mosaic(maps: Tensor) -> Tensor:
    """Up to eighteen maps (n, h, w) as one picture of six columns, each scaled to its own range, one pixel apart."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    scaled = (maps - low) / (high - low).clamp_min(1e-12)
    count, rows, columns = scaled.shape
    padded = torch.ones(-(-count // COLUMNS) * COLUMNS, rows + 1, columns + 1)
    padded[:count, :rows, :columns] = scaled
    cells = padded.unflatten(0, (-1, COLUMNS))  # (lines, 6, h, w)
    return cells.permute(0, 2, 1, 3).flatten(2, 3).flatten(0, 1)


def _draw(image: Tensor, columns: Mapping[str, Sequence[Tensor]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 + 4.2 * len(columns), 2.6 * len(SHOWN)), layout="constrained")
    axes = figure.subplots(
        len(SHOWN), 1 + len(columns), squeeze=False, gridspec_kw={"width_ratios": [1] + [2.2] * len(columns)}
    )
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].imshow(image.numpy(), cmap="gray", vmin=0, vmax=255)
    for column, (title, layers) in enumerate(columns.items(), start=1):
        for row, (name, maps) in enumerate(zip(SHOWN, layers, strict=True)):
            axes[row, column].imshow(mosaic(maps).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes[row, column].set_title(f"{title}: {name}", fontsize=9)
    return figure
