"""Stages: what is declared, planned, keyed and trained when a run needs another run's network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_stages import PROTOCOLS, TABLES, made, one, read

from bench import collect, declare, matrix, plan, store
from bench.data import source
from bench.declare import Declarations
from bench.errors import UserError
from bench.plan import Planned
from commands import render

pytest_plugins = ("helpers_engine", "helpers_stages")


# ------------------------------------------------------------------------------------------------------ declarations


def load(folder: Path, tables: str = TABLES) -> Declarations:
    import helpers_engine

    (folder / "tiny.yaml").write_text(tables)
    (folder / "protocols.yaml").write_text(helpers_engine.PROTOCOLS + PROTOCOLS)
    return declare.load_from([folder / "tiny.yaml"], [folder / "protocols.yaml"])


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ('bare: "bare:tiny-bare"', 'bare: "bare"', "stage 'bare': 'bare' is no entry"),
        ('bare: "bare:tiny-bare"', 'bare: "baer:tiny-bare"', "unknown experiment 'baer'"),
        ('bare: "bare:tiny-bare"', 'bare: "bare:tiny-bear"', "unknown protocol 'tiny-bear'"),
        ('bare: "bare:tiny-bare"', 'bare: "plain:tiny-folds"', "stage 'bare': plain:tiny-folds has folds"),
        ('bare: "bare:tiny-bare"', 'bare: "chained:tiny-points"', "wait for each other: bare -> bare"),
        ('"points:tiny-points"', '"built-on-chained:tiny-4"\n  chain: "built:tiny-4"', "points -> chain"),
        ('bare: "bare:tiny-bare"', 'ir50-ms1m: "bare:tiny-bare"', "'ir50-ms1m' is both a stage and a file"),
        ("instead: {released: points}", "instead: {relaesed: points}", "unknown role in recipe 'scaled' 'relaesed'"),
        ("instead: {released: points}", "instead: {released: pionts}", "unknown stage in recipe 'scaled' 'pionts'"),
        ("instead: {released: points}", "insted: {released: points}", "insted"),
    ],
)
def test_a_slip_is_named(tmp_path: Path, right: str, wrong: str, says: str) -> None:
    load(tmp_path)
    changed = TABLES.replace(right, wrong)
    if "chain:" in wrong:  # a circle of two
        changed = changed.replace("weights: [chained]", "weights: [chain]")
    assert changed != TABLES
    with pytest.raises(UserError) as caught:
        load(tmp_path, changed)
    assert says in str(caught.value)


def test_roles_are_files_or_stages(staged: Declarations) -> None:
    run = one(staged, "built:tiny-4")
    assert (run.weights, list(run.stages)) == ((), ["points"])
    scaled = {profile: one(staged, "scaled:tiny-4", profile) for profile in declare.PROFILES}
    assert (scaled["paper"].weights, scaled["paper"].stages) == (("released", "other"), {})
    assert (scaled["short"].weights, scaled["short"].stages) == ((), {})  # without pretraining, and nothing instead
    assert (scaled["quick"].weights, list(scaled["quick"].stages)) == ((), ["points"])
    assert staged.experiment("built").weights == ("points",)


def test_instead_without_dropping_the_rest(tmp_path: Path) -> None:
    declared = load(tmp_path, TABLES.replace("without_pretraining: true, instead", "instead"))
    run = one(declared, "scaled:tiny-4")
    assert (run.weights, list(run.stages)) == (("other",), ["points"])


def test_a_stage_takes_the_profile_where_its_recipe_declares_it(staged: Declarations) -> None:
    stages = {p: one(staged, "built:tiny-4", p, seed=3).stages["points"] for p in declare.PROFILES}
    assert {p: (stage.profile, stage.recipe["epochs"]) for p, stage in stages.items()} == {
        "paper": ("paper", 2), "short": ("paper", 2), "quick": ("quick", 1),
    }  # fmt: skip
    assert {stage.seed for stage in stages.values()} == {0}  # one network for every seed, as with a released file
    away = one(staged, "built-on-away:tiny-4").stages["away"]
    assert away.entry.protocol.id == "tiny-points"  # its stand-in
    assert away.identity == stages["quick"].identity


# -------------------------------------------------------------------------------------------------------------- keys


def test_committed_results_keep_their_keys() -> None:
    declared = declare.load()
    keys = {
        name: one(declared, f"{name}:ferplus-8@majority", "short").key("48dbf0f3235bfd0a", {})
        for name in ("fervt-resnet34", "fervt-gwa", "fervt-vta", "fervt")
    }
    assert keys == {
        "fervt-resnet34": "0e6922a38b30b7d6", "fervt-gwa": "d5fcd89abffe861a", "fervt-vta": "0837c1ad299cc00c",
        "fervt": "e917f3d4c328ca86",
    }  # fmt: skip


def test_stages_and_checkpoints_count_in_the_key_where_there_are_some(staged: Declarations) -> None:
    run = one(staged, "built:tiny-4")
    none = run.key("d", {})
    assert run.key("d", {}, {}) == none
    keys = {none, *(run.key("d", {}, stages) for stages in ({"points": "a"}, {"points": "b"}, {"other": "a"}))}
    keys |= {replace(run, checkpoint=sha).key("d", {}) for sha in ("a", "b")}
    assert len(keys) == 6


def decide(runs: list[matrix.Run], tmp_path: Path, **more: Any) -> dict[str, Planned]:
    """Run -> what the plan says, in its order."""
    return {p.run.entry.id: p for p in plan.plan(runs, None, tmp_path, **more)}


def test_a_key_follows_the_recipe_of_its_stage(staged: Declarations, tmp_path: Path) -> None:
    read(staged, "tiny-4", "tiny-points", "tiny-bare")
    run = one(staged, "built-on-chained:tiny-4")
    (chained,) = run.stages.values()
    (bare,) = chained.stages.values()

    def key(bare: matrix.Run) -> str:
        changed = replace(run, stages={"chained": replace(chained, stages={"bare": bare})})
        return decide([changed], tmp_path)[run.entry.id].key

    assert key(bare) == decide([run], tmp_path)[run.entry.id].key
    assert key(replace(bare, recipe={**bare.recipe, "learning_rate": 1.0})) != key(bare)  # two stages away


# -------------------------------------------------------------------------------------------------------------- plan


def test_stages_stand_once_in_front_of_the_runs_that_need_them(staged: Declarations, tmp_path: Path) -> None:
    read(staged, "tiny-4", "tiny-points", "tiny-bare")
    runs = [one(staged, "built-on-chained:tiny-4"), one(staged, "built:tiny-4"), one(staged, "built-too:tiny-4")]
    found = plan.plan([*runs, one(staged, "built-on-chained:tiny-4", seed=1)], None, tmp_path)
    assert [(p.run.entry.experiment.id, p.run.seed, p.status, p.only_stage) for p in found] == [
        ("bare", 0, "runnable", True), ("chained", 0, "runnable", True), ("built-on-chained", 0, "runnable", False),
        ("points", 0, "runnable", True), ("built", 0, "runnable", False), ("built-too", 0, "runnable", False),
        ("built-on-chained", 1, "runnable", False),
    ]  # fmt: skip
    keys = {p.run.entry.experiment.id: p.key for p in found if not p.run.seed}
    assert all(keys.values())
    assert found[2].stages["chained"].key == keys["chained"]
    assert found[5].stages["points"].key == keys["points"]


def test_keys_come_once_the_data_of_the_stage_is_read(staged: Declarations, tmp_path: Path) -> None:
    read(staged, "tiny-4")
    found = decide([one(staged, "built:tiny-4")], tmp_path)
    assert [(p.status, bool(p.key), bool(p.data_hash)) for p in found.values()] == [
        ("runnable", False, False), ("runnable", False, True),
    ]  # fmt: skip
    read(staged, "tiny-points")
    assert all(p.key for p in decide([one(staged, "built:tiny-4")], tmp_path).values())


def test_a_stage_counts_as_cached_with_its_network_alone(staged: Declarations, tmp_path: Path) -> None:
    key = made(staged, "built:tiny-4")
    runs = [one(staged, "built:tiny-4")]
    assert [(name, p.status) for name, p in decide(runs, tmp_path).items()] == [("built:tiny-4", "cached")]
    again = decide(runs, tmp_path, force=True)  # what others need is not made again
    assert [p.status for p in again.values()] == ["cached", "runnable"]
    assert decide([*runs, one(staged, "points:tiny-points")], tmp_path, force=True)["points:tiny-points"].status == (
        "runnable"
    )
    stage = again["points:tiny-points"]
    (store.run_folder(stage.key) / "model.safetensors").unlink()
    again = decide(runs, tmp_path, force=True)
    assert [p.status for p in again.values()] == ["runnable", "runnable"]
    assert again["built:tiny-4"].key == key
    # asked for itself as well: as a run it is cached, but not as a stage
    asked = decide([one(staged, "points:tiny-points"), *runs], tmp_path, force=True)
    assert [(p.status, p.only_stage) for p in asked.values()] == [("runnable", False), ("runnable", False)]
    # a finished run asks for nothing
    assert [p.status for p in decide(runs, tmp_path).values()] == ["cached"]


def test_changed_source_of_a_stage_is_said_of_what_is_built_on_it(staged: Declarations, tmp_path: Path) -> None:
    made(staged, "built-on-chained:tiny-4")
    runs = [one(staged, "built-on-chained:tiny-4")]
    assert [p.reason for p in decide(runs, tmp_path).values()] == [""]
    bare = store.run_folder(made(staged, "bare:tiny-bare")) / "manifest.json"
    manifest = json.loads(bare.read_text())
    manifest["code"][0]["source"]["method"] = "another"
    bare.write_text(json.dumps(manifest))
    told = "source of method changed since, same version"
    (found,) = decide(runs, tmp_path).values()
    assert (found.status, found.reason) == ("cached", f"stage chained: stage bare: {told}")
    again = decide(runs, tmp_path, force=True)
    assert (again[runs[0].entry.id].status, again[runs[0].entry.id].reason) == ("runnable", found.reason)
    bare.with_name("model.safetensors").unlink()  # it is made anew
    (found,) = (p for p in decide(runs, tmp_path).values() if p.run.entry.id == runs[0].entry.id)
    assert found.reason == ""


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("built-on-unbuilt:tiny-4", "stage unbuilt (unbuilt:tiny-points): method 'nowherenet' is not built yet"),
        ("built-on-away:tiny-4", "stage away (points:tiny-away): no adapter for dataset 'nowhere' yet"),
    ],
)
def test_what_stops_a_stage_stops_what_needs_it(staged: Declarations, tmp_path: Path, entry: str, reason: str) -> None:
    (found,) = plan.plan([one(staged, entry, "paper")], None, tmp_path)
    assert (found.status, found.reason) == ("blocked", reason)
    assert found.unblock
    assert plan.Planner(None).stop(one(staged, entry, "paper")) is not None
    assert plan.Planner(None).stop(one(staged, "built:tiny-4")) is None


def test_broken_data_of_a_stage_stops_what_needs_it(staged: Declarations, tmp_path: Path) -> None:
    broken = {("tiny-points", ""): UserError("tiny-points: an image is damaged", "repair it")}
    found = decide([one(staged, "built:tiny-4"), one(staged, "plain:tiny-4")], tmp_path, broken=broken)
    assert [p.status for p in found.values()] == ["blocked", "runnable"]
    assert found["built:tiny-4"].reason == "stage points (points:tiny-points): tiny-points: an image is damaged"


def test_estimates_come_from_finished_stages(
    staged: Declarations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "has_gpu", lambda: False)
    key = made(staged, "points:tiny-points")
    rate = store.read_result(store.run_folder(key)).images_per_second
    run = one(staged, "built:tiny-4", "paper")
    found = decide([run], tmp_path)
    assert found["points:tiny-points"].seconds is None  # quick faces tell nothing about the paper's profile
    run = one(staged, "built:tiny-4")
    run = replace(run, stages={"points": replace(run.stages["points"], options={"other": 1})})
    assert decide([run], tmp_path)["points:tiny-points"].seconds == pytest.approx(70 / rate)
    (store.run_folder(key) / "result.json").write_text('{"selections": {}')
    assert decide([run], tmp_path)["points:tiny-points"].seconds is None


# --------------------------------------------------------------------------------------------------------------- job


def test_what_a_stage_leaves(staged: Declarations, tmp_path: Path) -> None:
    folder = store.run_folder(made(staged, "points:tiny-points"))
    result = store.read_result(folder, verify=True)
    assert result.selections == {}
    assert result.history[0].keys() == {"epoch", "loss", "test_error", "val_error"}
    assert result.network_sha256 == store.sha256_file(folder / "model.safetensors")
    assert result.images_per_second > 0
    assert not list(folder.glob("predictions-*"))
    assert collect.collect([folder], tmp_path / "results", staged) == []
    assert not (tmp_path / "results" / "runs.csv").exists()


def test_measures_are_means_over_the_split(staged: Declarations) -> None:
    import torch
    from safetensors.torch import load_file

    from bench import loop, registry
    from bench.method import Context, Spec

    run = one(staged, "points:tiny-points")
    key = made(staged, "points:tiny-points")
    data = source.open_data(run.entry.protocol, None)
    context = Context((), 12, 1, torch.device("cpu"))
    method = registry.find("method", "tinystage").load()(Spec("points", "", "none", {}), run.recipe, context)
    method.net.load_state_dict(load_file(store.run_folder(key) / "model.safetensors"))
    method.train(False)
    test = np.flatnonzero(data.index["split"] == "test")
    images = loop.prepare(torch.from_numpy(data.pixels[data.rows[test]]), run.recipe)
    with torch.no_grad():
        errors = (method.net(images) - torch.from_numpy(data.targets[test])).abs().mean(dim=1)
    found = store.read_result(store.run_folder(key)).history[-1]["test_error"]
    assert found == pytest.approx(errors.mean().item(), rel=1e-5)


def test_a_stage_on_images_without_labels(staged: Declarations) -> None:
    folder = store.run_folder(made(staged, "bare:tiny-bare"))
    (record,) = store.read_result(folder).history
    assert record.keys() == {"epoch", "loss"}  # there is nothing to evaluate


def test_a_measure_that_is_no_number_stops_the_run(staged: Declarations) -> None:
    with pytest.raises(UserError, match=r"the evaluation is not finite after epoch 1: .*nan"):
        made(staged, "infinite:tiny-points")


def test_a_run_records_the_networks_it_was_built_on(staged: Declarations, tmp_path: Path) -> None:
    key = made(staged, "built-on-chained:tiny-4")
    result = store.read_result(store.run_folder(key))
    assert result.stages == {"chained": made(staged, "chained:tiny-points")}
    product = store.run_folder(result.stages["chained"])
    manifest = json.loads((store.run_folder(key) / "manifest.json").read_text())
    assert manifest["stages"] == {
        "chained": {"key": product.name, "sha256": store.sha256_file(product / "model.safetensors")}
    }
    assert store.read_result(product).stages == {"bare": made(staged, "bare:tiny-bare")}
    networks = render._networks(tmp_path / "results")  # what tables warn by
    assert networks(key) == {"chained": manifest["stages"]["chained"]["sha256"]}
    assert networks("0123456789abcdef") == networks(made(staged, "bare:tiny-bare")) == {}
    (store.run_folder(key) / "manifest.json").write_text("[")
    assert render._networks(tmp_path / "results")(key) == {}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_classes_are_needed_to_classify(staged: Declarations) -> None:
    with pytest.raises(UserError, match="tinynet classifies, tiny-points has no classes"):
        made(staged, "plain:tiny-points")


def test_a_classifying_run_does_not_need_its_network_to_count(staged: Declarations, tmp_path: Path) -> None:
    folder = store.run_folder(made(staged, "plain:tiny-4"))
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert store.set_aside_damaged(folder.name, tmp_path) == []
    assert len(store.set_aside_damaged(folder.name, tmp_path, network=True)) == 1
