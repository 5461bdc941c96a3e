"""The frozen network whose features of generated faces PF-ViT's constraint compares (section 4.2, Table 5)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.method import Context, RecipeValues, require_weights
from methods.face_network.networks import load_network
from methods.mae.vit import Encoder

# By network: roles any of which can fill it, files of others or products of a stage.
ROLES: dict[str, tuple[str, ...]] = {
    "none": (),
    "mae-encoder": (),
    "resnet18": ("resnet18-imagenet1k", "face-resnet18-synthfer"),
    "resnet50": ("resnet50-imagenet1k", "face-resnet50-synthfer"),
    "inception-resnet-v1": ("inception-resnet-v1-vggface2", "face-inception-synthfer"),
}


class Constraint:
    """Normalised faces (B, 3, S, S) to features (B, D), with gradients to the faces and to nothing else.

    No part of what is trained or saved: the network never leaves evaluation, where batch norm keeps its statistics.
    Faces are not clipped to the range of pixels, since beyond it they would get no gradient.
    """

    def __init__(self, network: nn.Module, scale: Callable[[Tensor], Tensor]) -> None:
        """A network, and what brings normalised images to the scale that it takes."""
        self.network = network.requires_grad_(False).eval()
        self.scale = scale

    def __call__(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(self.scale(images.float()))
        return found

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Move the network to the device and memory layout of the run."""
        self.network.to(device)
        self.network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)  # type: ignore[call-overload]


class Features(nn.Module):
    """An encoder's mean over the tokens of all patches, (B, L)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.encoder(images)[:, 1:].mean(dim=1)
        return found


def make_constraint(kind: str, encoder: Encoder, recipe: RecipeValues, context: Context) -> Constraint | None:
    """The network of the option `constraint_network`; None for none, and where nothing will be trained.

    Args:
        encoder: PF-ViT's own as pretrained, which `mae-encoder` copies.

    Raises:
        UserError: its file is missing, or there are two.
    """
    if kind == "none" or context.restoring:
        return None
    if kind == "mae-encoder":
        return Constraint(Features(encoder), lambda images: images)
    given = [role for role in ROLES[kind] if role in context.weights]
    if len(given) > 1:
        raise UserError(f"weights '{given[0]}' and '{given[1]}' are both for {kind}", "name one of them")
    role = given[0] if given else ROLES[kind][0]
    return Constraint(load_network(kind, require_weights(context, role), role), pixels(recipe, context.device))


def pixels(recipe: RecipeValues, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What brings images normalised by the recipe back to RGB in [0, 1]."""
    mean, std = (torch.tensor(recipe[name], device=device)[:, None, None] for name in ("mean", "std"))
    if recipe["colour"] == "bgr":
        return lambda images: (images * std + mean).flip(1)
    return lambda images: images * std + mean
