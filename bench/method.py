"""The contract between the training loop and a method.

A method owns its networks, losses and optimizers; the loop owns data, devices, precision, checkpoints and logging.
Adversarial training, two-pass optimizers and masked pretraining fit because one call of `update` is one step, whatever
happens inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import parallel
from bench.errors import UserError, unknown
from bench.weight_files import load_strict

RecipeValues = Mapping[str, Any]


@dataclass(frozen=True)
class Spec:
    """Which model to build: the part of an entry that a method's `build` reads.

    Attributes:
        options: the recipe's `method.*` values, overridden by the experiment's and the profile's options.
    """

    experiment: str
    backbone: str
    pretraining: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Votes:
    """What raters said of the training images; rows are images, in no particular order.

    Attributes:
        counts: float64 (N, K), votes for each of `Context.classes`.
        labels: int64 (N,), the class each image has under the run's protocol.
    """

    counts: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Front:
    """A fixed function of stored images, ahead of augmentation: an interpolation, or a network that is not trained.

    Attributes:
        apply: float (B, C, H, W) in [0, 1] to the same kind at the size that augmentation is to work at; called without
            gradient on the device of the run.
        once: where it is too slow for every step, what the function is, with everything that changes its numbers
            (weights by their hash). Its images are then computed once for all runs, rounded to 8 bits and kept. Empty:
            computed for every batch.
        batch: images at a time where they are computed once.
    """

    apply: Callable[[Tensor], Tensor]
    once: str = ""
    batch: int = 64


@dataclass(frozen=True)
class Context:
    """What a method may know about the run it is built for."""

    classes: tuple[str, ...]
    input_size: int
    steps_per_epoch: int
    device: torch.device
    precision: str = "fp32"  # fp32 | bf16
    seed: int = 0
    weights: Mapping[str, Path] = field(default_factory=dict)
    votes: Votes | None = None
    """Of the training images, where the recipe says `votes: true`; None for every other run, and while `restoring`."""
    restoring: bool = False
    """The network's weights are loaded right after building, so no file for it is needed or given: at most that of the
    experiment's `front`, which is not part of the network."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision the recipe asks for; a no-op for fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


