"""The weights of a front, outside the network that is trained: in keys, evaluated checkpoints and figures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers_engine import Server
from helpers_front import execute, kept, manifest, rows_of, specify
from helpers_stages import made, one

import run_all
from bench import declare, job, loop, matrix, plan, queue, store
from bench.data import derived, source
from bench.declare import Declarations
from bench.errors import UserError
from commands import figures

pytest_plugins = ("helpers_engine", "helpers_front")

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_front_is_one_of_the_weights(fronted: Declarations) -> None:
    assert one(fronted, "front-of-file:tiny-4").front == "shade"
    assert one(fronted, "built:tiny-4").front == ""
    experiment = fronted.experiment("front-of-file").model_copy(update={"front": "shades"})
    changed = declare.Declarations([], fronted.protocols.values())
    changed.experiments, changed.recipes = {"front-of-file": experiment}, fronted.recipes
    with pytest.raises(UserError, match="unknown role in front of 'front-of-file' 'shades'") as caught:
        changed._check()
    assert "did you mean shade?" in caught.value.hint


def test_a_profile_that_puts_a_stage_in_the_place_of_the_file_renames_the_front(fronted: Declarations) -> None:
    experiment = fronted.experiment("scaled").model_copy(update={"front": "released"})
    entry = declare.Entry(experiment=experiment, protocol=fronted.protocol("tiny-4"))
    fronts = {profile: matrix.runs_of(fronted, entry, profile, [0])[0].front for profile in declare.PROFILES}
    assert fronts == {"paper": "released", "short": "", "quick": "points"}


def test_a_method_without_the_front_that_is_declared_is_refused(fronted: Declarations) -> None:
    with pytest.raises(UserError, match="front is 'shade', and tinyfronted with these options has none"):
        execute(specify(one(fronted, "front-missing:tiny-4")))


def test_a_stage_can_make_the_front(fronted: Declarations) -> None:
    folder = store.run_folder(made(fronted, "front-of-stage:tiny-4"))
    stage = manifest(folder)["stages"]["points"]
    assert manifest(folder)["front"]["once"] == f"doubling by {stage['sha256']}"


@pytest.mark.parametrize("name", ["front-of-file", "front-of-file-batch", "front-of-stage"])
def test_a_checkpoint_goes_through_the_same_front(fronted: Declarations, name: str) -> None:
    """A trained network evaluated as a file gives the probabilities that its training ended with."""
    run = one(fronted, f"{name}:tiny-4")
    stages = {role: made(fronted, stage.entry.id) for role, stage in run.stages.items()}
    trained = execute(specify(run, stages))
    file = trained / store.NETWORK
    again = matrix.of_checkpoint(run, store.sha256_file(file))
    assert (again.weights, list(again.stages)) == ((run.front,) * (not stages), list(stages))
    spec = specify(again, stages, file)
    assert matrix.find_run(fronted, json.loads(json.dumps(spec))) == again
    found = execute(spec)
    last = store.read_result(trained).history[-1]["test_accuracy"]
    assert store.read_result(found, verify=True).history == [{"epoch": 0.0, "test_accuracy": last}]
    assert manifest(found)["front"] == manifest(trained)["front"]


def test_from_the_command_a_checkpoint_waits_for_the_stage_of_its_front(
    fronted: Declarations, front_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(queue, "subprocess", front_server)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)
    results = ["--results", str(tmp_path / "results")]
    assert run_all.main(["--table", "fronted", *results]) == 0
    assert "done: points:tiny-points" in capsys.readouterr().out
    row = rows_of(tmp_path / "results" / "quick" / "runs.csv")["last"]
    file = tmp_path / "released.safetensors"
    file.write_bytes((store.run_folder(row["run"]) / store.NETWORK).read_bytes())
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "elsewhere"))
    assert run_all.main(["run", "--checkpoint", str(file), "--table", "fronted", *results]) == 0
    out = capsys.readouterr().out
    assert "done: points:tiny-points" in out
    found = rows_of(next((tmp_path / "results" / "quick" / "checkpoints").glob("*/runs.csv")))
    assert list(found) == ["released"]
    assert found["released"]["correct"] == row["correct"]


def test_another_front_is_another_evaluation(fronted: Declarations) -> None:
    run = matrix.of_checkpoint(one(fronted, "front-of-file:tiny-4"), "0" * 64)
    before = run.key("data", {"shade": "a"})
    assert run.key("data", {"shade": "b"}) != before
    plain = matrix.of_checkpoint(one(fronted, "built:tiny-4"), "0" * 64)
    assert (plain.weights, plain.stages, plain.front) == ((), {}, "")


@pytest.mark.parametrize("name", ["front-of-file", "front-of-file-batch", "front-of-stage"])
def test_figures_see_the_images_that_training_saw(fronted: Declarations, name: str) -> None:
    run = one(fronted, f"{name}:tiny-4")
    stages = {role: made(fronted, stage.entry.id) for role, stage in run.stages.items()}
    spec = specify(run, stages)
    execute(spec)
    own = {role: plan.Planned(stage, "cached", stages[role]) for role, stage in run.stages.items()}
    method = figures.trained(plan.Planned(run, "cached", spec["key"], stages=own), "cpu")
    assert method.given.keys() == {run.front}  # type: ignore[attr-defined]
    at = np.array([3, 0, 11])
    seen = figures.faces_of({"A": run}, None, {"A": figures.front_of(method, "cpu")}).inputs("A", at)
    data = source.open_data(run.entry.protocol, None)
    rows = source.splits_of(data.index, run.entry.protocol, 0)["test"]
    assert method.front is not None
    if method.front.once:
        data = derived.prepared(data, run.entry.protocol, np.arange(120), method.front, CPU, store.cache_root())
    stored = torch.from_numpy(np.array(data.pixels[data.rows[rows[at]]]))
    wanted = loop.prepare(stored, run.recipe, front=None if method.front.once else method.front)
    assert torch.equal(seen, wanted)
    assert not torch.equal(seen, figures.faces_of({"A": run}, None).inputs("A", at))
    assert len(kept()) == (1 if method.front.once else 0)


def test_votes_reach_the_method_where_the_recipe_asks_for_them(
    fronted: Declarations, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def votes(index: Any, protocol: declare.Protocol, rows: np.ndarray) -> str:
        asked.append(len(rows))
        return "votes"

    monkeypatch.setitem(sys.modules, "bench.data.votes", SimpleNamespace(training_votes=votes))
    run = one(fronted, "front-batch:tiny-4")
    data = source.open_data(run.entry.protocol, None)
    assert job._votes(run, data, np.arange(70)) is None
    asking = replace(run, recipe={**run.recipe, "votes": True})
    assert job._votes(asking, data, np.arange(70)) == "votes"  # type: ignore[comparison-overlap]
    assert job._votes(matrix.of_checkpoint(asking, "0" * 64), data, np.arange(0)) is None
    assert asked == [70]


def test_the_loop_needs_no_data_frames() -> None:
    """The images' own module is imported by whoever trains; a plan reads none of it."""
    code = "import sys, bench.plan; assert not {'torch', 'bench.data.derived', 'bench.splits'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parent.parent)
