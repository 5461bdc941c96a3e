"""A confusion matrix as a labelled PNG. Its CSV is `bench.metrics.confusion_csv`, read back by
`tables.render.results`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.metrics import prediction_shares
from bench.store import write_bytes
from tables.render.compare import SYNTHETIC
from tables.render.results import read_confusion


def draw(source: Path, title: str, synthetic: bool) -> Path:
    """Draw a confusion CSV as the PNG beside it, and return its path.

    Raises:
        UserError: the CSV is damaged; names file and row.
    """
    picture = source.with_suffix(".png")
    write_bytes(picture, png(*read_confusion(source), title, synthetic))
    return picture


def png(classes: Sequence[str], matrix: np.ndarray, title: str, synthetic: bool) -> bytes:
    """Draw a confusion matrix: rows are the true classes, each square the percentage of its row and the count.

    Args:
        classes: K names.
        matrix: (K, K) counts.
        title: entry, selection and n, usually.
        synthetic: adds 'SYNTHETIC, not comparable' to the title.
    Returns:
        PNG file content; the same bytes for the same input and matplotlib version.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares, size = prediction_shares(matrix), len(classes)
    figure = Figure(figsize=(2.2 + 0.75 * size, 1.9 + 0.7 * size), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    for i in range(size):
        for j in range(size):
            share = shares[i, j]
            text = "no image" if np.isnan(share) else f"{100 * share:.1f}\n{matrix[i, j]:g}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if share > 0.55 else "black")
    axes.set_xticks(range(size), classes, rotation=45, ha="right")
    axes.set_yticks(range(size), classes)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"{title}\n{SYNTHETIC}" if synthetic else title, fontsize=10)
    bar = figure.colorbar(image, ax=axes, fraction=0.046)
    bar.set_label("share of the true class's images")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()
