"""The words and digits every writer shares: cell texts, footnotes, provenance. Nothing here knows an output format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.declare import TRAINED_SELECTIONS
from bench.statistics import Kind, decimals
from tables.render.compare import SYNTHETIC, Cell, Comparison, Settings, entries_of, runs_of

SHORT = "short‡: trained on the real data with the declared shortened recipe; never compared with the paper's number"
ALIKE = "≈: best own row of the column, and the rows McNemar's exact test cannot tell from it (p >= 0.05 / seeds)"


@dataclass
class Notes:
    """Numbered footnotes, each text once, in the order they are first asked for."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """The footnote's mark, e.g. '[2]'."""
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"

    def lines(self) -> list[str]:
        return [f"[{i}] {text}" for i, text in enumerate(self.texts, start=1)]


@dataclass(frozen=True)
class Words:
    """One cell in words: '89.28', '83.10 ±0.40', '(−6.18)', 'below'."""

    paper: str
    ours: str = ""
    delta: str = ""
    verdict: str = ""

    def line(self) -> str:
        """'89.28 / 83.10 ±0.40 (−6.18) below'; without the paper's number, '83.10 ±0.40'"""
        return " ".join(
            filter(None, [self.paper, self.paper and self.ours and "/", self.ours, self.delta, self.verdict])
        )


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number with fixed digits and a true minus; empty for None. Zero has no sign."""
    if value is None:
        return ""
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if sign and rounded else ''}.{digits}f}".replace("-", "−")


def digits_of(cell: Cell) -> int:
    """Digits ours is shown with: the paper's, two at least."""
    return max(2, decimals(cell.claim.printed))


def printed_text(cell: Cell) -> str:
    """The number as the paper prints it; empty for a row of ours that it does not print."""
    return "" if cell.claim.instead_of else cell.claim.printed


def ours_text(cell: Cell) -> str:
    """Mean ± sd over seeds; the sd is left out where one seed knows none."""
    digits, judgement = digits_of(cell), cell.judgement
    spread = "" if judgement.sd is None else f" ±{number(judgement.sd, digits)}"
    return number(judgement.mean, digits) + spread if judgement.mean is not None else ""


def words(cell: Cell, notes: Notes) -> Words:
    """A cell in words, with its footnotes entered in `notes`."""
    judgement, claim = cell.judgement, cell.claim
    kind, printed = judgement.kind, printed_text(cell)
    differs = f"†protocol {notes.mark(claim.differs)}" if claim.differs else ""
    if kind is Kind.CITED:
        return Words(printed, verdict=" ".join(filter(None, ["cited", differs])))
    if kind in (Kind.BLOCKED, Kind.NOT_RUN):
        return Words(printed, verdict=" ".join(filter(None, [f"{kind} {notes.mark(judgement.reason)}", differs])))
    ours = f"SYNTHETIC {ours_text(cell)}" if kind is Kind.SYNTHETIC else ours_text(cell)
    silent = (Kind.SYNTHETIC, Kind.SHORTENED, Kind.DIFFERENT, Kind.EXTRA)
    told = "" if kind in silent else judgement.label
    if judgement.reason and kind in (Kind.REPRODUCED, Kind.ABOVE, Kind.BELOW):
        told += f" {notes.mark(judgement.reason)}"
    marks = [m for m in cell.marks if m not in told and m != "†protocol"]
    delta = judgement.delta is not None and f"({number(judgement.delta, digits_of(cell), sign=True)})"
    return Words(printed, ours, delta or "", " ".join(filter(None, [told, differs, *marks])))


def grid(comparison: Comparison, notes: Notes) -> tuple[list[str], list[list[str]]]:
    """The paper's layout: column titles (the first is empty); per row, its title and cell lines ('' for no claim)."""
    table = comparison.table
    rows = []
    for row in table.rows:
        cells = [comparison.cells.get((row.id, column.id)) for column in table.columns]
        rows.append([row.title, *("" if cell is None else words(cell, notes).line() for cell in cells)])
    return ["", *(column.title for column in table.columns)], rows


