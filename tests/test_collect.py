"""From finished runs to results/: rows, subsets, confusion matrices, kept runs, and damaged files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench import collect, store
from bench.data import source
from bench.declare import Declarations, Protocol
from bench.errors import UserError

pytest_plugins = ("helpers_engine",)
CLASSES = ("neutral", "happiness", "surprise", "sadness")
NAMES = [f"tiny-{i:03d}" for i in range(90, 120)]
LABELS = [CLASSES[i % 4] for i in range(90, 120)]


def frame(right: int, epoch: int = 1) -> pd.DataFrame:
    """Predictions for the test images of tiny-4 of which the first `right` are correct."""
    chances = np.full((30, 4), 0.1, np.float32)
    for row, label in enumerate(LABELS):
        truth = CLASSES.index(label)
        chances[row, truth if row < right else (truth + 1) % 4] = 0.7
    columns = {f"p_{name}": chances[:, i] for i, name in enumerate(CLASSES)}
    return pd.DataFrame({"name": NAMES, "label": LABELS, "epoch": np.int32(epoch), **columns})


def finished(
    folder: Path, selections: dict[str, list[tuple[int, int]]], synthetic: bool = True, seed: int = 0, **more: Any
) -> Path:
    """A run folder whose selections are given as (epoch, correct) pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for selection, epochs in selections.items():
        data = io.BytesIO()
        pd.concat([frame(right, epoch) for epoch, right in epochs]).to_parquet(data)
        path = folder / f"predictions-{selection}.parquet"
        path.write_bytes(data.getvalue())
        found[selection] = store.Selected(
            epochs=tuple(epoch for epoch, _ in epochs), file=path.name, sha256=store.sha256_file(path)
        )
    fields: dict[str, Any] = {
        "run": folder.name, "experiment": "tiny", "method": "tinynet", "backbone": "small", "pretraining": "none",
        "augmentation": "none", "options": {"width": 6}, "protocol": "tiny-4", "classes": CLASSES, "profile": "quick",
        "synthetic": synthetic, "seed": seed, "fold": 0, "recipe": {"input_size": 12},
        "selections": found, "history": [],
        "seconds": 1.0,
        "images_per_second": 2.0, "peak_memory_mb": 3.0, "parameters": 4, "trainable_parameters": 4, "macs": 5,
        "device": "CPU", "versions": {"torch": "2"}, "commit": "c", "data_hash": "d", "finished": "now",
    }  # fmt: skip
    (folder / "manifest.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    store.write_text(folder / "result.json", store.Result(**{**fields, **more}).model_dump_json())
    return folder


def rows(results: Path, **wanted: str) -> list[dict[str, Any]]:
    found = collect.read_rows(results / "runs.csv")
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_a_row_for_every_selection_and_subset(tiny: Declarations, results: Path, tmp_path: Path) -> None:
    run = finished(tmp_path / "a1", {"last": [(3, 12)], "last-k": [(2, 15), (3, 12)], "test-best": [(2, 15)]})
    assert collect.collect([run], results, tiny) == []
    found = {(row["protocol"], row["selection"]): row for row in rows(results)}
    assert set(found) == {(p, s) for p in ("tiny-4", "tiny-half") for s in ("last", "last-k", "test-best")}
    last = found["tiny-4", "last"]
    assert (last["n"], last["correct"], last["accuracy"], last["epoch"]) == ("30", "12", "0.4", "3")
    spread = found["tiny-4", "last-k"]
    assert (spread["epoch"], float(spread["accuracy"])) == ("2-3", 0.45)
    assert float(spread["accuracy_sd"]) > 0
    assert (found["tiny-half", "last"]["n"], found["tiny-half", "last"]["correct"]) == ("15", "6")
    assert last["synthetic"] == "True"
    assert list(last) == list(collect.RUN_COLUMNS)


def test_class_rows_and_confusion_agree_with_the_predictions(tiny: Declarations, results: Path, tmp_path: Path) -> None:
    collect.collect([finished(tmp_path / "a1", {"last": [(3, 12)]})], results, tiny)
    per_class = [r for r in collect.read_rows(results / "per_class.csv") if r["protocol"] == "tiny-4"]
    assert {row["class"]: (int(row["n"]), int(row["correct"])) for row in per_class} == {
        name: (LABELS.count(name), LABELS[:12].count(name)) for name in CLASSES
    }
    text = (results / "confusion" / "a1-last.csv").read_text()
    numbers = pd.read_csv(io.StringIO(text), index_col=0, comment="#")
    assert int(np.trace(numbers.to_numpy()[:4, :4])) == 12


def test_collecting_again_changes_no_byte(tiny: Declarations, results: Path, tmp_path: Path) -> None:
    folders = [finished(tmp_path / f"a{seed}", {"last": [(3, 10 + seed)]}, seed=seed) for seed in range(3)]
    assert collect.collect(folders, results, tiny) == []
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in results.rglob("*.csv")}
    assert collect.collect(folders, results, tiny) == []
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in results.rglob("*.csv")} == before
    other = results.parent / "other"
    for folder in reversed(folders):
        collect.collect([folder], other, tiny)
    assert (other / "runs.csv").read_bytes() == (results / "runs.csv").read_bytes()


