"""Masked autoencoders of others: MAE's public files, those of MAE-SFER, and our own stages.

MAE's public files name the encoder as timm names a vision transformer, and put `decoder_` and `mask_token` beside it.
Two kinds of them have the same names and shapes and different decoders: one learnt pixels
(mae_visualize_vit_base.pth), the other each patch's pixels over their own deviation (mae_pretrain_vit_base_full.pth).
No tensor tells them apart, so whoever needs pixels has to be given the first (docs/weights.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from bench.errors import UserError
from bench.weight_files import load_strict, read_state
from methods.mae.model import MAE
from methods.mae.vit import Decoder, Encoder

ENCODER, DECODER, DECODER_BLOCKS = "encoder.", "decoder.", "decoder.blocks."
# Beginnings of public names and of ours: the decoder's first, since the encoder's have nothing of their own in front.
DECODERS = {
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.pos_embed",
    "decoder_embed.": "decoder.embed.",
    "decoder_blocks.": "decoder.blocks.",
    "decoder_norm.": "decoder.norm.",
    "decoder_pred.": "decoder.pred.",
}
ENCODERS = {name: ENCODER + name for name in ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm.")}
PUBLIC = DECODERS | ENCODERS
# Classifiers on an encoder that was trained further; no network here has a place for them.
CLASSIFIERS = ("head.", "fc.")


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A public file's tensors by our names; a name that is none of the public ones stays as it is."""
    return {_renamed(name, PUBLIC): value for name, value in state.items()}


def to_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_ours`."""
    back = {ours: public for public, ours in PUBLIC.items()}
    return {_renamed(name, back): value for name, value in state.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """The name with its beginning exchanged; what does not end with a dot is a whole name."""
    for old, new in names.items():
        if name == old or (old.endswith(".") and name.startswith(old)):
            return new + name.removeprefix(old)
    return name


def load_encoder(encoder: Encoder, path: Path, role: str) -> None:
    """Fill an encoder from a masked autoencoder's file; a decoder or a classifier in it is left out.

    Raises:
        UserError: it holds no encoder, or another one; names the tensors.
    """
    _load(nn.ModuleDict({"encoder": encoder}), read_state(path), f"{path} ({role})", (*CLASSIFIERS, DECODER))


def load_mae(encoder: Encoder, decoder: Decoder, path: Path, role: str) -> None:
    """Fill an encoder and a decoder from a masked autoencoder's file.

    Raises:
        UserError: it holds no decoder, or others; names the tensors.
    """
    _load(nn.ModuleDict({"encoder": encoder, "decoder": decoder}), read_state(path), f"{path} ({role})")


def load_whole(net: MAE, state: Mapping[str, Tensor], what: str) -> None:
    """Fill a masked autoencoder from tensors of our names or of public ones; `what` they are is for messages."""
    _load(net, state, what)


def _load(net: nn.Module, state: Mapping[str, Tensor], what: str, ignore: Sequence[str] = CLASSIFIERS) -> None:
    """Fill all of a network whose parts are called `encoder` and `decoder`, or nothing of it."""
    given, own = to_ours(state), net.state_dict()
    _refuse_without_decoder(given, own, what)
    wanted, found = sizes(own), sizes(given)
    differing = [size for size in wanted if size in found and found[size] != wanted[size]]
    if differing:
        told = "; ".join(f"{size} {found[size]} instead of {wanted[size]}" for size in differing)
        raise UserError(f"{what}: another size of network: {told}", "give the file of this very size")
    load_strict(net, given, what, ignore)


def _refuse_without_decoder(given: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str) -> None:
    has = {prefix: any(name.startswith(prefix) for name in given) for prefix in (ENCODER, DECODER_BLOCKS)}
    if has[ENCODER] and not has[DECODER_BLOCKS] and any(name.startswith(DECODER_BLOCKS) for name in own):
        message = f"{what}: holds an encoder without its decoder (no decoder_blocks), which is needed here as well"
        hint = "give a file with both (MAE's own: mae_visualize_vit_base.pth), or use the stage that trains them"
        raise UserError(message, hint)


def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """What the shapes of tensors (by our names) tell of a network, with the tensors that tell it; heads do not show."""
    told = {
        "patches (encoder.patch_embed.proj.weight) of side": ("encoder.patch_embed.proj.weight", 4, -1),
        "encoder's width (encoder.cls_token)": ("encoder.cls_token", 3, -1),
        "places (encoder.pos_embed)": ("encoder.pos_embed", 3, 1),
        "decoder's width (decoder.mask_token)": ("decoder.mask_token", 3, -1),
    }
    found = {
        words: state[name].shape[axis]
        for words, (name, axes, axis) in told.items()
        if name in state and state[name].ndim == axes
    }
    for part in ("encoder", "decoder"):
        numbers = {name.split(".")[2] for name in state if name.startswith(f"{part}.blocks.")}
        found |= {f"blocks ({part}.blocks)": len(numbers)} if numbers else {}
    return found
