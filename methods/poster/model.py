"""POSTER assembled: Figure 2, and the steps of Table 4 on the way to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from bench.weight_files import load_strict
from methods.poster import onet
from methods.poster.attention import Attention, Place
from methods.poster.encoder import Block, norm
from methods.poster.ir50 import IR50, to_tokens
from methods.poster.mobilefacenet import MobileFaceNet
from methods.poster.onet import ONet
from methods.poster.options import Options


class SqueezeExcitation(nn.Module):
    """The released code's gate: a vector (B, D) times a sigmoid of itself behind two Linear layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, vector: Tensor) -> Tensor:
        return vector * self.excite(self.squeeze(vector).relu()).sigmoid()


class POSTER(nn.Module):
    """A frozen landmark net and an image backbone, whose tokens guide each other at three widths.

    Args:
        classes: number of expressions K.
        options: see `Options`; S' = inner_size, P = token_count, D = dims[0].
        colour: rgb | bgr, the order of the images' channels; only O-Net asks.

    Outside weights that are loaded, initialisation is PyTorch's default, positions start at zero.
    """

    def __init__(self, classes: int, options: Options, colour: str = "rgb") -> None:
        super().__init__()
        self.options = options
        dim = options.dims[0]
        length = options.token_count + 1  # tokens of one stream with its class token
        if options.streams != "landmark":
            head_size = options.inner_size if options.released_extras else None
            self.image_net = IR50(options.ir_width, options.ir_units, head_size)
            self.image_embed = nn.Linear(16 * options.ir_width, dim)
        if options.streams != "image":
            self.landmark_net, self.landmark_embed = _landmark_net(options, colour)
            self.landmark_net.requires_grad_(False)
        if options.released_extras:
            self.class_token = nn.Parameter(torch.zeros(1, 1, dim))  # unused: see `with_class_token`
        self.positions = nn.Parameter(torch.zeros(1, length, dim))
        count = 2 * length if options.streams == "both" else length
        self.shrinks = nn.ModuleDict(
            {name: nn.Conv1d(count, count, dim // width, stride=dim // width) for name, width in options.levels[1:]}
        )
        rates = torch.linspace(0, options.drop_path, options.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(count, rate, options) for rate in rates)
        self.norm = norm(dim)
        self.gate = SqueezeExcitation(dim) if options.squeeze_excitation else nn.Identity()
        self.head = nn.Linear(dim, classes)
        self.train()

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Logits (B, K).

        Args:
            images: normalised (B, 3, S, S), any S.
            landmarks: their `landmark_tokens`, if already at hand.
        """
        return self.head(self.features(images, landmarks))

    def features(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """The vector (B, D) the classifier reads: the first class token (the image's, if there is one), gated."""
        tokens = self.tokens(images, landmarks)
        levels = [tokens, *(shrink(tokens) for shrink in self.shrinks.values())]
        for block in self.blocks:
            levels = block(levels)
        return self.gate(self.norm(levels[0][:, 0]))

    def tokens(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """What the first block sees: (B, N, D), the image stream first, each stream with its class token in front.

        N is 2 (P + 1), or P + 1 with one stream. Positions are learned for the first stream only, as in the released
        code.
        """
        streams = []
        if self.options.streams != "landmark":
            maps = self.image_map(images)
            streams.append(with_class_token(self.image_embed(to_tokens(maps, self.options.tokens))))
        if self.options.streams != "image":
            found = self.landmark_tokens(images) if landmarks is None else landmarks
            streams.append(with_class_token(self.landmark_embed(found)))
        streams[0] = streams[0] + self.positions
        return torch.cat(streams, dim=1)

    def image_map(self, images: Tensor) -> Tensor:
        """IR-50's map (B, 4 x ir_width, S' / 8, S' / 8) of images (B, 3, S, S); `ir50.to_tokens` cuts it."""
        return self.image_net(self._inner(images))

    @torch.no_grad()
    def landmark_tokens(self, images: Tensor) -> Tensor:
        """The frozen landmark net's cells (B, P, D) of images (B, 3, S, S), row by row; of O-Net (B, P, 128)."""
        return self.landmark_net.features(self._inner(images)).flatten(2).transpose(1, 2)

    def _inner(self, images: Tensor) -> Tensor:
        """Images at the size of the backbones; nearest neighbour, as in the released code."""
        return F.interpolate(images, size=self.options.inner_size)

    def train(self, mode: bool = True) -> POSTER:
        """Training or evaluation behaviour; the landmark net stays in evaluation unless the options say otherwise."""
        super().train(mode)
        if self.options.streams != "image" and not self.options.landmark_batch_statistics:
            self.landmark_net.eval()
        return self

    def attentions(self) -> dict[Place, Attention]:
        """All attention modules; `attention.recorded` shows their maps."""
        return {
            Place(index, level, stream): attention
            for index, block in enumerate(self.blocks)
            for level, encoder in cast(Block, block).encoders.items()
            for stream, attention in encoder.attentions().items()
        }

    def load_image_backbone(self, state: Mapping[str, Tensor], what: str = "the IR-50 file") -> int:
        """Load IR-50 as face.evoLVe's files name it; returns the number of tensors taken (released POSTER's log: 304).

        A whole file has units of the fourth stage, and perhaps a head, that POSTER does not hold: `IR50.surplus` names
        them, they are left out.

        Raises:
            UserError: any other tensor is missing, left over or of another shape, or there is no image stream.
        """
        if self.options.streams == "landmark":
            raise UserError(f"{what}: this network has no image stream", "leave the file out")
        return load_strict(self.image_net, state, what, ignore=self.image_net.surplus(state))

    def load_landmark_net(self, state: Mapping[str, Tensor], what: str = "the landmark net's file") -> int:
        """Load the frozen landmark net, every tensor; of O-Net the layers behind the convolutions are left out.

        Returns:
            The number of tensors taken.

        Raises:
            UserError: a tensor is missing, left over or of another shape, or there is no landmark stream.
        """
        if self.options.streams == "image":
            raise UserError(f"{what}: this network has no landmark stream", "leave the file out")
        ignore = onet.UNUSED if self.options.landmark == "onet" else ()
        return load_strict(self.landmark_net, state, what, ignore=ignore)


def with_class_token(tokens: Tensor) -> Tensor:
    """Tokens (B, P, D) with their mean in front, which the released code uses as class token."""
    return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)


def _landmark_net(options: Options, colour: str) -> tuple[MobileFaceNet | ONet, nn.Module]:
    """The landmark net and what brings its cells to the width of a token."""
    dim = options.dims[0]
    if options.landmark == "onet":
        # O-Net's features are narrower than a token. This learned layer is ours; MobileFaceNet needs none.
        return ONet(options.inner_size // 16, colour), nn.Linear(onet.CHANNELS, dim)
    return MobileFaceNet(options.landmark_width, dim, options.inner_size), nn.Identity()