def test_a_newer_run_of_the_same_entry_replaces_the_older(tiny: Declarations, results: Path, tmp_path: Path) -> None:
    collect.collect([finished(tmp_path / "old", {"last": [(3, 12)]}, synthetic=False)], results, tiny)
    collect.collect([finished(tmp_path / "other", {"last": [(3, 9)]}, seed=1)], results, tiny)
    assert (results / "runs" / "old").is_dir()
    collect.collect([finished(tmp_path / "new", {"last": [(3, 20)]}, synthetic=False)], results, tiny)
    assert {row["run"] for row in rows(results)} == {"new", "other"}
    assert {row["run"] for row in collect.read_rows(results / "per_class.csv")} == {"new", "other"}
    assert not (results / "runs" / "old").exists()
    assert not list((results / "confusion").glob("old-*"))


def test_a_run_made_again_replaces_its_own_row(tiny: Declarations, results: Path, tmp_path: Path) -> None:
    """`--force`, or a run set aside as damaged, leaves another result under the same key."""
    collect.collect([finished(tmp_path / "a1", {"last": [(3, 12)]})], results, tiny)
    collect.collect([finished(tmp_path / "a1", {"last": [(3, 20)]}, finished="later")], results, tiny)
    assert [row["correct"] for row in rows(results, protocol="tiny-4")] == ["20"]


def test_real_runs_are_kept_without_their_weights(tiny: Declarations, results: Path, tmp_path: Path) -> None:
    collect.collect([finished(tmp_path / "real", {"last": [(3, 12)]}, synthetic=False)], results, tiny)
    collect.collect([finished(tmp_path / "made", {"last": [(3, 12)]}, seed=1)], results, tiny)
    kept = {path.name for path in (results / "runs" / "real").iterdir()}
    assert kept == {"predictions-last.parquet", "manifest.json", "result.json"}
    assert not (results / "runs" / "made").exists()
    assert store.read_result(results / "runs" / "real", verify=True).run == "real"


def test_a_kept_run_is_collected_from_where_it_lies(tiny: Declarations, results: Path, tmp_path: Path) -> None:
    finished(results / "runs" / "real", {"last": [(3, 12)]}, synthetic=False)
    assert collect.collect([results / "runs" / "real"], results, tiny) == []
    assert len(rows(results, protocol="tiny-4")) == 1


@pytest.mark.parametrize("damage", ["predictions-last.parquet", "result.json"])
def test_a_damaged_run_is_named_and_left_out(tiny: Declarations, results: Path, tmp_path: Path, damage: str) -> None:
    good, other = (finished(tmp_path / f"good{seed}", {"last": [(3, 12)]}, seed=seed) for seed in (0, 1))
    bad = finished(tmp_path / "bad", {"last": [(3, 12)]}, seed=2)
    data = bytearray((bad / damage).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2] = b"\x00\x00"
    (bad / damage).write_bytes(data)
    (problem,) = collect.collect([good, bad, other], results, tiny)
    assert str(bad / damage) in problem
    assert "damaged" in problem
    assert {row["run"] for row in rows(results)} == {"good0", "good1"}
    assert not list((results / "confusion").glob("bad-*"))


