"""Tables: what is decided for a cell, and how each writer prints it. The small table below has every case in it."""

from __future__ import annotations

import csv as csv_module
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import declare
from bench.declare import Table
from bench.errors import UserError
from bench.metrics import confusion_csv
from bench.statistics import Kind
from tables.render import confusion, csv, html, latex, markdown, summary
from tables.render.compare import SYNTHETIC, Comparison, Settings, compare
from tables.render.results import Results, read_confusion
from tables.render.text import provenance
from tables.render.write import text, write

FERPLUS, RAFDB, CKPLUS = "ferplus-8@majority", "raf-db-7", "ckplus-7"
STAND_INS = {FERPLUS: "synth-ferplus-8", RAFDB: "synth-rafdb-7"}

TABLE = Table.model_validate(
    {
        "id": "paper-table1",
        "title": "Ablation",
        "where": "Table 1, p. 3",
        "compare": "test-best",
        "compare_why": "its code reports the best epoch",
        "columns": [
            {"id": "ckplus", "title": "CK+", "protocol": CKPLUS, "differs": "the paper tests on 91 images"},
            {"id": "ferplus", "title": "FER+", "protocol": FERPLUS},
            {"id": "rafdb", "title": "RAF-DB", "protocol": RAFDB},
        ],
        "rows": [
            {"id": "scn", "title": "SCN [32]", "cited": "SCN, CVPR 2020", "cells": {"ferplus": "89.35"}},
            {"id": "a", "title": "A_1 | 5%", "experiment": "exp-a",
             "cells": {"ckplus": "95.60", "ferplus": "86.74", "rafdb": "76.8"}},
            {"id": "b", "title": "A + B", "experiment": "exp-b", "cells": {"ferplus": "89.05", "rafdb": "84.31"}},
        ],
    }
)  # fmt: skip


def rows(
    experiment: str,
    protocol: str,
    n: int,
    correct: list[int],
    profile: str = "paper",
    seed: int = 0,
    folds: bool = False,
):  # type: ignore[no-untyped-def]
    """Rows of runs.csv, one per seed (or per fold of `seed`), for test-best; `last` has 9 fewer right."""
    made = []
    for i, k in enumerate(correct):
        place = {"seed": seed, "fold": i} if folds else {"seed": i, "fold": 0}
        run = f"{experiment}-{protocol}-{profile}-{place['seed']}-{place['fold']}"
        for selection, right in (("test-best", k), ("last", k - 9)):
            made.append(
                {"run": run, "experiment": experiment, "protocol": protocol, "profile": profile, "selection": selection,
                 "n": n, "correct": right, "accuracy": right / n, **place, "data_hash": "d4ta", "commit": "c0de",
                 "device": "cpu", "finished": f"2026-01-0{i + 1}T10:00:00"}
            )  # fmt: skip
    return made


REAL = [
    *rows("exp-a", FERPLUS, 3137, [2700, 2712, 2690]),
    *rows("exp-b", FERPLUS, 3137, [2701, 2712]),
    *rows("exp-a", RAFDB, 3068, [2300], "short"),
    *rows("exp-a", CKPLUS, 327, [300, 305, 307]),
]
QUICK = rows("exp-a", "synth-ferplus-8", 400, [200, 210], "quick")
BLOCKED = {("exp-b", RAFDB): "no RAF-DB under the data root: run_all.py data how-to-get raf-db"}


def real(table: Table = TABLE, **settings: object) -> Comparison:
    return compare(table, Results(pd.DataFrame(REAL)), Settings(**{"seeds": 3, "blocked": BLOCKED, **settings}))  # type: ignore[arg-type]


def quick() -> Comparison:
    results = Results(pd.DataFrame(REAL + QUICK))
    return compare(TABLE, results, Settings(seeds=2, profiles=("quick",), stand_ins=STAND_INS))


