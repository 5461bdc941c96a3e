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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import store

if TYPE_CHECKING:
    from torch import Tensor

SYNTHETIC = "SYNTHETIC, not comparable"
CAPTION_POINTS, LETTER_WIDTH = 7.0, 0.58  # size in points; mean width of a letter as a share of its size
BATCH = 64  # faces read at a time


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
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    pixels: Callable[[np.ndarray], Tensor]
    inputs: Callable[[str, np.ndarray], Tensor]
    caption: str = ""
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, title: str, positions: np.ndarray | None = None) -> Iterator[Tensor]:
        """Inputs of one network, a few images at a time; `positions` in their order, or all."""
        wanted = np.arange(len(self)) if positions is None else positions
        for start in range(0, len(wanted), BATCH):
            yield self.inputs(title, wanted[start : start + BATCH])

    def only(self, positions: np.ndarray, said: str) -> Faces:
        """The faces at `positions`, in that order; `said` goes to the end of the caption."""
        pixels, inputs = self.pixels, self.inputs
        return replace(
            self,
            labels=self.labels[positions],
            pixels=lambda at: pixels(positions[at]),
            inputs=lambda title, at: inputs(title, positions[at]),
            caption=f"{self.caption} {said}",
        )


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
