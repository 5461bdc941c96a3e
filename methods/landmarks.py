"""A MobileFaceNet that learns 68 facial landmarks: the stage behind POSTER's landmark stream where no published one is.

The network is that of methods/poster; data, loss and augmentation are choices of this project. It learns from
SynthFER's faces, whose landmarks are known exactly (docs/synthfer.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.errors import UserError, unknown
from bench.method import Context, Method, RecipeValues, Spec, Supervised
from bench.registry import method
from methods.landmarks_augment import geometric, photometric
from methods.poster.mobilefacenet import MobileFaceNet

OPTIONS = {"width": 64, "channels": 512}
POINTS = 68
EYE_CORNERS = (36, 45)  # the outer ones, in iBUG order
LOSSES = ("wing",)
WING_WIDTH, WING_CURVE = 10 / 112, 2 / 112  # of the image side: 10 and 2 pixels of 112


@method("landmarks", version=1)
def build(entry: Spec, recipe: RecipeValues, context: Context) -> Method:
    """68 facial landmarks by MobileFaceNet, a stage of POSTER."""
    if entry.backbone != "mobilefacenet":
        raise unknown("backbone of landmarks", entry.backbone, ["mobilefacenet"])
    if entry.pretraining != "none":
        raise unknown("pretraining of landmarks", entry.pretraining, ["none"])
    for name in entry.options:
        if name not in OPTIONS:
            raise unknown("option of landmarks", name, OPTIONS)
    if recipe["loss"] not in LOSSES:
        raise unknown("loss of landmarks", str(recipe["loss"]), LOSSES)
    size = int(recipe["input_size"])
    if size % 16:
        raise UserError(f"input_size {size} is not a multiple of 16", "use 112, or less for quick runs")
    sizes = {name: int(value) for name, value in {**OPTIONS, **entry.options}.items()}
    return Landmarks(MobileFaceNet(inner_size=size, points=POINTS, **sizes), recipe, context)


class Landmarks(Supervised):
    """Regression of the points' coordinates; every batch is augmented here, pictures and points together."""

    classifies = False
    losses = LOSSES
    net: MobileFaceNet

    def __init__(self, net: MobileFaceNet, recipe: RecipeValues, context: Context) -> None:
        with torch.no_grad():  # start in the middle of the picture, with small deviations
            net.output_layer.bn.bias.fill_(0.5)
            net.output_layer.bn.weight.fill_(0.1)
        super().__init__(net, recipe, context)
        self.mean, self.std = (
            torch.tensor(recipe[name], device=context.device)[:, None, None] for name in ("mean", "std")
        )

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Wing loss of a batch after augmentation; targets float (B, 68, 2), fractions of the image side."""
        with torch.no_grad():
            pictures, points = geometric(images * self.std + self.mean, targets)
            pictures = (photometric(pictures) - self.mean) / self.std
        if self.recipe["channels_last"]:
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        return wing(self.predict(pictures), points)

    def predict(self, images: Tensor) -> Tensor:
        """Landmarks (B, 68, 2) as fractions of the image side."""
        with self.context.autocast():
            found: Tensor = self.net(images)
        return found.float().unflatten(1, (POINTS, 2))

    def validate(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Normalised mean error of each face in percent."""
        return {"nme": normalised_error(self.predict(images), targets)}


def normalised_error(found: Tensor, points: Tensor) -> Tensor:
    """Mean distance between found and true points over the distance of the outer eye corners, in percent.

    Args:
        found, points: (B, 68, 2), in the same units.

    Returns:
        (B,).
    """
    left, right = EYE_CORNERS
    eyes = (points[:, left] - points[:, right]).norm(dim=1)
    return 100 * (found - points).norm(dim=2).mean(dim=1) / eyes


def wing(found: Tensor, points: Tensor) -> Tensor:
    """Wing loss (Feng et al., 2018, Eq. 5), mean over all coordinates: logarithmic where small, then linear."""
    error = (found - points).abs()
    inside = WING_WIDTH * (1 + error / WING_CURVE).log()
    outside = error - WING_WIDTH * (1 - math.log(1 + WING_WIDTH / WING_CURVE))
    return torch.where(error < WING_WIDTH, inside, outside).mean()
