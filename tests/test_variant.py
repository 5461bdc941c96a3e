"""`--variant`: a table reported on another protocol, said so, in files of its own; and runs that left images out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import Image, write_official
from helpers_engine import PROTOCOLS, TABLES, forget
from test_collect import finished, rows
from test_ran import face, write
from test_render import FERPLUS, REAL, TABLE
from test_render import real as rendered

import run_all
from bench import collect, declare, matrix, variants
from bench.data import ran
from bench.declare import Declarations
from bench.errors import UserError
from bench.statistics import Kind
from tables.render import csv, markdown
from tables.render.compare import Settings, compare
from tables.render.results import Results

pytest_plugins = ("helpers_engine",)
# tiny-4 reported on half of its test images, and in folds; tiny-half has no variant
VARIANTS = {"tiny-4": {"half": "tiny-half", "in-folds": "tiny-folds"}, "tiny-absent": {"half": "tiny-half"}}


@pytest.fixture
def varied(tiny: Declarations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declarations:
    """The tiny declarations with variants, in force in this process."""
    protocols = yaml.safe_load(PROTOCOLS)
    for protocol in protocols["protocols"]:
        protocol["variants"] = VARIANTS.get(protocol["id"], {})
        protocol["title"] = f"Title of {protocol['id']}"
    (tmp_path / "protocols.yaml").write_text(yaml.safe_dump(protocols))
    (tmp_path / "tiny.yaml").write_text(TABLES.replace("{id: ours,", "{id: ours, differs: other faces,", 1))
    monkeypatch.setattr(declare, "table_files", lambda: [tmp_path / "tiny.yaml"])
    monkeypatch.setattr(declare, "protocol_files", lambda: [tmp_path / "protocols.yaml"])
    forget()
    return declare.load()


def test_claims_with_the_variant_are_answered_by_it(varied: Declarations) -> None:
    (table,) = variants.reported_on(varied, [varied.table("tiny-table3")], "half")
    assert table.id == "tiny-table3@half"
    answered = {(claim.row, claim.column): claim for claim in table.claims()}
    plain = {(claim.row, claim.column): claim for claim in varied.table("tiny-table3").claims()}
    assert answered.keys() == plain.keys()
    changed = answered["ours", "four"]
    assert changed.protocol == "tiny-half"
    assert changed.differs == "reported on Title of tiny-half (--variant half)"
    assert changed.cell == "tiny-table3@half/ours/four"
    kept = answered["ours", "half"]  # its protocol has no such variant
    assert kept.model_dump(exclude={"table"}) == plain["ours", "half"].model_dump(exclude={"table"})


def test_cited_numbers_and_other_reasons_stay(varied: Declarations) -> None:
    (table,) = variants.reported_on(varied, [varied.table("tiny-table1")], "half")
    ours, theirs = table.claims()
    assert ours.differs == "reported on Title of tiny-half (--variant half); other faces"
    assert (theirs.protocol, theirs.differs) == ("tiny-4", "")
    assert varied.table("tiny-table1").claims()[0].protocol == "tiny-4"  # the plain table is untouched


def test_a_subset_is_answered_by_the_runs_that_are_there(varied: Declarations) -> None:
    claims = variants.reported_on(varied, [varied.table("tiny-table1")], "half")[0].claims()
    assert [run.entry.id for run in matrix.expand(varied, claims, "paper", [0])] == ["tiny:tiny-4"]
    folds = variants.reported_on(varied, [varied.table("tiny-table1")], "in-folds")[0].claims()
    assert [run.name for run in matrix.expand(varied, folds, "paper", [0])] == [
        f"tiny:tiny-folds seed 0 fold {fold}/3 [paper]" for fold in (1, 2, 3)
    ]


def test_an_unknown_variant_is_named(varied: Declarations) -> None:
    with pytest.raises(UserError, match="unknown variant 'hlaf'") as error:
        variants.reported_on(varied, varied.tables.values(), "hlaf")
    assert "half" in error.value.hint
    tables = [varied.table("tiny-table3")]
    (only_half,) = [t.answering(t.id, [c for c in t.claims() if c.column == "half"]) for t in tables]
    with pytest.raises(UserError, match="no protocol behind tiny-table3 has a variant 'half'"):
        variants.reported_on(varied, [only_half], "half")


def test_run_scores_what_is_there_and_writes_files_of_its_own(
    varied: Declarations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run was made before: nothing is trained, and the plain table is not overwritten."""
    results = tmp_path / "results"
    words = ["--table", "tiny-table1", "--profile", "quick", "--results", str(results)]
    planned = matrix.expand(varied, varied.table("tiny-table1").claims(), "quick", [0])
    from bench import store
    from bench.data import source

    key = planned[0].key(source.open_data(planned[0].entry.protocol, None).hash, {})
    finished(store.run_folder(key), {"test-best": [(2, 15)]})
    assert run_all.main([*words]) == 0
    plain = (results / "quick" / "tables" / "tiny-table1.md").read_bytes()
    capsys.readouterr()
    assert run_all.main([*words, "--variant", "half"]) == 0
    out = capsys.readouterr().out
    assert "1 cached, 0 runnable" in out
    assert "tiny-table1@half" in out
    assert "53.33" in out  # 8 of 15
    assert "reported on Title of tiny-half (--variant half); other faces" in out
    tables = results / "quick" / "tables"
    assert (tables / "tiny-table1.md").read_bytes() == plain
    assert {path.name for path in tables.iterdir()} == {
        f"tiny-table1{variant}.{suffix}" for variant in ("", "@half") for suffix in ("md", "csv", "tex", "html")
    }
    assert run_all.main([*words, "--variant", "hlaf"]) == 2
    assert "did you mean half" in capsys.readouterr().err


