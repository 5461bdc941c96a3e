"""Which weight files POSTER takes, which it asks for, and that a missing one never means random weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_poster_training import TARGETS, VARIANTS, build_small, changed, faces, snapshot, write_weights
from safetensors.torch import load_file

from bench import declare, matrix
from bench.errors import UserError
from methods.poster.options import Options
from methods.poster.released import to_released
from methods.poster.training import Training


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def build(files: dict[str, Path]) -> Callable[..., Training]:
    return partial(build_small, files)


@pytest.mark.parametrize("role", ["mobilefacenet-300w", "mobilefacenet-synthfer"])
def test_backbones_come_from_the_files(build: Callable[..., Training], files: dict[str, Path], role: str) -> None:
    weights = {name: files[name] for name in (role, "ir50-ms1m")}
    net = build(pretraining="ms1m", weights=weights).net
    for part, path in ((net.landmark_net, files[role]), (net.image_net, files["ir50-ms1m"])):
        assert changed(part, load_file(path)) == set()


def test_onet_takes_its_own_file(build: Callable[..., Training], files: dict[str, Path]) -> None:
    method = build({"landmark": "onet"})
    assert changed(method.net.landmark_net, snapshot(build({"landmark": "onet"}, seed=1).net.landmark_net)) == set()
    assert method.update(faces(), TARGETS)["loss"].isfinite()


@pytest.mark.parametrize(("options", "changes", "roles", "message"), [
    ({}, {}, [], "'mobilefacenet-300w' are not at hand"),
    ({"landmark": "onet"}, {}, [], "'mtcnn-onet' are not at hand"),
    ({}, {"pretraining": "ms1m"}, ["mobilefacenet-300w"], "'ir50-ms1m' are not at hand"),
    ({}, {}, ["mobilefacenet-300w", "ir50-ms1m"], "'ir50-ms1m' have no place in poster with .* pretraining none"),
    ({}, {}, ["mobilefacenet-300w", "mtcnn-onet"], "'mtcnn-onet' have no place"),
    ({"landmark": "onet"}, {}, ["mobilefacenet-300w"], "'mobilefacenet-300w' have no place in .* landmark onet"),
    (VARIANTS["image-only"], {}, ["mobilefacenet-300w"], "'mobilefacenet-300w' have no place in .* streams image"),
    (VARIANTS["landmark-only"], {"pretraining": "ms1m"}, ["ir50-ms1m", "mobilefacenet-300w"], "'ir50-ms1m' have no"),
    ({}, {}, ["mobilefacenet-300w", "mobilefacenet-synthfer"], "are both for the landmark net"),
    ({}, {"pretraining": "imagenet"}, ["mobilefacenet-300w"], "unknown pretraining of poster 'imagenet'"),
    ({}, {"backbone": "resnet34"}, ["mobilefacenet-300w"], "unknown backbone of poster with landmark mobilefacenet"),
    ({"landmark": "onet"}, {"backbone": "ir50-mobilefacenet"}, ["mtcnn-onet"], "unknown backbone .* onet"),
    ({"landmark_width": 8}, {}, ["mobilefacenet-300w"], r"mobilefacenet-300w.*\(mobilefacenet-300w\): does not fit"),
    ({"ir_width": 8}, {"pretraining": "ms1m"}, ["mobilefacenet-300w", "ir50-ms1m"], "ir50-ms1m.*does not fit"),
])  # fmt: skip
def test_wrong_weights_are_named(
    build: Callable[..., Training],
    files: dict[str, Path],
    options: dict[str, Any],
    changes: dict[str, Any],
    roles: list[str],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        build(options, weights={role: files[role] for role in roles}, **changes)


def test_single_streams_need_only_their_own_file(build: Callable[..., Training], files: dict[str, Path]) -> None:
    build(VARIANTS["landmark-only"], pretraining="ms1m", weights={"mobilefacenet-300w": files["mobilefacenet-300w"]})
    build(VARIANTS["image-only"], pretraining="ms1m", weights={"ir50-ms1m": files["ir50-ms1m"]})


@pytest.mark.parametrize("profile", ["paper", "short", "quick"])
@pytest.mark.parametrize("experiment", ["poster", "poster-affectnet", "poster-scratch", "poster-as-printed"])
def test_the_stages_landmark_net_fits_under_every_profile(experiment: str, profile: declare.ProfileName) -> None:
    """What the stage trains is what POSTER's options build; short and quick need no external file at all."""
    declared = declare.load(None)
    (run,) = matrix.runs_of(declared, declared.entry(f"{experiment}:raf-db-7"), profile, [0])
    stage = matrix.stage_run(declared, "mobilefacenet-synthfer", profile)
    external = profile == "paper" and experiment != "poster-scratch"
    assert list(run.stages) == ([] if external else ["mobilefacenet-synthfer"])
    assert not (run.weights and profile != "paper")
    options = Options.parse(run.options)
    assert (options.landmark_width, options.dims[0]) == (stage.options["width"], stage.options["channels"])
    assert options.inner_size == stage.recipe["input_size"]


def test_restoring_asks_for_no_file(build: Callable[..., Training]) -> None:
    whole, empty = build(), build(weights={}, pretraining="ms1m", restoring=True, seed=9)
    empty.net.load_state_dict(whole.net.state_dict())
    for method in (whole, empty):
        method.train(False)
    assert torch.equal(whole.predict(faces(2)), empty.predict(faces(2)))


def test_a_released_checkpoint_is_taken_whole(build: Callable[..., Training]) -> None:
    source, method = build(), build(seed=9)
    released = to_released(source.net.state_dict())
    method.load_released(released)
    assert changed(method.net, snapshot(source.net)) == set()
    del released["head.linear.bias"]
    with pytest.raises(UserError, match="missing: head"):
        method.load_released(released)
