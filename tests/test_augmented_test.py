"""Protocols whose test images go through the augmentation: drawn anew at every epoch, and the same in every start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_engine import specify
from test_loop import assert_same, job, method, recipe, split

from bench import declare, loop, matrix, plan, registry, store
from bench.data.augment import fervt_common
from bench.loop import Interrupted
from bench.method import Method
from bench.registry import find

pytest_plugins = ("helpers_engine",)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Noise:
    """An augmentation that notes what it got and adds noise, some of it after normalisation."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        self.seen.append(("before", tuple(images.shape)))
        return images + torch.rand(images.shape, generator=generator)

    def after(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        self.seen.append(("after", tuple(images.shape)))
        return images * torch.rand((len(images), 1, 1, 1), generator=generator)


def test_every_evaluation_is_drawn_from_seed_epoch_and_split(tmp_path: Path) -> None:
    plain = recipe()
    own = job(tmp_path, plain, test_transform=fervt_common)
    found, held_out = method(plain), split(20, 1)
    found.train(False)

    def drawn(own: loop.Job, epoch: int, name: str) -> np.ndarray:
        return loop.evaluate(found, held_out, plain, drawn=loop._drawn(own, epoch, name))

    first = drawn(own, 1, "test")
    torch.manual_seed(99)  # the global generator has no part in it
    assert np.array_equal(drawn(own, 1, "test"), first)
    others = [
        drawn(own, 2, "test"),
        drawn(own, 1, "val"),
        drawn(job(tmp_path, plain, test_transform=fervt_common, seed=4), 1, "test"),
    ]
    others.append(loop.evaluate(found, held_out, plain))
    assert not any(np.array_equal(other, first) for other in others)
    assert loop._drawn(job(tmp_path, plain), 1, "test") is None


def test_what_a_run_trains_with_has_no_part_in_it(tmp_path: Path) -> None:
    plain, trained, tested = recipe(), Noise(), Noise()
    own = job(tmp_path, plain, augment=trained, test_transform=tested)
    loop.train(method(plain), own)
    images = {"train": len(own.train), **{name: len(split) for name, split in own.evaluated.items()}}
    assert {shape[0] for _, shape in trained.seen} == {int(plain["batch_size"])}
    assert sum(shape[0] for when, shape in tested.seen if when == "before") == int(plain["epochs"]) * (
        images["val"] + images["test"]
    )


def test_the_whole_augmentation_is_applied_to_every_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "EVALUATION_BATCH", 12)
    plain, noise = recipe(input_size=6), Noise()
    own = job(tmp_path, plain, test_transform=noise)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 3))
    found = method(plain)
    found.net = net
    loop.evaluate(found, split(20, 1), plain, drawn=loop._drawn(own, 1, "test"))
    shapes = [(12, 1, 8, 8), (12, 3, 6, 6), (8, 1, 8, 8), (8, 3, 6, 6)]
    assert noise.seen == list(zip(["before", "after"] * 2, shapes, strict=True))


