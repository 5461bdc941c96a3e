"""One self-contained HTML page per table: opens offline, no script, no outside file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from tables.render import extra
from tables.render.compare import SYNTHETIC, Comparison
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


def render(comparison: Comparison) -> str:
    """The page. Everything that comes from declarations or results is escaped by jinja2."""
    notes = Notes()
    head, rows = grid(comparison, notes)
    selections = shown_selections(comparison)
    details = [
        [
            place(cell),
            cell.claim.printed,
            ours_text(cell),
            interval_text(cell),
            number(cell.judgement.delta, digits_of(cell), sign=True),
            number(cell.judgement.detectable, digits_of(cell)),
            f"{cell.n:g}" if cell.n else "",
            f"{cell.seeds} of {cell.wanted}" if cell.wanted else "",
            *(number(cell.selections.get(s), digits_of(cell)) for s in selections),
            cell.judgement.label,
        ]
        for cell in measured(comparison.cells.values())
    ]
    detail_head = ["cell", "paper", "ours", "95 % interval", "Δ", "detectable", "n", "seeds", *selections, "verdict"]
    beside = [extra.grid(comparison, notes), extra.details(comparison)] if comparison.extra else []
    return template().render(
        title=heading(comparison),
        legend=legend(comparison),
        head=head,
        rows=rows,
        detail_head=detail_head,
        details=details,
        extra_title=extra.TITLE,
        extra_legend=extra.legend(comparison),
        beside=[(head, rows) for head, rows in beside if rows],
        remarks=[*generic_notes(comparison.all_cells), *notes.lines(), *extra.left_out(comparison)],
        provenance=[*provenance(comparison), *extra.provenance(comparison)],
        synthetic=SYNTHETIC if comparison.synthetic else "",
    )


@lru_cache(maxsize=1)
def template() -> Template:
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder, undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("table.html.j2")
