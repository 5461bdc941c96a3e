"""The Neural Resizer's training: losses and priors, what images go through first, weight files, golden numbers."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_nresizer import CLASSES, SETTINGS, SIZE, STEPS, TARGETS, build_small, faces, still, write_superres
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from bench import registry
from bench.errors import UserError
from bench.method import Context, Front, Votes
from bench.weight_files import read_state
from methods.nresizer import front as front_file
from methods.nresizer.front import LOADERS, applications, fingerprint, make_front, resize
from methods.nresizer.losses import prior_weighted
from methods.nresizer.options import Options
from methods.nresizer.prior import for_classes
from methods.nresizer.stn import STN
from methods.nresizer.training import Training, make_prior
from methods.superres import network

RAF_DB = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")


def context(**fields: Any) -> Context:
    return Context(CLASSES, SIZE, STEPS, torch.device("cpu"), **fields)


def loss_of(method: Training) -> tuple[float, torch.Tensor]:
    """The loss of a batch and its logits, with batch statistics in both."""
    still(method.net)
    first, second = method, copy.deepcopy(method)
    return float(first.loss(faces(), targets_of(method)).detach()), second.net(faces()).detach()


def targets_of(method: Training) -> torch.Tensor:
    return TARGETS % len(method.context.classes)


# ----------------------------------------------------------------------------------------------------------------- loss
@pytest.mark.parametrize(("options", "gamma"), [
    ({"loss": "f-pdls"}, 2.0), ({"loss": "f-pdls", "gamma": 0.5, "alpha": 0.3}, 0.5), ({"loss": "pdls"}, 0.0),
    ({"loss": "pdls", "alpha": 0.5, "gamma": 3.0}, 0.0), ({"loss": "f-pdls", "probability": "sigmoid"}, 2.0),
])  # fmt: skip
@pytest.mark.parametrize("classes", [CLASSES, RAF_DB], ids=["ferplus", "raf-db"])
def test_the_loss_is_the_prior_weighted_one(options: dict[str, Any], gamma: float, classes: tuple[str, ...]) -> None:
    method = build_small(options, classes=classes)
    found, logits = loss_of(method)
    prior = torch.tensor(for_classes(classes), dtype=torch.float32)
    parsed = Options.parse(options)
    wanted = prior_weighted(logits, targets_of(method), prior, parsed.alpha, gamma, parsed.probability)
    assert found == pytest.approx(float(wanted), rel=1e-6)


def test_without_focus_and_prior_it_is_cross_entropy() -> None:
    limit, _ = loss_of(build_small({"loss": "f-pdls", "alpha": 1.0, "gamma": 0.0}))
    plain, logits = loss_of(build_small({"loss": "cross-entropy"}))
    assert limit == pytest.approx(plain, rel=1e-6)
    assert plain == pytest.approx(float(F.cross_entropy(logits, TARGETS)), rel=1e-6)


def test_the_option_goes_before_the_recipe() -> None:
    assert build_small(loss="pdls").recipe["loss"] == "pdls"
    assert build_small({"loss": "cross-entropy"}, loss="pdls").recipe["loss"] == "cross-entropy"
    found, logits = loss_of(build_small({"loss": "cross-entropy"}, loss="f-pdls", label_smoothing=0.1))
    assert found == pytest.approx(float(F.cross_entropy(logits, TARGETS, label_smoothing=0.1)), rel=1e-6)


def test_wrong_losses_are_named() -> None:
    with pytest.raises(UserError, match="unknown loss 'f-pldls'\n  -> did you mean f-pdls"):
        build_small(loss="f-pldls")
    with pytest.raises(UserError, match=r"label_smoothing 0\.1 has no place in f-pdls"):
        build_small(label_smoothing=0.1)


def test_priors() -> None:
    votes = Votes(np.array([[8, 2, 0], [4, 0, 4], [0, 5, 0], [1, 1, 2]], dtype=np.float64), np.array([0, 0, 1, 2]))
    three = Context(("neutral", "fear", "anger"), SIZE, STEPS, torch.device("cpu"), votes=votes)
    found = make_prior("train-votes", three)
    np.testing.assert_allclose(found, [[0.65, 0.1, 0.25], [0, 1, 0], [0.25, 0.25, 0.5]])
    np.testing.assert_allclose(make_prior("uniform", three), np.full((3, 3), 1 / 3))
    np.testing.assert_allclose(make_prior("ferplus-train-votes", three), for_classes(three.classes))
    method = build_small({"prior": "train-votes"}, classes=three.classes, votes=votes)
    torch.testing.assert_close(method.prior, torch.tensor(found, dtype=torch.float32))


def test_a_prior_that_cannot_be_had_is_named() -> None:
    with pytest.raises(UserError, match=r"'train-votes' needs votes of the training images\n  -> set 'votes: true'"):
        build_small({"prior": "train-votes"})
    with pytest.raises(UserError, match="FERPlus has no class compound"):
        build_small(classes=("neutral", "compound"))
    assert build_small({"loss": "cross-entropy"}, classes=("neutral", "compound")).prior is None


def test_the_prior_is_no_part_of_the_network() -> None:
    states = [build_small({"loss": loss}).net.state_dict() for loss in ("f-pdls", "cross-entropy")]
    assert states[0].keys() == states[1].keys()
    restored = build_small({"prior": "train-votes", "up": "sr"}, restoring=True)  # votes are for training only
    assert restored.prior is None
    restored.load_released(states[0])
    for name, value in restored.net.state_dict().items():
        assert torch.equal(value, states[0][name]), name


# ------------------------------------------------------------------------------------------------------------- training
@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_table_2_take_a_step(setting: str, tmp_path: Path) -> None:
    backbone, _, options = SETTINGS[setting]
    size = 28 if options["down"] == "none" else SIZE
    weights = {"sr-synthfer": write_superres(tmp_path)} if options["up"] == "sr" else {}
    method = build_small({**options, "sr_input": 24}, backbone=backbone, input_size=size, weights=weights)
    before = {name: value.clone() for name, value in method.net.named_parameters()}
    for step in range(2):
        stored = torch.rand(8, 1, 24, 24, generator=torch.Generator().manual_seed(step))
        images = method.front.apply(stored)
        assert images.shape == (8, 1, size, size)
        assert method.update(images.expand(-1, 3, -1, -1), TARGETS)["loss"].isfinite()
    unmoved = {name for name, value in method.net.named_parameters() if torch.equal(value, before[name])}
    assert unmoved == set()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_learns_a_batch(precision: str) -> None:
    method = build_small(learning_rate=3e-3, precision=precision)
    losses = [float(method.update(faces(), TARGETS)["loss"]) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.dtype == torch.float32 for p in method.net.parameters())


def test_evaluation_is_deterministic_and_of_every_image_alone() -> None:
    method = build_small()
    method.update(faces(), TARGETS)
    method.train(False)
    together = method.predict(faces(5))
    assert torch.equal(together, method.predict(faces(5)))
    alone = torch.cat([method.predict(image[None]) for image in faces(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_a_resumed_run_equals_an_uninterrupted_one() -> None:
    def steps(method: Training, numbers: range) -> None:
        method.train()
        for number in numbers:
            torch.manual_seed(number)  # as the loop does
            method.update(faces(seed=number), TARGETS)

    whole, first, second = build_small(), build_small(), build_small(seed=5)
    steps(whole, range(4))
    steps(first, range(2))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(second, range(2, 4))
    for name, value in whole.net.state_dict().items():
        assert torch.equal(second.net.state_dict()[name], value), name


# --------------------------------------------------------------------------------------------- in front of the network
def front_of(weights: dict[str, Path] | None = None, size: int = SIZE, **options: Any) -> Front | None:
    return make_front(Options.parse(options), size, context(weights=weights or {}))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("side", [24, 48, 100])
def test_interpolation_is_computed_for_every_batch(mode: str, side: int) -> None:
    front = front_of(up=mode)
    assert front is not None
    assert front.once == ""
    stripes = (torch.arange(side) % 2).float().expand(2, 1, side, side)
    images = front.apply(stripes)
    assert images.shape == (2, 1, SIZE, SIZE)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    if side == 100 and mode != "nearest":  # antialiased
        torch.testing.assert_close(images, torch.full_like(images, 0.5), atol=0.1, rtol=0)


def test_up_none_leaves_images_to_the_loop() -> None:
    assert front_of(up="none") is None
    assert build_small({"up": "none"}).front is None


@pytest.mark.parametrize(("scale", "side", "times"), [(2, 24, 1), (4, 12, 1), (2, 12, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_super_resolution_is_applied_until_the_size_is_reached(
    tmp_path: Path, scale: int, side: int, times: int, channels: int
) -> None:
    path = write_superres(tmp_path, scale)
    front = front_of({"sr-real": path}, sr_input=side)
    assert front is not None
    images = torch.rand(2, channels, side, side)
    wanted, net = images, network.from_state(read_state(path), "the file")
    for _ in range(times):
        wanted = net(wanted)
    found = front.apply(images)
    assert found.shape == (2, channels, SIZE, SIZE)
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted.detach())


def test_larger_images_are_shrunk_to_what_super_resolution_takes(tmp_path: Path) -> None:
    """RAF-DB's 100 pixels become 48 first, antialiased."""
    front = front_of({"sr-synthfer": write_superres(tmp_path)}, size=96)
    assert front is not None
    images = faces(2, 100).sigmoid()
    small = F.interpolate(images, (48, 48), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(front.apply(images), front.apply(small))
    assert front.apply(images).shape == (2, 3, 96, 96)
    assert front.apply(images[:, :, ::2, ::2]).shape == (2, 3, 96, 96)  # 50 pixels


@pytest.mark.parametrize(("scale", "small", "size"), [(4, 48, 96), (2, 48, 144), (8, 48, 48), (1, 24, 48), (2, 48, 24)])
def test_a_scale_that_does_not_lead_to_the_size_is_refused(scale: int, small: int, size: int) -> None:
    message = f"super-resolution by {scale} does not lead from {small} to {size} pixels"
    with pytest.raises(UserError, match=message):
        applications(scale, small, size)
    assert applications(8, 48, 384) == 1
    assert applications(2, 48, 384) == 3


def test_the_identity_tells_what_changes_numbers(tmp_path: Path) -> None:
    files = [write_superres(tmp_path), write_superres(tmp_path, seed=1)]
    other_scale = write_superres(tmp_path, scale=4)
    fronts = [
        front_of({"sr-synthfer": files[0]}, sr_input=24), front_of({"sr-synthfer": files[1]}, sr_input=24),
        front_of({"sr-real": files[0]}, sr_input=24), front_of({"sr-synthfer": files[0]}, sr_input=12),
        front_of({"sr-synthfer": other_scale}, sr_input=12), front_of({"sr-synthfer": files[0]}, size=24, sr_input=12),
    ]  # fmt: skip
    told = [front.once for front in fronts if front]
    assert "" not in told
    assert len(set(told)) == len(fronts)
    again = front_of({"sr-synthfer": files[0]}, sr_input=24)
    assert again is not None
    assert again.once == told[0]
    assert fingerprint(LOADERS["sr-synthfer"](load_file(files[0]), "a file")) in told[0]


@pytest.mark.parametrize(("size", "batch"), [(384, 1), (96, 16), (2000, 1)])  # on a processor
def test_fewer_large_images_at_a_time(tmp_path: Path, size: int, batch: int) -> None:
    front = front_of({"sr-real": write_superres(tmp_path)}, size=size, sr_input=size // 2)
    assert front is not None
    assert front.batch == batch


def test_kept_images_go_by_the_methods_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes the front's numbers changes those of its runs: one version stands for both."""
    weights = {"sr-synthfer": write_superres(tmp_path)}
    now = registry.find("method", "nresizer")
    before = front_of(weights, 384)
    assert before is not None
    assert before.once.startswith(f"sr-synthfer version {now.version}, sha256 ")
    monkeypatch.setattr(registry, "find", lambda kind, name: replace(now, version=now.version + 1))
    after = front_of(weights, 384)
    assert after is not None
    assert after.once == before.once.replace(f"version {now.version},", f"version {now.version + 1},") != before.once


@pytest.mark.parametrize(("free", "units"), [(139e9, 16), (24e9, 3), (1e9, 1)])
def test_images_at_a_time_follow_from_free_memory(monkeypatch: pytest.MonkeyPatch, free: float, units: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), 141 * 10**9))
    assert front_file._units(torch.device("cuda")) == units
    assert front_file._units(torch.device("cpu")) == 1


