"""A plain vision transformer trained from scratch: the comparison row "ViT" of FER-VT Tables 7 to 9.

The paper trains ViT (Dosovitskiy et al., 2020) without pretraining and gives no size; the entry names it, and timm
builds it. An entry's backbone reads vit_<size>_patch<pixels>.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from bench.errors import UserError, unknown
from bench.method import Context, Method, RecipeValues, Spec, Supervised
from bench.registry import method

# width, depth, heads (Dosovitskiy et al. 2020, Table 1, for base; Touvron et al. 2021 for small and tiny)
SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
OPTIONS = ("patch_size", "dim", "depth", "heads")  # replace what the backbone's name says


@method("vit", version=1)
def build(entry: Spec, recipe: RecipeValues, context: Context) -> Method:
    """Plain vision transformer, trained from scratch."""
    if entry.pretraining != "none":
        raise unknown("pretraining of vit", entry.pretraining, ["none"])
    net = make_vit(entry.backbone, entry.options, int(recipe["input_size"]), len(context.classes))
    return Supervised(net, recipe, context)


def make_vit(backbone: str, options: Mapping[str, Any], input_size: int, classes: int) -> VisionTransformer:
    """The network: images (B, 3, S, S) to logits (B, K) read from the class token.

    Raises:
        UserError: for an unknown backbone or option, or a patch that does not divide the image.
    """
    for name in options:
        if name not in OPTIONS:
            raise unknown("option of vit", name, OPTIONS)
    match = re.fullmatch(r"vit_([a-z]+)_patch(\d+)", backbone)
    if match is None or match[1] not in SIZES:
        raise unknown("backbone of vit", backbone, [f"vit_{size}_patch16" for size in SIZES])
    dim, depth, heads = SIZES[match[1]]
    patch = int(options.get("patch_size", match[2]))
    if input_size % patch:
        message = f"patches of {patch} pixels do not divide images of {input_size}"
        raise UserError(message, "change patch_size or input_size")
    return VisionTransformer(
        img_size=input_size,
        patch_size=patch,
        num_classes=classes,
        embed_dim=int(options.get("dim", dim)),
        depth=int(options.get("depth", depth)),
        num_heads=int(options.get("heads", heads)),
    )
