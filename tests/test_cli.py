"""The door: exit statuses, near matches, what is imported, and a table from nothing to its end."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import write_official
from helpers_engine import ROOT, Server, house, predictions, quiet_environment, specify, write_spec

import run_all
from bench import collect, queue, store

pytest_plugins = ("helpers_engine",)


def door(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """run_all.py in a process of its own."""
    command = [sys.executable, "run_all.py", *words]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet_environment(**environment)
    )


def modules_after(*words: str, **environment: str) -> set[str]:
    code = (
        "import sys, contextlib, io, run_all\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    status = run_all.main({list(words)!r})\n"
        "assert status in (0, 3), status\n"
        "print(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=quiet_environment(**environment),
    )
    return set(done.stdout.split())


HEAVY = {"torch", "torchvision", "timm", "pandas", "matplotlib", "pyarrow", "scipy"}


def test_list_imports_nothing_heavy() -> None:
    assert not (HEAVY | {"numpy"}) & modules_after("list")


def test_list_with_a_data_root_imports_nothing_heavy(ferplus_images: Any, tmp_path: Path) -> None:
    write_official(tmp_path / "data" / "ferplus", ferplus_images)
    assert not HEAVY & modules_after("list", FERBENCH_DATA=str(tmp_path / "data"))


def test_planning_everything_imports_nothing_heavy() -> None:
    assert not HEAVY & modules_after("--all", "--plan")


# ------------------------------------------------------------------------------------------ in this process, no runs


def test_claims_as_csv(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["claims", "--csv"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") == 393
    assert text.startswith("table,row,column,metric,value,cited,entry\n")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert all(bool(row["entry"]) != (row["cited"] == "1") for row in rows)
    assert len({(row["table"], row["row"], row["column"]) for row in rows}) == 392


def test_everything_planned_is_3_and_names_what_is_blocked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_all.main(["--all", "--plan", "--profile", "paper", "--results", str(tmp_path)]) == 3
    out = capsys.readouterr().out
    assert "blocked (" in out
    assert "no data root" in out
    assert "set FERBENCH_DATA or --data-root" in out
    assert "-> " in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--table", "fervt-tabel11"], ["unknown table 'fervt-tabel11'", "did you mean fervt-table11"]),
        (["--paper", "fervtt"], ["unknown paper 'fervtt'", "fervt"]),
        (["--table", "fervt-table11", "--method", "fervtt"], ["unknown method 'fervtt'", "fervt"]),
        (["--table", "fervt-table11", "--dataset", "ferpluss"], ["unknown dataset 'ferpluss'", "ferplus"]),
        (["--table", "fervt-table11", "--data-root", "/nowhere/at/all"], ["/nowhere/at/all", "not a folder"]),
        (["show", "fervt-table11/resnet/ferpluss"], ["unknown cell", "fervt-table11/"]),
        (["show", "nonsense"], ["neither a cell nor an entry"]),
        (["claims", "--table", "poster-tabel1"], ["did you mean poster-table1"]),
        (["run"], ["nothing asked for", "--table"]),
        (["lst"], ["unknown command 'lst'", "did you mean list"]),
        (["fervt-table11"], ["unknown command", "--table fervt-table11"]),
    ],
)
def test_a_wrong_name_is_2_with_the_nearest(
    capsys: pytest.CaptureFixture[str], words: list[str], says: list[str], tmp_path: Path
) -> None:
    assert run_all.main(words) == 2
    err = capsys.readouterr().err
    for part in says:
        assert part in err


@pytest.mark.parametrize(
    "words",
    [["--tabel", "x"], ["--table", "x", "--profile", "fast"], ["--jobs", "many"], ["--jobs", "0"], ["--seeds", "-1"]],
)
def test_a_wrong_word_is_2(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_all.main(words)
    assert caught.value.code == 2
    assert "run_all.py" in capsys.readouterr().err


def test_a_filter_that_leaves_nothing_is_2(tiny: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--table", "tiny-table1", "--protocol", "tiny-folds", "--plan", "--results", str(tmp_path)]
    assert run_all.main(words) == 2
    assert "no run of these tables passes" in capsys.readouterr().err


def test_no_word_is_2_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main([]) == 2
    assert "--table fervt-table11" in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(run_all.COMMANDS))
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run_all.main([command, "--help"])
    assert caught.value.code == 0
    assert run_all.COMMANDS[command] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", [["claims", "--csv"], ["list", "datasets"], ["claims"]])
def test_a_reader_that_leaves_is_no_error(words: list[str]) -> None:
    """As under `| head -1`: long output fails while printing, short output when Python ends."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "run_all.py", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 0
    assert err == ""


