r"""LaTeX (booktabs) for papers: one table, then a macro per number.

Macros are named after the cell, digits spelt out: `\FervtTableOneOneBothFerplusPaper`, `...Ours`, `...Delta`. In a
synthetic rendering they end in `SyntheticOurs`, so that no text can use them unknowingly. Needs \usepackage{booktabs}.
"""

from __future__ import annotations

import re

from tables.render import extra
from tables.render.compare import SYNTHETIC, Cell, Comparison
from tables.render.text import Notes, digits_of, generic_notes, grid, heading, legend, number, printed_text, provenance

_SPECIAL = {
    "[": "{[}",  # at the start of a row a bare [ would be read as the optional argument of the \\ before it
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "−": r"$-$", "≈": r"$\approx$", "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}", "–": "--", "Δ": r"$\Delta$", "·": r"$\cdot$", "≥": r"$\ge$", "→": r"$\rightarrow$",
    "×": r"$\times$",
}  # fmt: skip
_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def render(comparison: Comparison) -> str:
    """A `table` environment in the paper's layout, rows that the paper lacks and notes below it, and the macros."""
    notes = Notes()
    printed = tabular(*grid(comparison, notes), comparison.synthetic)
    beside = _beside(comparison, notes)
    remarks = [*generic_notes(comparison.all_cells), *notes.lines(), *extra.left_out(comparison)]
    remarks += [*provenance(comparison), *extra.provenance(comparison)]
    lines = [
        r"% needs \usepackage{booktabs}",
        *macros(comparison),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(heading(comparison))}. {escape(legend(comparison))}}}",
        rf"\label{{tab:{comparison.table.id}}}",
        *printed,
        *beside,
        *(rf"\par\footnotesize {escape(text)}" for text in remarks),
        r"\end{table}",
    ]
    if comparison.synthetic:
        lines = [text if SYNTHETIC in text else f"{text} % {SYNTHETIC}" for text in lines]
    return "\n".join(lines) + "\n"


def _beside(comparison: Comparison, notes: Notes) -> list[str]:
    """The rows that the paper does not print, under a title of their own: means, then intervals and seeds."""
    if not comparison.extra:
        return []
    head, rows = extra.details(comparison)
    return [
        rf"\par\medskip {escape(extra.TITLE)}. {escape(extra.legend(comparison))}\par\smallskip",
        *tabular(*extra.grid(comparison, notes), comparison.synthetic),
        *([r"\par\smallskip", *tabular(head, rows, comparison.synthetic)] if rows else []),
    ]


def tabular(head: list[str], rows: list[list[str]], synthetic: bool) -> list[str]:
    if synthetic:
        head, rows = [*head, SYNTHETIC], [[*row, SYNTHETIC] for row in rows]
    return [
        rf"\begin{{tabular}}{{{'l' * len(head)}}}",
        r"\toprule",
        _line(head),
        r"\midrule",
        *(_line(row) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def escape(text: str) -> str:
    """Text as LaTeX prints it, special characters and our marks included."""
    return "".join(_SPECIAL.get(sign, sign) for sign in " ".join(text.split()))


def macros(comparison: Comparison) -> list[str]:
    r"""One \newcommand per number: Paper for every printed one, Ours and Delta where they exist."""
    return [
        rf"\newcommand{{\{macro_name(cell, part)}}}{{{escape(value)}}}"
        for cell in comparison.all_cells
        for part, value in _values(cell)
        if value
    ]


def macro_name(cell: Cell, part: str) -> str:
    """A name of letters only: a digit becomes its word, anything else a word boundary."""
    words = re.findall(r"[A-Za-z]+|\d", cell.claim.cell.replace("+", " plus "))
    return "".join(_DIGITS[int(word)] if word.isdigit() else word[0].upper() + word[1:] for word in words) + part


def _values(cell: Cell) -> list[tuple[str, str]]:
    digits, judgement = digits_of(cell), cell.judgement
    ours = "SyntheticOurs" if cell.synthetic else "Ours"
    return [
        ("Paper", printed_text(cell)),
        (ours, number(judgement.mean, digits)),
        ("Delta", number(judgement.delta, digits, sign=True)),
    ]


def _line(values: list[str]) -> str:
    return " & ".join(escape(value) for value in values) + r" \\"
