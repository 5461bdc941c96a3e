"""The second grid of a table: rows of ours that the paper does not print, each with the reason why it is there."""

from __future__ import annotations

from tables.render.compare import Comparison, command
from tables.render.text import (
    Notes,
    digits_of,
    interval_text,
    measured,
    number,
    ours_text,
    place,
    runs_lines,
    shown_selections,
    unit_name,
    words,
)

TITLE = "Not the paper's configuration"
Lines = tuple[list[str], list[list[str]]]  # head, rows


def legend(comparison: Comparison) -> str:
    """How to read a cell of the second grid."""
    faces = " on synthetic faces" if comparison.synthetic else ""
    return (
        f"Rows of ours that the paper does not print. Each cell: ours{faces}, mean ±sd over seeds; "
        f"{unit_name(comparison)}; selection: {comparison.selection}; nothing here is compared with the paper."
    )


def grid(comparison: Comparison, notes: Notes) -> Lines:
    """Column titles (the first is empty); per row, its title with the footnote that says why, and cell lines."""
    table = comparison.table
    columns = [column for column in table.columns if any(place[1] == column.id for place in comparison.extra)]
    rows = []
    for row in table.extra:
        cells = [comparison.extra.get((row.id, column.id)) for column in columns]
        if any(cells):
            title = f"{row.title} {notes.mark(row.why)}"
            rows.append([title, *("" if cell is None else words(cell, notes).line() for cell in cells)])
    return ["", *(column.title for column in columns)], rows


def details(comparison: Comparison) -> Lines:
    """The cells with results: interval, test images, seeds, every selection. No rows where there is none."""
    selections = shown_selections(comparison)
    rows = [
        [
            place(cell),
            ours_text(cell),
            interval_text(cell),
            f"{cell.n:g}" if cell.n else "",
            f"{cell.seeds} of {cell.wanted}" if cell.wanted else "",
            *(number(cell.selections.get(s), digits_of(cell)) or "–" for s in selections),
        ]
        for cell in measured(comparison.extra.values())
    ]
    return ["cell", "ours", "95 % interval", "n", "seeds", *selections], rows


def left_out(comparison: Comparison) -> list[str]:
    """The rows that stand in no grid since they were not run, and the command that runs them."""
    shown = {row for row, _ in comparison.extra}
    settings, table = comparison.settings, comparison.table
    can = {c.row for c in table.extra_claims() if (c.cell, settings.profiles[0]) not in settings.unanswerable}
    rows = [row for row in table.extra if row.id not in shown and row.id in can]
    fallback = [row.title for row in rows if row.run == "fallback" and not settings.synthetic]
    asked = [row.title for row in rows if row.title not in fallback]
    lines = []
    for titles, when, more in (
        (fallback, "run in place of one that lacks a weights file here", ""),
        (asked, "run when asked for", "--extra all"),
    ):
        if titles:
            run = command(table.id, settings.profiles[0], more)
            lines.append(f"rows that the paper does not print, {when}: {'; '.join(titles)} ({run})")
    return lines


def provenance(comparison: Comparison) -> list[str]:
    """Where the numbers of the second grid come from, in one line; nothing where there are none."""
    lines = runs_lines(list(comparison.extra.values()), comparison.settings)
    return [f"{TITLE}: " + "; ".join(lines)] if lines else []