def test_every_case_of_the_table_gets_its_verdict() -> None:
    cells = real().cells
    assert {place: cell.judgement.label for place, cell in cells.items()} == {
        ("scn", "ferplus"): "cited",
        ("a", "ckplus"): "different protocol",
        ("a", "ferplus"): "reproduced",
        ("a", "rafdb"): "not compared (shortened recipe)",
        ("b", "ferplus"): "partial (2 of 3 seeds)",
        ("b", "rafdb"): "blocked",
    }
    a = cells["a", "ferplus"]
    assert a.ours == pytest.approx(100 * (2700 + 2712 + 2690) / 3 / 3137)
    assert (a.n, a.seeds, a.wanted) == (3137, 3, 3)
    assert a.selections == {"test-best": a.ours, "last": pytest.approx(100 * 8075 / 3 / 3137)}
    assert cells["a", "rafdb"].marks == ("short‡",)
    assert cells["a", "ckplus"].marks == ("†protocol",)
    assert cells["scn", "ferplus"].ours is None
    assert cells["b", "rafdb"].judgement.reason == BLOCKED["exp-b", RAFDB]


def test_another_selection_can_be_compared() -> None:
    cell = real(selection="last").cells["a", "ferplus"]
    assert cell.ours == pytest.approx(100 * 8075 / 3 / 3137)
    missing = real(selection="val-best").cells["a", "ferplus"].judgement
    assert missing.text == "blocked (its runs kept no val-best; render with --selection last)"
    with pytest.raises(UserError, match="unknown selection 'best'"):
        Settings(selection="best")


def test_the_paper_profile_comes_before_the_short_one() -> None:
    results = Results(pd.DataFrame([*REAL, *rows("exp-a", RAFDB, 3068, [2356] * 3)]))
    cell = compare(TABLE, results, Settings(seeds=3)).cells["a", "rafdb"]
    assert (cell.profile, cell.judgement.kind) == ("paper", Kind.REPRODUCED)


def test_synthetic_results_never_mix_with_real_ones() -> None:
    with pytest.raises(UserError, match="quick"):
        Settings(profiles=("paper", "quick"))
    cell = quick().cells["a", "ferplus"]
    assert (cell.judgement.kind, cell.ours, cell.judgement.delta) == (Kind.SYNTHETIC, pytest.approx(51.25), None)
    assert quick().cells["a", "rafdb"].judgement.kind is Kind.NOT_RUN  # and not the real result there is
    assert real().cells["a", "ferplus"].n == 3137  # and the other way round


def test_folds_of_a_seed_are_pooled_before_the_mean_over_seeds() -> None:
    made = [
        *rows("exp-a", FERPLUS, 100, [90, 80], seed=0, folds=True),
        *rows("exp-a", FERPLUS, 300, [240, 270], seed=1, folds=True),
        *rows("exp-a", FERPLUS, 100, [10], seed=2, folds=True),  # unfinished: one of two folds
    ]
    cell = compare(TABLE, Results(pd.DataFrame(made)), Settings(seeds=3, folds={FERPLUS: 2})).cells["a", "ferplus"]
    assert cell.ours == pytest.approx(100 * (170 / 200 + 510 / 600) / 2)
    assert (cell.n, cell.seeds, cell.judgement.label) == (200, 2, "partial (2 of 3 seeds)")
    alone = compare(TABLE, Results(pd.DataFrame(made[-2:])), Settings(seeds=1, folds={FERPLUS: 2})).cells[
        "a", "ferplus"
    ]
    assert alone.judgement.label == "partial (1 of 2 folds)"


def class_table() -> Table:
    columns = [
        {"id": "mean", "title": "mean", "metric": "mean_class_accuracy"},
        {"id": "fear", "title": "fear", "metric": "class_accuracy[fear]"},
        {"id": "as-happy", "title": "as happiness", "metric": "prediction_share", "predicted": "happiness"},
    ]
    row = {"id": "a", "title": "A", "experiment": "exp-a", "protocol": FERPLUS, "truth": "fear"}
    printed = {"mean": "70.0", "fear": "50", "as-happy": "25"}
    return Table.model_validate(
        {"id": "t", "title": "T", "where": "Table 2", "columns": columns, "rows": [{**row, "cells": printed}]}
    )


