"""How many printed numbers got which verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bench.statistics import Kind
from tables.render.compare import SYNTHETIC, Comparison


def counts(comparisons: Iterable[Comparison]) -> Counter[Kind]:
    """Verdict -> printed numbers."""
    return Counter(cell.judgement.kind for comparison in comparisons for cell in comparison.cells.values())


def line(comparisons: Iterable[Comparison]) -> str:
    """'392 printed numbers: 120 cited, 3 reproduced, 4 below, 265 blocked', in the order of `Kind`; zeros left out.

    Cells of rows that no paper prints are counted apart: '; 5 extra cells'.
    """
    all_of_them = list(comparisons)
    found = counts(all_of_them)
    text = f"{found.total()} printed numbers: " + ", ".join(f"{found[kind]} {kind}" for kind in Kind if found[kind])
    beside = sum(cell.ours is not None for comparison in all_of_them for cell in comparison.extra.values())
    text += f"; {beside} extra cell{'s' * (beside != 1)}" if beside else ""
    return f"{text} · {SYNTHETIC}" if any(c.synthetic for c in all_of_them) else text