class Method:
    """Base of every method. Subclasses set `net` and implement `update` and `predict`."""

    net: nn.Module
    classifies: ClassVar[bool] = True
    """Whether it answers with classes. A stage (a landmark network, masked pretraining) does not: its product is the
    network, and `validate` measures it."""
    front: Front | None = None
    """What stored images go through ahead of augmentation, in training and in evaluation; None: nothing."""
    remark: str = ""
    """What whoever asks for the backbone by name should be told of it: that a miniature stands for it."""
    backbone: str = ""
    """The tables' name of the backbone, where it was asked for by another; random weights run under this one."""

    def update(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One optimisation step.

        Args:
            images: float (B, 3, H, W), normalised and augmented.
            targets: int64 (B,), indices into `context.classes`; of a stage, whatever its protocol's targets are.

        Returns:
            Detached scalar losses by name, still on the device (the loop never synchronises inside an epoch).
        """
        raise NotImplementedError

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, K) in evaluation mode for float images (B, 3, H, W)."""
        raise NotImplementedError

    def validate(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """For a method that does not classify: measures of a batch in evaluation mode, each (B,), by name."""
        raise NotImplementedError

    def check_classes(self) -> None:
        """Refuse classes that it cannot be trained for; asked of a network built while `restoring`, before a user's own
        images are read or a stage is trained.

        Raises:
            UserError: names them.
        """

    def parameter_parts(self) -> dict[str, int]:
        """Part of the network -> its parameters, counted as the paper counts them where it prints numbers of them."""
        return {}

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Take weights that were trained elsewhere: of another run of ours; a method that knows how its authors name
        theirs takes those too.

        Raises:
            UserError: some tensor has no place or some place no tensor; names them.
        """
        load_strict(self.net, state, "the checkpoint")

    def epoch_end(self, epoch: int, train_loss: float, val_accuracy: float | None) -> None:
        """Called after each epoch's evaluation; schedules that follow a metric live here."""

    def train(self, mode: bool = True) -> None:
        """Switch networks between training and evaluation behaviour."""
        self.net.train(mode)

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Move networks to the device and memory layout of the run."""
        self.net.to(device)
        self.net.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)  # type: ignore[call-overload]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        raise NotImplementedError


class Supervised(Method):
    """One network, one optimizer, cross-entropy with label smoothing, one schedule: the ordinary case.

    Learning rate = base x warm-up x schedule; `constant`, `cosine`, `step` and `exponential` depend on the step count
    only, `plateau` multiplies by `schedule_factor` when the loss it watches stops falling. `groups` may be overridden:
    a group with a `rate` learns at that many times the learning rate.
    """

    losses: ClassVar[tuple[str, ...]] = ("cross-entropy",)
    """What a recipe's `loss` may be; a subclass with others overrides `loss`."""

    def __init__(self, net: nn.Module, recipe: RecipeValues, context: Context) -> None:
        self.net = net
        self.recipe = recipe
        self.context = context
        self.to(context.device, bool(recipe["channels_last"]))
        self.optimizer = make_optimizer(self.groups(), recipe)
        self.steps = 0
        self.plateau_scale = 1.0
        self.best_watched = math.inf
        self.bad_epochs = 0
        if recipe["loss"] not in self.losses:
            raise unknown("loss", str(recipe["loss"]), self.losses)

    def groups(self) -> list[dict[str, Any]]:
        """The trained parameters as groups of the optimizer."""
        return [{"params": [parameter for parameter in self.net.parameters() if parameter.requires_grad]}]

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Scalar training loss of a batch."""
        with self.context.autocast():
            logits = self.net(images)
        return F.cross_entropy(logits.float(), targets, label_smoothing=float(self.recipe["label_smoothing"]))

    def set_rate(self, optimizer: torch.optim.Optimizer, base: float) -> None:
        """Give an optimizer its learning rate of the step at hand: `base` times warm-up and schedule."""
        scale = schedule_scale(self.recipe, self.steps, self.context.steps_per_epoch) * self.plateau_scale
        for group in optimizer.param_groups:
            group["lr"] = base * scale * group.get("rate", 1.0)

    def update(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        self.set_rate(self.optimizer, float(self.recipe["learning_rate"]))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(images, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        parallel.mean_gradients(self.net.parameters())
        self.optimizer.step()
        self.steps += 1
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        with self.context.autocast():
            logits: Tensor = self.net(images)
        return logits.float()

    def epoch_end(self, epoch: int, train_loss: float, val_accuracy: float | None) -> None:
        if self.recipe["schedule"] != "plateau":
            return
        watched = train_loss if val_accuracy is None else -val_accuracy
        if watched < self.best_watched:
            self.best_watched, self.bad_epochs = watched, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs > int(self.recipe["schedule_patience"]):
            self.plateau_scale *= float(self.recipe["schedule_factor"])
            self.bad_epochs = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "plateau": [self.plateau_scale, self.best_watched, self.bad_epochs],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = int(state["steps"])
        self.plateau_scale, self.best_watched, self.bad_epochs = state["plateau"]


def make_optimizer(groups: list[dict[str, Any]], recipe: RecipeValues) -> torch.optim.Optimizer:
    """The recipe's optimizer; fused where the device has it (same update rule, fewer kernels)."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    rate, decay = float(recipe["learning_rate"]), float(recipe["weight_decay"])
    fused = all(parameter.device.type in ("cuda", "cpu") for parameter in parameters)
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(groups, rate, betas=tuple(recipe["betas"]), weight_decay=decay, fused=fused),
        "adamw": lambda: torch.optim.AdamW(groups, rate, betas=tuple(recipe["betas"]), weight_decay=decay, fused=fused),
        "sgd": lambda: torch.optim.SGD(
            groups, rate, momentum=float(recipe["momentum"]), weight_decay=decay, fused=fused
        ),
    }
    if recipe["optimizer"] not in makers:
        raise unknown("optimizer", str(recipe["optimizer"]), makers)
    return makers[recipe["optimizer"]]()


def schedule_scale(recipe: RecipeValues, step: int, steps_per_epoch: int) -> float:
    """Factor on the learning rate before `step` (0-based): linear warm-up times the recipe's schedule."""
    epoch, warmup = step / steps_per_epoch, float(recipe["warmup_epochs"])
    ramp = min(1.0, (step + 1) / (warmup * steps_per_epoch)) if warmup else 1.0
    kind, factor = recipe["schedule"], float(recipe["schedule_factor"])
    if kind in ("constant", "plateau"):
        return ramp
    if kind == "cosine":
        done = min(1.0, max(0.0, (epoch - warmup) / max(1e-9, float(recipe["epochs"]) - warmup)))
        return ramp * 0.5 * (1.0 + math.cos(math.pi * done))
    if kind == "step":
        return ramp * factor ** sum(int(epoch) >= int(milestone) for milestone in recipe["schedule_epochs"])
    if kind == "exponential":
        return ramp * factor ** int(epoch)
    raise unknown("schedule", str(kind), ["constant", "cosine", "step", "plateau", "exponential"])


def parameter_counts(net: nn.Module) -> tuple[int, int]:
    """(total, trainable) parameters."""
    counts = [(p.numel(), p.numel() if p.requires_grad else 0) for p in net.parameters()]
    return sum(total for total, _ in counts), sum(trainable for _, trainable in counts)


def macs(net: nn.Module, input_size: int) -> int:
    """Multiply-accumulates of one image: half of torch's flop counter, attention products included."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    device = next(net.parameters()).device
    was_training = net.training
    net.eval()
    # the counter takes the fused attention of a processor for nothing, so attention runs as plain products here
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, input_size, input_size, device=device))
    net.train(was_training)
    return int(counter.get_total_flops()) // 2


def require_weights(context: Context, role: str) -> Path:
    """The local file given for `role`, or an error that says what to provide."""
    if role not in context.weights:
        raise UserError(f"pretrained weights '{role}' are not at hand", f"give a local file for '{role}'")
    return context.weights[role]