def measured(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that have a number of ours, in the order given."""
    return [cell for cell in cells if cell.ours is not None]


def interval_text(cell: Cell) -> str:
    """'82.11–84.02', the 95 % interval of bench/statistics.py."""
    if not cell.judgement.interval:
        return ""
    low, high = cell.judgement.interval
    return f"{number(low, digits_of(cell))}–{number(high, digits_of(cell))}"


def place(cell: Cell) -> str:
    """row/column of a cell."""
    return f"{cell.claim.row}/{cell.claim.column}"


def heading(comparison: Comparison) -> str:
    """'fervt-table11: Ablation study (Table 11, p. 8)', with the word SYNTHETIC where it applies."""
    table = comparison.table
    text = f"{table.id}: {table.title} ({table.where})"
    return f"{text} · {SYNTHETIC}" if comparison.synthetic else text


def legend(comparison: Comparison) -> str:
    """How to read a cell."""
    unit = unit_name(comparison)
    if comparison.counted:
        return f"Each cell: paper / counted on the model as built (difference) verdict; {unit}."
    if comparison.synthetic:
        return f"Each cell: paper / ours on synthetic faces, mean ±sd over seeds; {unit}; no verdict is possible."
    return (
        f"Each cell: paper / ours, mean ±sd over seeds (ours − paper) verdict; {unit}; "
        f"selection compared: {comparison.selection}."
    )


def unit_name(comparison: Comparison) -> str:
    """'percent' for %."""
    return {"%": "percent", "M": "millions"}.get(comparison.table.unit, comparison.table.unit)


def shown_selections(comparison: Comparison) -> tuple[str, ...]:
    """The selections a comparison's runs can have: those of a training, or the one of released weights."""
    return TRAINED_SELECTIONS if comparison.selection in TRAINED_SELECTIONS else (comparison.selection,)


def generic_notes(cells: Iterable[Cell]) -> list[str]:
    """Explanations of the marks that occur."""
    marks = {mark for cell in cells for mark in cell.marks}
    return [text for mark, text in (("short‡", SHORT), ("≈", ALIKE)) if mark in marks]


def provenance(comparison: Comparison) -> list[str]:
    """Where the numbers come from, one subject a line; says so where there are none."""
    if comparison.counted:
        return ["parameters are counted, not trained: no seed, selection or data set enters them"]
    cells, settings = list(comparison.cells.values()), comparison.settings
    shown = {s for cell in cells for s in cell.selections} - {comparison.selection}
    others = [s for s in TRAINED_SELECTIONS if s in shown]
    why = f" ({comparison.table.compare_why})" if comparison.table.compare_why else ""
    selection = f"selection compared: {comparison.selection}{why}; also shown: {', '.join(others) or 'none'}"
    nothing = [f"profile: {', '.join(settings.profiles)}", _seeds((), settings), "results: none yet"]
    profile, *lines = runs_lines(cells, settings) or nothing
    return [profile, selection, *lines]


def runs_lines(cells: Sequence[Cell], settings: Settings) -> list[str]:
    """What the runs behind cells say of themselves, profile first; nothing where there are no runs."""
    runs = runs_of(cells)
    if not runs:
        return []
    lines = [f"profile: {', '.join(_values(runs, 'profile'))}", _seeds(runs, settings)]
    lines.append(f"recipe: {_deviations(cells, settings.deviations)}")
    named = (("data", "data_hash"), ("commit", "commit"), ("device", "device"))
    lines += [f"{label}: {', '.join(_values(runs, column)) or 'unknown'}" for label, column in named]
    dates = sorted(str(value)[:10] for value in _values(runs, "finished"))
    if dates:
        lines.append(f"made: {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else ""))
    return lines + _mixed_networks(cells, settings)


def _mixed_networks(cells: Sequence[Cell], settings: Settings) -> list[str]:
    """The cells whose runs were built on different networks for one role: a stage that was trained again keeps its key.

    A run that does not say what it was built on counts as none.
    """
    found = []
    for cell in cells if settings.networks else ():
        seeds: dict[str, dict[str, set[int]]] = {}  # role -> network -> seeds
        for row in cell.runs:
            for role, sha256 in settings.networks(row["run"]).items() if settings.networks else ():
                seeds.setdefault(role, {}).setdefault(sha256, set()).add(int(row["seed"]))
        for role, networks in seeds.items():
            if len(networks) > 1:
                each = (f"{sha[:8]} (seed {' '.join(map(str, sorted(of)))})" for sha, of in networks.items())
                differ = f"runs of {place(cell)} were built on different {role} networks"
                found.append(f"WARNING: {differ}: {', '.join(each)}")
    return found


def _seeds(runs: Sequence[Mapping[str, Any]], settings: Settings) -> str:
    return f"seeds: {' '.join(_values(runs, 'seed')) or 'none'} ({settings.seeds} asked for)"


def _deviations(cells: Sequence[Cell], known: Mapping[tuple[str, str], int]) -> str:
    counted = [known[entry] for entry in entries_of(cells) if entry in known]
    if not counted:
        return "deviations from the paper not counted"
    entries = "1 entry" if len(counted) == 1 else f"{len(counted)} entries"
    return f"{sum(counted)} deviation{'s' * (sum(counted) != 1)} from the paper in {entries} (see run_all.py show)"


def _values(runs: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    """Distinct values of a column, sorted as numbers where they are; missing ones (None, NaN) left out."""
    found = {row.get(column) for row in runs}
    given = [value for value in found if value is not None and value == value and value != ""]
    return [str(value) for value in sorted(given, key=lambda v: (isinstance(v, str), v))]
