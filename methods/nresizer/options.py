"""What an experiment may choose of the Neural Resizer: the steps of Table 2, the losses of Table 3, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bench.errors import UserError
from bench.options import MethodOptions
from methods.nresizer.resizer import INTERPOLATIONS

LOSSES = ("f-pdls", "pdls", "cross-entropy")


@dataclass(frozen=True)
class Options(MethodOptions):
    """The chain of Figure 1 and the loss. The defaults are the best run of the released code, setting (e) of Table 2.

    Attributes:
        stn: a spatial transformer between super-resolution and the resizer. Paper: in front of super-resolution.
        stn_rate: its learning rate by that of the rest. Adam moves every weight by about the rate a step, and the six
            numbers that place the whole image do not survive a rate made for random weights.
        up: sr | bilinear | bicubic | nearest | none: how stored images get the input size ahead of augmentation. With
            none they keep their size there and are resized behind it.
        down: ltr | bilinear | bicubic | nearest | none: how the network gets from the input size to its backbone's;
            with none the backbone sees the input size.
        loss: f-pdls | pdls | cross-entropy; empty for the recipe's.
        alpha: share of the label in the target of both PDLS losses; the rest is the prior's.
        gamma: the focal exponent of f-pdls.
        probability: softmax | sigmoid, the paper's sigma.
        prior: ferplus-train-votes | train-votes | uniform: what both PDLS losses take for the confusion of classes:
            FERPlus's training votes, those of the run's own training images, or no knowledge.
        resize_factor: backbone's size over input size.
        resizer_channels, resizer_blocks: n and r of the learnable resizer.
        head_hidden: width of the head's inner layer; 0 for a single Linear.
        head_dropout: in front of the head's last layer.
        sr_input: pixels that super-resolution gets; images of another size are resized to it first.
        scale_down: full | short | quick: which size of the backbone's family is built.
    """

    of: ClassVar[str] = "nresizer"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "up": ("sr", *INTERPOLATIONS, "none"),
        "down": ("ltr", *INTERPOLATIONS, "none"),
        "loss": ("", *LOSSES),
        "probability": ("softmax", "sigmoid"),
        "prior": ("ferplus-train-votes", "train-votes", "uniform"),
        "scale_down": ("full", "short", "quick"),
    }
    least: ClassVar[Mapping[str, float]] = {
        "alpha": 0, "gamma": 0, "resizer_channels": 1, "resizer_blocks": 0, "head_hidden": 0, "head_dropout": 0,
        "sr_input": 8, "stn_rate": 0,
    }  # fmt: skip

    stn: bool = True
    stn_rate: float = 1.0
    up: str = "sr"
    down: str = "ltr"
    loss: str = ""
    alpha: float = 0.8
    gamma: float = 2.0
    probability: str = "softmax"
    prior: str = "ferplus-train-votes"
    resize_factor: float = 0.584
    resizer_channels: int = 16
    resizer_blocks: int = 1
    head_hidden: int = 512
    head_dropout: float = 0.5
    sr_input: int = 48
    scale_down: str = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha > 1:
            raise UserError(f"alpha of nresizer is {self.alpha}, more than 1", "1 leaves the prior out")
        if self.head_dropout >= 1:
            raise UserError(f"head_dropout of nresizer is {self.head_dropout}: nothing would be left", "less than 1")
        if not 0 < self.resize_factor <= 4:
            raise UserError(f"resize_factor of nresizer is {self.resize_factor}", "give one above 0, up to 4")
