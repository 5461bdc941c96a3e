"""`data prior`: how raters' votes are spread within each class of a protocol, the prior matrix of PDLS."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bench.data.base import Dataset
    from bench.declare import Protocol


@dataclass(frozen=True)
class Matrix:
    """Mean vote shares (K, K) of each class's images (rows) for each class (columns).

    Attributes:
        name: what it is called in the CSV; title: in words; images: (K,) how many there are of each class.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    images: np.ndarray
    shares: np.ndarray


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data prior`."""
    parser.add_argument("protocol", metavar="PROTOCOL", help="e.g. ferplus-8@majority or synth-ferplus-8")
    parser.add_argument("--csv", action="store_true", help="as CSV, with all digits")
    parser.add_argument("--data-root", help="folder holding the datasets (else FERBENCH_DATA)")


def main(args: argparse.Namespace) -> int:
    """Print the matrix of the protocol's training votes and, for FERPlus, the released one beside the stored one."""
    from bench import declare
    from bench.data import source

    root = source.data_root(args.data_root)
    protocol = declare.load(root).protocol(args.protocol)
    dataset = source.locate(protocol, root)
    matrices = [_of_protocol(dataset, protocol)]
    released, remark = _released(dataset)
    matrices += [released] if released else []
    if args.csv:
        print(_csv(matrices))
    else:
        print("\n\n".join([*map(_text, matrices), *([remark] if remark else [])]))
    return 0


def _of_protocol(dataset: Dataset, protocol: Protocol) -> Matrix:
    """Of the training images (of the first fold, where there are folds); UserError where the dataset has no votes."""
    from bench import declare
    from bench.data.source import splits_of
    from bench.data.votes import training_votes
    from methods.nresizer.prior import class_means

    # a subset is of test images: its runs train on the parent's
    trained = declare.load(dataset.data_root).protocol(protocol.subset_of) if protocol.subset_of else protocol
    index = dataset.index(trained)
    votes = training_votes(index, trained, splits_of(index, trained, 0)["train"])
    images = np.bincount(votes.labels, minlength=len(trained.classes))
    shares = class_means(votes.counts, votes.labels, len(trained.classes))
    title = f"{trained.id}: mean vote shares of its {images.sum():,} training images"
    return Matrix(trained.id, title, trained.classes, images, shares)


def _released(dataset: Dataset) -> tuple[Matrix | None, str]:
    """The matrix of the released code, from the votes at hand, and how far the stored one is from it."""
    from bench.data.ferplus import labels
    from bench.data.ferplus.adapter import FERPlus
    from bench.data.ferplus.prior_votes import released_prior_votes
    from methods.nresizer import ferplus_prior
    from methods.nresizer.prior import class_means

    if not isinstance(dataset, FERPlus):
        return None, ""
    if dataset.found.votes is None:
        return None, f"the released matrix is made from fer2013new.csv, which is not in {dataset.folder}"
    counts, classes = released_prior_votes(labels.read_fer2013new(dataset.found.votes))
    images = np.bincount(classes, minlength=len(labels.EMOTIONS))
    shares = class_means(counts, classes, len(labels.EMOTIONS))
    stored = np.array(ferplus_prior.MEANS)
    title = f"as released: fer2013new.csv, training rows with 5 votes for one class, {images.sum():,} images"
    remark = f"largest difference from methods/nresizer/ferplus_prior.py: {np.abs(stored - shares).max():.1e}"
    return Matrix("released", title, labels.EMOTIONS, images, shares), remark


def _text(matrix: Matrix) -> str:
    """A table with its title; rows are the classes of images, columns what raters voted for."""
    rows = [["class", "images", *matrix.classes]]
    for name, images, shares in zip(matrix.classes, matrix.images, matrix.shares, strict=True):
        rows.append([name, f"{images:,}", *(f"{share:.4f}" for share in shares)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join([matrix.title, *("  " + _padded(row, widths) for row in rows)])


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


def _csv(matrices: Sequence[Matrix]) -> str:
    """One row per matrix and class: matrix, class, images, then a share for each class voted for."""
    lines = [",".join(["matrix", "class", "images", *matrices[0].classes])]
    for matrix in matrices:
        for name, images, shares in zip(matrix.classes, matrix.images, matrix.shares, strict=True):
            lines.append(",".join([matrix.name, name, str(images), *(f"{share:.10f}" for share in shares)]))
    return "\n".join(lines)
