"""The networks whose features PF-ViT's constraint compares, each behind one interface: pictures in [0, 1] to features.

Files of others: facenet_pytorch's Inception-ResNet-v1 (VGGFace2) and torchvision's ResNets (ImageNet), without their
classifiers. Files of ours: what the method face-network trained on SynthFER, of the same networks or of a miniature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError, unknown
from bench.weight_files import load_strict, read_state
from methods.face_network.miniature import Miniature
from methods.mae.sizes import SCALES

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FACENET_MEAN, FACENET_STD = (127.5 / 255,) * 3, (128 / 255,) * 3  # (255 x - 127.5) / 128, as facenet was trained
BODY, HEAD = "body.", "head."  # parts of a network that was trained here; files of others have no such names


@dataclass(frozen=True)
class Kind:
    """One of the networks.

    Attributes:
        features: D, of the full network.
        mean, std: the scale of its input, of pixels in [0, 1].
        side: of the pictures it looks at, in pixels; None: as they are.
        unit: whether its features are vectors of length 1.
        classifier: beginnings of names in files of others that features do not need.
        small: D of its miniature.
    """

    features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int | None
    unit: bool
    classifier: tuple[str, ...]
    small: int


KINDS = {
    "inception-resnet-v1": Kind(512, FACENET_MEAN, FACENET_STD, 160, True, ("logits.",), 128),
    "resnet18": Kind(512, IMAGENET_MEAN, IMAGENET_STD, None, False, ("fc.",), 64),
    "resnet50": Kind(2048, IMAGENET_MEAN, IMAGENET_STD, None, False, ("fc.",), 96),
}


class FaceNetwork(nn.Module):
    """A network with the scale of its input: float RGB (B, 3, S, S) in [0, 1], any S, to features (B, D).

    Attributes:
        kind: name of the network.
        features: D.
        side: of the pictures that `body` looks at; None: as given.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, kind: str, body: nn.Module, features: int, side: int | None) -> None:
        super().__init__()
        self.kind, self.features, self.side = kind, features, side
        self.frozen = False
        self.body = body
        # of the network's class, not of a file: no part of what is saved
        self.register_buffer("mean", torch.tensor(KINDS[kind].mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(KINDS[kind].std)[:, None, None], persistent=False)

    def freeze(self) -> FaceNetwork:
        """From now on no parameter learns, and batch norm and dropout stay in evaluation whoever asks for training.

        Gradients still pass through to the pictures.
        """
        self.frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> FaceNetwork:
        super().train(mode and not self.frozen)
        return self

    def scaled(self, images: Tensor) -> Tensor:
        """What `body` sees of pictures in [0, 1]: at its size (bilinear, smoothed where it shrinks), in its scale."""
        side = self.side
        if side is not None and images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.body(self.scaled(images))
        return found


def make_network(kind: str, scale_down: str = "full") -> FaceNetwork:
    """A network with random weights.

    Args:
        scale_down: full, or short or quick for the miniature (the same one for both).

    Raises:
        UserError: no such kind or scale, or a package that is not installed.
    """
    if scale_down not in SCALES:
        raise unknown("scale_down", scale_down, SCALES)
    return _network(kind, scale_down != "full")


def load_network(kind: str, path: Path, role: str) -> FaceNetwork:
    """A frozen network from a file of others or of ours; whether it is a miniature, its tensors say.

    Args:
        role: what the file is given for, for messages.

    Raises:
        UserError: no such kind, a file that cannot be read, or tensors that are not exactly those of the network.
    """
    if kind not in KINDS:
        raise unknown("face network", kind, KINDS)
    state: Mapping[str, Tensor] = read_state(path)
    ours = any(name.startswith(BODY) for name in state)
    if ours:
        state = {name.removeprefix(BODY): value for name, value in state.items() if not name.startswith(HEAD)}
    network = _network(kind, Miniature.made(state))
    load_strict(network.body, state, f"{path} ({role})", ignore=() if ours else KINDS[kind].classifier)
    return network.freeze()


def _network(kind: str, small: bool) -> FaceNetwork:
    if kind not in KINDS:
        raise unknown("face network", kind, KINDS)
    known = KINDS[kind]
    if small:
        return FaceNetwork(kind, Miniature(known.small, known.unit), known.small, Miniature.side)
    return FaceNetwork(kind, _inception() if known.unit else _resnet(kind), known.features, known.side)


def _inception() -> nn.Module:
    """facenet_pytorch's class; without `pretrained` it downloads nothing. Its answer already has length 1."""
    try:
        from facenet_pytorch import InceptionResnetV1
    except ImportError as error:
        message = f"Inception-ResNet-v1 needs a package that is not installed ({error.name})"
        raise UserError(message, 'pip install "ferbench[face]"') from None
    made: nn.Module = InceptionResnetV1(pretrained=None)
    return made


def _resnet(kind: str) -> nn.Module:
    """torchvision's class up to its pooled features."""
    import torchvision

    makers: dict[str, Any] = {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50}
    made: nn.Module = makers[kind](weights=None)
    made.fc = nn.Identity()
    return made
