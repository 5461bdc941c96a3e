"""Super-resolution learnt here: the stage behind Neural Resizer where the authors' network is not at hand.

Network, loss and training are choices of this project. It learns from the images themselves, which it shrinks, so that
any protocol serves: SynthFER at high resolution (docs/synthfer.md), or a real training set at the size it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import UserError, unknown
from bench.method import Context, RecipeValues, Spec, Supervised
from bench.options import MethodOptions
from bench.registry import method
from methods.superres.degrade import DEGRADATIONS, pairs, shrink
from methods.superres.network import SCALES, SuperResolution, bicubic

LOSSES = ("l1",)


@dataclass(frozen=True)
class Options(MethodOptions):
    """The network, and what its small pictures suffer in training.

    Attributes:
        width: channels inside the network.
        blocks: residual blocks.
        scale: 2, 4 or 8.
        degradation: none, or light (see degrade.py).
    """

    of: ClassVar[str] = "superres"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"degradation": DEGRADATIONS}
    least: ClassVar[Mapping[str, float]] = {"width": 1, "blocks": 0}

    width: int = 64
    blocks: int = 8
    scale: int = 2
    degradation: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in SCALES:
            raise unknown("scale of superres", str(self.scale), [str(known) for known in SCALES])


@method("superres", version=1)
def build(entry: Spec, recipe: RecipeValues, context: Context) -> Enlarging:
    """Super-resolution of one plane by a small residual network, a stage of Neural Resizer."""
    if entry.backbone != "edsr":
        raise unknown("backbone of superres", entry.backbone, ["edsr"])
    if entry.pretraining != "none":
        raise unknown("pretraining of superres", entry.pretraining, ["none"])
    options, size = Options.parse(entry.options), int(recipe["input_size"])
    if size % options.scale:
        message = f"input_size {size} is not a multiple of scale {options.scale}"
        raise UserError(message, "input_size is the side of the large pictures")
    return Enlarging(options, recipe, context)


class Enlarging(Supervised):
    """Learns to give back what shrinking took from a picture."""

    classifies = False
    losses = LOSSES
    net: SuperResolution

    def __init__(self, options: Options, recipe: RecipeValues, context: Context) -> None:
        super().__init__(SuperResolution(options.width, options.blocks, options.scale), recipe, context)
        self.degradation = options.degradation
        self.mean, self.std = (
            torch.tensor(recipe[name], device=context.device)[:, None, None] for name in ("mean", "std")
        )

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Mean absolute difference to the large pictures, of each image in one channel by chance: in grey, any."""
        with torch.no_grad():
            chosen = torch.randint(3, (len(images),), device=images.device)
            planes = (images * self.std + self.mean)[torch.arange(len(images), device=images.device), chosen][:, None]
            small, large = pairs(planes, self.net.scale, self.degradation)
        with self.context.autocast():
            found = self.net.enlarge(small)
        return F.l1_loss(found.float(), large)

    def validate(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """PSNR in dB of each image, shrunk without degradation; on the mean of its channels, whatever their order.

        `psnr_bicubic` is what plain enlargement gives.
        """
        large = (images * self.std + self.mean).mean(dim=1, keepdim=True)
        small = shrink(large, self.net.scale)
        with self.context.autocast():
            found = self.net(small).float()
        plain = bicubic(small, self.net.scale).clamp(0, 1)
        return {"psnr": psnr(found, large), "psnr_bicubic": psnr(plain, large)}


def psnr(found: Tensor, large: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of planes (B, 1, S, S) with peak 1; 100 dB at most."""
    error = (found - large).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp(min=1e-10).log10()
