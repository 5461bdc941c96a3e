"""Markdown for the terminal and results/tables/<id>.md.

Two views. The first keeps the paper's layout; where it would be wider than 120 characters its columns are dealt out
over several tables with the same rows. Two narrower tables below list the cells with results: numbers, then selections.
Rows that the paper does not print follow under a heading of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tabulate import tabulate

from tables.render import extra
from tables.render.compare import SYNTHETIC, Cell, Comparison
from tables.render.text import (
    Notes,
    digits_of,
    generic_notes,
    grid,
    heading,
    interval_text,
    legend,
    measured,
    number,
    ours_text,
    place,
    provenance,
    shown_selections,
)

WIDTH = 120
# An underscore inside a word is no emphasis in GitHub Markdown; left alone, file names can be copied from the terminal.
_SPECIAL = re.compile(r"[\\|*`<]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def render(comparison: Comparison) -> str:
    """The whole comparison as GitHub Markdown; every line of a synthetic one says so."""
    notes = Notes()
    head, rows = grid(comparison, notes)
    synthetic = comparison.synthetic
    parts = [f"## {escape(heading(comparison))}", say(legend(comparison), synthetic)]
    parts += grids(head, rows, synthetic)
    cells = measured(comparison.cells.values())
    if cells:
        drop = ("Δ", "verdict", "detectable") if synthetic else ()
        for view in (_numbers(cells), _selections(cells, shown_selections(comparison), comparison.selection)):
            parts.append(_table(*_without(drop, *view), synthetic))
    if comparison.extra:
        parts += [say(f"### {extra.TITLE}", synthetic), say(extra.legend(comparison), synthetic)]
        parts += grids(*extra.grid(comparison, notes), synthetic) + grids(*extra.details(comparison), synthetic)
    remarks = [*generic_notes(comparison.all_cells), *notes.lines(), *extra.left_out(comparison)]
    if comparison.table.notes:
        remarks.append(" ".join(comparison.table.notes.split()))
    for lines in (remarks, [*provenance(comparison), *extra.provenance(comparison)]):
        if lines:
            parts.append("\n".join(say(f"- {escape(text)}", synthetic) for text in lines))
    return "\n\n".join(parts) + "\n"


def blocks(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[tuple[list[str], list[list[str]]]]:
    """Deal columns out over tables of `width` characters; row titles lead each, and one column at least follows."""
    sizes = [max(len(escape(str(line[i]))) for line in [head, *rows]) + 3 for i in range(len(head))]
    taken: list[list[int]] = [[]]
    used = sizes[0] + 1
    for i in range(1, len(head)):
        if taken[-1] and used + sizes[i] > width:
            taken.append([])
            used = sizes[0] + 1
        taken[-1].append(i)
        used += sizes[i]
    dealt = []
    for columns in taken:
        printed = [[row[0], *(row[i] for i in columns)] for row in rows if any(row[i] for i in columns)]
        dealt.append(([head[0], *(head[i] for i in columns)], printed))
    return dealt


def escape(text: str) -> str:
    """Text that Markdown leaves as it is, and that cannot end a table cell or a line."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def _numbers(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    head = ["cell", "paper", "ours", "95 % interval", "Δ", "n", "seeds", "verdict"]
    return head, [
        [
            place(cell),
            cell.claim.printed,
            ours_text(cell),
            interval_text(cell),
            number(cell.judgement.delta, digits_of(cell), sign=True),
            f"{cell.n:g}" if cell.n else "",
            f"{cell.seeds} of {cell.wanted}" if cell.wanted else "",
            cell.judgement.label,
        ]
        for cell in cells
    ]


def _selections(cells: Sequence[Cell], selections: Sequence[str], compared: str) -> tuple[list[str], list[list[str]]]:
    head = ["cell", *(f"{s} (compared)" if s == compared else s for s in selections), "detectable"]
    return head, [
        [
            place(cell),
            *(number(cell.selections.get(s), digits_of(cell)) or "–" for s in selections),
            number(cell.judgement.detectable, digits_of(cell)) or "–",
        ]
        for cell in cells
    ]


def _without(
    names: Sequence[str], head: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """A table without some columns: synthetic results have no difference and no verdict to show."""
    kept = [i for i, name in enumerate(head) if name not in names]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def grids(head: Sequence[str], rows: Sequence[Sequence[str]], synthetic: bool) -> list[str]:
    """As many tables as the width asks for; none without rows."""
    dealt = blocks(head, rows, WIDTH - (len(SYNTHETIC) + 3) * synthetic) if rows else []
    return [_table(*block, synthetic) for block in dealt]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], synthetic: bool) -> str:
    lines = [[escape(str(value)) for value in line] for line in [head, *rows]]
    if synthetic:
        for line in lines:
            line.append(SYNTHETIC)
    return str(tabulate(lines[1:], headers=lines[0], tablefmt="github", disable_numparse=True))


def say(line: str, synthetic: bool) -> str:
    return f"{line} · {SYNTHETIC}" if synthetic else line