def test_keep_going_is_a_word(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--table", "fervt-table11", "--plan", "--keep-going", "--results", str(tmp_path)]
    assert run_all.main(words) in (0, 3)


# --------------------------------------------------------------------------------------- runs, on the tiny data set


@pytest.fixture
def table(tiny: Any, job_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs tables of the tiny declarations; jobs are forked from the server."""
    monkeypatch.setattr(queue, "subprocess", job_server)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)

    def run(*words: str) -> int:
        return run_all.main([*words, "--results", str(tmp_path / "results")])

    return run


def cached_folder(tiny: Any) -> Path:
    return store.run_folder(specify(tiny)["key"])


def test_a_table_from_nothing_then_from_the_cache(
    table: Any, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table("--table", "tiny-table1") == 0
    first = capsys.readouterr().out
    assert "1 runnable" in first
    assert "SYNTHETIC" in first
    assert "done: tiny:tiny-4 seed 0 [quick]" in first
    assert "Ours" in first
    rows = collect.read_rows(tmp_path / "results" / "quick" / "runs.csv")
    assert {row["selection"] for row in rows} == set(store.TRAINED_SELECTIONS)
    finished = (cached_folder(tiny) / "result.json").stat().st_mtime_ns
    assert table("--table", "tiny-table1") == 0
    again = capsys.readouterr().out
    assert "1 cached, 0 runnable" in again
    assert "running" not in again
    assert (cached_folder(tiny) / "result.json").stat().st_mtime_ns == finished


def test_a_failure_is_1_and_the_rest_is_done(
    table: Any, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table("--table", "tiny-table2") == 1
    out = capsys.readouterr().out
    assert "FAILED: tiny-fails:tiny-4" in out
    assert "RuntimeError: tinynet was told to fail (traceback: " in out
    assert {row["experiment"] for row in collect.read_rows(tmp_path / "results" / "quick" / "runs.csv")} == {"tiny"}


def test_something_blocked_is_3_and_the_rest_is_done(
    table: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table("--table", "tiny-table3") == 3
    out = capsys.readouterr().out
    assert "method 'nowherenet' is not built" in out
    found = collect.read_rows(tmp_path / "results" / "quick" / "runs.csv")
    assert {row["protocol"] for row in found} == {"tiny-4", "tiny-half"}


@pytest.mark.parametrize("scored", [True, False], ids=["scored", "not-yet-scored"])
def test_a_damaged_run_is_set_aside_said_and_made_again(
    table: Any, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], scored: bool
) -> None:
    assert table("--table", "tiny-table1") == 0
    results = tmp_path / "results" / "quick"
    folder, before = cached_folder(tiny), collect.read_rows(results / "runs.csv")
    file = folder / "predictions-last.parquet"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"X")
    if not scored:
        for name in ("runs.csv", "per_class.csv"):
            (results / name).unlink()
    capsys.readouterr()
    assert table("--table", "tiny-table1") == 0
    said = capsys.readouterr()
    assert str(file) in said.err
    assert "damaged" in said.err
    assert "set aside" in said.err
    assert "1 runnable" in said.out
    assert file.read_bytes() == good
    numbers = ("selection", "protocol", "correct", "accuracy", "epoch", "run")
    after = collect.read_rows(results / "runs.csv")
    assert [[row[n] for n in numbers] for row in after] == [[row[n] for n in numbers] for row in before]


def test_force_makes_the_run_again_and_its_row_anew(table: Any, tiny: Any, tmp_path: Path) -> None:
    assert table("--table", "tiny-table1") == 0
    path = cached_folder(tiny) / "result.json"
    first = json.loads(path.read_text())
    assert table("--table", "tiny-table1", "--force") == 0
    again = json.loads(path.read_text())
    assert again["selections"] == first["selections"]  # on a CPU, to the bit
    (seconds,) = {row["seconds"] for row in collect.read_rows(tmp_path / "results" / "quick" / "runs.csv")}
    assert float(seconds) == again["seconds"]


def test_control_c_is_130_and_the_next_call_goes_on(
    table: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYFER_SLEEP", "0.05")

    def report(self: Any, running: list[Any], finished: int, total: int) -> None:
        if running and running[0][1].get("step"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("commands.progress.Progress.update", report)
        assert table("--table", "tiny-table1") == 130
    assert "continues from the last checkpoint" in capsys.readouterr().err
    folder = cached_folder(tiny)
    assert any(folder.glob("checkpoint-*"))
    assert not (folder / "result.json").exists()
    assert table("--table", "tiny-table1") == 0


def test_the_whole_way_in_real_processes(tiny: Any, job_server: Server, outside: Path, tmp_path: Path) -> None:
    """`python run_all.py --table`: queue, a real `python -m bench.job`, collecting, rendering."""
    home = house(tmp_path / "house", outside)
    environment = quiet_environment(PYTHONPATH=str(outside), FERBENCH_CACHE=str(tmp_path / "real"))
    done = subprocess.run(
        [sys.executable, "run_all.py", "--table", "tiny-table1"], cwd=home, capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    text = (home / "results" / "quick" / "tables" / "tiny-table1.md").read_text()
    assert "ynthetic" in text
    assert "SYNTHETIC" in done.stdout
    assert "Ours" in done.stdout
    (folder,) = (tmp_path / "real" / "runs").iterdir()
    # the same run, interrupted in another kind of process, has the same predictions
    path = write_spec(tmp_path, specify(tiny))
    assert job_server.start(path, tmp_path / "log", TINYFER_KILL="update:7:SIGKILL").wait() < 0
    assert job_server.start(path, tmp_path / "log").wait() == 0
    assert predictions(store.run_folder(folder.name)) == predictions(folder)


def test_show_a_cell_as_json(tiny: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["show", "tiny-table1/ours/four", "--json", "--profile", "quick", "--results", str(tmp_path)]
    assert run_all.main(words) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["claim"]["printed"] == "50.00%"
    assert facts["entry"]["id"] == "tiny:tiny-4"
    assert facts["protocol"]["counts"] == {"train": 70, "val": 20, "test": 30}
    assert facts["recipe"]["fields"]["learning_rate"] == {"value": 0.01, "source": "paper", "why": "1"}
    assert facts["size"]["parameters"] == facts["size"]["trainable"] > 0
    assert facts["run"]["status"] == "runnable"
    assert run_all.main(["show", "tiny-table1/theirs/four", "--results", str(tmp_path)]) == 0
    assert "Theirs [1]" in capsys.readouterr().out


def test_doctor_tells_what_is_here(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "tinynet" in out
    assert os.environ["FERBENCH_CACHE"] in out


def test_the_door_itself_exits_with_the_status() -> None:
    done = door("--table", "fervt-tabel11")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown table 'fervt-tabel11'\n  -> did you mean fervt-table1")
    assert done.stdout == ""
