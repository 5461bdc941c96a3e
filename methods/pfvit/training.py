"""How PF-ViT is trained: the discriminator, then encoder, separator, generator and classifier (sections 3.2, 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.method import Context, RecipeValues, Supervised, make_optimizer
from methods.mae.vit import shuffled
from methods.pfvit import losses
from methods.pfvit.balance import Balance
from methods.pfvit.constraint import Constraint
from methods.pfvit.model import PFViT, Separated

NEUTRAL = "neutral"


class Training(Supervised):
    """Two optimizers that take turns.

    Faces are generated once a step and serve both sides: the discriminator learns first, from their values, then
    judges them anew for the others. The optimizer of `Supervised` is that of the others; the recipe's schedule holds
    for both.
    """

    net: PFViT

    def __init__(self, net: PFViT, constraint: Constraint | None, recipe: RecipeValues, context: Context) -> None:
        self.options = options = net.options
        self.constraint = constraint
        super().__init__(net, recipe, context)
        self.adversaries = [parameter for parameter in net.discriminator.parameters() if parameter.requires_grad]
        betas = (options.discriminator_beta1, options.discriminator_beta2)
        wanted = {"optimizer": "adam", "learning_rate": options.discriminator_learning_rate, "betas": betas}
        self.discriminator_optimizer = make_optimizer([{"params": self.adversaries}], {**recipe, **wanted})
        steps = options.balancing_steps if options.loss_weights == "balanced" else 0
        self.balance = Balance(self._shares(), steps, context.device)
        if not context.restoring:
            self.check_classes()
        self.neutral = context.classes.index(NEUTRAL) if NEUTRAL in context.classes else -1

    def groups(self) -> list[dict[str, Any]]:
        """Encoder, separator, generator and classifier."""
        parts = (self.net.encoder, self.net.separator, self.net.generator, self.net.classifier)
        return [{"params": [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]}]

    def _shares(self) -> dict[str, float]:
        """By term of the loss, what its weight is multiplied by."""
        options = self.options
        shares = {"reconstruction": options.reconstruction_weight, "adversarial": options.adversarial_weight}
        if options.direct_constraint:
            shares["direct"] = options.direct_weight
        if options.constraint_network != "none":
            shares["network"] = options.network_weight
        return shares

    def check_classes(self) -> None:
        """Refuse classes without a neutral one: it says what a poker face is."""
        if NEUTRAL not in self.context.classes:
            message = f"PF-ViT learns poker faces from the class '{NEUTRAL}', which is none of the classes here"
            near = next((name for name in self.context.classes if name.lower() == NEUTRAL), "Neutral")
            own = f"`labels: {{{near}: {NEUTRAL}}}` in ferbench.yaml, and '{NEUTRAL}' where that lists classes"
            hint = f"use a protocol with it; of your own data, call that class so: {own}"
            raise UserError(f"{message}: {', '.join(self.context.classes) or 'there are none'}", hint)

    def to(self, device: torch.device, channels_last: bool) -> None:
        super().to(device, channels_last)
        if self.constraint is not None:
            self.constraint.to(device, channels_last)

    # ------------------------------------------------------------------------------------------------------------ steps
    def update(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One step of the discriminator (or as many as the options say), one of all others.

        Returns:
            `loss`, what the others minimise; the terms that it is made of before weighting, `reconstruction` with its
            part `neutral_reconstruction`; `discriminator`, what that minimises; and, where weights are balanced, each
            as `weight_<term>`.
        """
        self.set_rate(self.optimizer, float(self.recipe["learning_rate"]))
        self.set_rate(self.discriminator_optimizer, self.options.discriminator_learning_rate)
        kept, restore = self._masks(images)
        with self.context.autocast():
            separated = self.net.separate(images, kept)
            logits = self.net.classify(separated)
            rebuilt, poker, *emotional = self.net.generate(self._wanted(separated), restore)
        judged = self._train_discriminator(images, rebuilt, poker, targets)

        neutral = losses.neutral_reconstruction(poker, images, targets, self.neutral, self.options.reconstruction)
        terms = {
            "reconstruction": losses.reconstruction(rebuilt, images, self.options.reconstruction)
            + self.options.neutral_weight * neutral,
            "adversarial": self._adversarial(images, rebuilt, poker, targets),
        }
        if self.options.direct_constraint:
            terms["direct"] = losses.orthogonality(separated.emotion, separated.rest, self.options.orthogonality)
        if self.constraint is not None:
            terms["network"] = self._network_term(self.constraint, images, poker, emotional)
        emotion = losses.emotion(logits, targets, float(self.recipe["label_smoothing"]))
        found = self._train_others(emotion, terms)
        found |= {"emotion": emotion, "neutral_reconstruction": neutral, "discriminator": judged, **terms}
        return {name: loss.detach() for name, loss in found.items()}

    def _wanted(self, separated: Separated) -> tuple[Tensor, ...]:
        """The components whose faces the losses read: V_e + V_p and V_p, and V_e where a network looks at its face."""
        looked_at = self.constraint is not None and self.options.constraint_goal == "orthogonal"
        return (separated.whole, separated.rest, *([separated.emotion] if looked_at else []))

    def _train_discriminator(self, images: Tensor, rebuilt: Tensor, poker: Tensor, targets: Tensor) -> Tensor:
        """Its steps on real and generated images; returns the loss before the last one."""
        faces = torch.cat([images, rebuilt.detach().to(images.dtype), poker.detach().to(images.dtype)])
        for _ in range(self.options.discriminator_steps):
            with self.context.autocast():
                answers = self.net.discriminator(faces)
            loss = losses.discriminator(answers, targets, self.neutral, self.options.discriminator_emotions)
            self.discriminator_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.discriminator_optimizer.step()
        return loss

    def _adversarial(self, images: Tensor, rebuilt: Tensor, poker: Tensor, targets: Tensor) -> Tensor:
        """Eq. 7 as the others see it; a miniature, whose stem looks across images, sees the same mixture as before."""
        beside = len(images) if self.net.size.stem else 0
        with frozen(self.adversaries), self.context.autocast():
            answers = self.net.discriminator(torch.cat([images[:beside].to(rebuilt.dtype), rebuilt, poker]))
        return losses.adversarial(answers[beside:], targets, self.neutral, self.options.adversarial_sign)

    def _network_term(
        self, constraint: Constraint, images: Tensor, poker: Tensor, emotional: list[Tensor]
    ) -> Tensor:  # fmt: skip
        """How far the frozen network's features of generated faces are from what is asked of them."""
        with self.context.autocast():
            if self.options.constraint_goal == "same-identity":
                with torch.no_grad():
                    own = constraint(images)
                return losses.sameness(constraint(poker), own)
            first, second = constraint(torch.cat([*emotional, poker])).chunk(2)
        return losses.orthogonality(first, second, self.options.orthogonality)

    def _train_others(self, emotion: Tensor, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The step of encoder, separator, generator and classifier; returns their loss and its weights."""
        weights = self.balance.weights(emotion, terms)
        ramp = min(1.0, self.steps / self.options.adversarial_ramp) if self.options.adversarial_ramp else 1.0
        counted = {**terms, "adversarial": terms["adversarial"] * ramp}
        loss = emotion + (weights * torch.stack([counted[name] for name in self.balance.names])).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        if self.options.loss_weights == "fixed":
            return {"loss": loss}
        return {"loss": loss} | {f"weight_{name}": weight for name, weight in zip(self.balance.names, weights)}

    def _masks(self, images: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Which patches Multi-Task MAE sees in training, drawn anew; see `shuffled`. None: all of them."""
        if not self.options.train_mask:
            return None, None
        noise = torch.rand(len(images), self.net.encoder.side**2, device=images.device)
        return shuffled(noise, self.options.train_mask)

    # ------------------------------------------------------------------------------------------------- use and continue
    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, K) in evaluation mode.

        The patches that Multi-Task MAE does not see depend on an image's place in the batch alone, so every epoch is
        asked the same.
        """
        kept = None
        if self.options.test_mask:
            noise = np.random.default_rng(0).random((len(images), self.net.encoder.side**2), np.float32)
            kept, _ = shuffled(torch.from_numpy(noise).to(images.device), self.options.test_mask)
        with self.context.autocast():
            logits: Tensor = self.net(images, kept)
        return logits.float()

    def state_dict(self) -> dict[str, Any]:
        ours = {"discriminator_optimizer": self.discriminator_optimizer.state_dict()}
        return super().state_dict() | ours | {"balance": self.balance.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        self.balance.load_state_dict(state["balance"])


@contextmanager
def frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Graphs made inside reach through these parameters without a gradient for them."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
