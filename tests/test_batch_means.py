"""`show` of a table whose authors average the accuracies of test batches: the runs' accuracies in that way too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers_engine import TABLES, forget
from test_collect import finished

import run_all
from bench import collect, declare, store
from bench.declare import Declarations

pytest_plugins = ("helpers_engine",)


def averaging(tables: str) -> str:
    """The tables with every column a mean over batches of eight."""
    found, columns = re.subn(r"(protocol: tiny-(4|half))\}", r"\1, batch_mean: 8}", tables)
    assert columns == 4
    return found


@pytest.fixture
def averaged(tiny: Declarations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declarations:
    """The tiny tables, whose authors average batches of eight, with a finished run: the first 20 of 30 right."""
    (tmp_path / "tiny.yaml").write_text(averaging(TABLES))
    monkeypatch.setattr(declare, "table_files", lambda: [tmp_path / "tiny.yaml"])
    forget()
    run = finished(store.run_folder("a1"), {"last": [(3, 12)], "test-best": [(2, 20)]})
    collect.collect([run], tmp_path / "results" / "quick", declare.load())
    return declare.load()


def shown(cell: str, results: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run_all.main(["show", cell, "--json", "--profile", "quick", "--results", str(results)]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def test_the_compared_accuracy_is_shown_as_the_authors_average(
    averaged: Declarations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = shown("tiny-table1/ours/four", tmp_path / "results", capsys)["batch means"]
    # batches of 8, 8, 8 and 6 images with 8, 8, 4 and 0 right; at best the last one is all right: 14 / 8 and 6 / 6
    assert line == (
        "seed 0, test-best: 62.50 as the authors' code averages (batches of 8, the last of 6); 62.50 to 68.75 with the "
        "same number of right answers in another order; 66.67 as correct / n"
    )
    assert run_all.main(["show", "tiny-table1/ours/four", "--profile", "quick", "--results", str(tmp_path)]) == 0
    assert "batch means\n  none" in capsys.readouterr().out  # no run there


def test_a_subset_and_a_quoted_number_have_none(
    averaged: Declarations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = shown("tiny-table3/ours/half", tmp_path / "results", capsys)
    assert facts["protocol"]["id"] == "tiny-half"
    assert facts["batch means"] == []
    assert "batch means" not in shown("tiny-table1/theirs/four", tmp_path / "results", capsys)


def test_only_columns_that_say_so_have_them(
    tiny: Declarations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "batch means" not in shown("tiny-table1/ours/four", tmp_path, capsys)


def test_the_neural_resizers_are_those_on_ferplus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Batches of 64 in every table; RAF-DB's 88.57 follows from no known number of images, so none is shown there."""
    tables = declare.load().tables_of("nresizer")
    assert len(tables) == 4
    found: dict[str, set[int]] = {claim.protocol: set() for table in tables for claim in table.claims()}
    for table in tables:
        sizes = {column.id: column.batch_mean for column in table.columns}
        for claim in table.claims():
            found[claim.protocol].add(sizes[claim.column])
    assert found == {"ferplus-8@majority": {64}, "raf-db-7": {0}}
    assert shown("nresizer-table2/e/ferplus", tmp_path, capsys)["batch means"] == []  # no run there, but a place for it
    assert "batch means" not in shown("nresizer-table4/ours/raf-db", tmp_path, capsys)
    others = [table for table in declare.load().tables.values() if table.paper != "nresizer"]
    assert not any(column.batch_mean for table in others for column in table.columns)
