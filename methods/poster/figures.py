"""Features of the test images in two dimensions, POSTER beside its baseline: Figure 5, section 4.4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.errors import UserError
from bench.figure import Faces, write
from bench.registry import figure
from methods.poster.model import POSTER

POINTS = 5_000  # images at most in one t-SNE: it takes minutes, and more dots hide each other
NEIGHBOURS = 10
# Okabe and Ito's colours, which the colour-blind tell apart (grey for their yellow, faint on white), and a shape each
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#999999", "#0072B2", "#D55E00", "#CC79A7")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Separation:
    """How well classes are apart in feature space.

    Attributes:
        silhouette: mean silhouette score of the images, -1 to 1, Euclidean.
        neighbours: share of images whose class most of their nearest other images have.
    """

    silhouette: float
    neighbours: float


@figure("tsne", version=1)
def tsne(nets: Mapping[str, POSTER], faces: Faces, path: Path) -> None:
    """Draw the vectors before the classifier in two dimensions, a panel for each network.

    The vectors go into t-SNE as the classifier gets them, without standardising: the last normalisation has put their
    numbers on one scale, and what it leaves small the classifier weighs little. Silhouette and neighbours are of the
    vectors themselves, since distances between clusters mean nothing in a t-SNE.

    Args:
        nets: networks by title, left panel first.
        faces: test images; of more than POINTS a fixed random part is drawn.

    Raises:
        UserError: scikit-learn is not installed, or there are too few images.
    """
    if len(faces) < 2 * NEIGHBOURS:
        raise UserError(f"t-SNE of {len(faces)} images says nothing", f"{2 * NEIGHBOURS} are the least")
    shown = np.arange(len(faces))
    if len(faces) > POINTS:
        shown = np.sort(np.random.default_rng(0).choice(len(faces), POINTS, replace=False))
    labels = faces.labels[shown]
    panels = {}
    for title, net in nets.items():
        vectors = _features(net, title, faces, shown)
        panels[title] = (embedded(vectors), separation(vectors, labels))
    part = f" {len(shown):,} of them drawn at random." if len(shown) < len(faces) else ""
    said = (
        f"{part} t-SNE of the vector before the classifier, not standardised (PCA start, perplexity "
        f"{perplexity(len(shown)):g}, seed 0). Silhouette: Euclidean, of the vectors, 1 is best. Neighbours: share of "
        f"images with the class of most of their {NEIGHBOURS} nearest (leave one out)."
    )
    write(_draw_panels(panels, labels, faces.classes), faces, path, said.strip())


@torch.no_grad()
def _features(net: POSTER, title: str, faces: Faces, shown: np.ndarray) -> np.ndarray:
    """Vectors (n, D) before the last Linear."""
    device = next(net.parameters()).device
    parts = [net.features(images.to(device)).float().cpu() for images in faces.batches(title, shown)]
    found: np.ndarray = torch.cat(parts).numpy()
    return found


def perplexity(count: int) -> float:
    """30, scikit-learn's default; fewer where there are too few points."""
    return float(min(30, (count - 1) // 3))


def embedded(vectors: np.ndarray) -> np.ndarray:
    """Points (n, 2) of vectors (n, D) by t-SNE [36]; the same ones each time."""
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise UserError("t-SNE needs scikit-learn", "pip install 'ferbench[figures]'") from None
    found: np.ndarray = TSNE(2, perplexity=perplexity(len(vectors)), init="pca", random_state=0).fit_transform(vectors)
    return found


def separation(vectors: np.ndarray, labels: np.ndarray) -> Separation:
    """Silhouette score and leave-one-out accuracy of nearest neighbours; a tie goes to the class named first.

    Args:
        vectors: (n, D).
        labels: int (n,).
    """
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(vectors).kneighbors(return_distance=False)  # without itself
    votes = np.eye(int(labels.max()) + 1, dtype=np.int64)[labels[near]].sum(1)
    return Separation(float(silhouette_score(vectors, labels)), float((votes.argmax(1) == labels).mean()))


def _draw_panels(
    panels: Mapping[str, tuple[np.ndarray, Separation]], labels: np.ndarray, classes: tuple[str, ...]
) -> Any:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4.6 * len(panels) + 1.4, 4.8), layout="constrained")
    axes = drawn.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, (points, apart)) in zip(axes, panels.items(), strict=True):
        for label, name in enumerate(classes):
            x, y = points[labels == label].T
            style = {"color": COLOURS[label % len(COLOURS)], "marker": MARKERS[label % len(MARKERS)]}
            axis.scatter(x, y, s=9, alpha=0.75, linewidths=0, label=name, **style)
        axis.set(title=title, xticks=[], yticks=[])
        axis.set_xlabel(f"silhouette {apart.silhouette:.3f}, neighbours {100 * apart.neighbours:.1f} %", fontsize=9)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", markerscale=2, fontsize=9)
    return drawn