def class_results(folder: Path) -> Results:
    matrices = {0: np.array([[80, 20], [5, 15]]), 1: np.array([[90, 10], [9, 11]])}
    runs = rows("exp-a", FERPLUS, 120, [95, 101])
    per_class = []
    for row in runs:
        matrix = matrices[row["seed"]]
        (folder / f"{row['run']}-{row['selection']}.csv").write_text(confusion_csv(["happiness", "fear"], matrix))
        for i, name in enumerate(("happiness", "fear")):
            base = {"run": row["run"], "selection": row["selection"], "class": name}
            per_class.append({**base, "protocol": FERPLUS, "n": matrix[i].sum(), "correct": matrix[i, i]})
            # the same run scored on a subset: other counts, which must not be taken
            per_class.append({**base, "protocol": "subset", "n": 1, "correct": 0})
    return Results(pd.DataFrame(runs), pd.DataFrame(per_class), folder)


def test_class_metrics_come_from_class_counts(tmp_path: Path) -> None:
    cells = compare(class_table(), class_results(tmp_path), Settings(seeds=2)).cells
    assert cells["a", "mean"].ours == pytest.approx(100 * ((0.8 + 0.75) / 2 + (0.9 + 0.55) / 2) / 2)
    assert cells["a", "fear"].ours == pytest.approx(65)
    assert cells["a", "as-happy"].ours == pytest.approx(35)
    assert cells["a", "fear"].n == 20
    assert cells["a", "as-happy"].judgement.kind is Kind.REPRODUCED  # 20 images tell little


def test_a_damaged_confusion_file_is_named(tmp_path: Path) -> None:
    results = class_results(tmp_path)
    for path in tmp_path.iterdir():
        path.write_text(path.read_text().replace("fear,5,15", "fear,5,x"))
    with pytest.raises(UserError, match=r"test-best\.csv, row 3: 2 counts expected"):
        compare(class_table(), results, Settings())


def test_parameter_counts_come_from_a_mapping() -> None:
    row = {"id": "vit-t", "title": "ViT-T", "experiment": "exp-a", "protocol": FERPLUS, "cells": {"encoder": "5.34"}}
    column = {"id": "encoder", "title": "#params", "metric": "parameters_millions[encoder]"}
    table = Table.model_validate(
        {"id": "t", "title": "T", "where": "x", "unit": "M", "columns": [column], "rows": [row]}
    )
    counted = compare(table, Results(pd.DataFrame(REAL)), Settings(parameters={("exp-a", "encoder"): 5.338}))
    assert counted.cells["vit-t", "encoder"].judgement.kind is Kind.REPRODUCED
    assert "5.34 / 5.34 (0.00) reproduced" in markdown.render(counted)
    assert "counted, not trained" in markdown.render(counted)
    unknown = compare(table, Results(pd.DataFrame(REAL)), Settings())
    assert unknown.cells["vit-t", "encoder"].judgement.kind is Kind.BLOCKED


def test_rows_a_paired_test_cannot_tell_from_the_best_are_marked() -> None:
    right = {"exp-a": range(100), "exp-b": range(2, 98), "exp-c": range(60)}
    made = [row for name, ids in right.items() for row in rows(name, FERPLUS, 110, [len(ids)])]
    table = Table.model_validate(
        {"id": "t", "title": "T", "where": "x", "columns": [{"id": "c", "title": "C", "protocol": FERPLUS}],
         "rows": [{"id": n, "title": n, "experiment": n, "cells": {"c": "90.00"}} for n in right]}
    )  # fmt: skip

    def correct(run: str, selection: str) -> dict[str, bool]:
        return {str(i): i in right[run[:5]] for i in range(110)}

    cells = compare(table, Results(pd.DataFrame(made)), Settings(correct=correct)).cells
    assert {row for (row, _), cell in cells.items() if "≈" in cell.marks} == {"exp-a", "exp-b"}
    assert "≈" not in markdown.render(real())
    subset = compare(
        table, Results(pd.DataFrame(made)), Settings(correct=lambda r, s: dict(list(correct(r, s).items())[:50]))
    )
    assert not any(cell.marks for cell in subset.cells.values())  # answers for another set of images


