"""What an experiment may choose of PF-ViT; the defaults are the declared readings of the paper (tables/pfvit.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bench.errors import UserError
from bench.options import MethodOptions
from methods.mae.sizes import SCALES

NETWORKS = ("none", "resnet18", "resnet50", "inception-resnet-v1", "mae-encoder")


@dataclass(frozen=True)
class Options(MethodOptions):
    """Networks, losses and optimizers of PF-ViT.

    Attributes:
        separator: se (one mask of features for all tokens, Eq. 2) or token (a mask for each).
        separator_reduction: of its hidden layer.
        fusion: cross (MCA of Eq. 3) or self (mask tokens and tokens through one self-attention block).
        fusion_start: of the cross fusion: look-up (each place gets the token of its own position) or random weights.
        discriminator_stem: own (a new patch embedding) or encoder (the encoder's, through the decoder's first layer).
        reconstruction: squared (mean squared error of pixels) or norm (its root, one for each image) in Eq. 6.
        adversarial_sign: swapped-target (E, S and G minimise Eq. 7 with generated faces called real) or literal (they
            maximise it).
        discriminator_emotions: all-faces (D learns the targets of Eq. 8 from generated faces too), real-faces (from
            real ones alone, as section 3.2 puts it) or remains (of poker faces it learns the label of their input).
        direct_constraint: whether V_e and V_p of each token are to be orthogonal themselves (Eq. 2).
        constraint_network: the frozen network whose features of generated faces are to be orthogonal.
        constraint_goal: orthogonal (features of G(V_e) and G(V_p)) or same-identity (features of the poker face and of
            the input alike, the opposite demand).
        orthogonality: squared-cosine or absolute-cosine.
        loss_weights: balanced (each term brought to the size of the emotion loss by its mean over the first
            `balancing_steps` steps) or fixed; either is multiplied by the weights below.
        neutral_weight: of the second term of Eq. 6, which is about neutral faces, within the reconstruction loss.
        adversarial_ramp: steps over which the adversarial term grows from nothing to its weight; 0: all there at once.
        discriminator_learning_rate, discriminator_beta1, discriminator_beta2: of the discriminator's Adam; its learning
            rate follows the recipe's schedule.
        discriminator_steps: its steps for each step of the others.
        multitask: Multi-Task MAE (appendix B): only some patches are seen, the MAE decoder is the generator.
        train_mask, test_mask: shares of patches not seen by Multi-Task MAE.
        scale_down: full, or the declared miniature of a profile.
    """

    of: ClassVar[str] = "pfvit"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "separator": ("se", "token"),
        "fusion": ("cross", "self"),
        "fusion_start": ("look-up", "random"),
        "discriminator_stem": ("own", "encoder"),
        "reconstruction": ("squared", "norm"),
        "adversarial_sign": ("swapped-target", "literal"),
        "discriminator_emotions": ("all-faces", "real-faces", "remains"),
        "constraint_network": NETWORKS,
        "constraint_goal": ("orthogonal", "same-identity"),
        "orthogonality": ("squared-cosine", "absolute-cosine"),
        "loss_weights": ("balanced", "fixed"),
        "scale_down": SCALES,
    }
    least: ClassVar[Mapping[str, float]] = {
        "separator_reduction": 1, "balancing_steps": 1, "discriminator_steps": 1, "train_mask": 0, "test_mask": 0,
        "reconstruction_weight": 0, "adversarial_weight": 0, "direct_weight": 0, "network_weight": 0,
        "neutral_weight": 0, "adversarial_ramp": 0,
        "discriminator_learning_rate": 0, "discriminator_beta1": 0, "discriminator_beta2": 0,
    }  # fmt: skip

    separator: str = "se"
    separator_reduction: int = 16
    fusion: str = "cross"
    fusion_start: str = "look-up"
    discriminator_stem: str = "own"
    reconstruction: str = "squared"
    adversarial_sign: str = "swapped-target"
    discriminator_emotions: str = "all-faces"
    direct_constraint: bool = True
    constraint_network: str = "none"
    constraint_goal: str = "orthogonal"
    orthogonality: str = "squared-cosine"
    loss_weights: str = "balanced"
    balancing_steps: int = 100
    reconstruction_weight: float = 1.0
    adversarial_weight: float = 1.0
    direct_weight: float = 1.0
    network_weight: float = 1.0
    neutral_weight: float = 1.0
    adversarial_ramp: int = 0
    discriminator_learning_rate: float = 1e-4
    discriminator_beta1: float = 0.5
    discriminator_beta2: float = 0.999
    discriminator_steps: int = 1
    multitask: bool = False
    train_mask: float = 0.0
    test_mask: float = 0.0
    scale_down: str = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fusion_start == "random" and (self.multitask or self.fusion == "self"):
            raise UserError("fusion_start random is of the cross fusion", "leave it out: nothing else has a look-up")
        if (self.train_mask or self.test_mask) and not self.multitask:
            raise UserError("train_mask and test_mask are Multi-Task MAE's", "set multitask: true, or leave them out")
        if max(self.train_mask, self.test_mask) >= 1:
            raise UserError("a mask ratio of 1 leaves nothing to see", "give a share below 1")
