"""Rows of ours beside a paper's: declared and checked, run when they should be, shown apart and never judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_engine import PROTOCOLS, TABLES, forget
from safetensors.numpy import save
from test_render import TABLE

import run_all
from bench import declare, extra, matrix, variants, weights
from bench.declare import Declarations, Table
from bench.errors import UserError
from tables.render.extra import TITLE

pytest_plugins = ("helpers_engine",)

TINY_EXTRA = """
    extra:
      - {id: plain, title: Plain, experiment: tiny-plain, instead_of: ours, run: asked, why: no augmentation}
      - {id: spare, title: Spare, experiment: tiny-plain, experiments: {four: tiny-fails}, instead_of: ours,
         run: fallback, why: no file}
"""
PRINTED = '      - {id: theirs, title: Theirs, cited: "Theirs [1]", cells: {four: "49.00"}}\n'


MINE = {
    "id": "mine", "title": "Mine | 2026", "experiment": "exp-mine", "instead_of": "a",
    "why": "a new method, under the protocol of A_1",
}  # fmt: skip
SHORT = "short: {why: fewer, fields: {epochs: 2}"


def tiny_with(folder: Path, extra_rows: str = TINY_EXTRA, weights: str = "", short: str = "") -> Declarations:
    """The tiny declarations with extra rows in tiny-table1; `weights` are those of experiment tiny.

    Args:
        short: more of what profile short changes.
    """
    assert PRINTED in TABLES
    text = TABLES.replace(PRINTED, PRINTED + extra_rows.lstrip("\n"), 1)
    text = text.replace("options: {width: 6}}", f"options: {{width: 6}}, weights: [{weights}]}}", 1)
    assert SHORT in text
    (folder / "tiny.yaml").write_text(text.replace(SHORT, SHORT + short))
    (folder / "protocols.yaml").write_text(PROTOCOLS)
    return declare.load_from([folder / "tiny.yaml"], [folder / "protocols.yaml"])


# ------------------------------------------------------------------------------------------------------- declarations


def test_a_cell_asks_what_the_printed_one_asks() -> None:
    poster = declare.load()
    claim = poster.claim("poster-table2/ferplus-poster-scratch/fear")
    stood_for = poster.claim("poster-table2/ferplus-poster/fear")
    assert (claim.experiment, claim.instead_of) == ("poster-scratch", "ferplus-poster")
    assert claim.protocol == stood_for.protocol == "ferplus-8@majority"
    assert claim.metric == stood_for.metric == "class_accuracy[fear]"
    assert claim.printed == stood_for.printed
    assert stood_for.differs  # what is odd about the printed number is not odd about ours
    assert claim.differs == ""
    assert stood_for.instead_of == ""


def test_columns_and_experiments_are_chosen(tmp_path: Path) -> None:
    claims = tiny_with(tmp_path).table("tiny-table1").extra_claims()
    assert [(c.cell, c.experiment) for c in claims] == [
        ("tiny-table1/plain/four", "tiny-plain"), ("tiny-table1/spare/four", "tiny-fails"),
    ]  # fmt: skip
    table = {**TABLE.model_dump(), "extra": [{**MINE, "columns": ["ferplus"]}]}
    assert [claim.column for claim in Table.model_validate(table).extra_claims()] == ["ferplus"]


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("instead_of: ours, run: asked", "instead_of: oours, run: asked", ["row in tiny-table1/plain 'oours'", "ours"]),
        ("instead_of: ours, run: asked", "instead_of: theirs, run: asked", ["tiny-table1/plain", "cited row 'theirs'"]),
        ("experiment: tiny-plain, instead_of", "experiment: tiny-plian, instead_of", ["'tiny-plian'", "tiny-plain"]),
        ("{four: tiny-fails}", "{fuor: tiny-fails}", ["column in tiny-table1/spare 'fuor'", "four"]),
        ("why: no augmentation", "why: no augmentation, columns: [half]", ["column in tiny-table1/plain 'half'"]),
        (", why: no augmentation", "", ["extra.0.why", "required"]),
        ("why: no augmentation", "why: ''", ["extra.0.why"]),
        ("id: plain", "id: ours", ["tiny-table1/ours", "same id"]),
        ("id: plain", "id: spare", ["'spare' is given twice"]),
        ("experiment: tiny-plain, instead_of", "instead_of", ["tiny-table1/plain", "no experiment for column 'four'"]),
        ("run: asked", "run: askd", ["extra.0.run", "'fallback' or 'asked'"]),
        ("title: Plain", "titel: Plain", ["titel", "title"]),
    ],
)
def test_a_slip_is_named(tmp_path: Path, right: str, wrong: str, says: list[str]) -> None:
    assert right in TINY_EXTRA
    with pytest.raises(UserError) as caught:
        tiny_with(tmp_path, TINY_EXTRA.replace(right, wrong, 1))
    for part in says:
        assert part in str(caught.value)


def test_they_are_no_printed_numbers() -> None:
    declared = declare.load()
    extras = [claim for table in declared.tables.values() for claim in table.extra_claims()]
    assert len(declared.claims()) == 392
    assert not any(claim.instead_of for claim in declared.claims())
    assert all(claim.instead_of and not claim.cited for claim in extras)
    cells = [claim.cell for claim in [*declared.claims(), *extras]]
    assert len(set(cells)) == len(cells)
    assert all(cell == cell.lower() and not set(cell) & set(" :>[]") for cell in cells)


def test_poster_has_its_rows_without_external_files() -> None:
    declared = declare.load()
    tables = {name: declared.table(f"poster-{name}") for name in ("table1", "table2", "table3", "table4")}
    fallback = {name: [row for row in table.extra if row.run == "fallback"] for name, table in tables.items()}
    assert {name: len(rows) for name, rows in fallback.items()} == {"table1": 2, "table2": 8, "table3": 6, "table4": 6}
    stood_for = {row.instead_of for row in fallback["table4"]}
    assert stood_for == {row.id for row in tables["table4"].rows}
    for table in tables.values():
        for claim in table.extra_claims():
            experiment = declared.experiment(claim.experiment)
            printed = declared.claim(f"{claim.table}/{claim.instead_of}/{claim.column}")
            if "as-printed" not in claim.row:
                assert experiment.recipe == declared.experiment(printed.experiment).recipe, claim.cell
            if claim.row.endswith("-scratch"):
                assert experiment.pretraining == "none"
                assert set(experiment.weights) <= {"mobilefacenet-synthfer"}


@pytest.mark.parametrize("profile", declare.PROFILES)
def test_no_extra_run_shares_a_key(profile: declare.ProfileName) -> None:
    """A profile that shrinks two networks to the same one would leave one of the two rows without its result."""
    declared, keys = declare.load(), {}
    tables = declared.tables_of("poster")
    claims = [c for table in tables for c in table.claims() if c.experiment]
    claims += extra.asked(declared, tables, profile, "all")
    for run in matrix.expand(declared, claims, profile, [0]):
        keys.setdefault(run.key("d" * 16, {}), set()).add(run.identity)
    assert [found for found in keys.values() if len(found) > 1] == []


@pytest.mark.parametrize("profile", declare.PROFILES)
def test_a_landmark_stream_is_never_left_random(profile: declare.ProfileName) -> None:
    """It is frozen. A profile that goes without pretraining has to name the stage that fills it."""
    declared = declare.load()
    claims = [claim for table in declared.tables_of("poster") for claim in table.extra_claims()]
    for run in matrix.expand(declared, claims, profile, [0]):
        assert run.options["streams"] == "image" or run.weights or run.stages, run.name


def test_a_variant_answers_them_too() -> None:
    declared = declare.load()
    (table,) = variants.reported_on(declared, [declared.table("poster-table1")], "leak-free")
    found = {claim.cell: claim for claim in table.extra_claims()}
    assert len(found) == len(declared.table("poster-table1").extra_claims())
    ours = found["poster-table1@leak-free/poster-scratch/ferplus"]
    assert ours.protocol == declared.protocol("ferplus-8@majority").variants["leak-free"]
    assert "--variant leak-free" in ours.differs
    assert (ours.experiment, ours.instead_of) == ("poster-scratch", "poster")
    (without,) = variants.reported_on(declared, [declared.table("fervt-table11")], "leak-free")
    assert without.extra_claims() == []


# -------------------------------------------------------------------------------------------------- which are asked for


def asked(declared: Declarations, profile: declare.ProfileName, mode: extra.Mode) -> list[str]:
    return [claim.row for claim in extra.asked(declared, [declared.table("tiny-table1")], profile, mode)]


def test_fallbacks_run_on_real_data_where_a_file_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = tiny_with(tmp_path, weights="backbone")
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path))
    file = tmp_path / "weights" / "backbone.pth"
    file.parent.mkdir()
    for profile in ("paper", "short"):
        assert asked(declared, profile, "auto") == ["spare"]
        assert asked(declared, profile, "all") == ["plain", "spare"]
        assert asked(declared, profile, "none") == []
    assert asked(declared, "quick", "auto") == []
    assert asked(declared, "quick", "all") == ["plain", "spare"]
    file.write_text("<html>Sign in</html>")  # the printed row is blocked by it
    assert asked(declared, "paper", "auto") == ["spare"]
    file.with_suffix(".safetensors").write_bytes(save({"weight": np.zeros(1, np.float32)}))
    file.unlink()
    assert asked(declared, "paper", "auto") == []
    assert asked(declared, "paper", "all") == ["plain", "spare"]


TWO = """
    extra:
      - {id: near, title: Near, experiment: tiny-near, instead_of: ours, run: fallback, why: one file}
      - {id: spare, title: Spare, experiment: tiny-plain, instead_of: ours, run: fallback, why: no file}
