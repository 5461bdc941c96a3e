"""The plan: cached, runnable or blocked, and why, without opening data or importing torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers_engine import ROOT, specify

from bench import plan, store
from bench.data import source
from bench.declare import Declarations
from bench.errors import UserError
from bench.matrix import Run, runs_of
from bench.plan import Planned

pytest_plugins = ("helpers_engine",)


def runs(declared: Declarations, entry: str = "tiny:tiny-4", seeds: tuple[int, ...] = (0,)) -> list[Run]:
    return runs_of(declared, declared.entry(entry), "quick", seeds)


def decide(declared: Declarations, results: Path, entry: str = "tiny:tiny-4", force: bool = False) -> Planned:
    (found,) = plan.plan(runs(declared, entry), None, results, force)
    return found


def finish(declared: Declarations, folder: Path, **other_source: str) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    source_hashes = {**runs(declared)[0].source_hashes(), **other_source}
    (folder / "manifest.json").write_text(json.dumps({"code": [{"source": source_hashes}]}))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "has_gpu", lambda: False)


def test_unread_data_is_runnable_without_a_key(tiny: Declarations, tmp_path: Path) -> None:
    found = decide(tiny, tmp_path)
    assert (found.status, found.key, found.seconds) == ("runnable", "", None)


def test_read_data_gives_the_key_of_the_specification(tiny: Declarations, tmp_path: Path) -> None:
    spec = specify(tiny)
    found = decide(tiny, tmp_path)
    assert (found.status, found.key) == ("runnable", spec["key"])


def test_a_finished_run_is_cached_wherever_it_lies(tiny: Declarations, tmp_path: Path) -> None:
    spec = specify(tiny)
    for folder in (tmp_path / "runs" / spec["key"], store.run_folder(spec["key"])):
        finish(tiny, folder)
        found = decide(tiny, tmp_path)
        assert (found.status, found.folder, found.reason) == ("cached", folder, "")
    assert decide(tiny, tmp_path, force=True).status == "runnable"


def test_a_begun_run_is_not_cached(tiny: Declarations, tmp_path: Path) -> None:
    spec = specify(tiny)
    folder = store.run_folder(spec["key"])
    folder.mkdir(parents=True)
    for name in ("checkpoint-a", "predictions-last.parquet", "manifest.json"):
        (folder / name).write_text("{}")
    assert decide(tiny, tmp_path).status == "runnable"


def test_changed_source_is_said(tiny: Declarations, tmp_path: Path) -> None:
    spec = specify(tiny)
    finish(tiny, store.run_folder(spec["key"]), method="another", loop="another")
    assert "source of loop, method changed since" in decide(tiny, tmp_path).reason
    (store.run_folder(spec["key"]) / "manifest.json").write_text("{")
    assert "manifest.json cannot be read" in decide(tiny, tmp_path).reason


@pytest.mark.parametrize(
    ("entry", "reason", "unblock"),
    [
        ("tiny-unbuilt:tiny-4", "method 'nowherenet' is not built", "methods/"),
        ("tiny:tiny-absent", "no adapter for dataset 'nowhere'", "ask its owners"),
    ],
)
def test_blocked_says_why_and_how_to_unblock(
    tiny: Declarations, tmp_path: Path, entry: str, reason: str, unblock: str
) -> None:
    found = decide(tiny, tmp_path, entry)
    assert found.status == "blocked"
    assert reason in found.reason
    assert unblock in found.unblock


def test_missing_weights_block_and_given_ones_are_part_of_the_key(tiny: Declarations, tmp_path: Path) -> None:
    specify(tiny)
    (run,) = runs(tiny)
    experiment = run.entry.experiment.model_copy(update={"weights": ("mae",)})
    needs = replace(run, entry=run.entry.model_copy(update={"experiment": experiment}), weights=("mae",))
    (found,) = plan.plan([needs], None, tmp_path)
    assert (found.status, found.reason) == ("blocked", "weights 'mae' are not at hand")
    file = store.cache_root() / "weights" / "mae.pth"
    file.parent.mkdir()
    keys = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        (found,) = plan.plan([needs], None, tmp_path)
        assert found.status == "runnable"
        keys.append(found.key)
    assert len({*keys, decide(tiny, tmp_path).key}) == 3


def test_a_misspelt_method_comes_with_its_nearest(tiny: Declarations, tmp_path: Path) -> None:
    (run,) = runs(tiny)
    experiment = run.entry.experiment.model_copy(update={"method": "tinynett"})
    slip = replace(run, entry=run.entry.model_copy(update={"experiment": experiment}))
    (found,) = plan.plan([slip], None, tmp_path)
    assert "tinynett" in found.reason
    assert "tinynet" in f"{found.reason} {found.unblock}".replace("tinynett", "")


def measured(results: Path, *lines: str) -> None:
    header = "device,experiment,method,profile,images_per_second,input_size"
    (results / "runs.csv").write_text("\n".join([header, *lines, ""]))


def test_estimates_come_from_measured_rates(tiny: Declarations, tmp_path: Path) -> None:
    specify(tiny)
    other = ("CPU x,other,tinynet,quick,20,12", "CPU x,other,tinynet,paper,1,12", "NVIDIA,tiny,tinynet,quick,1,12")
    measured(tmp_path, *other)
    assert decide(tiny, tmp_path).seconds == pytest.approx(70 * 3 / 20)
    measured(tmp_path, *other, "CPU x,tiny,tinynet,quick,7,12", "CPU x,tiny,tinynet,quick,10,12")
    assert decide(tiny, tmp_path).seconds == pytest.approx(70 * 3 / 7)  # its own, the slowest seen
    measured(tmp_path, "CPU x,other,tinynet,quick,,12")
    assert decide(tiny, tmp_path).seconds is None


def test_a_real_profile_takes_the_other_ones_rate_by_the_ratio_of_pixels(tiny: Declarations, tmp_path: Path) -> None:
    specify(tiny)
    measured(tmp_path, "CPU x,tiny,tinynet,short,10,6", "CPU x,tiny,tinynet,quick,99,12")
    (run,) = runs_of(tiny, tiny.entry("tiny:tiny-4"), "paper", [0])
    (found,) = plan.plan([run], None, tmp_path)
    assert found.seconds == pytest.approx(70 * 3 / 10 * 4)


def test_a_runs_csv_of_another_version_gives_no_estimate_and_no_traceback(tiny: Declarations, tmp_path: Path) -> None:
    specify(tiny)
    (tmp_path / "runs.csv").write_text("run,experiment,method,profile,images_per_second\na,tiny,tinynet,quick,10\n")
    assert decide(tiny, tmp_path).status == "runnable"


def test_folds_are_estimated_by_their_own_size(tiny: Declarations, tmp_path: Path) -> None:
    specify(tiny, protocol="tiny-folds")
    measured(tmp_path, "CPU x,tiny,tinynet,quick,10,12")
    data = source.open_data(tiny.protocol("tiny-folds"), None)
    sizes = source.training_counts(data.index, tiny.protocol("tiny-folds"))
    found = plan.plan(runs(tiny, "tiny:tiny-folds"), None, tmp_path)
    assert [p.seconds for p in found] == pytest.approx([n * 3 / 10 for n in sizes])


def test_the_data_hash_covers_labels_splits_and_pixels(tiny: Declarations, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    frame = pd.DataFrame({"name": ["a", "b"], "label": ["x", "y"], "split": ["train", "test"]})
    hashes = {source._hash(frame, "pixels"), source._hash(frame, "others")}
    for column, value in (("name", "c"), ("label", "y"), ("split", "val")):
        changed = frame.copy()
        changed.loc[0, column] = value
        hashes.add(source._hash(changed, "pixels"))
    assert len(hashes) == 5
    assert source._hash(frame.iloc[::-1], "pixels") == source._hash(frame, "pixels")


def test_folds_leave_no_test_image_in_training(tiny: Declarations) -> None:
    protocol = tiny.protocol("tiny-folds")
    data = source.open_data(protocol, None)
    seen: list[int] = []
    for fold in range(3):
        rows = source.splits_of(data.index, protocol, fold)
        assert not set(rows["train"]) & set(rows["test"])
        assert len(rows["train"]) + len(rows["test"]) == len(data.index)
        seen += rows["test"].tolist()
    assert sorted(seen) == list(range(len(data.index)))


def test_a_data_root_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source.data_root(None) is None
    with pytest.raises(UserError, match="is not a folder"):
        source.data_root(str(tmp_path / "absent"))
    monkeypatch.setenv("FERBENCH_DATA", str(tmp_path))
    assert source.data_root(None) == tmp_path


def test_planning_everything_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from pathlib import Path; from bench import declare, matrix, plan\n"
        "declared = declare.load()\n"
        "for profile in ('paper', 'quick'):\n"
        "    runs = matrix.expand(declared, declared.claims(), profile, [0, 1, 2])\n"
        "    planned = plan.plan(runs, None, Path('results'))\n"
        "    assert planned and all(p.reason and p.unblock for p in planned if p.status == 'blocked')\n"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