def test_a_subset_that_was_not_wholly_predicted_is_a_problem(
    tiny: Declarations, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(tmp_path / "a1", {"last": [(3, 12)]})
    monkeypatch.setattr("tinyfer.data.TinyFaces.splits_at", ["test"] * 120)
    (problem,) = collect.collect([run], results, tiny)
    assert "tiny-half is not scored: only 15 of its 60 images were predicted" in problem
    assert {row["protocol"] for row in rows(results)} == {"tiny-4"}


@pytest.fixture
def list_at_hand(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the subset's list can be found; its last element counts."""
    told = [True]
    check = source.Copies.check

    def checked(self: source.Copies, protocol: Protocol, *more: Any) -> None:
        if protocol.subset_of and not told[-1]:
            raise UserError("its list is not here")
        check(self, protocol, *more)

    monkeypatch.setattr(source.Copies, "check", checked)
    return told


def test_a_subset_is_scored_once_its_list_is_there(
    tiny: Declarations, results: Path, tmp_path: Path, list_at_hand: list[bool]
) -> None:
    """Nothing is trained again: the kept predictions give the rows, and no other row changes."""
    run = finished(tmp_path / "a1", {"last": [(3, 12)], "test-best": [(2, 15)]}, synthetic=False)
    other = finished(tmp_path / "b1", {"last": [(3, 12)]}, synthetic=False, seed=1, protocol="tiny-folds")
    list_at_hand.append(False)
    assert collect.collect([run, other], results, tiny) == []
    before = rows(results)
    assert {row["protocol"] for row in before} == {"tiny-4", "tiny-folds"}
    list_at_hand.append(True)
    assert collect.kept_folders(results) == [results / "runs" / "a1", results / "runs" / "b1"]
    assert collect.collect(collect.kept_folders(results), results, tiny) == []
    found = rows(results)
    assert [row for row in found if row["protocol"] != "tiny-half"] == before
    assert [(row["selection"], row["n"], row["correct"]) for row in rows(results, protocol="tiny-half")] == [
        ("last", "15", "6"), ("test-best", "15", "8"),
    ]  # fmt: skip
    halves = [row for row in collect.read_rows(results / "per_class.csv") if row["protocol"] == "tiny-half"]
    assert sum(int(row["n"]) for row in halves) == 30
    # the list is gone again: what was scored stays, also when something else makes the run scored again
    list_at_hand.append(False)
    (results / "confusion" / "a1-last.csv").unlink()
    assert collect.collect(collect.kept_folders(results), results, tiny) == []
    assert rows(results) == found
    assert (results / "confusion" / "a1-last.csv").is_file()


def test_rows_on_a_subset_do_not_outlive_their_run(
    tiny: Declarations, results: Path, tmp_path: Path, list_at_hand: list[bool]
) -> None:
    """A run that was made again has other predictions; so have newer runs of the same entry, seed and fold."""
    collect.collect([finished(tmp_path / "a1", {"last": [(3, 12)]})], results, tiny)
    collect.collect([finished(tmp_path / "c1", {"last": [(3, 12)]}, seed=1)], results, tiny)
    list_at_hand.append(False)
    collect.collect([finished(tmp_path / "a1", {"last": [(3, 20)]}, finished="later")], results, tiny)
    collect.collect([finished(tmp_path / "d1", {"last": [(3, 20)]}, seed=1)], results, tiny)
    assert {(row["run"], row["protocol"], row["correct"]) for row in rows(results)} == {
        ("a1", "tiny-4", "20"), ("d1", "tiny-4", "20"),
    }  # fmt: skip
    per_class = collect.read_rows(results / "per_class.csv")
    assert {(row["run"], row["protocol"]) for row in per_class} == {("a1", "tiny-4"), ("d1", "tiny-4")}


def test_an_image_listed_twice_counts_twice(
    tiny: Declarations, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyfer.data import TinyFaces  # type: ignore[import-not-found]

    index = TinyFaces.index

    def repeated(self: Any, protocol: Protocol) -> pd.DataFrame:
        listed = index(self, protocol)
        return pd.concat([listed, listed.iloc[:1], listed.iloc[:1]]) if protocol.subset_of else listed

    monkeypatch.setattr(TinyFaces, "index", repeated)
    run = finished(tmp_path / "a1", {"last": [(3, 12)], "last-k": [(2, 15), (3, 0)]})
    assert collect.collect([run], results, tiny) == []
    found = {row["selection"]: (row["n"], row["correct"]) for row in rows(results, protocol="tiny-half")}
    assert found == {"last": ("17", "8"), "last-k": ("17", "5")}  # (10 + 0) / 2
    fields = collect.read_rows(results / "per_class.csv")
    first = [r for r in fields if (r["protocol"], r["selection"], r["class"]) == ("tiny-half", "last", LABELS[0])]
    assert [int(row["n"]) for row in first] == [LABELS[::2].count(LABELS[0]) + 2]


def test_images_a_run_left_out_may_lack_in_a_subset(tiny: Declarations, results: Path, tmp_path: Path) -> None:
    run = finished(tmp_path / "a1", {"last": [(3, 12)]}, skipped=1, preprocessing="rafdb-aligned")
    path = run / "predictions-last.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    changed = {"last": store.Selected(epochs=(3,), file=path.name, sha256=store.sha256_file(path))}
    result = store.read_result(run).model_copy(update={"selections": changed})
    store.write_text(run / "result.json", result.model_dump_json())
    assert collect.collect([run], results, tiny) == []
    assert {(r["protocol"], r["n"], r["skipped"], r["preprocessing"]) for r in rows(results)} == {
        ("tiny-4", "29", "1", "rafdb-aligned"), ("tiny-half", "14", "1", "rafdb-aligned"),
    }  # fmt: skip


def test_rows_of_earlier_versions_are_read(tiny: Declarations, results: Path, tmp_path: Path) -> None:
    collect.collect([finished(tmp_path / "a1", {"last": [(3, 12)]})], results, tiny)
    old = pd.read_csv(results / "runs.csv", dtype=str).drop(columns=["preprocessing", "skipped"])
    old.to_csv(results / "runs.csv", index=False)
    collect.collect([finished(tmp_path / "b1", {"last": [(3, 12)]}, seed=1)], results, tiny)
    assert {(row["run"], row["skipped"]) for row in rows(results)} == {("a1", ""), ("b1", "0")}


def test_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged copy of a run no longer counts as done; the intact one beside it does."""
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    own, kept = store.run_folder("a1"), tmp_path / "results" / "runs" / "a1"
    for folder in (own, kept):
        finished(folder, {"last": [(3, 12)]})
    assert store.set_aside_damaged("a1", tmp_path / "results") == []
    (own / "predictions-last.parquet").write_bytes(b"x")
    (problem,) = store.set_aside_damaged("a1", tmp_path / "results")
    assert str(own / "predictions-last.parquet") in problem
    assert store.find_result("a1", tmp_path / "results") == kept
