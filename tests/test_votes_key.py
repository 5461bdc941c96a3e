"""Runs that learn from raters' votes: the votes are part of their key, and data without votes blocks them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers_engine import forget

import run_all
from bench import declare, job, matrix, plan, store
from bench.data import source
from bench.errors import UserError
from commands.run import prepare_data

pytest_plugins = ("helpers_engine",)

PROTOCOL = declare.Protocol(id="two", dataset="somewhere", classes=("happiness", "fear"))
EXPERIMENT = "  tiny-votes: {method: tinynet, backbone: small, augmentation: none, recipe: voted}\n"
VOTED = "      votes: {value: true, source: paper, at: '1'}\n"


def frame(**votes: list[int]) -> pd.DataFrame:
    """Four images, two of them for training, with columns of votes."""
    columns = {f"votes_{name}": counts for name, counts in votes.items()}
    return pd.DataFrame({"name": list("abcd"), "label": "fear", "split": ["train", "train", "val", "test"], **columns})


# ----------------------------------------------------------------------------------------------------------------- hash
def test_the_hash_is_over_votes_for_the_classes_on_training_images_by_name() -> None:
    index = frame(happiness=[1, 2, 3, 4], fear=[9, 8, 7, 6])
    found = source.votes_hash(index, PROTOCOL)
    assert len(found) == 16
    assert source.votes_hash(index.sample(frac=1, random_state=1), PROTOCOL) == found
    assert source.votes_hash(index.astype({"votes_fear": "int16"}), PROTOCOL) == found
    assert source.votes_hash(frame(happiness=[1, 2, 0, 0], fear=[9, 8, 0, 0]), PROTOCOL) == found, "not on test images"
    assert source.votes_hash(index.assign(votes_NF=3), PROTOCOL) == found, "not for other classes"
    others = {
        source.votes_hash(frame(happiness=[1, 3, 3, 4], fear=[9, 8, 7, 6]), PROTOCOL),
        source.votes_hash(frame(happiness=[2, 1, 3, 4], fear=[8, 9, 7, 6]), PROTOCOL),
        source.votes_hash(frame(happiness=[9, 8, 7, 6], fear=[1, 2, 3, 4]), PROTOCOL),
        source.votes_hash(index, PROTOCOL.model_copy(update={"folds": 2})),
    }
    assert len(others | {found}) == 5


def test_without_votes_for_every_class_there_is_no_hash() -> None:
    assert source.votes_hash(frame(), PROTOCOL) == ""
    assert source.votes_hash(frame(fear=[1, 2, 3, 4]), PROTOCOL) == ""
    assert source.votes_hash(frame(fear=[1, 2, 3, 4]), PROTOCOL.model_copy(update={"classes": ()})) == ""


# ------------------------------------------------------------------------------------------------------------------ key
@pytest.fixture
def voted(tiny: Any, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tiny declarations with an experiment that reads votes."""
    text = (outside / "tiny.yaml").read_text()
    recipe = text[text.index("  tiny:\n    fields:") : text.index("experiments:\n")].replace("  tiny:", "  voted:", 1)
    recipe = recipe.replace("    fields:\n", f"    fields:\n{VOTED}", 1)
    (tmp_path / "voted.yaml").write_text(text.replace("experiments:\n", f"{recipe}experiments:\n{EXPERIMENT}"))
    monkeypatch.setattr(declare, "table_files", lambda: [tmp_path / "voted.yaml"])
    forget()
    return declare.load()