def test_super_resolution_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="up sr has no weights for super-resolution\n  -> name one of dic-helen, sr-"):
        front_of()
    front = make_front(Options(), 384, context(restoring=True))
    assert front is not None
    assert front.once == ""
    with pytest.raises(UserError, match="sees images behind super-resolution, whose weights are not at hand"):
        front.apply(torch.zeros(1, 1, 48, 48))
    path = write_superres(tmp_path)
    given = make_front(Options(), 384, context(restoring=True, weights={"sr-real": path}))
    assert given is not None
    assert given.apply(torch.zeros(1, 1, 48, 48)).shape == (1, 1, 384, 384)
    with pytest.raises(UserError, match="'sr-synthfer' and 'sr-real' are both for super-resolution"):
        front_of({"sr-real": path, "sr-synthfer": path})
    with pytest.raises(UserError, match="'sr-real' have no place in nresizer with up bilinear"):
        front_of({"sr-real": path}, up="bilinear")


def test_resizing_stays_in_range() -> None:
    edge = torch.zeros(1, 1, 12, 12)
    edge[..., 6:] = 1
    assert float(resize(edge, 48, "bicubic").min()) == 0
    assert float(resize(edge, 48, "bicubic").max()) == 1
    assert resize(edge, 12, "bilinear") is edge


