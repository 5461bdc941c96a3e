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

from bench.errors import UnfitWeights, UserError, unknown
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
OTHER = "resnet18"  # takes images of any size and any head


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
        seen = _try(net, size, classes)
    except Exception as error:  # whatever a model of timm says to a size it was not made for
        if torch.get_default_device().type == "meta":  # which may be the only thing that it cannot do
            with torch.device("cpu"):
                return make_backbone(name, size, classes, head_hidden, head_dropout, scale_down)
        problem = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        message = f"backbone '{name}' cannot be built for images of {size} pixels ({problem})"
        raise UserError(message, _hint(size)) from None
    _check_patches(net, name, size)
    if is_miniature(name, scale_down):
        _make_learnable(net)
    if head_hidden:
        before = len(net.state_dict())
        _replace_heads(net, seen, classes, head_hidden, head_dropout)
        if len(net.state_dict()) == before:
            message = f"backbone '{name}' has no classifier on pooled features that the released code's could stand for"
            raise UserError(message, f"take another backbone, such as {OTHER}; in a table: head_hidden: 0")
    return net


def is_miniature(name: str, scale_down: str) -> bool:
    """Whether a smaller version of the family is built."""
    return scale_down != "full" and timm_name(name).partition(".")[0] in MINIATURES


def _hint(size: int) -> str:
    """What users can do about a backbone that is not for images of so many pixels, and authors of tables."""
    larger = ", or `--profile paper`, whose images are larger" * (size < 224)
    return f"take another backbone, such as {OTHER}{larger}; in a table: input_size, resize_factor"


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
        raise unknown("backbone", name, [*NAMES, *timm.list_models()], [*NAMES, f"{OTHER} and every other of timm"])
    tagged = timm.list_models(f"{architecture}.*", pretrained=True, include_tags=True) if tag else []
    if tag and found not in tagged:
        raise unknown("backbone", name, tagged)
    return found


def table_name(name: str) -> str:
    """The tables' name of the network, without a tag of weights: one network has one name. Others' are as given."""
    architecture = timm_name(name).partition(".")[0]
    return next((ours for ours, timms in NAMES.items() if timms == architecture), architecture)


def _check_patches(net: nn.Module, name: str, size: int) -> None:
    """No pixels are left over at the border, which most networks of patches would drop without a word.

    Only what cuts the image itself: on inner maps the layers before have spread what is at the border.
    """
    for module in net.modules():
        patch = getattr(module, "patch_size", None)
        first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
        cuts = "Embed" in type(module).__name__ and patch and first is not None and first.in_channels == 3
        if not cuts or getattr(module, "dynamic_img_pad", False):
            continue
        side = max(patch) if isinstance(patch, tuple) else int(patch)  # type: ignore[arg-type]
        if size % side:
            message = f"backbone '{name}': patches of {side} pixels do not divide images of {size}"
            raise UserError(message, _hint(size))


@torch.no_grad()
def _try(net: nn.Module, size: int, classes: int) -> dict[str, torch.Size]:
    """Let the network fail now rather than in its first step: one image; the shape of what each classifier gets."""
    seen: dict[str, torch.Size] = {}

    def note(place: str) -> Any:
        return lambda _, given: seen.update({place: given[0].shape})

    hooks = [net.get_submodule(place).register_forward_pre_hook(note(place)) for place in _classifiers(net)]
    logits = net.eval()(torch.zeros(1, 3, size, size))
    net.train()
    for hook in hooks:
        hook.remove()
    if not isinstance(logits, Tensor) or logits.shape != (1, classes):
        raise ValueError("it gives no logits")
    return seen


def _classifiers(net: nn.Module) -> list[str]:
    """Names of the modules that timm calls the classifier: one, or two where a distilled model has a second."""
    names: Any = net.pretrained_cfg["classifier"]  # type: ignore[index]
    return [names] if isinstance(names, str) else list(names)


def _replace_heads(net: nn.Module, seen: Mapping[str, torch.Size], classes: int, hidden: int, dropout: float) -> None:
    """Two-layer classifiers in the place of timm's on pooled features; the module around them keeps its pooling.

    A Conv2d on features of one pixel is a Linear. A second classifier that sees every token (VOLO) stays timm's own.
    """
    for place, shape in seen.items():
        if shape[2:].numel() != 1:
            continue
        head = nn.Sequential(
            nn.Linear(shape[1], hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        net.set_submodule(place, head if len(shape) == 2 else nn.Sequential(nn.Flatten(), *head))


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


def check_published(name: str, size: int, scale_down: str = "full") -> None:
    """What timm publishes for the model fits the network at `size`; not known, and left to loading, of miniatures.

    Raises:
        UnfitWeights: it is for images of another size, on which its tensors' shapes depend.
    """
    found = timm_name(name)
    own = timm.get_pretrained_cfg(found)
    if own is None or not own.fixed_input_size or own.input_size[-1] == size or is_miniature(name, scale_down):
        return
    published = int(own.input_size[-1])
    if _shapes(found, published) == _shapes(found, size):
        return
    message = f"timm's weights of '{name}' are for images of {published} pixels, and the backbone gets {size} here"
    sibling = found.partition(".")[0].replace(str(published), str(size))
    other = sibling if timm.is_model(sibling) and str(size) in sibling else OTHER
    raise UnfitWeights(message, f"take a backbone whose weights are for {size} pixels, such as {other}")


def _shapes(found: str, size: int) -> dict[str, torch.Size]:
    with torch.device("meta"):
        net = timm.create_model(found, pretrained=False, img_size=size)
    return {name: value.shape for name, value in net.state_dict().items()}
