"""Comparisons as CSV: one row per printed number, every table alike, so that files can be stacked.

Numbers are in the table's unit (percent), plain digits, empty where there is none. The last column reads
'SYNTHETIC, not comparable' in every row of a rendering of synthetic results.
"""

from __future__ import annotations

import csv
import io

from bench.store import SELECTIONS
from tables.render.compare import SYNTHETIC, Cell, Comparison

COLUMNS = (
    "table", "row", "column", "metric", "unit", "protocol", "experiment", "cited", "differs", "profile", "selection",
    "paper", "ours", "sd", "low", "high", "delta", "detectable", "n", "correct", "seeds", "seeds_wanted", *SELECTIONS,
    "verdict", "reason", "marks", "synthetic",
)  # fmt: skip


def render(*comparisons: Comparison) -> str:
    """CSV text with a header, one row per claim of one table or of several."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for comparison in comparisons:
        writer.writerows(_row(cell, comparison.synthetic) for cell in comparison.cells.values())
    return stream.getvalue()


def _row(cell: Cell, synthetic: bool) -> list[str]:
    claim, judgement = cell.claim, cell.judgement
    low, high = judgement.interval or (None, None)
    numbers = (judgement.mean, judgement.sd, low, high, judgement.delta, judgement.detectable)
    counts = (cell.n, cell.k, cell.seeds, cell.wanted) if cell.seeds else ("", "", "", cell.wanted or "")
    return [
        *(claim.table, claim.row, claim.column, claim.metric, claim.unit, claim.protocol, claim.experiment),
        *(claim.cited, claim.differs, cell.profile, cell.selection, claim.printed),
        *(_plain(value) for value in numbers),
        *(f"{value:g}" if isinstance(value, float) else str(value) for value in counts),
        *(_plain(cell.selections.get(s)) for s in SELECTIONS),
        *(str(judgement.kind), judgement.reason, "; ".join(cell.marks), SYNTHETIC if synthetic else ""),
    ]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{round(value, 4) + 0.0:.4f}"
