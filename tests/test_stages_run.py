"""Runs built on other runs' networks: killed, damaged, failed, shared; and weights that were trained elsewhere."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers_engine import Server, write_spec
from helpers_stages import made, one, read

import run_all
from bench import collect, declare, job, matrix, plan, queue, store
from bench.data import source
from bench.declare import Declarations
from bench.errors import UserError

pytest_plugins = ("helpers_engine", "helpers_stages")


def stage_spec(declared: Declarations, folder: Path, profile: declare.ProfileName = "quick") -> Path:
    run = one(declared, "points:tiny-points", profile)
    key = run.key(source.open_data(run.entry.protocol, None).hash, {})
    return write_spec(folder, matrix.specification(run, key, None, "cpu", 0.0))


def dependent(declared: Declarations, **stages: str) -> tuple[dict[str, Any], Path]:
    """Specification and folder of `built`, its stage given by key."""
    run = one(declared, "built:tiny-4")
    key = run.key(source.open_data(run.entry.protocol, None).hash, {}, stages)
    folder = store.run_folder(key)
    folder.mkdir(parents=True, exist_ok=True)
    return matrix.specification(run, key, None, "cpu", 1e9, stages=stages), folder


def test_a_network_that_is_not_there_is_refused(staged: Declarations) -> None:
    spec, folder = dependent(staged, points="0123456789abcdef")
    with pytest.raises(UserError, match=r"stage points \(points:tiny-points\) is not finished"):
        job.execute(spec, folder)
    stage = store.run_folder(made(staged, "points:tiny-points"))
    spec, folder = dependent(staged, points=stage.name)
    (stage / "result.json").rename(stage / "result.superseded.json")  # trained again at this moment
    with pytest.raises(UserError, match="is not finished"):
        job.execute(spec, folder)


def test_a_damaged_network_is_refused_set_aside_and_trained_again(
    staged: Declarations, stage_server: Server, tmp_path: Path
) -> None:
    stage = store.run_folder(made(staged, "points:tiny-points"))
    network = stage / "model.safetensors"
    whole = network.read_bytes()
    network.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    spec, folder = dependent(staged, points=stage.name)
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        job.execute(spec, folder)
    (wrong,) = store.set_aside_damaged(stage.name, tmp_path, network=True)
    assert str(network) in wrong
    found = plan.plan([one(staged, "built:tiny-4")], None, tmp_path)
    assert [p.status for p in found] == ["runnable", "runnable"]
    assert stage_server.start(stage_spec(staged, tmp_path), tmp_path / "log").wait() == 0
    # not the same bytes: the other process may use another number of threads
    assert store.sha256_file(network) == store.read_result(stage).network_sha256
    job.execute(spec, folder)


# ------------------------------------------------------------------------------------------------- kill and continue


def test_a_killed_stage_ends_with_the_same_network(
    staged: Declarations, stage_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stage_spec(staged, tmp_path, "paper")  # two epochs of four steps
    assert stage_server.start(path, tmp_path / "log").wait() == 0
    key = json.loads(path.read_text())["key"]
    whole = store.run_folder(key)
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "other"))
    read(staged, "tiny-points")
    for moment in ("update:2", "predict:1", "predict:2", "update:3", "fsync:2"):
        killed = stage_server.start(path, tmp_path / "log", TINYFER_KILL=f"{moment}:SIGKILL")
        assert killed.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
        assert store.find_network(key) is None
    assert stage_server.start(path, tmp_path / "log").wait() == 0, (tmp_path / "log").read_text()
    again = store.run_folder(key)
    assert again != whole
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert store.read_result(again).history == store.read_result(whole).history


def test_a_stage_whose_network_was_deleted_is_trained_again(
    staged: Declarations, stage_server: Server, tmp_path: Path
) -> None:
    stage = store.run_folder(made(staged, "points:tiny-points"))
    (stage / "model.safetensors").unlink()
    assert stage_server.start(stage_spec(staged, tmp_path), tmp_path / "log").wait() == 0
    assert store.find_network(stage.name) == stage


# ------------------------------------------------------------------------------------------ from the command to the end


@pytest.fixture
def run_all_py(staged: Any, stage_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """run_all.py on the declarations with stages; jobs are forked from the server."""
    monkeypatch.setattr(queue, "subprocess", stage_server)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)
    return lambda *words: run_all.main([*words, "--results", str(tmp_path / "results")])


def test_two_runs_share_one_stage(
    run_all_py: Any, staged: Declarations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all_py("--table", "both", "--plan") == 0
    out = capsys.readouterr().out
    assert "3 runs, 1 of them for other runs to build on: 0 cached, 3 runnable" in out
    lines = [line.split() for line in out.splitlines() if "seed 0" in line]
    assert [line[:2] for line in lines] == [
        ["stage", "points:tiny-points"], ["runnable", "built:tiny-4"], ["runnable", "built-too:tiny-4"],
    ]  # fmt: skip
    assert run_all_py("--table", "both", "--jobs", "2") == 0
    done = [line for line in capsys.readouterr().out.splitlines() if line.startswith("done:")]
    assert "points:tiny-points" in done[0]
    assert len(done) == 3
    rows = collect.read_rows(tmp_path / "results" / "quick" / "runs.csv")
    assert {row["experiment"] for row in rows} == {"built", "built-too"}
    assert run_all_py("--table", "both", "--plan") == 0
    assert "2 runs: 2 cached" in capsys.readouterr().out
    assert run_all_py("--table", "both", "--force") == 0
    assert "running 2 on" in capsys.readouterr().out


def test_a_failed_stage_fails_what_waits_for_it_and_nothing_else(
    run_all_py: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all_py("--table", "failing") == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("FAILED: built-on-failing")]
    assert "(not run): stage failing:tiny-points seed 0 [quick] failed: RuntimeError: tinynet was told to fail" in line
    assert "done: plain:tiny-4" in out
    rows = collect.read_rows(tmp_path / "results" / "quick" / "runs.csv")
    assert {row["experiment"] for row in rows} == {"plain"}


def test_a_damaged_network_is_said_and_made_again(
    run_all_py: Any, staged: Declarations, capsys: pytest.CaptureFixture[str]
) -> None:
    network = store.run_folder(made(staged, "points:tiny-points")) / "model.safetensors"
    network.write_bytes(b"cut off")
    assert run_all_py("--table", "both") == 0
    said = capsys.readouterr()
    assert f"warning: {network}: damaged" in said.err
    assert "done: points:tiny-points" in said.out


def test_show_names_the_stages(run_all_py: Any, staged: Declarations, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all_py("show", "built:tiny-4", "--profile", "quick") == 0
    assert "points:tiny-points [quick]  not made yet" in capsys.readouterr().out
    key = made(staged, "points:tiny-points")
    assert run_all_py("show", "built:tiny-4", "--profile", "quick", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["stages"] == {"points": {"entry": "points:tiny-points", "profile": "quick", "key": key}}
    assert run_all_py("show", "plain:tiny-4", "--profile", "quick", "--json") == 0
    assert "stages" not in json.loads(capsys.readouterr().out)


def test_a_stage_can_be_asked_for_itself(
    run_all_py: Any, staged: Declarations, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--experiment", "points", "chained", "--protocol", "tiny-points")
    assert run_all_py(*words) == 0
    out = capsys.readouterr().out
    assert "2 cached" not in out
    folder = store.run_folder(made(staged, "points:tiny-points"))
    assert f"network: {folder / 'model.safetensors'}" in out
    assert "test_error" in out
    assert run_all_py(*words, "--plan") == 0
    assert "2 runs: 2 cached" in capsys.readouterr().out


def test_two_queues_at_once_train_a_stage_once(
    staged: Declarations, stage_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "subprocess", stage_server)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("TINYFER_SLEEP", "0.03")
    lock, ask = threading.Lock(), stage_server.ask

    def in_turn(request: dict[str, Any]) -> Any:
        with lock:
            return ask(request)

    monkeypatch.setattr(stage_server, "ask", in_turn)
    read(staged, "tiny-4", "tiny-points")
    outcomes: dict[str, list[queue.Outcome]] = {}

    def train(entry: str) -> None:
        tasks = []
        for p in plan.plan([one(staged, entry)], None, tmp_path):
            stages = {role: stage.key for role, stage in p.stages.items()}
            spec = matrix.specification(p.run, p.key, None, "cpu", 60.0, stages=stages)
            tasks.append(queue.Task(p.key, p.run.name, spec, tuple(stages.values())))
        outcomes[entry] = queue.Local().run(tasks)

    threads = [threading.Thread(target=train, args=(entry,)) for entry in ("built:tiny-4", "built-too:tiny-4")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {name: [o.status for o in found] for name, found in outcomes.items()} == {
        "built:tiny-4": ["done", "done"], "built-too:tiny-4": ["done", "done"],
    }  # fmt: skip
    made_from = {
        json.loads((store.run_folder(found[-1].task.key) / "manifest.json").read_text())["stages"]["points"]["sha256"]
        for found in outcomes.values()
    }
    assert made_from == {store.sha256_file(store.run_folder(made(staged, "points:tiny-points")) / "model.safetensors")}


# -------------------------------------------------------------------------------------- weights trained elsewhere


def released(declared: Declarations, file: Path, entry: str = "built:tiny-4") -> tuple[matrix.Run, dict[str, Any]]:
    run = matrix.of_checkpoint(one(declared, entry), store.sha256_file(file))
    key = run.key(source.open_data(run.entry.protocol, None).hash, {})
    return run, json.loads(json.dumps(matrix.specification(run, key, None, "cpu", 1e9, checkpoint=file)))


def test_a_checkpoint_is_evaluated_as_it_is(staged: Declarations, tmp_path: Path) -> None:
    import pandas as pd

    trained = store.run_folder(made(staged, "built:tiny-4"))
    run, spec = released(staged, trained / "model.safetensors")
    assert (run.weights, run.stages) == ((), {})
    assert spec["key"] != trained.name
    folder = store.run_folder(spec["key"])
    folder.mkdir(parents=True)
    (found,) = plan.plan([run], None, tmp_path)
    assert (found.status, found.key) == ("runnable", spec["key"])
    job.execute(spec, folder)
    result = store.read_result(folder, verify=True)
    assert (list(result.selections), result.selections["released"].epochs) == (["released"], (0,))
    assert result.checkpoint == store.sha256_file(trained / "model.safetensors")
    last, as_is = (pd.read_parquet(f / f"predictions-{s}.parquet").drop(columns="epoch")
                   for f, s in ((trained, "last"), (folder, "released")))  # fmt: skip
    pd.testing.assert_frame_equal(as_is, last)
    assert result.history == [{"epoch": 0, "test_accuracy": store.read_result(trained).history[-1]["test_accuracy"]}]
    assert result.images_per_second > 0
    assert not list(folder.glob("checkpoint-*"))
    assert collect.collect([folder], tmp_path / "results", staged) == []
    row = next(row for row in collect.read_rows(tmp_path / "results" / "runs.csv") if row["protocol"] == "tiny-4")
    assert (row["selection"], row["epoch"]) == ("released", "0")


def test_a_checkpoint_that_changed_or_does_not_fit_is_refused(staged: Declarations, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(store.run_folder(made(staged, "built:tiny-4")) / "model.safetensors")
    file = tmp_path / "released.safetensors"
    save_file(state, file)
    _, spec = released(staged, file)
    save_file({name: value + 1 for name, value in state.items()}, file)
    with pytest.raises(UserError, match="changed after planning"):
        job.execute(spec, tmp_path)
    save_file({name: value for name, value in state.items() if "bias" not in name}, file)
    _, spec = released(staged, file)
    with pytest.raises(UserError, match=r"[Mm]issing key"):
        job.execute(spec, tmp_path)


def test_a_checkpoint_evaluation_reports_and_can_be_stopped(
    staged: Declarations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import loop

    monkeypatch.setattr(loop, "EVALUATION_BATCH", 12)
    monkeypatch.setattr(job, "PROGRESS_SECONDS", 0)
    trained = store.run_folder(made(staged, "built:tiny-4"))
    _, spec = released(staged, trained / "model.safetensors")
    asked = iter([False, False, True])  # before the first batch, after it, after the second
    with pytest.raises(loop.Interrupted):
        job.execute(spec, tmp_path, lambda: next(asked))
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert (progress["epoch"], progress["epochs"], progress["step"], progress["steps"]) == (0, 1, 12, 30)
    assert not (tmp_path / "result.json").exists()