@pytest.fixture
def counts(voted: Any, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Votes (120, 4) that the tiny dataset gets, which has none otherwise; changed in place."""
    found = np.tile([6, 2, 1, 1], (120, 1))
    adapter = source.locate(voted.protocol("tiny-4"), None).__class__
    plain = adapter.index

    def index(self: Any, protocol: declare.Protocol) -> pd.DataFrame:
        columns = {f"votes_{name}": found[:, k] for k, name in enumerate(protocol.classes)}
        return plain(self, protocol).assign(**columns)

    monkeypatch.setattr(adapter, "index", index)
    return found


def runs(declared: Any, *experiments: str) -> list[matrix.Run]:
    entries = [declared.entry(f"{name}:tiny-4") for name in experiments]
    return [run for entry in entries for run in matrix.runs_of(declared, entry, "quick", [0])]


def read(declared: Any) -> source.Data:
    return source.open_data(declared.protocol("tiny-4"), None)


def planned(declared: Any, tmp_path: Path, *experiments: str) -> list[plan.Planned]:
    return plan.plan(runs(declared, *experiments), None, tmp_path / "results")


def test_other_votes_are_another_run_only_where_votes_are_read(voted: Any, counts: np.ndarray, tmp_path: Path) -> None:
    before, data = planned(voted, tmp_path, "tiny", "tiny-votes"), read(voted)
    assert [p.key for p in before] == ["", ""], "nothing has been read"
    first = planned(voted, tmp_path, "tiny", "tiny-votes")
    expected = [run.key(part, {}) for run, part in zip(
        runs(voted, "tiny", "tiny-votes"), (data.hash, f"{data.hash}+{data.votes_hash}"), strict=True
    )]  # fmt: skip
    assert [p.key for p in first] == expected
    counts[0] = [1, 9, 0, 0]
    assert read(voted).hash == data.hash, "labels and images are the same"
    second = planned(voted, tmp_path, "tiny", "tiny-votes")
    assert second[0].key == first[0].key
    assert second[1].key != first[1].key
    assert {p.status for p in second} == {"runnable"}


def test_a_manifest_of_an_earlier_version_is_read_again_only_for_votes(
    voted: Any, counts: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read(voted)
    (path,) = (store.cache_root() / "manifests").glob("tiny-4-*.json")
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "votes"}))
    # whichever of the two comes last: what one of them lacks is read
    for names in (("tiny-votes", "tiny"), ("tiny", "tiny-votes")):
        found = {p.run.entry.experiment.id: p for p in planned(voted, tmp_path, *names)}
        assert found["tiny"].key
        assert not found["tiny-votes"].key
    args = argparse.Namespace(skip_bad=False, force=False)
    after, broken = prepare_data(planned(voted, tmp_path, "tiny-votes", "tiny"), None, tmp_path / "results", args)
    assert "reading tiny-4" in capsys.readouterr().out
    assert not broken
    assert all(p.key for p in after)
    assert len(json.loads(path.read_text())["votes"]) == 16


def test_data_without_votes_blocks_what_reads_them(
    voted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--experiment", "tiny-votes", "--protocol", "tiny-4", "--profile", "quick"]
    assert run_all.main([*words, "--results", str(tmp_path / "results")]) == 3
    out = capsys.readouterr().out
    assert out.index("reading tiny-4") < out.index("blocked (1 runs): tinyfaces has no raters' votes"), "said once read"
    plain, blocked = planned(voted, tmp_path, "tiny", "tiny-votes")
    assert plain.status == "runnable"
    assert (blocked.status, blocked.key) == ("blocked", "")
    assert blocked.reason == "tinyfaces has no raters' votes for tiny-4, which recipe 'voted' reads"
    assert "method.prior: uniform" in blocked.unblock
    assert run_all.main([*words, "--results", str(tmp_path / "results")]) == 3
    assert "blocked (1 runs): tinyfaces has no raters' votes" in capsys.readouterr().out


def test_a_stage_that_reads_votes_blocks_those_behind_it(voted: Any) -> None:
    read(voted)
    stage, run = runs(voted, "tiny-votes", "tiny")
    stopped = plan.Planner(None).stop(matrix.replace(run, stages={"made": stage}))
    assert stopped is not None
    assert stopped.message.startswith("stage made (tiny-votes:tiny-4): tinyfaces has no raters' votes")


def test_an_evaluated_file_needs_no_votes(voted: Any) -> None:
    (run,) = runs(voted, "tiny-votes")
    with pytest.raises(UserError, match="has no raters' votes"):
        run.data_part("d", "")
    assert run.data_part("d", "v") == "d+v"
    assert matrix.of_checkpoint(run, "0" * 64).data_part("d", "") == "d"
    (plain,) = runs(voted, "tiny")
    assert plain.data_part("d", "v") == plain.data_part("d", "") == "d"


def test_a_job_has_the_key_of_its_plan(voted: Any, counts: np.ndarray, tmp_path: Path) -> None:
    read(voted)
    (one,) = planned(voted, tmp_path, "tiny-votes")
    spec = matrix.specification(one.run, one.key, None, "cpu", 60.0)
    job.execute(spec, store.run_folder(one.key))
    (again,) = planned(voted, tmp_path, "tiny-votes")
    assert (again.status, again.key) == ("cached", one.key)
    counts[0] = [1, 9, 0, 0]
    with pytest.raises(UserError, match="changed after planning"):
        job.execute(spec, store.run_folder(one.key))
