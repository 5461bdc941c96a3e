"""Prior distributions of PDLS: what raters vote for when the image is of class k, as a row-stochastic (K, K) matrix.

The matrix of the released code comes from the votes of FERPlus. For other classes it is taken by class name, where the
released code takes the first seven rows for RAF-DB, whose labels are numbered in another order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.errors import UserError
from methods.nresizer import ferplus_prior


def class_means(counts: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Mean vote distribution of each class's images.

    Args:
        counts: (N, K) votes; an image without any is left out.
        labels: int (N,), the class of each image.
        classes: K.

    Returns:
        float64 (K, K): row k is the mean over the images of class k of their votes divided by their sum.

    Raises:
        UserError: a class has no image with votes.
    """
    voted = counts.sum(1) > 0
    shares = counts[voted] / counts[voted].sum(1, keepdims=True)
    images = np.bincount(labels[voted], minlength=classes)
    if not images.all():
        message = f"no training image of class {int(images.argmin())} has votes, so it has no prior distribution"
        raise UserError(message, "use the prior 'ferplus-train-votes' or 'uniform'")
    sums = np.zeros((classes, classes))
    np.add.at(sums, labels[voted], shares)
    means: np.ndarray = sums / images[:, None]
    return means


def for_classes(classes: Sequence[str]) -> np.ndarray:
    """The released FERPlus prior for these classes, in this order; rows add up to one again where classes are left out.

    Returns:
        float64 (K, K).

    Raises:
        UserError: a class FERPlus does not have.
    """
    absent = [name for name in classes if name not in ferplus_prior.CLASSES]
    if absent:
        message = f"FERPlus has no class {', '.join(absent)}, so its prior says nothing of it"
        raise UserError(message, "use the prior 'train-votes' (of the dataset's own votes) or 'uniform'")
    chosen = [ferplus_prior.CLASSES.index(name) for name in classes]
    part = np.array(ferplus_prior.MEANS)[np.ix_(chosen, chosen)]
    shares: np.ndarray = part / part.sum(1, keepdims=True)
    return shares