# -------------------------------------------------------------------------------------------------------- weight files
def test_the_backbone_comes_from_the_file_without_its_head(tmp_path: Path) -> None:
    source = build_small(seed=3).net.model.state_dict()
    path = tmp_path / "swin.safetensors"
    save_file({name: value for name, value in source.items() if "head" not in name}, path)
    given = {"weights": {"swin-small-in1k": path}}
    net = build_small(pretraining="imagenet1k", **given).net.model
    fresh = build_small().net.model.state_dict()
    for name, value in net.state_dict().items():
        assert torch.equal(value, (fresh if "head" in name else source)[name]), name
    with pytest.raises(UserError, match=r"pretrained weights of swin_small \(imagenet1k\) are not at hand"):
        build_small(pretraining="imagenet1k")
    with pytest.raises(UserError, match="'swin-small-in1k' have no place in nresizer with pretraining none"):
        build_small(**given)
    with pytest.raises(UserError, match="unknown pretraining of nresizer 'imagenet'"):
        build_small(pretraining="imagenet", **given)
    with pytest.raises(UserError, match=r"swin.safetensors \(swin-small-in1k\)"):
        build_small(pretraining="imagenet1k", backbone="swin_base", **given)


def test_while_restoring_no_file_is_needed() -> None:
    assert build_small(pretraining="imagenet1k", restoring=True).steps == 0


