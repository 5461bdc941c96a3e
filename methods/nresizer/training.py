"""How the Neural Resizer is trained: end to end behind super-resolution, with cross-entropy, PDLS or F-PDLS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError
from bench.method import Context, Front, RecipeValues, Supervised
from bench.weight_files import load_strict
from methods.nresizer.losses import prior_weighted
from methods.nresizer.model import NeuralResizer
from methods.nresizer.options import LOSSES, Options
from methods.nresizer.prior import class_means, for_classes
from methods.nresizer.released import to_ours


class Training(Supervised):
    """One optimizer over STN, resizer and backbone.

    The option `loss` goes before the recipe's. The prior is on the run's device and no part of the network: its file is
    the same whatever the loss was.
    """

    losses: ClassVar[tuple[str, ...]] = LOSSES
    net: NeuralResizer

    def __init__(
        self, net: NeuralResizer, options: Options, front: Front | None, recipe: RecipeValues, context: Context
    ) -> None:
        self.options = options
        super().__init__(net, {**recipe, "loss": options.loss or recipe["loss"]}, context)
        self.front = front
        self.prior: Tensor | None = None
        if self.recipe["loss"] == "cross-entropy":
            return
        if float(recipe["label_smoothing"]):
            message = f"label_smoothing {recipe['label_smoothing']} has no place in {self.recipe['loss']}"
            raise UserError(message, "its prior smooths the labels: set it to 0, or the loss to cross-entropy")
        if not context.restoring:
            self.prior = torch.tensor(make_prior(options.prior, context), dtype=torch.float32, device=context.device)

    def groups(self) -> list[dict[str, Any]]:
        """All parameters as one group; two where the STN learns at a rate of its own."""
        if not self.options.stn or self.options.stn_rate == 1.0:
            return super().groups()
        rest = [*self.net.res.parameters(), *self.net.model.parameters()]
        return [{"params": rest}, {"params": list(self.net.stn.parameters()), "rate": self.options.stn_rate}]

    def check_classes(self) -> None:
        """Refuse classes that FERPlus lacks, where the loss takes its prior."""
        if self.recipe["loss"] != "cross-entropy" and self.options.prior == "ferplus-train-votes":
            for_classes(self.context.classes)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        if self.recipe["loss"] == "cross-entropy":
            return super().loss(images, targets)
        assert self.prior is not None, "a network that is only restored has no prior to learn from"
        gamma = self.options.gamma if self.recipe["loss"] == "f-pdls" else 0.0
        with self.context.autocast():
            logits = self.net(images)
        return prior_weighted(logits, targets, self.prior, self.options.alpha, gamma, self.options.probability)

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a run of ours, or of a checkpoint of the Neural Resizer's authors.

        Raises:
            UserError: some tensor has no place or some place no tensor; names them, as they are called here.
        """
        load_strict(self.net, to_ours(state), "the checkpoint")


def make_prior(kind: str, context: Context) -> np.ndarray:
    """The (K, K) distributions d_kc of the option `prior`, one row for each of the context's classes.

    Raises:
        UserError: FERPlus lacks a class, or the run has no votes.
    """
    classes = context.classes
    if kind == "ferplus-train-votes":
        return for_classes(classes)
    if kind == "uniform":
        return np.full((len(classes), len(classes)), 1 / len(classes))
    if context.votes is None:
        raise UserError("the prior 'train-votes' needs votes of the training images", "set 'votes: true' in the recipe")
    return class_means(context.votes.counts, context.votes.labels, len(classes))
