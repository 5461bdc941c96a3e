"""The plain ViT fine-tuned for expressions: PF-ViT's baselines (section 4.3, Tables 2, 3 and 6).

A linear layer on the last class token of an encoder that was pretrained masked (its position table stays fixed) or
with ImageNet's labels (its position table was learnt, and is trained on).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from bench.errors import UserError, unknown
from bench.method import Context, Method, RecipeValues, Spec, Supervised
from bench.options import MethodOptions
from bench.registry import method
from bench.weight_files import load_strict, read_state
from methods.mae.released import load_encoder, to_ours
from methods.mae.sizes import SCALES, Size, size_of
from methods.mae.vit import Encoder, initialise

SUPERVISED = "imagenet21k-supervised"
MASKED = "mae-"  # how names of masked pretrainings, and of their roles, begin
AUGREG = "-augreg"  # how roles of supervised files end
HEAD = "head."  # of timm's names: another classifier, or the classifier of a released file


@dataclass(frozen=True)
class Options(MethodOptions):
    """The size of the network.

    Attributes:
        scale_down: full, or the declared miniature of a profile.
    """

    of: ClassVar[str] = "pfvit-baseline"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"scale_down": SCALES}

    scale_down: str = "full"


class Baseline(nn.Module):
    """Normalised images (B, 3, S, S) to logits (B, K)."""

    def __init__(self, size: Size, input_size: int, classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(size, input_size)
        self.classifier = nn.Linear(size.dim, classes)
        initialise(self.classifier)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.classifier(self.encoder(images)[:, 0])
        return found


class FineTuned(Supervised):
    """All of the network is trained, but for a fixed position table."""

    net: Baseline

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Also a fine-tuned network with timm's names, as the released script saves it."""
        named = {name.replace(HEAD, "classifier.", 1) if name.startswith(HEAD) else name: state[name] for name in state}
        load_strict(self.net, to_ours(named), "the checkpoint")


@method("pfvit-baseline", version=1)
def build(entry: Spec, recipe: RecipeValues, context: Context) -> Method:
    """A vision transformer with supervised, masked or no pretraining, fine-tuned."""
    options = Options.parse(entry.options)
    if entry.pretraining not in ("none", SUPERVISED) and not entry.pretraining.startswith(MASKED):
        known = ["none", SUPERVISED, "mae-imagenet1k", "mae-affectnet"]
        raise unknown("pretraining of pfvit-baseline", entry.pretraining, known)
    input_size = int(recipe["input_size"])
    net = Baseline(size_of(entry.backbone, options.scale_down, input_size), input_size, len(context.classes))
    if not context.restoring:
        _pretrain(net.encoder, entry, context)
    if entry.pretraining == SUPERVISED:
        net.encoder.pos_embed.requires_grad = True
    made = FineTuned(net, recipe, context)
    if options.scale_down != "full":
        made.remark = f"a miniature of {entry.backbone}"
    return made


def _pretrain(encoder: Encoder, entry: Spec, context: Context) -> None:
    """Fill the encoder from the one role that the entry's pretraining asks for.

    Raises:
        UserError: the role is missing, one too many is given, or its file does not fit; names role and tensors.
    """
    given = list(context.weights)
    right = [role for role in given if _serves(role, entry.pretraining)]
    if entry.pretraining != "none" and not right:
        raise UserError(
            f"pretrained weights of {entry.backbone} ({entry.pretraining}) are not at hand",
            "name their role under 'weights:', or set pretraining to none",
        )
    left = [role for role in given if role not in right[:1]]
    if left:
        message = f"weights '{left[0]}' have no place in pfvit-baseline with pretraining {entry.pretraining}"
        raise UserError(message, "take the role off 'weights:'")
    for role in right:
        load = load_encoder if role.startswith(MASKED) else load_supervised
        load(encoder, context.weights[role], role)


def _serves(role: str, pretraining: str) -> bool:
    """Whether a role is of the kind that a pretraining asks for."""
    return role.endswith(AUGREG) if pretraining == SUPERVISED else pretraining != "none" and role.startswith(MASKED)


def load_supervised(encoder: Encoder, path: Path, role: str) -> None:
    """Fill an encoder from a file of timm's vision transformer; its classifier is left out.

    Raises:
        UserError: tensors are missing, left over or of another shape; names them.
    """
    load_strict(encoder, read_state(path), f"{path} ({role})", (HEAD,))
