"""Face networks trained here: the stages behind PF-ViT's constraint (Table 5) where the published ones are not at hand.

Networks of the same classes, but data, targets and losses are choices of this project: Inception-ResNet-v1 learns who a
SynthFER face is, ResNets learn the scene (pose, light, background, looks). Neither ever hears of an expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError, unknown
from bench.method import Context, RecipeValues, Spec, Supervised
from bench.options import MethodOptions
from bench.registry import method
from methods.face_network.networks import HEAD, KINDS, FaceNetwork, make_network
from methods.mae.sizes import SCALES

IDENTITY, SCENE = "person-softmax", "scene-squares"


@dataclass(frozen=True)
class Options(MethodOptions):
    """What a face network learns.

    Attributes:
        answers: persons in the training images, or numbers that describe the scene: the protocol's.
        margin, sharpness: of the softmax over persons (CosFace), subtracted from the cosine of the right one and
            multiplied to all.
        scale_down: full, or short or quick: a miniature.
    """

    of: ClassVar[str] = "face-network"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"scale_down": SCALES}
    least: ClassVar[Mapping[str, float]] = {"answers": 1, "margin": 0, "sharpness": 0}

    answers: int = 1
    margin: float = 0.0
    sharpness: float = 16.0
    scale_down: str = "full"


@method("face-network", version=1)
def build(entry: Spec, recipe: RecipeValues, context: Context) -> FaceTraining:
    """A network of faces without their expressions, a stage of PF-ViT."""
    if entry.backbone not in KINDS:
        raise unknown("backbone of face-network", entry.backbone, KINDS)
    if entry.pretraining != "none":
        raise unknown("pretraining of face-network", entry.pretraining, ["none"])
    return FaceTraining(entry.backbone, Options.parse(entry.options), recipe, context)


class FaceTraining(Supervised):
    """Learns persons by the cosine of its features, or the scene by squared error.

    `net` is the `FaceNetwork` with the layer of the answers as `head`, which whoever loads the product leaves out.
    """

    classifies = False
    losses = (IDENTITY, SCENE)
    net: FaceNetwork

    def __init__(self, kind: str, options: Options, recipe: RecipeValues, context: Context) -> None:
        net = make_network(kind, options.scale_down)
        self.head = nn.Linear(net.features, options.answers, bias=recipe["loss"] == SCENE)
        net.add_module(HEAD.removesuffix("."), self.head)
        super().__init__(net, recipe, context)
        self.options = options
        if options.scale_down != "full":
            self.remark = f"a small convolutional network stands for {kind}"
        self.mean, self.std = (
            torch.tensor(recipe[name], device=context.device)[:, None, None] for name in ("mean", "std")
        )

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images; the network makes its own scale."""
        with self.context.autocast():
            found: Tensor = self.net(images * self.std + self.mean)
        return found.float()

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Targets: person int64 (B,) below `answers`, or the scene float (B, answers)."""
        features = self.features(images)
        if self.recipe["loss"] == SCENE:
            return F.mse_loss(self.head(features), self._scene(targets))
        if targets.is_floating_point() or targets.ndim != 1:
            raise UserError(f"loss {IDENTITY} needs numbers of persons", "take a protocol with targets: identity")
        cosines = F.normalize(features) @ F.normalize(self.head.weight).T
        right = F.one_hot(targets, self.options.answers)
        return F.cross_entropy(self.options.sharpness * (cosines - self.options.margin * right), targets)

    def validate(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Of each image in percent. Persons: see `recognition`. Scene: `explained`, 100 times 1 minus the squared
        error; 0 is what answering with the mean gives.
        """
        features = self.features(images)
        if self.recipe["loss"] == SCENE:
            errors = (self.head(features) - self._scene(targets)).square().mean(dim=1)
            return {"explained": 100 * (1 - errors)}
        return recognition(features, targets)

    def _scene(self, targets: Tensor) -> Tensor:
        if not targets.is_floating_point() or targets.shape[1:] != (self.options.answers,):
            shape = tuple(targets.shape[1:])
            message = f"loss {SCENE} with answers {self.options.answers} cannot learn targets of shape {shape}"
            raise UserError(message, "take a protocol with targets: scene, and method.answers as it has numbers")
        return targets


def recognition(features: Tensor, persons: Tensor) -> dict[str, Tensor]:
    """How well features tell persons apart that the network has never seen, within a batch; all (B,), in percent.

    Args:
        features: (B, D), compared by cosine.
        persons: int64 (B,).

    Returns:
        nearest: 100 where the nearest other image shows the same person, else 0.
        verified: of all pairs of an image of the same person and one of another, the share in which the former is
            nearer. Chance is 50, which also stands for a person who is alone in the batch.
    """
    unit = F.normalize(features)
    self_pair = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    cosines = (unit @ unit.T).masked_fill(self_pair, -2)  # an image is the least of its own neighbours
    same = (persons[:, None] == persons) & ~self_pair
    nearest = same.gather(1, cosines.argmax(dim=1, keepdim=True))[:, 0]
    ranks = cosines.argsort(dim=1).argsort(dim=1)  # 0 is the image itself, others from 1
    mates, others = same.sum(dim=1), (~same & ~self_pair).sum(dim=1)
    below = (ranks * same).sum(dim=1) - mates * (mates + 1) / 2  # images of others that are farther, over all mates
    verified = torch.where(mates * others > 0, below / (mates * others).clamp(min=1), 0.5)
    return {"nearest": 100.0 * nearest, "verified": 100 * verified}
