"""What a figure registered by a method is given, and how its picture is written.

A figure is a function under a decorator, found like a method and imported only when it is drawn:

    @figure("name", version=1)
    def draw(nets: Mapping[str, nn.Module], faces: Faces, path: Path) -> None

`nets` are the trained networks by title, in the order of the declaration, in evaluation mode on the device of the run;
`faces` are the test images that the declaration asks for (bench.declare.Figure); `write` puts the picture at `path`.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import store

if TYPE_CHECKING:
    from torch import Tensor

SYNTHETIC = "SYNTHETIC, not comparable"
CAPTION_POINTS, LETTER_WIDTH = 7.0, 0.58  # size in points; mean width of a letter as a share of its size
BATCH = 64  # faces read at a time
PANEL = 1.35  # inches, of one picture in a grid


@dataclass(frozen=True)
class Scale:
    """How a recipe normalises: each channel's value in [0, 1], less its mean, over its deviation; in this order."""

    mean: Sequence[float]
    std: Sequence[float]
    colour: str  # rgb | bgr

    def undone(self, images: Tensor) -> Tensor:
        """Normalised images (k, 3, S, S), on any device, as pictures: float32 (k, S, S, 3) RGB on the CPU in [0, 1]."""
        plain = images.detach().float().cpu().permute(0, 2, 3, 1)
        plain = (plain * plain.new_tensor(self.std) + plain.new_tensor(self.mean)).clamp(0, 1)
        return plain.flip(3) if self.colour == "bgr" else plain


@dataclass(frozen=True)
class Faces:
    """Test images of one protocol; nothing is read before it is asked for.

    Attributes:
        classes: K names.
        labels: int64 (N,), indices into `classes`.
        pixels: positions (k,) -> uint8 (k, H, W) grey or (k, H, W, 3) RGB, as stored.
        inputs: title, positions (k,) -> float32 (k, 3, S, S) on the CPU: what that network's own recipe makes of them.
        caption: experiments, protocol, profile, weights and images, for the reader of the picture.
        synthetic: whether they are made by this project.
        scales: title -> how that network's recipe normalises.
        twins: as `inputs`, of each face's true neutral twin, which nothing was trained on; None where there are none.
        persons: int64 (N,), who it is, by number; None where that is not known.
        names: of the images, (N,); empty where nobody asks.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    pixels: Callable[[np.ndarray], Tensor]
    inputs: Callable[[str, np.ndarray], Tensor]
    caption: str = ""
    synthetic: bool = False
    scales: Mapping[str, Scale] = field(default_factory=dict)
    twins: Callable[[str, np.ndarray], Tensor] | None = None
    persons: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, title: str, positions: np.ndarray | None = None) -> Iterator[Tensor]:
        """Inputs of one network, a few images at a time; `positions` in their order, or all."""
        wanted = np.arange(len(self)) if positions is None else positions
        for start in range(0, len(wanted), BATCH):
            yield self.inputs(title, wanted[start : start + BATCH])

    def pictures(self, title: str, images: Tensor) -> Tensor:
        """Normalised images (k, 3, S, S) of one network as float32 (k, S, S, 3) RGB on the CPU, clipped to [0, 1]."""
        return self.scales[title].undone(images)

    def only(self, positions: np.ndarray, said: str) -> Faces:
        """The faces at `positions`, in that order; `said` goes to the end of the caption."""
        pixels, inputs, twins = self.pixels, self.inputs, self.twins
        return replace(
            self,
            labels=self.labels[positions],
            pixels=lambda at: pixels(positions[at]),
            inputs=lambda title, at: inputs(title, positions[at]),
            caption=f"{self.caption} {said}",
            twins=None if twins is None else lambda title, at: twins(title, positions[at]),
            persons=None if self.persons is None else self.persons[positions],
            names=tuple(self.names[at] for at in positions) if self.names else (),
        )


@dataclass(frozen=True)
class Row:
    """A row of pictures, one for each face.

    Attributes:
        name: said at the left.
        pictures: float (k, S, S, 3) in [0, 1].
        below: words below each.
    """

    name: str
    pictures: Tensor
    below: Sequence[str] = ()


def grid(rows: Sequence[Row], names: Sequence[str]) -> Any:
    """A matplotlib figure of rows of pictures; `names` stand above its columns."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(PANEL * len(names) + 0.5, (PANEL + 0.1) * len(rows) + 1.2), layout="constrained")
    panels = drawn.subplots(len(rows), len(names), squeeze=False)
    for axis, name in zip(panels[0], names, strict=True):
        axis.set_title(name, fontsize=8)
    for axes, row in zip(panels, rows, strict=True):
        axes[0].set_ylabel(textwrap.fill(row.name, 22), fontsize=8)
        for place, (axis, picture) in enumerate(zip(axes, row.pictures, strict=True)):
            axis.imshow(picture.numpy())
            axis.set(xticks=[], yticks=[])
            if row.below:
                axis.set_xlabel(row.below[place], fontsize=7)
    return drawn


def write(drawn: Any, faces: Faces, path: Path, said: str = "") -> None:
    """Write a matplotlib figure (layout "constrained") as PNG in one step, with the faces' caption below it.

    Args:
        drawn: the figure; its suptitle is taken where the faces are synthetic.
        said: what the figure adds to the caption: how it was made, and its numbers.
    """
    width = int(drawn.get_figwidth() * 72 / (LETTER_WIDTH * CAPTION_POINTS))  # characters
    text = textwrap.fill(f"{faces.caption} {said}".strip(), width)
    drawn.supxlabel(text, x=0.01, ha="left", fontsize=CAPTION_POINTS)
    if faces.synthetic:
        drawn.suptitle(SYNTHETIC, fontsize=10, fontweight="bold")
    stream = io.BytesIO()
    drawn.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    store.write_bytes(path, stream.getvalue())
