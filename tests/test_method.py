"""Schedules, optimizers and the ordinary supervised method, each against a computation by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from bench.declare import RECIPE_FIELDS, REQUIRED
from bench.errors import UserError
from bench.method import (
    Context,
    Supervised,
    macs,
    make_optimizer,
    parameter_counts,
    require_weights,
    schedule_scale,
)  # fmt: skip

CPU = torch.device("cpu")


def recipe(**fields: Any) -> dict[str, Any]:
    plain = {name: value for name, value in RECIPE_FIELDS.items() if value is not REQUIRED}
    return {**plain, "optimizer": "sgd", "learning_rate": 0.1, "batch_size": 4, "epochs": 10, "input_size": 4, **fields}


def context(steps: int = 5, classes: int = 3, precision: str = "fp32") -> Context:
    return Context(tuple(f"c{i}" for i in range(classes)), 4, steps, CPU, precision)


def scales(steps: int = 5, **fields: Any) -> list[float]:
    plain = recipe(**fields)
    return [schedule_scale(plain, step, steps) for step in range(steps * plain["epochs"])]


def test_constant_is_one_and_warm_up_rises_to_it_linearly() -> None:
    assert set(scales()) == {1.0}
    found = scales(warmup_epochs=2)
    assert found[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert set(found[10:]) == {1.0}


def test_cosine_goes_from_one_to_nothing() -> None:
    found = scales(schedule="cosine")
    assert found == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 50)) for step in range(50)])
    assert found == sorted(found, reverse=True)


def test_cosine_begins_after_the_warm_up() -> None:
    found = scales(schedule="cosine", warmup_epochs=2)
    assert found[9] == pytest.approx(1.0)
    assert found[10] == pytest.approx(1.0)
    assert found[30] == pytest.approx(0.5)  # half of the remaining eight epochs
    assert max(found) <= 1.0


def test_step_multiplies_at_its_epochs() -> None:
    found = scales(schedule="step", schedule_epochs=[3, 6], schedule_factor=0.5)
    assert found == pytest.approx([1.0] * 15 + [0.5] * 15 + [0.25] * 20)


def test_exponential_multiplies_every_epoch() -> None:
    found = scales(schedule="exponential", schedule_factor=0.9)
    assert found == pytest.approx([0.9 ** (step // 5) for step in range(50)])


def test_unknown_schedule_optimizer_and_loss_are_named() -> None:
    with pytest.raises(UserError, match=r"unknown schedule 'cosin'.*\n.*cosine"):
        scales(schedule="cosin")
    with pytest.raises(UserError, match=r"unknown optimizer 'adamm'.*\n.*adam"):
        make_optimizer([{"params": [nn.Parameter(torch.zeros(1))]}], recipe(optimizer="adamm"))
    with pytest.raises(UserError, match="unknown loss 'focal'"):
        Supervised(nn.Linear(4, 3), recipe(loss="focal"), context())


def by_hand(kind: str, weight: float, gradients: list[float], rate: float, decay: float) -> float:
    """The published update rules, in Python floats."""
    first = second = velocity = 0.0
    for step, gradient in enumerate(gradients, 1):
        if kind == "adamw":
            weight -= rate * decay * weight
        else:
            gradient += decay * weight
        if kind == "sgd":
            velocity = gradient if step == 1 else 0.8 * velocity + gradient
            weight -= rate * velocity
            continue
        first, second = 0.7 * first + 0.3 * gradient, 0.9 * second + 0.1 * gradient**2
        weight -= rate * (first / (1 - 0.7**step)) / (math.sqrt(second / (1 - 0.9**step)) + 1e-8)
    return weight


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_optimizers_against_their_update_rules(kind: str) -> None:
    gradients = [0.5, -1.0, 0.25, 2.0]
    parameter = nn.Parameter(torch.tensor([0.7]))
    fields = {"optimizer": kind, "learning_rate": 0.1, "weight_decay": 0.2, "momentum": 0.8, "betas": [0.7, 0.9]}
    optimizer = make_optimizer([{"params": [parameter]}], recipe(**fields))
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient])
        optimizer.step()
    assert parameter.item() == pytest.approx(by_hand(kind, 0.7, gradients, 0.1, 0.2), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_label_smoothing_is_equation_15(smoothing: float) -> None:
    """FER-VT 3.5: the true class has 1 - eps + eps/K, every other eps/K (Eq. 15), in cross-entropy (Eq. 14)."""
    torch.manual_seed(0)
    images, targets, k = torch.randn(6, 4), torch.tensor([0, 1, 2, 2, 1, 0]), 3
    method = Supervised(nn.Linear(4, k), recipe(label_smoothing=smoothing), context())
    wanted = torch.full((6, k), smoothing / k)
    wanted[torch.arange(6), targets] += 1 - smoothing
    with torch.no_grad():
        logits = method.net(images)
        by_definition = -(wanted * (logits - logits.exp().sum(1, keepdim=True).log())).sum(1).mean()
    assert method.loss(images, targets).item() == pytest.approx(by_definition.item(), rel=1e-5)


def test_updates_against_hand_written_descent() -> None:
    """Linear softmax regression by SGD with momentum, decay and a cosine with warm-up, its gradient written out."""
    torch.manual_seed(1)
    net = nn.Linear(4, 3).double()
    weight, bias = net.weight.detach().clone(), net.bias.detach().clone()
    fields = {"schedule": "cosine", "warmup_epochs": 1, "epochs": 2, "momentum": 0.9, "weight_decay": 0.01}
    method = Supervised(net, recipe(**fields), context(steps=3))
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for step in range(6):
        images, targets = torch.randn(5, 4).double(), torch.randint(3, (5,))
        chances = (images @ weight.T + bias).softmax(1)
        error = (chances - nn.functional.one_hot(targets, 3)) / 5
        loss = -chances[torch.arange(5), targets].log().mean()
        rate = 0.1 * (min(1, (step + 1) / 3)) * 0.5 * (1 + math.cos(math.pi * max(0.0, (step / 3 - 1) / 1)))
        for part, (value, gradient) in enumerate([(weight, error.T @ images), (bias, error.sum(0))]):
            speed[part] = 0.9 * speed[part] + gradient + 0.01 * value
            value -= rate * speed[part]
        found = method.update(images, targets)["loss"]
        assert not found.requires_grad
        # logits are taken to float32 for the loss
        assert found.item() == pytest.approx(loss.item(), rel=1e-5)
        assert torch.allclose(net.weight, weight, atol=1e-6)
        assert torch.allclose(net.bias, bias, atol=1e-6)


def test_plateau_waits_patience_epochs_then_multiplies() -> None:
    method = Supervised(
        nn.Linear(4, 3), recipe(schedule="plateau", schedule_patience=2, schedule_factor=0.1), context()
    )
    rates = []
    for epoch, loss in enumerate([1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.8, 0.9, 0.9, 0.9]):
        method.epoch_end(epoch + 1, loss, None)
        method.update(torch.randn(2, 4), torch.tensor([0, 1]))
        rates.append(method.optimizer.param_groups[0]["lr"])
    # as torch's ReduceLROnPlateau with threshold 0: the third epoch in a row without improvement cuts
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, factor=0.1, patience=2, threshold=0.0)
    wanted = []
    for loss in [1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.8, 0.9, 0.9, 0.9]:
        plateau.step(loss)
        wanted.append(reference.param_groups[0]["lr"])
    assert rates == pytest.approx(wanted)
    assert min(rates) < 0.02


def test_plateau_watches_validation_accuracy_where_there_is_one() -> None:
    method = Supervised(nn.Linear(4, 3), recipe(schedule="plateau", schedule_patience=0), context())
    method.epoch_end(1, 1.0, 0.5)
    method.epoch_end(2, 9.0, 0.6)  # the loss is worse, the accuracy better
    assert method.plateau_scale == 1.0
    method.epoch_end(3, 0.1, 0.6)
    assert method.plateau_scale == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_a_state_continues_exactly(kind: str) -> None:
    torch.manual_seed(2)
    plain = recipe(optimizer=kind, schedule="plateau", schedule_patience=0, momentum=0.9)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    batches = [(torch.randn(6, 4), torch.randint(3, (6,))) for _ in range(8)]
    one = Supervised(net, plain, context())
    for step, batch in enumerate(batches):
        if step == 4:
            one.epoch_end(1, 1.0, None)
            one.epoch_end(2, 1.0, None)
            saved, weights = copy.deepcopy(one.state_dict()), copy.deepcopy(net)
        one.update(*batch)
    other = Supervised(weights.apply(lambda m: m), plain, context())
    for parameter in other.net.parameters():
        parameter.data.add_(1.0)
    other.load_state_dict(saved)
    for batch in batches[4:]:
        other.update(*batch)
    for name, value in one.net.state_dict().items():
        assert torch.equal(value, other.net.state_dict()[name]), name
    assert one.steps == other.steps == 8


def test_frozen_parameters_stay() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    method = Supervised(net, recipe(weight_decay=0.5), context())
    method.update(torch.randn(3, 4), torch.tensor([0, 1, 2]))
    assert torch.equal(net[0].weight, before)
    assert parameter_counts(net) == (35, 15)


def test_bf16_computes_the_network_in_bfloat16_and_keeps_float_logits() -> None:
    seen = []
    net = nn.Linear(4, 3)
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    method = Supervised(net, recipe(), context(precision="bf16"))
    method.update(torch.randn(3, 4), torch.tensor([0, 1, 2]))
    assert method.predict(torch.randn(3, 4)).dtype == torch.float32
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert net.weight.dtype == torch.float32


def test_macs_of_a_convolution_and_a_linear_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 16, 10, bias=False))
    net.train()
    assert macs(net, 4) == 16 * 8 * 3 * 9 + 8 * 16 * 10
    assert net.training


def test_macs_count_the_products_of_attention() -> None:
    """On a processor too, whose fused attention the counter knows nothing of."""

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(3, 8, bias=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            tokens = self.project(images.flatten(2).transpose(1, 2)).unflatten(2, (2, 4)).transpose(1, 2)
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    assert macs(Attend(), 4) == 16 * 3 * 8 + 2 * 16 * 16 * 8  # Linear; Q K^T and A V over 16 tokens of width 8


def test_absent_weights_are_named() -> None:
    with pytest.raises(UserError, match="'resnet34-imagenet1k' are not at hand"):
        require_weights(context(), "resnet34-imagenet1k")
