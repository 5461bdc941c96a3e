"""Backbones behind the resizer: any timm model, with the released code's head.

A model is built for the size of its images where timm fixes that (transformers with a position for each patch); the
families of the paper's tables have miniature versions for quick looks on small images.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import timm
import torch
from torch import Tensor, nn

from bench.errors import UserError, unknown
from bench.weight_files import load_strict
from methods.nresizer.timm_names import to_current

# Names of the tables -> timm's. Which of timm's the paper took is not stated; the parameter counts fit these.
NAMES = {
    "vit_small_patch16": "vit_small_patch16_224",
    "deit_small_patch16": "deit_small_patch16_224",
    "convit_small": "convit_small",
    "xcit_small_12_p16": "xcit_small_12_p16_224",
    "swin_small": "swin_small_patch4_window7_224",
    "swin_base": "swin_base_patch4_window7_224",
    "swin_large": "swin_large_patch4_window7_224",
}
SCALES = ("full", "short", "quick")
HINT = "change input_size (or resize_factor, where the resizer makes these images), or take another backbone"


def _vit(dim: int, depth: int, heads: int, **more: Any) -> dict[str, Any]:
    return {"embed_dim": dim, "depth": depth, "num_heads": heads, "patch_size": 8, **more}


def _swin(dim: int, depths: tuple[int, ...], heads: int) -> dict[str, Any]:
    return {"embed_dim": dim, "depths": depths, "num_heads": tuple(heads * 2**i for i in range(len(depths)))}


# What replaces timm's own arguments. Three Swin stages instead of four: images of 56 pixels have 14, 7 and 4 patches a
# side there. ConViT's width is of one head, its number of heads a square; like the full one it ends in plain attention.
# Heads of ViT are 32 wide: the bf16 attention of a CPU takes half as long again at 24.
MINIATURES: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "vit_small_patch16_224": {"short": _vit(128, 6, 4), "quick": _vit(64, 4, 2)},
    "deit_small_patch16_224": {"short": _vit(128, 6, 4), "quick": _vit(64, 4, 2)},
    "convit_small": {
        "short": _vit(36, 8, 4, local_up_to_layer=6),
        "quick": _vit(18, 4, 4, local_up_to_layer=3),
    },
    "xcit_small_12_p16_224": {"short": _vit(128, 8, 8), "quick": _vit(64, 4, 4)},
    "swin_small_patch4_window7_224": {"short": _swin(32, (2, 2, 6), 2), "quick": _swin(24, (2, 2, 2), 2)},
    "swin_base_patch4_window7_224": {"short": _swin(40, (2, 2, 6), 2), "quick": _swin(28, (2, 2, 2), 2)},
    "swin_large_patch4_window7_224": {"short": _swin(48, (2, 2, 6), 2), "quick": _swin(32, (2, 2, 2), 2)},
}


def make_backbone(
    name: str, size: int, classes: int, head_hidden: int = 512, head_dropout: float = 0.5, scale_down: str = "full"
) -> nn.Module:
    """The network: normalised images (B, 3, size, size) to logits (B, classes), with random weights.

    Args:
        name: one of NAMES, or any model of timm, with or without a tag of its pretrained weights.
        head_hidden: width of the classifier's hidden layer; 0 is timm's own, one Linear.
        head_dropout: in front of the last Linear of a head with a hidden layer.
        scale_down: which version of a family of MINIATURES is built; other models have only the full one.

    Raises:
        UserError: timm has no such model, or it cannot be built for such images or with such a head.
    """
    if scale_down not in SCALES:
        raise unknown("scale_down", scale_down, SCALES)
    found = timm_name(name)
    architecture = found.partition(".")[0]
    arguments = dict(MINIATURES.get(architecture, {}).get(scale_down, {}))
    own = timm.get_pretrained_cfg(found)
    if own is not None and own.fixed_input_size:
        arguments["img_size"] = size
    try:
        net: nn.Module = timm.create_model(found, pretrained=False, num_classes=classes, **arguments)
        if own is None or own.input_size[-1] != size:
            _check_forward(net, size)
    except Exception as error:  # whatever a model of timm says to a size it was not made for
        problem = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        message = f"backbone '{name}' cannot be built for images of {size} pixels ({problem})"
        raise UserError(message, HINT) from None
    _check_patches(net, name, size)
    if architecture in MINIATURES and scale_down != "full":
        _make_learnable(net)
    if head_hidden:
        _replace_head(net, name, classes, head_hidden, head_dropout)
    return net


@torch.no_grad()
def _make_learnable(net: nn.Module) -> None:
    """Let a miniature learn from random weights within a few hundred steps, which it otherwise does not at all.

    Its patches are embedded by strided 3x3 convolutions (Xiao et al., 2021: Early convolutions help transformers see
    better) in place of one, as XCiT's are anyway. Linear layers start by Glorot's rule: timm's deviation of 0.02 is
    made for widths of some hundreds and leaves blocks of width 24 to 72 nearly silent.
    """
    embedding = getattr(net, "patch_embed", None)
    if isinstance(getattr(embedding, "proj", None), nn.Conv2d):
        embedding.proj = _stem(embedding.proj.out_channels, embedding.proj.kernel_size[0])  # type: ignore[union-attr]
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    for module in net.modules():
        if hasattr(module, "local_init"):
            module.local_init()  # ConViT's positional attention starts as a convolution


def _stem(width: int, patch: int) -> nn.Sequential:
    """Images to tokens (B, width, S / patch, S / patch): each convolution halves the side; patch is a power of two."""
    halvings = patch.bit_length() - 1
    widths = [3, *(max(8, width >> (halvings - 1 - i)) for i in range(halvings))]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], width, 1))


def timm_name(name: str) -> str:
    """What timm calls the model, tag included where one is given.

    Raises:
        UserError: timm knows no such model, or no such weights of it; names the nearest.
    """
    found = NAMES.get(name, name)
    architecture, _, tag = found.partition(".")
    if not timm.is_model(architecture):
        raise unknown("backbone", name, [*NAMES, *timm.list_models()])
    tagged = timm.list_models(f"{architecture}.*", pretrained=True, include_tags=True) if tag else []
    if tag and found not in tagged:
        raise unknown("backbone", name, tagged)
    return found


def _check_patches(net: nn.Module, name: str, size: int) -> None:
    """No pixels are left over at the border, which most transformers would drop without a word."""
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", 1)
    side = max(patch) if isinstance(patch, tuple) else int(patch)
    if size % side:
        raise UserError(f"backbone '{name}': patches of {side} pixels do not divide images of {size}", HINT)


@torch.no_grad()
def _check_forward(net: nn.Module, size: int) -> None:
    """Let the network fail now rather than in its first step; one image of another size than timm's own."""
    net.eval()(torch.zeros(1, 3, size, size))
    net.train()


