"""Subsets of a protocol's test images: RAN's lists of occluded and turned faces, and images without a twin in train.

A subset is scored by filtering a run's predictions; nothing is trained again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.declare import Protocol
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from bench.data.base import Dataset


def subset_blocked(ds: Dataset, protocol: Protocol) -> UserError | None:
    """Why the subset cannot be named here (its list is not at hand), judged cheaply; None when it can."""
    return UserError(f"protocol {protocol.id}: lists of RAN's subsets are not read yet", f"run {protocol.subset_of}")


def subset_index(ds: Dataset, protocol: Protocol) -> pd.DataFrame:
    """Rows of the parent protocol's test split that belong to the subset."""
    raise UserError(f"protocol {protocol.id}: lists of RAN's subsets are not read yet", f"run {protocol.subset_of}")
