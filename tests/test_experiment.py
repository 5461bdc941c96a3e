"""`run --experiment`: chosen experiments on own and declared protocols, from the command line to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers_engine import Server, forget
from helpers_own import folders

import run_all
from bench import collect, queue

pytest_plugins = ("helpers_engine",)


@pytest.fixture
def own(tiny: Any, job_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs experiments of the tiny declarations on a folder of one's own."""
    monkeypatch.setattr(queue, "subprocess", job_server)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)
    counts = {f"{split}/{name}": n for split, n in (("train", 8), ("val", 3), ("test", 5)) for name in ("joy", "bored")}
    folders(
        tmp_path / "data" / "x", counts, "id: mine\nlabels: {joy: happiness, bored: bored}\npreprocessing: own-64\n"
    )
    folders(tmp_path / "data" / "y", {"joy": 9, "sad": 9}, "id: folds\nsplit: {folds: 3}\npreprocessing: own-64\n")
    forget()

    def run(*words: str) -> int:
        return run_all.main([*words, "--data-root", str(tmp_path / "data"), "--results", str(tmp_path / "results")])

    return run


def test_experiments_on_own_data_are_run_reported_and_cached(
    own: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--experiment", "tiny", "tiny-plain", "--protocol", "own/mine", "--profile", "short")
    assert own(*words) == 0
    out = capsys.readouterr().out
    assert "2 runnable" in out
    assert "## tiny on own/mine, profile short, val-best, 1 seed" in out
    assert "test images           10" in out
    assert "95 % interval" in out
    assert "macro-F1" in out
    assert "bored" in out
    assert "test-best" in out
    assert "(chosen on the test images)" in out
    assert "tiny (val-best) and tiny-plain (val-best) on own/mine" in out
    assert "p = " in out
    rows = collect.read_rows(tmp_path / "results" / "runs.csv")
    assert {row["experiment"] for row in rows} == {"tiny", "tiny-plain"}
    assert {row["protocol"] for row in rows} == {"own/mine", "own/mine-leak-free"}
    assert {row["class"] for row in collect.read_rows(tmp_path / "results" / "per_class.csv")} == {"happiness", "bored"}
    shown = out[out.index("##") :]
    for line in shown.splitlines():
        if "confusion matrix: " in line:
            table = Path(line.split(": ")[1].split(" and ")[0])
            assert table.is_file()
            assert table.with_suffix(".png").is_file()
    assert own(*words) == 0
    again = capsys.readouterr().out
    assert "2 cached, 0 runnable" in again
    assert again[again.index("##") :] == shown


def test_folds_of_own_data_are_pooled(own: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--experiment", "tiny", "--protocol", "own/folds", "--profile", "short", "--selection", "last")
    assert own(*words) == 0
    out = capsys.readouterr().out
    assert "3 runs" in out
    assert "## tiny on own/folds, profile short, last, 1 seed\n" in out
    assert "test images           18" in out


def test_the_leak_free_part_is_scored_on_the_same_run(
    own: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data" / "x"
    names = sorted((root / "test" / "joy").iterdir())
    names[0].write_bytes(next((root / "train" / "bored").iterdir()).read_bytes())
    words = ("--experiment", "tiny", "tiny-plain", "--protocol", "own/mine", "own/mine-leak-free", "--profile", "short")
    assert own(*words) == 0
    out = capsys.readouterr().out
    assert "2 runnable" in out
    assert "## tiny on own/mine, profile short" in out
    part = out[out.index("## tiny on own/mine-leak-free, profile short") :]
    assert "test images           9\n" in part
    assert "(of own/mine, all test images)" in part
    assert "on 9 images" in part[part.index("tiny-plain (val-best) on own/mine-leak-free:") :]


def test_experiments_run_on_declared_protocols_too(
    own: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own("--experiment", "tiny", "--protocol", "tiny-absent", "tiny-half", "--profile", "quick") == 0
    out = capsys.readouterr().out
    assert "1 runnable" in out  # the stand-in of one is the parent of the other
    assert "## tiny on tiny-4, profile quick, val-best, 1 seed · SYNTHETIC" in out
    assert "## tiny on tiny-half, profile quick, val-best, 1 seed · SYNTHETIC" in out
    assert "test images           15" in out
    assert not (tmp_path / "results" / "runs.csv").exists()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--protocol", "own/mine", "--profile", "short", "--plan"], 0, "runnable  tiny:own/mine seed 0 [short]"),
        ([], 2, "--experiment needs --protocol\n  -> here are own/mine, own/folds, own/mine-leak-free"),
        (["--protocol", "own/mien"], 2, "did you mean own/mine"),
        (["--protocol", "own/mine", "--profile", "quick"], 2, "--profile short or paper"),
        (["--protocol", "own/mine", "--table", "tiny-table1"], 2, "runs without a table"),
        (["--protocol", "own/mine", "--method", "tinynet"], 2, "--method is for tables"),
        (["--protocol", "own/mine", "--format", "csv"], 2, "--format is for tables"),
        (["--protocol", "tiny-absent", "--profile", "short", "--plan"], 3, "no adapter for dataset 'nowhere'"),
    ],
)
def test_what_is_asked_is_answered(
    own: Any, capsys: pytest.CaptureFixture[str], words: list[str], status: int, says: str
) -> None:
    assert own("--experiment", "tiny", *words) == status
    said = capsys.readouterr()
    assert says in said.out + said.err


def test_an_unknown_experiment_has_a_nearest(own: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert own("--experiment", "tinny", "--protocol", "own/mine") == 2
    assert "did you mean tiny" in capsys.readouterr().err


def test_an_entry_on_own_data_is_shown_and_listed(own: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "data")
    assert run_all.main(["show", "tiny:own/mine", "--profile", "short", "--data-root", root]) == 0
    assert '["happiness", "bored"]' in capsys.readouterr().out
    assert run_all.main(["list", "datasets", "--data-root", root]) == 0
    assert "own/mine" in capsys.readouterr().out
