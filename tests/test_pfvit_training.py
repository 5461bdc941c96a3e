"""PF-ViT's training: who moves in which step, the weights of the losses, Multi-Task MAE."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pfvit import (
    CLASSES,
    NEUTRAL,
    SIZE,
    STEPS,
    TARGETS,
    build_small,
    changed,
    faces,
    snapshot,
    write_weights,
)
from torch import Tensor, nn

from bench.errors import UserError
from methods.pfvit import losses
from methods.pfvit.constraint import Features, pixels

NETWORK = {"constraint_network": "resnet18"}
PLAIN, STEM = "vit_tiny_patch16", "vit_small_patch16"  # here with a linear patch embedding, with convolutions


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_weights(tmp_path_factory.mktemp("weights"))


def still(optimizer: torch.optim.Optimizer) -> Any:
    """From now on it leaves its parameters alone; gives its own step back."""
    step = optimizer.step
    optimizer.step = lambda *_: None  # type: ignore[method-assign]
    return step


def trained(net: nn.Module) -> set[str]:
    return {name for name, parameter in net.named_parameters() if parameter.requires_grad}


# ------------------------------------------------------------------------------------------------------------ who moves
@pytest.mark.parametrize(
    ("options", "backbone"),
    [({}, PLAIN), (NETWORK, PLAIN), ({"fusion": "self"}, PLAIN), ({"adversarial_sign": "literal"}, PLAIN), ({}, STEM)],
)
def test_each_step_moves_exactly_its_own(options: dict[str, Any], backbone: str, files: dict[str, Path]) -> None:
    method = build_small(options, files, backbone=backbone)
    names = trained(method.net)
    adversaries = {name for name in names if name.startswith("discriminator.")}
    for optimizer, own in (
        (method.discriminator_optimizer, names - adversaries), (method.optimizer, adversaries),
    ):  # fmt: skip
        step, before = still(optimizer), snapshot(method.net)
        method.update(faces(), TARGETS)
        assert changed(method.net, before) & names == own
        optimizer.step = step  # type: ignore[method-assign]
    before = snapshot(method.net)
    method.update(faces(), TARGETS)
    assert changed(method.net, before) & names == names
    assert trained(method.net) == names, "nothing stays frozen between steps"


def test_every_parameter_has_one_optimizer(files: dict[str, Path]) -> None:
    method = build_small(NETWORK, files)
    given = [
        id(parameter)
        for optimizer in (method.optimizer, method.discriminator_optimizer)
        for group in optimizer.param_groups for parameter in group["params"]
    ]  # fmt: skip
    assert sorted(given) == sorted(id(parameter) for parameter in method.net.parameters() if parameter.requires_grad)


def test_the_discriminator_gets_its_gradient_from_equation_7_alone() -> None:
    """What the others' step leaves in D's gradients is what D's own step put there."""
    method = build_small()
    still(method.discriminator_optimizer), still(method.optimizer)
    method.update(faces(), TARGETS)
    found = method.net.faces(faces())
    answers = method.net.discriminator(torch.cat([faces(), found.rebuilt.detach(), found.poker.detach()]))
    expected = torch.autograd.grad(losses.discriminator(answers, TARGETS, NEUTRAL, "all-faces"), method.adversaries)
    for parameter, gradient in zip(method.adversaries, expected):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("backbone", [PLAIN, STEM])
def test_the_others_are_judged_by_the_discriminator_that_has_learnt(backbone: str) -> None:
    """Where its stem looks across images, among the same images as when it learnt."""
    method = build_small(backbone=backbone)
    still(method.optimizer)
    found = method.update(faces(), TARGETS)
    generated = method.net.faces(faces())
    answers = method.net.discriminator(torch.cat([faces(), generated.rebuilt, generated.poker]))[len(TARGETS) :]
    expected = losses.adversarial(answers, TARGETS, NEUTRAL, "swapped-target")
    torch.testing.assert_close(found["adversarial"], expected.detach())


@pytest.mark.parametrize("kind", ["resnet18", "resnet50", "inception-resnet-v1", "mae-encoder"])
@pytest.mark.parametrize("goal", ["orthogonal", "same-identity"])
def test_a_constraint_network_never_changes(kind: str, goal: str, files: dict[str, Path]) -> None:
    method = build_small({"constraint_network": kind, "constraint_goal": goal}, files)
    assert method.constraint is not None
    network = method.constraint.network
    before = snapshot(network)
    method.train()
    for step in range(3):
        found = method.update(faces(seed=step), TARGETS)
    assert found["network"] > 0
    assert changed(network, before) == set()
    assert not any(module.training for module in network.modules())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    shared = {id(parameter) for parameter in method.net.parameters()} & {id(p) for p in network.parameters()}
    assert not shared
    assert not any(name.startswith("constraint") for name in method.state_dict()["net"])