GOLDEN = """\
## paper-table1: Ablation (Table 1, p. 3)

Each cell: paper / ours, mean ±sd over seeds (ours − paper) verdict; percent; selection compared: test-best.

|           | CK+                                       | FER+                                               |
|-----------|-------------------------------------------|----------------------------------------------------|
| SCN [32]  |                                           | 89.35 cited                                        |
| A_1 \\| 5% | 95.60 / 92.97 ±1.10 (−2.63) †protocol [1] | 86.74 / 86.09 ±0.35 (−0.65) reproduced             |
| A + B     |                                           | 89.05 / 86.28 ±0.25 (−2.77) partial (2 of 3 seeds) |

|           | RAF-DB              |
|-----------|---------------------|
| A_1 \\| 5% | 76.8 / 74.97 short‡ |
| A + B     | 84.31 blocked [2]   |
"""


def test_markdown_keeps_the_papers_layout() -> None:
    rendered = markdown.render(real())
    assert rendered.startswith(GOLDEN)
    assert "| a/ferplus | 86.74   | 86.09 ±0.35 | 84.53–87.59     | −0.65 | 3137 | 3 of 3  | reproduced" in rendered
    assert "- [1] the paper tests on 91 images" in rendered
    assert "- [2] no RAF-DB under the data root" in rendered
    assert "- short‡: " in rendered
    for line in (
        "data: d4ta",
        "commit: c0de",
        "device: cpu",
        "made: 2026-01-01 to 2026-01-03",
        "seeds: 0 1 2 (3 asked",
    ):
        assert f"- {line}" in rendered
    assert "**" not in rendered
    assert max(len(line) for line in rendered.splitlines()) <= 120


def test_deviations_are_counted_where_they_are_known() -> None:
    known = {("exp-a", FERPLUS): 3, ("exp-b", FERPLUS): 1, ("exp-b", RAFDB): 50}
    assert "recipe: 4 deviations from the paper in 2 entries" in markdown.render(real(deviations=known))


def test_runs_of_one_cell_on_different_networks_are_told() -> None:
    """A stage that is trained again keeps its key, so that only the file's hash tells."""
    made_on = {f"exp-a-{FERPLUS}-paper-{seed}-0": {"points": sha * 64} for seed, sha in enumerate("aab")}
    made_on |= {f"exp-a-{CKPLUS}-paper-{seed}-0": {"points": "c" * 64} for seed in range(3)}
    comparison = real(networks=lambda run: made_on.get(run, {}))
    (warning,) = [line for line in provenance(comparison) if "WARNING" in line]
    assert warning == (
        "WARNING: runs of a/ferplus were built on different points networks: aaaaaaaa (seed 0 1), bbbbbbbb (seed 2)"
    )
    for format in ("md", "latex", "html"):
        assert "built on different points networks" in text(comparison, format)
    assert "WARNING" not in text(real(), "md")


def test_without_results_the_footer_says_so() -> None:
    empty = compare(TABLE, Results(pd.DataFrame()), Settings(blocked=BLOCKED))
    assert "results: none yet" in markdown.render(empty)
    assert "python run_all.py --table paper-table1 --profile paper" in markdown.render(empty)


@pytest.mark.parametrize("format", ["md", "latex", "html", "csv"])
def test_every_line_of_a_synthetic_table_says_it(format: str) -> None:
    rendered = text(quick(), format)
    if format == "html":
        pieces = re.findall(r"<(?:tr|li|p|h1)>.*?</(?:tr|li|p|h1)>", rendered)
    elif format == "csv":
        pieces = rendered.splitlines()[1:]
    else:
        pieces = [line for line in rendered.splitlines() if line.strip(" |-")]
    assert len(pieces) > 5
    assert [piece for piece in pieces if SYNTHETIC not in piece] == []
    assert SYNTHETIC not in text(real(), format)


def test_csv_has_one_row_per_printed_number() -> None:
    found = list(csv_module.DictReader(io.StringIO(csv.render(real(), quick()))))
    assert len(found) == 12
    assert [found[2][c] for c in ("paper", "ours", "verdict", "seeds", "last")] == [
        "86.74",
        "86.0907",
        "reproduced",
        "3",
        "85.8038",
    ]
    assert [row["synthetic"] for row in found] == [""] * 6 + [SYNTHETIC] * 6
    assert found[0]["ours"] == ""


