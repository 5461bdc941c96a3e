"""Rows of ours beside a paper's, drawn: a grid of their own in every format, without delta, verdict or mark."""

from __future__ import annotations

import csv as csv_module
import io
from html import unescape
from typing import Any

import pandas as pd
import pytest
from test_extra_rows import MINE
from test_render import BLOCKED, FERPLUS, QUICK, RAFDB, REAL, STAND_INS, TABLE, Tags, rows

from bench.declare import Table
from bench.statistics import Kind
from tables.render import csv, html, latex, markdown, summary
from tables.render.compare import SYNTHETIC, Comparison, Settings, compare
from tables.render.extra import TITLE
from tables.render.results import Results

SPARE = {
    "id": "spare", "title": "B, from scratch", "experiment": "exp-spare", "instead_of": "b", "run": "fallback",
    "why": "random weights",
}  # fmt: skip
WITH = Table.model_validate({**TABLE.model_dump(), "extra": [MINE, SPARE]})
OURS = [*rows("exp-mine", FERPLUS, 3137, [2900, 2906]), *rows("exp-mine", RAFDB, 3068, [2200], "short")]
FAKE = rows("exp-mine", "synth-ferplus-8", 400, [300, 320], "quick")


def compared(made: list[dict[str, Any]], table: Table = WITH, **settings: Any) -> Comparison:
    return compare(table, Results(pd.DataFrame(made)), Settings(**{"seeds": 3, "blocked": BLOCKED, **settings}))


def real(**settings: Any) -> Comparison:
    return compared(REAL + OURS, **settings)


def quick() -> Comparison:
    return compared(REAL + OURS + QUICK + FAKE, seeds=2, profiles=("quick",), stand_ins=STAND_INS)


def test_they_have_numbers_and_no_verdict() -> None:
    comparison = real()
    assert list(comparison.extra) == [("mine", "ferplus"), ("mine", "rafdb")]  # CK+ was not run, nor asked for
    cell = comparison.extra["mine", "ferplus"]
    assert cell.ours == pytest.approx(100 * 5806 / 2 / 3137)
    judgement = cell.judgement
    assert (judgement.kind, judgement.delta, judgement.detectable) == (Kind.EXTRA, None, None)
    assert judgement.interval is not None
    assert (cell.n, cell.seeds, cell.marks) == (3137, 2, ("2 of 3 seeds",))
    assert comparison.extra["mine", "rafdb"].marks == ("short‡",)
    assert comparison.cells == compared(REAL + OURS, TABLE).cells


def test_the_papers_grid_and_counts_stay() -> None:
    comparison, plain = real(), compared(REAL + OURS, TABLE)
    head = markdown.render(comparison).split(f"\n### {TITLE}")[0]
    assert markdown.render(plain).startswith(head)
    assert summary.counts([comparison]) == summary.counts([plain])
    assert summary.line([comparison]) == summary.line([plain]) + "; 2 extra cells"


def test_a_better_row_of_ours_does_not_move_the_papers_marks() -> None:
    right = {"exp-a": range(2712), "exp-b": range(2, 2712), "exp-mine": range(2906)}

    def correct(run: str, selection: str) -> dict[str, bool]:
        name = run.split(f"-{FERPLUS}")[0]
        return {str(i): i in right.get(name, ()) for i in range(3137)}

    marked, plain = real(correct=correct), compared(REAL + OURS, TABLE, correct=correct)
    assert marked.cells == plain.cells
    assert {place for place, cell in plain.cells.items() if "≈" in cell.marks} == {("a", "ferplus"), ("b", "ferplus")}
    assert not any("≈" in cell.marks for cell in marked.extra.values())


GOLDEN = """
### Not the paper's configuration

Rows of ours that the paper does not print. Each cell: ours, mean ±sd over seeds; percent; selection: test-best; \
nothing here is compared with the paper.

|                  | FER+                     | RAF-DB       |
|------------------|--------------------------|--------------|
| Mine \\| 2026 [3] | 92.54 ±0.14 2 of 3 seeds | 71.71 short‡ |

| cell         | ours        | 95 % interval   | n    | seeds   | last   | last-k   | test-best   | val-best   |
|--------------|-------------|-----------------|------|---------|--------|----------|-------------|------------|
| mine/ferplus | 92.54 ±0.14 | """


def test_markdown_has_a_second_grid() -> None:
    rendered = markdown.render(real())
    assert GOLDEN in rendered
    assert "- [3] a new method, under the protocol of A_1" in rendered
    assert f"- {TITLE}: profile: paper, short; seeds: 0 1 (3 asked for); recipe: " in rendered
    assert (
        "- rows that the paper does not print, run in place of one that lacks a weights file here: B, from scratch "
        "(python run_all.py --table paper-table1 --profile paper)" in rendered
    )
    below = rendered.split(TITLE, 1)[1].split("\n- ")[0]
    assert not any(word in below for word in ("reproduced", "above", "below", "86.74", "76.8", "−"))
    assert max(len(line) for line in rendered.splitlines() if line.startswith("|")) <= 120


