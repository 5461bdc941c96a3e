"""Names of the released POSTER checkpoints and ours, one to one.

Both released files are covered: that of AffectNet has no `conv` (Options.token_mixing false). Networks that load them
need Options.released_extras.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

# Beginnings of names.
PARTS = {
    "face_landback.": "landmark_net.",
    "ir_back.": "image_net.",
    "ir_layer.": "image_embed.",
    "pyramid_fuse.cls_token": "class_token",
    "pyramid_fuse.pos_embed": "positions",
    "pyramid_fuse.downsample_m.": "shrinks.medium.",
    "pyramid_fuse.downsample_s.": "shrinks.small.",
    "pyramid_fuse.blocks.": "blocks.",
    "pyramid_fuse.norm.": "norm.",
    "se_block.linear1.": "gate.squeeze.",
    "se_block.linear2.": "gate.excite.",
    "head.linear.": "head.",
}
# What follows "blocks.<number>." in front of "weight" or "bias".
LIFTS = {"upsample_m": "lifts.medium", "upsample_s": "lifts.small"}
LEVELS = {"block_l": "large", "block_m": "medium", "block_s": "small"}
ENCODER = {
    "norm1": "image.attention_norm",
    "attn_img.kv": "image.attention.key_value",
    "attn_img.proj": "image.attention.output",
    "norm2": "image.mlp_norm",
    "mlp1.fc1": "image.mlp.0",
    "mlp1.fc2": "image.mlp.2",
    "norm3": "landmark.attention_norm",
    "attn_lm.kv": "landmark.attention.key_value",
    "attn_lm.proj": "landmark.attention.output",
    "norm4": "landmark.mlp_norm",
    "mlp2.fc1": "landmark.mlp.0",
    "mlp2.fc2": "landmark.mlp.2",
    "conv": "mixing",
}
LAYERS = LIFTS | {
    f"{released}.{layer}": f"encoders.{level}.{ours}"
    for released, level in LEVELS.items()
    for layer, ours in ENCODER.items()
}


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released checkpoint's tensors by our names; a name that is none of the released ones stays as it is."""
    return {_renamed(name, PARTS, LAYERS): value for name, value in state.items()}


def to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_ours`."""
    parts, layers = ({new: old for old, new in names.items()} for names in (PARTS, LAYERS))
    return {_renamed(name, parts, layers): value for name, value in state.items()}


def _renamed(name: str, parts: Mapping[str, str], layers: Mapping[str, str]) -> str:
    beginning = next((part for part in parts if name.startswith(part)), None)
    if beginning is None:
        return name
    rest = name.removeprefix(beginning)
    if "blocks." in beginning:
        number, _, inside = rest.partition(".")
        layer, _, kind = inside.rpartition(".")
        rest = f"{number}.{layers.get(layer, layer)}.{kind}"
    return parts[beginning] + rest


# Parts of our names -> what a network with such tensors has.
TRAITS = {
    "image_net.": "an image stream",
    "landmark_net.": "a landmark stream",
    "landmark_embed.": "O-Net as landmark net",
    ".image.attention.": "cross-fusion encoders",
    ".mixing.": "token-mixing convolutions (RAF-DB's released file has, AffectNet's not)",
    "shrinks.": "the pyramid",
    "gate.": "the gate",
    "class_token": "the parameters that only released files hold",
}


def unlike(given: Iterable[str], own: Iterable[str]) -> str:
    """How the network behind a file differs from another, by our names of their tensors; empty if no trait tells."""
    given, own = list(given), list(own)
    if not any(name.startswith("blocks.") for name in given):
        return ""  # no POSTER at all
    has = {trait: any(part in name for name in given) for part, trait in TRAITS.items()}
    wanted = {trait: any(part in name for name in own) for part, trait in TRAITS.items()}
    told = [f"{'has' if has[trait] else 'lacks'} {trait}" for trait in TRAITS.values() if has[trait] != wanted[trait]]
    depth, wanted_depth = (len({n.split(".")[1] for n in names if n.startswith("blocks.")}) for names in (given, own))
    if depth != wanted_depth:
        told.append(f"has {depth} blocks, not {wanted_depth}")
    return ", ".join(told)