# ----------------------------------------------------------------------------------------------------------- constraint
def test_the_network_term_compares_emotion_and_poker_face(files: dict[str, Path]) -> None:
    method = build_small(NETWORK | {"network_weight": 0.0}, files)
    still(method.optimizer), still(method.discriminator_optimizer)
    found, generated = method.update(faces(), TARGETS), method.net.faces(faces())
    assert method.constraint is not None
    first, second = (method.constraint(face) for face in (generated.emotion, generated.poker))
    expected = torch.cosine_similarity(first, second).square().mean()
    torch.testing.assert_close(found["network"], expected.detach())

    method = build_small(NETWORK | {"constraint_goal": "same-identity"}, files)
    still(method.optimizer), still(method.discriminator_optimizer)
    found, generated = method.update(faces(), TARGETS), method.net.faces(faces())
    assert method.constraint is not None
    first, second = (method.constraint(face) for face in (faces(), generated.poker))
    torch.testing.assert_close(found["network"], (1 - torch.cosine_similarity(first, second)).mean().detach())


def test_networks_see_pixels(files: dict[str, Path]) -> None:
    """In the scale of the file they came from, whatever the recipe's is, with a gradient to the faces."""
    scale = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}
    images = torch.rand(2, 3, SIZE, SIZE)
    mean, std = (torch.tensor(scale[name])[:, None, None] for name in ("mean", "std"))
    method = build_small(NETWORK, files, **scale)
    assert method.constraint is not None
    normalised = ((images - mean) / std).requires_grad_()
    found = method.constraint(normalised)
    torch.testing.assert_close(found, method.constraint.network(images), atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(found.square().sum(), normalised)
    assert gradient.abs().max() > 0
    back = pixels({**scale, "colour": "bgr"}, torch.device("cpu"))((images - mean) / std)
    torch.testing.assert_close(back, images.flip(1))


def test_the_encoders_copy_is_the_pretrained_one(files: dict[str, Path]) -> None:
    method = build_small({"constraint_network": "mae-encoder"}, files)
    images, start = faces(2), copy.deepcopy(method.net.encoder)
    method.update(faces(), TARGETS)
    assert method.constraint is not None
    assert isinstance(method.constraint.network, Features)
    torch.testing.assert_close(method.constraint(images), start(images)[:, 1:].mean(dim=1))
    assert not torch.allclose(method.constraint(images), method.net.encoder(images)[:, 1:].mean(dim=1))


# -------------------------------------------------------------------------------------------------------------- weights
def test_balanced_weights_by_hand(files: dict[str, Path]) -> None:
    """Means of two steps; the third and fourth step have the second's weights."""
    shares = {"reconstruction": 2.0, "adversarial": 0.5, "direct": 1.0, "network": 3.0}
    method = build_small({**NETWORK, **{f"{name}_weight": share for name, share in shares.items()}}, files)
    seen: list[dict[str, float]] = []
    for step in range(4):
        found = {name: float(value) for name, value in method.update(faces(seed=step), TARGETS).items()}
        seen.append(found)
        first = seen[:2]
        total = found["emotion"]
        for name, share in shares.items():
            weight = share * sum(f["emotion"] for f in first) / sum(f[name] for f in first)
            assert found[f"weight_{name}"] == pytest.approx(weight, rel=1e-5)
            total += weight * found[name]
        assert found["loss"] == pytest.approx(total, rel=1e-5)
    assert seen[3]["weight_direct"] == seen[1]["weight_direct"] != seen[0]["weight_direct"]


def test_a_negative_loss_has_a_positive_weight() -> None:
    found = build_small({"adversarial_sign": "literal"}).update(faces(), TARGETS)
    assert found["adversarial"] < 0
    assert found["weight_adversarial"] * found["adversarial"] == pytest.approx(-float(found["emotion"]), rel=1e-5)


def test_fixed_weights_are_those_of_the_options() -> None:
    shares = {"reconstruction": 2.0, "adversarial": 0.5, "direct": 0.25}
    method = build_small({"loss_weights": "fixed", **{f"{name}_weight": share for name, share in shares.items()}})
    found = {name: float(value) for name, value in method.update(faces(), TARGETS).items()}
    expected = found["emotion"] + sum(share * found[name] for name, share in shares.items())
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert not any(name.startswith("weight") for name in found)


def test_what_is_recorded(files: dict[str, Path]) -> None:
    always = {"loss", "emotion", "reconstruction", "neutral_reconstruction", "discriminator", "adversarial"}
    weights = {"weight_reconstruction", "weight_adversarial"}
    assert set(build_small({"direct_constraint": False}).update(faces(), TARGETS)) == always | weights
    found = build_small(NETWORK, files).update(faces(), TARGETS)
    assert set(found) == always | weights | {"direct", "network", "weight_direct", "weight_network"}
    assert not any(value.requires_grad or value.ndim for value in found.values())
    images, others = faces(), torch.tensor([0, 2, 3, 0, 2])
    assert float(build_small().update(images, others)["neutral_reconstruction"]) == 0


# ------------------------------------------------------------------------------------------------- optimizers, options
def test_both_rates_follow_the_schedule() -> None:
    method = build_small(
        {"discriminator_learning_rate": 0.02}, learning_rate=0.01, schedule="plateau", schedule_patience=0,
        warmup_epochs=2,
    )  # fmt: skip
    rates = []
    for epoch in range(3):
        for _ in range(STEPS):
            method.update(faces(), TARGETS)
            rates.append([o.param_groups[0]["lr"] for o in (method.optimizer, method.discriminator_optimizer)])
        method.epoch_end(epoch + 1, 1.0, None)
    scales = [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0, *[0.1] * 3]  # the second epoch's loss was no better
    assert rates == [pytest.approx([0.01 * scale, 0.02 * scale]) for scale in scales]
    assert method.discriminator_optimizer.defaults["betas"] == (0.5, 0.999)


def test_the_discriminator_may_step_more_often() -> None:
    method = build_small({"discriminator_steps": 3})
    method.update(faces(), TARGETS)
    (step,) = {int(state["step"]) for state in method.discriminator_optimizer.state.values()}
    assert step == 3


VARIANTS: dict[str, dict[str, Any]] = {
    "token": {"separator": "token", "separator_reduction": 4}, "self": {"fusion": "self"},
    "random-fusion": {"fusion_start": "random"},
    "encoder-stem": {"discriminator_stem": "encoder"}, "norm": {"reconstruction": "norm"},
    "literal": {"adversarial_sign": "literal"}, "real-faces": {"discriminator_emotions": "real-faces"},
    "remains": {"discriminator_emotions": "remains"}, "ramp": {"adversarial_ramp": 4, "neutral_weight": 2.0},
    "no-direct": {"direct_constraint": False},
    "absolute": {"orthogonality": "absolute-cosine", **NETWORK}, "two-steps": {"discriminator_steps": 2},
    "same-identity": {"constraint_goal": "same-identity", "constraint_network": "inception-resnet-v1"},
    "resnet50": {"constraint_network": "resnet50", "loss_weights": "fixed"},
    "mae-encoder": {"constraint_network": "mae-encoder"}, "multitask": {"multitask": True},
    "masked": {"multitask": True, "train_mask": 0.75, "test_mask": 0.5, **NETWORK}, "stem": {},
    "stem-masked": {"multitask": True, "train_mask": 0.5, "constraint_network": "mae-encoder"},
}  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_choice_runs(variant: str, precision: str, files: dict[str, Path]) -> None:
    options = VARIANTS[variant]
    backbone = STEM if variant.startswith("stem") else PLAIN
    method = build_small(options, files, precision=precision, channels_last=variant == "masked", backbone=backbone)
    method.train()
    for step in range(2):
        found = method.update(faces(seed=step), TARGETS)
        assert all(value.isfinite() and value.dtype == torch.float32 for value in found.values())
    method.train(False)
    with torch.inference_mode():
        assert method.predict(faces()).shape == (5, len(CLASSES))
    assert all(parameter.dtype == torch.float32 for parameter in method.net.parameters())


def test_half_precision_changes_little(files: dict[str, Path]) -> None:
    expected = build_small(NETWORK, files).update(faces(), TARGETS)
    found = build_small(NETWORK, files, precision="bf16").update(faces(), TARGETS)
    for name in ("emotion", "reconstruction", "discriminator", "adversarial", "direct", "network"):
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=0.03), name