"""
NEAR = (
    "  tiny-near: {method: tinynet, backbone: small, augmentation: none, recipe: tiny, options: {width: 9}, "
    "weights: [%s]}\n"
)


@pytest.mark.parametrize("second", ["second", "second, third"])
def test_of_several_fallbacks_the_first_with_its_files_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    tiny_with(tmp_path, weights="backbone")
    text = (tmp_path / "tiny.yaml").read_text().replace(TINY_EXTRA.lstrip("\n"), TWO.lstrip("\n"))
    (tmp_path / "tiny.yaml").write_text(text.replace("  tiny-plain:", NEAR % second + "  tiny-plain:", 1))
    declared = declare.load_from([tmp_path / "tiny.yaml"], [tmp_path / "protocols.yaml"])
    at_hand: set[str] = set()

    def require(roles: tuple[str, ...]) -> None:
        if set(roles) - at_hand:
            raise UserError("absent")

    monkeypatch.setattr(weights, "require", require)
    assert asked(declared, "paper", "auto") == ["spare"]
    at_hand |= {"second"}
    assert asked(declared, "paper", "auto") == (["near"] if second == "second" else ["spare"])
    assert asked(declared, "paper", "all") == ["near", "spare"]
    assert asked(declared, "quick", "auto") == []
    at_hand |= {"backbone"}
    assert asked(declared, "paper", "auto") == []


def test_where_every_fallback_lacks_a_file_the_last_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = TWO.replace("tiny-near", "tiny").replace("tiny-plain", "tiny")
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path))
    assert asked(tiny_with(tmp_path, two, weights="backbone"), "paper", "auto") == ["spare"]


def test_a_row_that_needs_no_file_has_no_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find", lambda role: None)
    assert asked(tiny_with(tmp_path), "paper", "auto") == []


def test_a_profile_without_a_rows_files_runs_its_fallback_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "require", lambda roles: {})  # every file is at hand
    declared = tiny_with(tmp_path, weights="backbone", short=", without_pretraining: true")
    printed = declared.table("tiny-table1").claims()
    runs = {profile: matrix.expand(declared, printed, profile, [0]) for profile in declare.PROFILES}
    assert {profile: len(found) for profile, found in runs.items()} == {"paper": 1, "short": 0, "quick": 1}
    assert asked(declared, "short", "auto") == ["spare"]
    assert asked(declared, "short", "none") == []
    assert asked(declared, "paper", "auto") == []
    kept = tiny_with(
        tmp_path, weights="backbone", short=", without_pretraining: true, instead: {backbone: backbone}"
    )  # fmt: skip
    assert len(matrix.expand(kept, printed, "short", [0])) == 1
    assert asked(kept, "short", "auto") == []


def test_a_row_whose_option_a_profile_sets_is_left_out(tmp_path: Path) -> None:
    own = TINY_EXTRA.replace("experiment: tiny-plain, instead_of: ours, run: asked", "experiment: tiny-wide, "
                             "instead_of: ours, run: asked")  # fmt: skip
    for short in (", options: {width: 2}", ", fields: {epochs: 2, method.width: 2}"):
        text = TABLES.replace("  tiny-plain:", "  tiny-wide: {method: tinynet, backbone: small, augmentation: none, "
                              "recipe: tiny, options: {width: 9}}\n  tiny-plain:")  # fmt: skip
        text = text.replace(PRINTED, PRINTED + own.lstrip("\n"), 1)
        text = text.replace(SHORT, (SHORT if "options" in short else "short: {why: fewer") + short)
        (tmp_path / "tiny.yaml").write_text(text)
        (tmp_path / "protocols.yaml").write_text(PROTOCOLS)
        declared = declare.load_from([tmp_path / "tiny.yaml"], [tmp_path / "protocols.yaml"])
        assert asked(declared, "paper", "all") == ["plain", "spare"]
        assert asked(declared, "short", "all") == ["spare"]
        assert extra.left_out(declared, declared.table("tiny-table1"), "short") == {
            "profile short sets width for all rows alike": ["Plain"]
        }
        assert len(matrix.expand(declared, declared.table("tiny-table1").claims(), "short", [0])) == 1  # sets it too


def test_a_row_is_left_out_under_profiles_that_it_does_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = tiny_with(tmp_path, TINY_EXTRA.replace("run: asked,", "run: asked, profiles: [paper, short],"))
    assert asked(declared, "paper", "all") == asked(declared, "short", "all") == ["plain", "spare"]
    assert asked(declared, "quick", "all") == ["spare"]
    monkeypatch.setattr(declare, "load", lambda root=None: declared)
    run_all.main(["--table", "tiny-table1", "--extra", "all", "--plan", "--results", str(tmp_path)])
    assert "left out of tiny-table1: Plain (not declared for profile quick)" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"extra\.0\.profiles"):
        tiny_with(tmp_path, TINY_EXTRA.replace("run: asked,", "run: asked, profiles: [papper],"))


def test_poster_under_short_is_its_fallback_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "require", lambda roles: {})
    declared = declare.load()
    tables = declared.tables_of("poster")
    printed = [claim for table in tables for claim in table.claims() if claim.experiment]
    assert matrix.expand(declared, printed, "short", [0]) == []
    assert len(matrix.expand(declared, printed, "paper", [0])) == len(matrix.expand(declared, printed, "quick", [0]))
    stood_for = {
        (claim.table, claim.instead_of, claim.column) for claim in extra.asked(declared, tables, "short", "auto")
    }
    assert stood_for == {(claim.table, claim.row, claim.column) for claim in printed}
    assert extra.asked(declared, tables, "paper", "auto") == []
    rows = {claim.row for claim in extra.asked(declared, [declared.table("poster-table1")], "short", "all")}
    assert not rows & {"poster-small", "poster-base", "poster-as-printed"}
    assert {"poster-onet", "poster-as-printed-scratch"} <= rows
    rows = {claim.row for claim in extra.asked(declared, [declared.table("poster-table1")], "quick", "all")}
    assert not rows & {"poster-small", "poster-base"}
    assert "poster-as-printed" in rows


@pytest.fixture
def door(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """run_all on the tiny declarations with extra rows; gives what a command line prints."""
    tiny_with(tmp_path)
    monkeypatch.syspath_prepend(str(outside))
    monkeypatch.setattr(declare, "table_files", lambda: [tmp_path / "tiny.yaml"])
    monkeypatch.setattr(declare, "protocol_files", lambda: [tmp_path / "protocols.yaml"])
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FERBENCH_DATA", raising=False)
    forget()

    def run(*words: str, status: int = 0) -> str:
        assert run_all.main([*words, "--results", str(tmp_path / "results")]) == status
        return capsys.readouterr().out

    yield run
    forget()


def test_the_plan_has_them_when_asked(door: Any) -> None:
    plan = ("--table", "tiny-table1", "--plan")
    assert "tiny-plain" not in door(*plan)
    assert "not in the paper's" not in door(*plan, "--extra", "none")
    everything = door(*plan, "--extra", "all")
    assert "tiny-plain:tiny-4 seed 0 [quick]" in everything
    assert "tiny-fails:tiny-4 seed 0 [quick]" in everything
    assert "not in the paper's tiny-table1 (--extra none leaves them out): Plain; Spare" in everything
    assert "0 runs" not in everything


def test_the_filters_apply_to_them(door: Any, tmp_path: Path) -> None:
    file, line = tmp_path / "tiny.yaml", "  tiny-plain: {method: tinynet, backbone: "
    file.write_text(file.read_text().replace(f"{line}small", f"{line}large"))
    forget()
    only = door("--table", "tiny-table1", "--plan", "--extra", "all", "--backbone", "large")
    assert "plan: 1 runs" in only
    assert "tiny-plain:tiny-4" in only
    assert "leaves them out): Plain\n" in only


def test_experiments_without_a_table_have_no_extra_rows(door: Any) -> None:
    door("--experiment", "tiny", "--protocol", "tiny-4", "--plan")
    door("--experiment", "tiny", "--protocol", "tiny-4", "--plan", "--extra", "all", status=2)


def test_show_and_list_know_them(door: Any) -> None:
    facts = json.loads(door("show", "tiny-table1/spare/four", "--json", "--profile", "quick"))
    assert facts["claim"]["printed"] == "not printed in the paper; instead of tiny-table1/ours/four (50.00%)"
    assert facts["claim"]["why"] == "no file"
    assert facts["entry"]["id"] == "tiny-fails:tiny-4"
    assert "1 own of 2 numbers + 2 rows" in door("list", "tables")


def test_a_row_that_a_profile_goes_without_says_so(door: Any, tmp_path: Path) -> None:
    tiny_with(tmp_path, weights="backbone", short=", without_pretraining: true")
    forget()
    plan = door("--table", "tiny-table1", "--profile", "short", "--plan", "--extra", "all", status=3)
    assert "tiny:tiny-4" not in plan
    assert "tiny-fails:tiny-4 seed 0 [short]" in plan
    assert "blocked (1 cells): profile short goes without backbone\n    -> see the row 'Spare' below the table" in plan
    facts = json.loads(door("show", "tiny-table1/ours/four", "--json", "--profile", "short"))
    assert (facts["run"]["status"], facts["run"]["why"]) == ("blocked", "profile short goes without backbone")
    assert facts["deviations"][-1] == "profile short: random weights in place of backbone"
    assert facts["entry"]["weights"] == []
    facts = json.loads(door("show", "tiny-plain:tiny-4", "--json", "--profile", "quick"))
    assert facts["deviations"][-1] == "our row, not printed in the paper: no augmentation"
    facts = json.loads(door("show", "tiny:tiny-4", "--json", "--profile", "quick"))
    assert not any("not printed" in line for line in facts["deviations"])


def test_render_lists_them_when_asked(door: Any) -> None:
    words = ("render", "--profile", "quick", "--table", "tiny-table1")
    assert "run when asked for: Plain; Spare (python run_all.py --table tiny-table1 --profile quick --extra all)" in (
        door(*words)
    )
    listed = door(*words, "--extra", "all")
    assert TITLE in listed
    assert "Plain [2]" in listed
    assert "- [2] no augmentation" in listed
    assert "2 printed numbers: 1 not run, 1 cited" in listed
