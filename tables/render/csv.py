"""Comparisons as CSV: one row per printed number, every table alike, so that files can be stacked.

Cells of rows that the paper does not print follow, with `extra` first among their marks and no number of the paper's.
Numbers are in the table's unit (percent), plain digits, empty where there is none. The last column reads
'SYNTHETIC, not comparable' in every row of a rendering of synthetic results.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tables.render.compare import SYNTHETIC, Cell, Comparison
from tables.render.text import printed_text, shown_selections

BEFORE = (
    "table", "row", "column", "metric", "unit", "protocol", "experiment", "cited", "differs", "profile", "selection",
    "paper", "ours", "sd", "low", "high", "delta", "detectable", "n", "correct", "seeds", "seeds_wanted",
)  # fmt: skip
AFTER = ("verdict", "reason", "marks", "synthetic")


def render(*comparisons: Comparison) -> str:
    """CSV text with a header, one row per claim of one table or of several under the same kind of selection."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    selections = shown_selections(comparisons[0])
    writer.writerow((*BEFORE, *selections, *AFTER))
    for comparison in comparisons:
        writer.writerows(_row(cell, comparison.synthetic, selections) for cell in comparison.all_cells)
    return stream.getvalue()


def _row(cell: Cell, synthetic: bool, selections: Sequence[str]) -> list[str]:
    claim, judgement = cell.claim, cell.judgement
    low, high = judgement.interval or (None, None)
    numbers = (judgement.mean, judgement.sd, low, high, judgement.delta, judgement.detectable)
    marks = ["extra"] * bool(claim.instead_of) + list(cell.marks)
    counts = (cell.n, cell.k, cell.seeds, cell.wanted) if cell.seeds else ("", "", "", cell.wanted or "")
    return [
        *(claim.table, claim.row, claim.column, claim.metric, claim.unit, claim.protocol, claim.experiment),
        *(claim.cited, claim.differs, cell.profile, cell.selection, printed_text(cell)),
        *(_plain(value) for value in numbers),
        *(f"{value:g}" if isinstance(value, float) else str(value) for value in counts),
        *(_plain(cell.selections.get(s)) for s in selections),
        *(str(judgement.kind), judgement.reason, "; ".join(marks), SYNTHETIC if synthetic else ""),
    ]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{round(value, 4) + 0.0:.4f}"