def test_latex_escapes_and_names_every_number() -> None:
    rendered = latex.render(real())
    assert r"A\_1 \textbar{} 5\% & 95.60 / 92.97 $\pm$1.10 ($-$2.63)" in rendered
    assert r"SCN {[}32]" in rendered
    assert r"\newcommand{\PaperTableOneAFerplusOurs}{86.09}" in rendered
    assert r"\newcommand{\PaperTableOneAFerplusDelta}{$-$0.65}" in rendered
    assert rendered.count(r"\begin{") == rendered.count(r"\end{") == 2
    assert rendered.count("{") - rendered.count(r"\{") == rendered.count("}") - rendered.count(r"\}")
    assert r"\PaperTableOneAFerplusSyntheticOurs}" in latex.render(quick())
    assert "FerplusOurs" not in latex.render(quick())


@given(st.text(max_size=40))
def test_latex_text_cannot_end_its_cell(value: str) -> None:
    escaped = latex.escape(value)
    bare = re.sub(r"\\[{}$&#%_]|\\text\w+\{\}|\\\w+|\{\[\}", "", escaped)
    assert not re.search(r"(?<!\\)[&%#_{}~^]", bare)
    assert "\n" not in escaped


@given(st.text(max_size=40))
def test_markdown_text_cannot_end_its_cell(value: str) -> None:
    escaped = markdown.escape(value)
    assert not re.search(r"(?<!\\)(?:\\\\)*\|", escaped)
    assert "\n" not in escaped
    assert "\r" not in escaped


class Tags(HTMLParser):
    """Names of the start tags; every tag closes the one opened last."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        self.open += [tag] if tag != "meta" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_one_well_formed_page_that_opens_offline() -> None:
    row = {"id": "x", "title": "<script>alert(1)</script>", "experiment": "exp-a", "cells": {"ferplus": "86.74"}}
    table = Table.model_validate({**TABLE.model_dump(), "rows": [row]})
    rendered = html.render(real(table))
    tags = Tags()
    tags.feed(rendered)
    assert tags.open == []
    assert "script" not in tags.seen
    assert "&lt;script&gt;" in rendered
    assert not re.search(r"(src|href)=|https?:|@import|url\(", rendered)


def test_writing_makes_one_file_per_format(tmp_path: Path) -> None:
    names = sorted(path.name for path in write(real(), tmp_path))
    assert names == ["paper-table1.csv", "paper-table1.html", "paper-table1.md", "paper-table1.tex"]
    assert (tmp_path / "paper-table1.md").read_text() == markdown.render(real())
    with pytest.raises(UserError, match="unknown format 'tex'"):
        text(real(), "tex")


def test_summary_counts_verdicts() -> None:
    assert summary.line([real()]) == (
        "6 printed numbers: 1 reproduced, 1 different protocol, 1 partial, 1 blocked, 1 not compared, 1 cited"
    )
    assert SYNTHETIC in summary.line([real(), quick()])


def test_confusion_is_drawn_and_read_back(tmp_path: Path) -> None:
    classes, matrix = ["happiness", "fear"], np.array([[8, 2], [0, 0]])
    path = tmp_path / "run-last.csv"
    path.write_text(confusion_csv(classes, matrix))
    assert read_confusion(path)[0] == classes
    np.testing.assert_array_equal(read_confusion(path)[1], matrix)
    picture = confusion.draw(path, "entry, n 10", synthetic=True)
    assert picture == tmp_path / "run-last.png"
    assert picture.read_bytes() == confusion.png(classes, matrix, "entry, n 10", True)
    assert picture.read_bytes() != confusion.png(classes, matrix, "entry, n 10", False)  # the word is in the picture


def test_every_declared_table_renders_in_every_format() -> None:
    macros: list[str] = []
    for table in declare.load().tables.values():
        empty = compare(table, Results(pd.DataFrame()), Settings())
        assert len(empty.cells) == len(table.claims())
        rendered = {format: text(empty, format) for format in ("md", "latex", "html", "csv")}
        assert all(table.id in value for value in rendered.values())
        macros += re.findall(r"\\newcommand{\\(.*?)}{", rendered["latex"])
    assert len(macros) == len(set(macros)) == len(declare.load().claims())
    assert all(name.isalpha() and name.isascii() for name in macros)