def test_training_learns_a_batch() -> None:
    """The classes of five images, and what they look like."""
    method = build_small(learning_rate=3e-3)
    found = [method.update(faces(), TARGETS) for _ in range(25)]
    for name, share in (("emotion", 0.5), ("reconstruction", 0.9)):
        assert float(found[-1][name]) < share * float(found[0][name]), name


@pytest.mark.parametrize("restoring", [False, True])
def test_classes_without_neutral_are_refused(restoring: bool) -> None:
    def wrong() -> None:
        build_small(classes=("anger", "fear"), restoring=restoring).check_classes()

    with pytest.raises(UserError, match="from the class 'neutral', which is none of the classes here: anger, fear"):
        wrong()
    with pytest.raises(UserError, match="none of the classes here: NEUTRAL, fear") as caught:
        build_small(classes=("NEUTRAL", "fear"))
    assert "`labels: {NEUTRAL: neutral}` in ferbench.yaml" in caught.value.hint
    assert build_small(classes=("anger", "fear"), restoring=True).predict(faces()).shape == (5, 2)


# ------------------------------------------------------------------------------------------------------------ multitask
def test_multitask_hides_other_patches_in_every_step() -> None:
    method = build_small({"multitask": True, "train_mask": 0.5})
    seen: list[Tensor] = []
    separate = method.net.separate
    method.net.separate = lambda images, kept: (seen.append(kept), separate(images, kept))[1]  # type: ignore
    for step in range(2):
        torch.manual_seed(step)
        method.update(faces(), TARGETS)
    assert [tuple(kept.shape) for kept in seen] == [(5, 8)] * 2
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0][0], seen[0][1])


def test_multitask_is_asked_the_same_at_every_evaluation() -> None:
    method = build_small({"multitask": True, "test_mask": 0.5})
    method.train(False)
    first = method.predict(faces())
    torch.manual_seed(99)
    assert torch.equal(first, method.predict(faces()))
    assert not torch.allclose(first, method.net(faces()), atol=1e-4)
    without = build_small({"multitask": True})
    assert torch.equal(without.predict(faces()), without.net(faces()))