def _classifiers(net: nn.Module) -> list[str]:
    """Names of the modules that timm calls the classifier: one, or two where a distilled model has a second."""
    names: Any = net.pretrained_cfg["classifier"]  # type: ignore[index]
    return [names] if isinstance(names, str) else list(names)


def _replace_head(net: nn.Module, name: str, classes: int, hidden: int, dropout: float) -> None:
    """Two-layer classifiers in the place of timm's Linear ones; the module around them keeps its pooling."""
    for place in _classifiers(net):
        linear = net.get_submodule(place)
        if not isinstance(linear, nn.Linear):
            message = f"backbone '{name}' ends in a {type(linear).__name__}, not a Linear, so its head stays as it is"
            raise UserError(message, "set the option head_hidden to 0")
        head = nn.Sequential(
            nn.Linear(linear.in_features, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        net.set_submodule(place, head)


def load_pretrained(net: nn.Module, state: Mapping[str, Tensor], what: str) -> int:
    """Take a file of timm's for the same model, of 2022 or of today; the classifier is left as it is.

    Args:
        net: of `make_backbone`.
        what: the file and its role, for the message.

    Returns:
        How many tensors were loaded: all the network has but the classifier's.

    Raises:
        UserError: some other tensor has no place or some place no tensor; names them.
    """
    return load_strict(net, to_current(state), what, ignore=[f"{place}." for place in _classifiers(net)])
