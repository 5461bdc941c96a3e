"""Masked pretraining of PF-ViT's encoders and decoders (He et al. 2022; PF-ViT, section 3.1).

A stage: it needs images without labels, and its product are an encoder and a decoder that other methods start from
(methods/mae/released.py). A label, where a protocol has one, is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import UserError, unknown
from bench.method import Context, RecipeValues, Spec, Supervised
from bench.options import MethodOptions
from bench.registry import method
from methods.mae.model import MAE, masked_error
from methods.mae.released import load_whole
from methods.mae.sizes import SCALES, size_of
from methods.mae.vit import patchify


@dataclass(frozen=True)
class Options(MethodOptions):
    """What is hidden, and what is to be guessed.

    Attributes:
        mask_ratio: share of the patches that the encoder does not see.
        normalised_targets: whether a patch's target is its pixels less their mean, over their deviation. A decoder that
            learnt this does not answer with pixels, which a generator needs.
        scale_down: full, or the declared miniature of a profile (see sizes.py).
    """

    of: ClassVar[str] = "mae"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"scale_down": SCALES}
    least: ClassVar[Mapping[str, float]] = {"mask_ratio": 0}

    mask_ratio: float = 0.75
    normalised_targets: bool = False
    scale_down: str = "full"


@method("mae", version=1, parallel=True)
def build(entry: Spec, recipe: RecipeValues, context: Context) -> Pretraining:
    """A masked autoencoder (ViT-T/S/B), a stage of PF-ViT and its baselines."""
    if entry.pretraining != "none":
        raise unknown("pretraining of mae", entry.pretraining, ["none"])
    options = Options.parse(entry.options)
    size = size_of(entry.backbone, options.scale_down, context.input_size)
    net = MAE(size, context.input_size, options.mask_ratio, options.normalised_targets)
    patches = net.encoder.side**2
    if not 0 < int(patches * (1 - options.mask_ratio)) < patches:
        message = f"mask_ratio {options.mask_ratio} of {patches} patches leaves none to see, or none to guess"
        raise UserError(message, "the paper's is 0.75")
    return Pretraining(net, recipe, context)


class Pretraining(Supervised):
    """Guesses the pixels of patches that it does not see.

    One call of `update` is one batch; several batches whose gradients are added up, as the released command has them
    (4 of 32), are one batch of that many images here: nothing in a network of published size looks across images.
    """

    classifies = False
    losses = ("masked-pixels",)
    net: MAE

    def __init__(self, net: MAE, recipe: RecipeValues, context: Context) -> None:
        super().__init__(net, recipe, context)
        self.mean, self.std = (torch.tensor(recipe[name], device=context.device) for name in ("mean", "std"))

    def groups(self) -> list[dict[str, Any]]:
        """Two groups: vectors (biases and norms) are not drawn towards zero, as in MAE's released code."""
        trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for parameter in trained if parameter.ndim > 1]},
            {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
        ]

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of the unseen patches; which ones is drawn for every image and step."""
        with self.context.autocast():
            predicted, unseen = self.net(images)
        return self.errors(predicted, images, unseen).mean()

    def validate(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The loss of each image, and where pixels were learnt the PSNR in dB of its unseen patches.

        The patches that an image shows depend on its place in the batch alone, so every epoch is asked the same.
        """
        noise = np.random.default_rng(0).random((len(images), self.net.encoder.side**2), np.float32)
        with self.context.autocast():
            predicted, unseen = self.net(images, torch.from_numpy(noise).to(images.device))
        found = {"error": self.errors(predicted, images, unseen)}
        if not self.net.normalised_targets:
            true = patchify(images, self.net.size.patch)
            found["psnr"] = psnr(self.pixels(predicted.float()), self.pixels(true), unseen)
        return found

    def errors(self, predicted: Tensor, images: Tensor, unseen: Tensor) -> Tensor:
        """`masked_error` of each image, (B,), with this network's targets."""
        return masked_error(predicted, images, unseen, self.net.size.patch, self.net.normalised_targets)

    def pixels(self, patches: Tensor) -> Tensor:
        """Normalised patches (B, N, patch² x 3) as pixels in [0, 1], (B, N, patch², 3)."""
        coloured = patches.reshape(*patches.shape[:2], -1, 3)
        return (coloured * self.std + self.mean).clamp(0, 1)

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a run of ours, or of a file with encoder and decoder in the public format.

        Raises:
            UserError: some tensor has no place or some place no tensor; names them, as they are called here.
        """
        load_whole(self.net, state, "the checkpoint")

    def parameter_parts(self) -> dict[str, int]:
        """Parameters of the transformer blocks alone, which Table 1 of PF-ViT counts, of encoder and decoder."""
        return {"encoder": count(self.net.encoder.blocks), "decoder": count(self.net.decoder.blocks)}


def psnr(found: Tensor, true: Tensor, unseen: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB over the unseen patches; 100 dB at most.

    Args:
        found, true: (B, N, patch², 3) in [0, 1].
        unseen: bool (B, N).
    """
    error = (found - true).square().mean(dim=(2, 3))
    mean = (error * unseen).sum(dim=1) / unseen.sum(dim=1)
    return -10 * mean.clamp(min=1e-10).log10()


def count(module: nn.Module) -> int:
    """Its parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
