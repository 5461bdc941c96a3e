"""Recipes that train on val as well: which images, what is evaluated then, what says so, and which keys stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers_engine import forget, specify
from pydantic import ValidationError

import run_all
from bench import declare, job, matrix, plan, store
from bench.data import source
from bench.data.base import find_dataset
from bench.data.ferplus.adapter import FERPlus
from bench.errors import UserError

pytest_plugins = ("helpers_engine",)

PROTOCOL = declare.Protocol(id="two", dataset="somewhere", classes=("happiness", "fear"))
BOTH = ["train", "val"]
EXPERIMENTS = (
    "  tiny-both: {method: tinynet, backbone: small, augmentation: none, recipe: both}\n"
    "  tiny-alone: {method: tinynet, backbone: small, augmentation: none, recipe: alone}\n"
)


@pytest.fixture
def both(tiny: Any, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tiny declarations with recipes that say what they train on."""
    text = (outside / "tiny.yaml").read_text()
    recipe = text[text.index("  tiny:\n    fields:") : text.index("experiments:\n")]
    for name, splits in (("both", BOTH), ("alone", ["train"])):
        field = f"    fields:\n      train_splits: {{value: {splits}, source: paper, at: '1'}}\n"
        other = recipe.replace("  tiny:", f"  {name}:", 1).replace("    fields:\n", field, 1)
        text = text.replace("experiments:\n", f"{other}experiments:\n", 1)
    (tmp_path / "both.yaml").write_text(text.replace("experiments:\n", f"experiments:\n{EXPERIMENTS}", 1))
    monkeypatch.setattr(declare, "table_files", lambda: [tmp_path / "both.yaml"])
    forget()
    return declare.load()


def run_of(declared: Any, experiment: str, protocol: str = "tiny-4") -> matrix.Run:
    return matrix.runs_of(declared, declared.entry(f"{experiment}:{protocol}"), "quick", [0])[0]


# --------------------------------------------------------------------------------------------------------------- splits
def test_val_becomes_part_of_train() -> None:
    index = pd.DataFrame({"split": ["val", "train", "test", "train", "val"]})
    plain = {name: rows.tolist() for name, rows in source.splits_of(index, PROTOCOL, 0).items()}
    assert plain == {"train": [1, 3], "val": [0, 4], "test": [2]}
    merged = {name: rows.tolist() for name, rows in source.splits_of(index, PROTOCOL, 0, BOTH).items()}
    assert merged == {"train": [0, 1, 3, 4], "test": [2]}


def test_nothing_changes_without_val_or_with_folds() -> None:
    without = pd.DataFrame({"split": ["train", "test", "train"]})
    with_folds = pd.DataFrame({"split": ["val", "train", "test"], "fold": [0, 1, 0]})
    folded = PROTOCOL.model_copy(update={"folds": 2})
    for index, protocol in ((without, PROTOCOL), (with_folds, folded)):
        plain, asked = (source.splits_of(index, protocol, 0, splits) for splits in (["train"], BOTH))
        assert {name: rows.tolist() for name, rows in plain.items()} == {n: r.tolist() for n, r in asked.items()}


def test_ferplus_has_28236_training_images_then(ferplus_official: Path) -> None:
    protocol = declare.load().protocol("ferplus-8@majority")
    index = FERPlus(find_dataset(ferplus_official, FERPlus), protocol).index(protocol)
    found = {name: len(rows) for name, rows in source.splits_of(index, protocol, 0, BOTH).items()}
    assert found == {"train": 25_045 + 3_191, "test": 3_137}


# --------------------------------------------------------------------------------------------------------- declarations
@pytest.mark.parametrize("value", [["val"], ["test"], ["val", "train"], ["train", "test"], "train", []])
def test_other_splits_are_refused(value: Any, outside: Path) -> None:
    with pytest.raises(ValidationError, match="unknown train_splits"):
        declare.Override(why="x", fields={"train_splits": value})


def test_votes_of_val_images_are_in_no_key_so_they_are_not_read(both: Any) -> None:
    fields = both.recipe("both").fields
    votes = declare.Sourced(value=True, source="paper", at="1")
    recipe = both.recipe("both").model_copy(update={"fields": {**fields, "votes": votes}})
    with pytest.raises(UserError, match="reads votes and trains on val"):
        recipe.values("quick")


def test_the_default_is_no_part_of_a_key(both: Any) -> None:
    plain, alone, other = (run_of(both, name).key("data", {}) for name in ("tiny-plain", "tiny-alone", "tiny-both"))
    assert plain == alone
    assert plain != other


# ----------------------------------------------------------------------------------------------------------------- runs
def test_a_run_trains_on_both_and_has_no_val_best(both: Any) -> None:
    kept = {}
    for name in ("tiny-plain", "tiny-both"):
        spec = specify(both, name)
        folder = store.run_folder(spec["key"])
        folder.mkdir(parents=True)
        job.execute(spec, folder)
        kept[name] = (store.read_result(folder, verify=True), json.loads((folder / "manifest.json").read_text()))
    result, manifest = kept["tiny-plain"]
    assert manifest["data"]["trained_on"] == {"splits": ["train"], "images": 70}
    assert "val-best" in result.selections
    assert "val_accuracy" in result.history[0]
    result, manifest = kept["tiny-both"]
    assert manifest["data"]["trained_on"] == {"splits": BOTH, "images": 90}
    assert set(result.selections) == {"last", "last-k", "test-best"}
    assert not any("val_accuracy" in record for record in result.history)


def test_the_plan_counts_their_time(both: Any, tmp_path: Path) -> None:
    data = source.open_data(both.protocol("tiny-4"), None)
    assert data.hash
    (tmp_path / "runs.csv").write_text(
        "experiment,method,profile,device,input_size,images_per_second\n"
        f"tiny,tinynet,quick,{'cuda' if plan.has_gpu() else 'CPU'},12,10\n"
    )
    planned = plan.plan([run_of(both, name) for name in ("tiny-plain", "tiny-both")], None, tmp_path)
    assert [p.seconds for p in planned] == [3 * 70 / 10, 3 * 90 / 10]


def test_show_says_so(both: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--profile", "quick", "--results", str(tmp_path)]
    assert run_all.main(["show", "tiny-both:tiny-4", *words]) == 0
    out = capsys.readouterr().out
    assert "train and val, 90 images: val is not evaluated, and there is no selection val-best" in out
    for other in ("tiny-plain:tiny-4", "tiny-both:tiny-folds"):
        assert run_all.main(["show", other, *words]) == 0
        assert "trained on" not in capsys.readouterr().out