class Measured(Method):
    """What a stage is to the loop: it notes its batches' means."""

    classifies = False

    def validate(self, images: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mean": images.mean(dim=(1, 2, 3))}


def test_measures_of_a_stage_are_taken_of_the_same_images(tmp_path: Path) -> None:
    own = job(tmp_path, recipe(), test_transform=Noise())
    found = [loop.measure(Measured(), split(20), own.recipe, loop._drawn(own, e, "test"))["mean"] for e in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert loop.measure(Measured(), split(20), own.recipe)["mean"] not in found


def test_an_interruption_at_every_step_changes_nothing(tmp_path: Path) -> None:
    plain = recipe()
    whole = loop.train(method(plain), job(tmp_path / "whole", plain, test_transform=fervt_common))
    for seed in range(13):
        asked = iter([False, True])
        stop = lambda asked=asked: next(asked, True)  # noqa: E731
        own = job(tmp_path / "parts", plain, test_transform=fervt_common, stop_requested=stop)
        try:
            state = loop.train(method(plain, seed=seed), own)
            break
        except Interrupted:
            torch.rand(seed)
    assert seed == 11
    assert_same(state, whole)
    usual = loop.train(method(plain), job(tmp_path / "usual", plain))
    assert [record["loss"] for record in usual.history] == [record["loss"] for record in whole.history]
    assert not np.array_equal(usual.kept["last"]["probabilities"], whole.kept["last"]["probabilities"])


def test_a_released_network_is_evaluated_as_of_epoch_0(tmp_path: Path) -> None:
    plain = recipe()
    own, found = job(tmp_path, plain, test_transform=fervt_common), method(plain)
    state = loop.evaluate_released(found, own)
    wanted = loop.evaluate(found, own.evaluated["test"], plain, drawn=loop._drawn(own, 0, "test"))
    assert np.array_equal(state.kept["released"]["probabilities"][0], wanted)
    usual = loop.evaluate_released(found, job(tmp_path, plain))
    assert not np.array_equal(usual.kept["released"]["probabilities"][0], wanted)


def test_the_protocol_decides(tiny: declare.Declarations, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Same losses, other predictions; a protocol that says nothing is trained and tested as before."""
    from bench import job

    monkeypatch.setitem(
        tiny.protocols, "tiny-noisy",
        tiny.protocol("tiny-4").model_copy(update={"id": "tiny-noisy", "test_transform": "nresizer-code"}),
    )  # fmt: skip
    monkeypatch.setattr(declare, "load", lambda root=None: tiny)
    results = []
    for protocol in ("tiny-4", "tiny-noisy", "tiny-noisy"):
        spec = specify(tiny, protocol=protocol, checkpoint_seconds=1e9)
        folder = tmp_path / f"{len(results)}"
        job.execute(json.loads(json.dumps(spec)), folder)
        results.append(store.read_result(folder, verify=True))
    losses = [[record["loss"] for record in result.history] for result in results]
    assert losses[0] == losses[1] == losses[2]
    hashes = [result.selections["last-k"].sha256 for result in results]
    assert hashes[0] != hashes[1] == hashes[2]


def planned(tiny: declare.Declarations, transform: str) -> plan.Planned:
    protocol = tiny.protocol("tiny-4").model_copy(update={"test_transform": transform})
    entry = declare.Entry(experiment=tiny.experiment("tiny"), protocol=protocol)
    (found,) = plan.plan(matrix.runs_of(tiny, entry, "quick", [0]), None, Path("nowhere"))
    return found


def test_it_is_part_of_the_key_only_where_a_protocol_has_one(
    tiny: declare.Declarations, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, found = planned(tiny, ""), planned(tiny, "nresizer-code")
    parts: list[Any] = []
    canonical = store.canonical
    monkeypatch.setattr(store, "canonical", lambda value: parts.append(value) or canonical(value))
    keys = [one.run.key("d" * 16, {}) for one in (usual, found, planned(tiny, "flip"))]
    assert len(set(keys)) == 3
    assert [one["test_transform"] for one in parts if "test_transform" in one] == [["nresizer-code", 1], ["flip", 1]]
    assert "test_transform" not in parts[0]
    assert "test transform" not in usual.run.source_hashes()
    assert found.run.source_hashes()["test transform"] == registry.find("augmentation", "nresizer-code").source_hash()
    newer = replace(registry.find("augmentation", "nresizer-code"), version=2)
    monkeypatch.setattr(registry, "find", lambda kind, name: newer if name == newer.name else find(kind, name))
    assert found.run.key("d" * 16, {}) not in keys


def test_an_unknown_one_is_blocked_as_an_unknown_augmentation_is(tiny: declare.Declarations) -> None:
    assert planned(tiny, "nresizer-code").status == "runnable"
    found = planned(tiny, "nresizer-cod")
    assert (found.status, found.reason) == ("blocked", "augmentation 'nresizer-cod' is not built yet")
    assert "did you mean nresizer-code?" in found.unblock
    assert planned(tiny, "augmentation").status == "blocked"


def test_augmentations_of_the_project_take_part(tmp_path: Path) -> None:
    """With an augmentation that draws per image, two test images that are the same get different probabilities."""
    plain = recipe()
    own = job(tmp_path, plain, test_transform=fervt_common)
    same = split(1)
    twice = loop.Split(same.images.expand(40, -1, -1), same.labels.expand(40))  # type: ignore[union-attr]
    found = method(plain)
    found.train(False)
    assert np.ptp(loop.evaluate(found, twice, plain)[:, 0]) < 1e-6
    assert np.ptp(loop.evaluate(found, twice, plain, drawn=loop._drawn(own, 1, "test"))[:, 0]) > 1e-4