def test_results_are_shown_though_another_selection_is_compared() -> None:
    cell = real(selection="val-best").extra["mine", "ferplus"]
    assert cell.judgement.text == "blocked (its runs kept no val-best; render with --selection last)"


def test_rows_without_a_result_are_listed_when_asked_for() -> None:
    nothing = compared(REAL)
    assert nothing.extra == {}
    assert TITLE not in markdown.render(nothing)
    assert "run when asked for: Mine \\| 2026 (python run_all.py --table paper-table1 --profile paper --extra all)" in (
        markdown.render(nothing)
    )
    cells = frozenset(claim.cell for claim in WITH.extra_claims())
    everything = compared(REAL, asked=cells, blocked={("exp-mine", FERPLUS): "no labels"})
    judged = {place: cell.judgement.text for place, cell in everything.extra.items()}
    assert judged["mine", "ferplus"] == "blocked (no labels)"
    assert judged["spare", "ferplus"] == (
        "not run (python run_all.py --table paper-table1 --profile paper --extra all)"
    )
    rendered = markdown.render(everything)
    assert "run when asked for" not in rendered
    assert rendered.count(TITLE) == 1  # and no line on where its numbers come from: there are none
    assert "; 1 extra cell" not in summary.line([everything])


def test_runs_that_are_not_what_a_row_says_stand_nowhere() -> None:
    """Shortened runs of ours under a row's name, of a profile that goes without what the row is about."""
    why = "profile short goes without ir50. see the row 'B, from scratch' below the table"
    cells = {("paper-table1/a/rafdb", "short"): why, ("paper-table1/mine/rafdb", "short"): why}
    plain, told = real(), real(unanswerable=cells)
    assert plain.cells["a", "rafdb"].marks == plain.extra["mine", "rafdb"].marks == ("short‡",)
    assert told.cells["a", "rafdb"].ours is None
    assert list(told.extra) == [("mine", "ferplus")]
    assert why not in markdown.render(told)
    asked = real(unanswerable=cells, profile="short")
    assert asked.cells["a", "rafdb"].judgement.text == f"blocked ({why})"
    assert why in markdown.render(asked)
    assert asked.cells["a", "ferplus"] == plain.cells["a", "ferplus"]
    left = compared(REAL, unanswerable={(claim.cell, "paper"): why for claim in WITH.extra_claims()})
    assert "run when asked for" not in markdown.render(left)


@pytest.mark.parametrize("format", ["md", "latex", "html"])
def test_every_writer_keeps_them_apart(format: str) -> None:
    render = {"md": markdown.render, "latex": latex.render, "html": html.render}[format]
    rendered = render(real())
    assert unescape(rendered).count(TITLE) == 2  # the heading, and where the numbers come from
    assert "92.54" in rendered
    assert "91.50" in rendered  # the lower end of the interval
    plain = render(compared(REAL + OURS, TABLE))
    assert TITLE not in plain
    assert "exp-mine" not in plain


def test_latex_and_html_are_well_formed() -> None:
    rendered = latex.render(real())
    assert r"\newcommand{\PaperTableOneMineFerplusOurs}{92.54}" in rendered
    assert "MineFerplusPaper" not in rendered
    assert "MineFerplusDelta" not in rendered
    assert rendered.count(r"\begin{") == rendered.count(r"\end{") == 4
    tags = Tags()
    tags.feed(html.render(real()))
    assert tags.open == []


def test_csv_marks_them() -> None:
    found = list(csv_module.DictReader(io.StringIO(csv.render(real()))))
    ours = [row for row in found if row["row"] == "mine"]
    assert [row["marks"] for row in ours] == ["extra; 2 of 3 seeds", "extra; short‡"]
    assert [row["verdict"] for row in ours] == ["extra", "extra"]
    assert [(row["paper"], row["delta"], row["ours"]) for row in ours] == [("", "", "92.5406"), ("", "", "71.7080")]
    assert not any("extra" in row["marks"] for row in found if row not in ours)
    assert len(found) == len(TABLE.claims()) + 2


@pytest.mark.parametrize("format", ["md", "latex", "html", "csv"])
def test_synthetic_ones_say_so_on_every_line(format: str) -> None:
    from test_render import test_every_line_of_a_synthetic_table_says_it as lines_say_it

    comparison = quick()
    assert comparison.extra["mine", "ferplus"].judgement.kind is Kind.SYNTHETIC
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_render.quick", lambda: comparison)
        lines_say_it(format)
    assert "SYNTHETIC 77.50" in markdown.render(comparison)
    assert SYNTHETIC in latex.render(comparison)
    assert r"\PaperTableOneMineFerplusSyntheticOurs}" in latex.render(comparison)


def test_a_table_without_extra_rows_has_no_word_of_them() -> None:
    plain = compared(REAL, TABLE)
    for render in (markdown.render, latex.render, html.render, csv.render):
        assert "extra" not in render(plain)
        assert "does not print" not in render(plain)