# -------------------------------------------------------------------------------------------------------------- numbers

# Losses of three seeded steps per variant, and the method version they belong to. If one changes, results of earlier
# runs no longer come from this code: raise `version` in methods/nresizer/__init__.py and record the new numbers here.
GOLDEN_VERSION = 1
GOLDEN: dict[str, tuple[dict[str, Any], list[float]]] = {
    "proposed": ({}, [1.709845, 1.507459, 1.607312]),
    "no-stn": ({"stn": False}, [1.748134, 1.694428, 1.594957]),
    "bilinear": ({"stn": False, "down": "bilinear"}, [1.940997, 1.644731, 1.6885]),
    "bicubic": ({"down": "bicubic"}, [1.72585, 1.532955, 1.944053]),
    "vanilla": ({"stn": False, "down": "none", "loss": "cross-entropy"}, [2.115146, 2.195092, 2.214931]),
    "pdls": ({"loss": "pdls", "alpha": 0.5}, [2.180879, 2.016077, 2.235555]),
    "sigmoid-uniform": ({"probability": "sigmoid", "prior": "uniform"}, [0.215525, 0.26293, 0.171633]),
    "two-blocks": ({"resizer_blocks": 2, "head_hidden": 0}, [1.865006, 3.016399, 3.102914]),
}


@pytest.mark.parametrize("variant", GOLDEN)
def test_golden_losses(variant: str) -> None:
    options, expected = GOLDEN[variant]
    assert registry.find("method", "nresizer").version == GOLDEN_VERSION, "record the losses of the new version"
    assert golden(options) == pytest.approx(expected, abs=1e-4), "numbers changed: raise the method's version"


def golden(options: dict[str, Any]) -> list[float]:
    """In float64, where rounding tips no ReLU, and with SGD, since Adam makes much of gradients near zero.

    The STN starts a little off the identity: on the pixels themselves rounding decides between two slopes.
    """
    size = 28 if options.get("down") == "none" else SIZE
    method = build_small(options, optimizer="sgd", learning_rate=0.05, input_size=size)
    still(method.net).double()
    if isinstance(method.net.stn, STN):
        with torch.no_grad():
            method.net.stn.fc_loc[2].bias.add_(torch.tensor([0.013, 0.021, -0.017, 0.009, -0.011, 0.019]))
    images = [faces(size=size, seed=10 + step, dtype=torch.double) for step in range(3)]
    return [float(method.update(batch, TARGETS)["loss"]) for batch in images]
