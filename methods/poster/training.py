"""How POSTER is trained: loss and sharpness-aware step of the released code, or the plain ones of the paper's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from bench.errors import UserError, unknown
from bench.method import Context, RecipeValues, Supervised, schedule_scale
from bench.weight_files import load_strict
from methods.poster.model import POSTER
from methods.poster.released import to_ours, unlike
from methods.poster.sam import SAM


def smoothed(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Label smoothing cross-entropy (section 4.2), the smoothing spread over all K classes.

    Args:
        logits: float (B, K).
        targets: int64 (B,).
    """
    return F.cross_entropy(logits, targets, label_smoothing=smoothing)


def twice_smoothed_plus_plain(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """The released code's loss: twice the smoothed cross-entropy plus the plain one. Arguments as of `smoothed`."""
    return 2 * smoothed(logits, targets, smoothing) + F.cross_entropy(logits, targets)


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "cross-entropy": smoothed,
    "twice-smoothed-plus-plain": twice_smoothed_plus_plain,
}


class Training(Supervised):
    """A step with SAM (two passes over the batch) where `sam_rho` is above zero, else an ordinary one.

    The two passes see the same images, but batch norm moves its statistics in both and drop path draws anew, as in the
    released code. The landmark net is frozen, so both passes share its tokens; only where it uses the statistics of the
    batch (`landmark_batch_statistics`) it runs in both, since its running statistics move twice a step there.
    """

    losses: ClassVar[tuple[str, ...]] = tuple(LOSSES)
    net: POSTER

    def __init__(self, net: POSTER, recipe: RecipeValues, context: Context) -> None:
        if recipe["loss"] not in LOSSES:
            raise unknown("loss of poster", str(recipe["loss"]), LOSSES)
        super().__init__(net, recipe, context)
        options = net.options
        self.criterion = LOSSES[recipe["loss"]]
        self.sam = SAM(self.optimizer, options.sam_rho) if options.sam_rho > 0 else None
        self.shares_landmarks = options.streams != "image" and not options.landmark_batch_statistics

    def loss(self, images: Tensor, targets: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Scalar training loss of a batch.

        Args:
            landmarks: (B, P, D), the landmark tokens of the images where they are at hand.
        """
        with self.context.autocast():
            logits = self.net(images, landmarks)
        return self.criterion(logits.float(), targets, float(self.recipe["label_smoothing"]))

    def update(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One step; returns the loss before it (the released code logs that of the second pass)."""
        scale = schedule_scale(self.recipe, self.steps, self.context.steps_per_epoch) * self.plateau_scale
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.recipe["learning_rate"]) * scale
        self.optimizer.zero_grad(set_to_none=True)
        landmarks = self._landmarks(images)
        loss = self.loss(images, targets, landmarks)
        loss.backward()
        if self.sam is None:
            self.optimizer.step()
        else:
            self.sam.climb()
            self.loss(images, targets, landmarks).backward()
            self.sam.descend()
        self.steps += 1
        return {"loss": loss.detach()}

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a checkpoint of POSTER's authors, for RAF-DB or AffectNet.

        Raises:
            UserError: some tensor has no place or some place no tensor; names them, as they are called here, or says
                what other POSTER it is of.
        """
        ours = to_ours(state)
        try:
            load_strict(self.net, ours, "the released checkpoint")
        except UserError as error:
            told = unlike(ours, self.net.state_dict())
            raise UserError(f"of another POSTER: {told}", error.message) if told else error from None

    def _landmarks(self, images: Tensor) -> Tensor | None:
        """Landmark tokens for both passes, or None where every pass computes its own."""
        if self.sam is None or not self.shares_landmarks:
            return None
        with self.context.autocast():
            return self.net.landmark_tokens(images)