def test_show_and_plan_know_variants(varied: Declarations, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--results", str(tmp_path / "results"), "--variant", "in-folds"]
    assert run_all.main(["--table", "tiny-table1", "tiny-table3", "--plan", "--profile", "quick", *place]) == 3
    out = capsys.readouterr().out
    assert "tiny:tiny-folds seed 0 fold 3/3" in out
    assert "tiny:tiny-4" in out  # for the column that has no folds
    assert run_all.main(["show", "tiny-table1/theirs/four", *place]) == 0
    assert "reported on" not in capsys.readouterr().out


def test_what_was_not_run_says_how(varied: Declarations) -> None:
    (table,) = variants.reported_on(varied, [varied.table("tiny-table1")], "half")
    cell = compare(table, Results(pd.DataFrame()), Settings()).cells["ours", "four"]
    assert cell.judgement.kind is Kind.NOT_RUN
    assert cell.judgement.reason == "python run_all.py --table tiny-table1 --variant half --profile paper"


def test_render_scores_kept_runs_on_lists_that_came_later(
    tmp_path: Path, ferplus_images: list[Image], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kept run on FERPlus, RAN's list put into the data root afterwards, and `render`."""
    whole = {"id": "whole", "dataset": "ferplus", "classes": [*("neutral", "happiness", "surprise", "sadness")],
             "rule": "majority", "variants": {"leak-free": "whole-leak-free"}}  # fmt: skip
    turned = {**whole, "id": "turned", "rule": "ran-pose30", "subset_of": "whole", "variants": {}}
    (tmp_path / "protocols.yaml").write_text(yaml.safe_dump({"protocols": [
        whole, turned, {**turned, "id": "whole-leak-free", "rule": "leak-free", "title": "Whole, leak-free"}
    ]}))  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(TABLES.replace("tiny-half", "turned").replace("tiny-4", "whole"))
    monkeypatch.setattr(declare, "table_files", lambda: [tmp_path / "tiny.yaml"])
    monkeypatch.setattr(declare, "protocol_files", lambda: [tmp_path / "protocols.yaml"])
    forget()
    try:
        images = [(split, name, votes, pixels) for split, name, votes, pixels in ferplus_images]
        images[11] = (*images[11][:3], images[0][3])  # a test image that is in train too
        write_official(tmp_path / "data" / "ferplus", images)
        results = tmp_path / "results"
        _kept_run(results, {9: True, 10: False, 11: True})
        words = ["render", "--table", "tiny-table3", "--quiet", "--data-root", str(tmp_path / "data"), "--results"]
        assert run_all.main([*words, str(results)]) == 0
        assert {(row["protocol"], row["n"], row["correct"]) for row in rows(results)} == {
            ("whole", "3", "2"), ("whole-leak-free", "2", "1"),
        }  # fmt: skip
        form = ran.FORMS["ferplus", "pose30"]
        monkeypatch.setattr(ran, "check_published", lambda *given: None)  # a list of two lines passes for RAN's
        write(tmp_path / "data" / "lists", form, [face(form, 9, 1), face(form, 11, 3)])
        assert run_all.main([*words, str(results)]) == 0
        assert ("turned", "2", "2") in {(row["protocol"], row["n"], row["correct"]) for row in rows(results)}
        capsys.readouterr()
        write(tmp_path / "data" / "lists", form, [face(form, 9, 2)])  # now it contradicts the labels
        (results / "runs.csv").write_text("".join(
            line for line in (results / "runs.csv").read_text().splitlines(keepends=True) if "turned" not in line
        ))  # fmt: skip
        assert run_all.main([*words, str(results)]) == 0
        assert "warning: turned is not scored: " in capsys.readouterr().err
        assert {row["protocol"] for row in rows(results)} == {"whole", "whole-leak-free"}
    finally:
        forget()


def _kept_run(results: Path, right: dict[int, bool]) -> None:
    """A real run on the test images of the small FERPlus, in results/ as `collect` leaves it."""
    from bench import store

    folder = finished(results / "runs" / "k1", {"test-best": [(2, 15)]}, synthetic=False, profile="paper",
                      experiment="tiny", protocol="whole")  # fmt: skip
    classes = ("neutral", "happiness", "surprise", "sadness")
    chances = {
        name: [0.9 if (n % 8 == i) == good else 0.0 for n, good in right.items()] for i, name in enumerate(classes)
    }
    frame = pd.DataFrame({"name": [f"fer{n:07d}.png" for n in right], "label": [classes[n % 8] for n in right]})
    path = folder / "predictions-test-best.parquet"
    frame.assign(epoch=2, **{f"p_{name}": values for name, values in chances.items()}).to_parquet(path)
    selected = {"test-best": store.Selected(epochs=(2,), file=path.name, sha256=store.sha256_file(path))}
    result = store.read_result(folder).model_copy(update={"selections": selected})
    store.write_text(folder / "result.json", result.model_dump_json())
    collect.collect([folder], results, Declarations([], declare.load().protocols.values()))


# --- runs that left images out ----------------------------------------------------------------------------------------


def with_skipped(*skipped: Any) -> Results:
    """The results of tests/test_render.py, exp-a's runs on FERPlus with so many images skipped."""
    made = [
        {**row, "skipped": skipped[row["seed"]] if (row["experiment"], row["protocol"]) == ("exp-a", FERPLUS) else ""}
        for row in REAL
    ]
    return Results(pd.DataFrame(made))


def test_a_run_that_skipped_images_is_not_compared_silently() -> None:
    comparison = compare(TABLE, with_skipped(0, 2, 2), Settings(seeds=3))
    cell = comparison.cells["a", "ferplus"]
    assert cell.judgement.kind is Kind.DIFFERENT
    assert cell.marks[0] == "†protocol"
    assert cell.claim.differs == "2 images skipped (--skip-bad): not the benchmark"
    assert "- [2] 2 images skipped (--skip-bad): not the benchmark" in markdown.render(comparison)
    assert "2 images skipped" in csv.render(comparison)


def test_reasons_add_up_and_runs_of_earlier_versions_skipped_nothing() -> None:
    made = [{**row, "skipped": 1} for row in REAL]
    cells = compare(TABLE, Results(pd.DataFrame(made)), Settings(seeds=3)).cells
    assert cells["a", "ckplus"].claim.differs == (
        "the paper tests on 91 images; 1 image skipped (--skip-bad): not the benchmark"
    )
    assert cells["a", "rafdb"].marks == ("†protocol", "short‡")
    assert compare(TABLE, with_skipped("", "", ""), Settings(seeds=3)).cells["a", "ferplus"].marks == ()
    assert rendered().cells["a", "ferplus"].marks == ()
