"""Parameter counts in tables: without data, kept in one file, counted again where the network changed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from helpers_engine import forget

import run_all
from bench import declare, parameters, store

pytest_plugins = ("helpers_engine",)

TABLE = """
  - id: tiny-counts
    title: Parameters
    where: Table 0
    unit: M
    columns:
      - {id: head, title: head, protocol: tiny-absent, metric: "parameters_millions[head]"}
      - {id: body, title: body, protocol: tiny-absent, metric: "parameters_millions[body]"}
    rows:
      - {id: small, title: Small, experiment: tiny-plain, cells: {head: "0.000260", body: "0.000120"}}
"""
PARTS = "lambda self: {'head': sum(p.numel() for p in self.net[6].parameters()), 'body': 120}"
HEADS = {"tiny-plain": 16 * 4 * 4 + 4}  # of width 4, which the recipe says


@pytest.fixture
def counted(tiny: Any, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tiny declarations with a table of parameter counts, and the method that can count."""
    (tmp_path / "tiny.yaml").write_text((outside / "tiny.yaml").read_text() + TABLE)
    monkeypatch.setattr(declare, "table_files", lambda: [tmp_path / "tiny.yaml"])
    forget()
    from tinyfer import model

    monkeypatch.setattr(model.TinyNet, "parameter_parts", eval(PARTS))
    return declare.load()


def rows(results: Path) -> list[dict[str, str]]:
    return store.read_rows(results / "parameters.csv")


def rewrite(results: Path, **changes: str) -> None:
    """The file as an earlier version left it."""
    changed = [row | changes for row in rows(results)]
    with (results / "parameters.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, parameters.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(changed)


def table(results: Path, *words: str) -> int:
    return run_all.main(["--table", "tiny-counts", "--results", str(results), *words])


@pytest.mark.parametrize("profile", ["paper", "short", "quick"])
def test_every_profile_counts_the_papers_network_into_one_file(
    counted: Any, profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert table(results, "--profile", profile) == 0, "the data set is nowhere, and is not needed"
    out = capsys.readouterr().out
    assert "parameters to count (no data, no training): tiny-plain" in out
    assert "0.000260 / 0.000260 (0.000000) reproduced" in out
    assert "2 printed numbers: 2 reproduced" in out
    found = {row["part"]: row for row in rows(results)}
    assert {part: int(row["parameters"]) for part, row in found.items()} == {"head": HEADS["tiny-plain"], "body": 120}
    about = found["head"]
    assert [about[name] for name in parameters.NETWORK] == ["tinynet", "1", "small", '{"width": 4}']
    assert about["commit"]
    before = (results / "parameters.csv").read_bytes()
    assert table(results, "--profile", profile) == 0
    assert "to count" not in capsys.readouterr().out
    assert (results / "parameters.csv").read_bytes() == before
    assert run_all.main(["render", "--table", "tiny-counts", "--results", str(results)]) == 0
    assert "2 printed numbers: 2 reproduced" in capsys.readouterr().out


def test_a_plan_counts_nothing(counted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert table(tmp_path, "--plan") == 0
    assert "to count (no data, no training): tiny-plain" in capsys.readouterr().out
    assert not rows(tmp_path)
    assert run_all.main(["render", "--table", "tiny-counts", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "2 printed numbers: 2 not run" in out
    assert "python run_all.py --table tiny-counts" in out


@pytest.mark.parametrize("changes", [{"version": "0"}, {"options": '{"width": 5}'}, {"backbone": "large"}])
def test_counts_of_another_network_are_not_used(
    counted: Any, changes: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table(tmp_path) == 0
    rewrite(tmp_path, parameters="1", **changes)
    capsys.readouterr()
    assert run_all.main(["render", "--table", "tiny-counts", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    ((name, value),) = changes.items()
    assert f"tiny-plain was counted with {name} {value} (now " in shown.err
    assert "`python run_all.py --table tiny-counts` counts again" in shown.err
    assert "2 not run" in shown.out
    assert table(tmp_path) == 0
    assert "2 reproduced" in capsys.readouterr().out
    assert [row["parameters"] for row in rows(tmp_path)] == ["260", "120"]


def test_what_was_written_by_hand_is_counted_again(
    counted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table(tmp_path) == 0
    before = (tmp_path / "parameters.csv").read_bytes()
    rewrite(tmp_path, parameters="1")
    capsys.readouterr()
    assert table(tmp_path) == 0
    shown = capsys.readouterr()
    assert "parameters.csv: the rows of tiny-plain are not what its network has: counted again" in shown.err
    assert "2 reproduced" in shown.out
    assert [row["parameters"] for row in rows(tmp_path)] == ["260", "120"]
    (tmp_path / "parameters.csv").write_bytes(before)
    assert table(tmp_path) == 0
    assert "counted again" not in capsys.readouterr().err
    assert (tmp_path / "parameters.csv").read_bytes() == before


def test_other_counts_stay_and_force_counts_again(counted: Any, tmp_path: Path) -> None:
    assert table(tmp_path) == 0
    other = {**rows(tmp_path)[0], "experiment": "tiny"}
    with (tmp_path / "parameters.csv").open("a", newline="") as stream:
        csv.DictWriter(stream, parameters.COLUMNS, lineterminator="\n").writerow(other)
    first = rows(tmp_path)[0]["finished"]
    assert table(tmp_path, "--force") == 0
    again = rows(tmp_path)
    assert again[0] == other
    assert [row["experiment"] for row in again] == ["tiny", "tiny-plain", "tiny-plain"]
    assert again[1]["finished"] > first


def test_a_method_that_counts_no_parts_is_named(
    counted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tinyfer import model

    monkeypatch.delattr(model.TinyNet, "parameter_parts")
    assert table(tmp_path) == 1
    shown = capsys.readouterr()
    assert "not counted: tiny-plain: method 'tinynet' does not say which part" in shown.err
    assert "2 printed numbers: 2 not run" in shown.out


def test_table_1_of_pfvit_is_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["--table", "pfvit-table1", "--results", str(tmp_path)]) == 0
    assert "6 printed numbers: 6 reproduced" in capsys.readouterr().out
    found = {(row["experiment"], row["part"]): int(row["parameters"]) for row in rows(tmp_path)}
    assert found == {
        ("mae-vit-t", "encoder"): 5_338_368, ("mae-vit-t", "decoder"): 1_586_176,
        ("mae-vit-s", "encoder"): 21_293_568, ("mae-vit-s", "decoder"): 6_318_080,
        ("mae-vit-b", "encoder"): 85_054_464, ("mae-vit-b", "decoder"): 25_219_072,
    }  # fmt: skip


def test_the_committed_counts_are_of_todays_networks() -> None:
    declared, results = declare.load(), declare.ROOT / "results"
    claims = declared.table("pfvit-table1").claims()
    assert parameters.outdated(declared, results, parameters.asked(claims)) == []
    assert len(parameters.known(declared, results)) == len(claims) == 6
