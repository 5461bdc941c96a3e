"""The FERPlus images behind the prior matrix of the Neural Resizer's released code.

They are not a protocol's training images: votes come from fer2013new.csv, the class is the most voted of all ten
columns, and five votes are enough.
"""

from __future__ import annotations

import numpy as np

from bench.data.ferplus.labels import EMOTIONS, NONE, Rows, argmax10

LEAST = 5  # votes the most voted class needs


def released_prior_votes(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Training rows with a name, the later row of a name that occurs twice, without those the rule drops.

    Returns:
        Votes int64 (N, 8) for EMOTIONS and labels int64 (N,). On the published file N is 25,371.
    """
    row_of = {name: row for row, name in enumerate(rows.names) if name and rows.usage[row] == "Training"}
    votes = rows.votes[list(row_of.values())]
    labels = argmax10(votes)
    kept = (labels != NONE) & (votes.max(1) >= LEAST)
    return votes[kept, : len(EMOTIONS)], labels[kept]
