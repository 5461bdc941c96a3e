"""What raters said of a run's training images, for methods that learn from more than one label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.declare import Protocol
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from bench.method import Votes


def training_votes(index: pd.DataFrame, protocol: Protocol, rows: np.ndarray) -> Votes:
    """The votes for each of the protocol's classes; votes for anything else (unknown, not a face) are left out.

    Args:
        index: of the protocol, as an adapter gives it.
        rows: row numbers of the training images.

    Raises:
        UserError: the dataset has no votes, or none for one of the classes.
    """
    from bench.method import Votes  # imports torch, which those that only plan do without

    columns = [f"votes_{name}" for name in protocol.classes]
    absent = [name for name, column in zip(protocol.classes, columns, strict=True) if column not in index]
    if absent or not columns:
        for_class = f" for {', '.join(absent)}" if 0 < len(absent) < len(columns) else ""
        raise UserError(
            f"{protocol.id}: its images have no raters' votes{for_class}",
            "FERPlus and its synthetic stand-ins have votes; elsewhere leave `votes: true` out of the recipe",
        )
    numbers = {name: number for number, name in enumerate(protocol.classes)}
    used = index.iloc[rows]
    return Votes(np.array(used[columns], np.float64), np.array(used["label"].map(numbers), np.int64))
