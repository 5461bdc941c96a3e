"""PF-ViT's five networks (section 3.2, Figure 2): encoder, separator, generator, discriminator, classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from methods.mae.sizes import Size
from methods.mae.vit import NORM, Decoder, Encoder, embedding, initialise, sincos, unpatchify
from methods.pfvit.options import Options

SHARPNESS = 3.0  # of the cross fusion's first look-up: a place gives 0.75 to 0.87 of its attention to its own token


class Separated(NamedTuple):
    """An encoded face and its two components, each (B, 1 + n, L), Eq. 2; `whole` is their sum."""

    whole: Tensor
    emotion: Tensor
    rest: Tensor


class Faces(NamedTuple):
    """Generated faces (B, 3, S, S), normalised as the images are: G(V_e + V_p), G(V_e) and G(V_p)."""

    rebuilt: Tensor
    emotion: Tensor
    poker: Tensor


class Separator(nn.Module):
    """Squeeze and excitation: which of the L features are emotional, 0 to 1, from the mean over all tokens.

    With `by_token` every token gets a mask of its own, from itself.
    """

    def __init__(self, dim: int, reduction: int, by_token: bool) -> None:
        super().__init__()
        self.by_token = by_token
        self.squeeze = nn.Linear(dim, max(1, dim // reduction))
        self.excite = nn.Linear(max(1, dim // reduction), dim)

    def forward(self, tokens: Tensor) -> Separated:
        """Tokens (B, 1 + n, L) to their components."""
        seen = tokens if self.by_token else tokens.mean(dim=1, keepdim=True)
        mask = self.excite(F.relu(self.squeeze(seen))).sigmoid()
        return Separated(tokens, tokens * mask, tokens * (1 - mask))


class CrossFusion(nn.Module):
    """Multi-head cross-attention: mask tokens with positions ask, separated tokens answer (MCA of Eq. 3).

    Keys are normalised, values are not, and the answer is added to what asked. It may begin as a table look-up: every
    place asks for the token of its own position and gets it as it is, so that the pretrained decoder first sees what it
    saw in pretraining where no patch was hidden. `joint`: both together go through one self-attention block instead, of
    which the places of the mask tokens are kept ("implemented by self-attention").
    """

    def __init__(self, dim: int, heads: int, joint: bool) -> None:
        super().__init__()
        self.heads = heads
        self.joint = Block(dim, heads, qkv_bias=True, norm_layer=NORM) if joint else None
        if self.joint is None:
            self.norm_query, self.norm_key = NORM(dim), NORM(dim)
            self.query, self.key, self.value, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def begin_as_look_up(self, side: int) -> None:
        """Queries and keys that compare positions alone, values as they are.

        Every head compares the waves that tell neighbours apart: lengths from 2 pi patches to 2 pi times the `side`.
        """
        if self.joint is not None:
            return
        dim = self.query.in_features
        quarter, waves = dim // 4, dim // self.heads // 4
        longest = math.log(side) / math.log(10_000) * quarter
        chosen = torch.linspace(0, longest, waves).round().long()
        places = torch.cat([chosen + kind * quarter for kind in range(4)]).repeat(self.heads)
        for part in (self.query, self.key):
            nn.init.zeros_(part.weight)
            part.weight.data[torch.arange(len(places)), places] = SHARPNESS
        for part in (self.value, self.proj):
            nn.init.eye_(part.weight)
        nn.init.zeros_(self.norm_key.weight)  # tokens are larger than positions and would drown them

    def forward(self, asking: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        """(B, 1 + N, D) from mask tokens with positions of that shape, tokens (B, 1 + N, D) and their positions."""
        if self.joint is not None:
            fused: Tensor = self.joint(torch.cat([asking, tokens + positions], dim=1))
            return fused[:, : asking.shape[1]]
        query = self.query(self.norm_query(asking))
        key = self.key(self.norm_key(tokens) + F.layer_norm(positions, positions.shape[-1:]))
        parts = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, self.value(tokens)))
        answered = F.scaled_dot_product_attention(*parts)
        found: Tensor = asking + self.proj(answered.transpose(1, 2).flatten(2))
        return found


class Generator(nn.Module):
    """Tokens to a face: the pretrained decoder behind the cross fusion."""

    def __init__(self, size: Size, input_size: int, fusion: str) -> None:
        super().__init__()
        self.patch = size.patch
        self.decoder = Decoder(size, input_size)
        self.fusion = None if fusion == "in-order" else CrossFusion(
            size.decoder_dim, size.decoder_heads, fusion == "self"
        )  # fmt: skip

    def forward(self, tokens: Tensor, restore: Tensor | None = None) -> Tensor:
        """A face (B, 3, S, S), normalised as the input is.

        Args:
            tokens: (B, 1 + n, L): V_e + V_p, V_p or V_e.
            restore: of Multi-Task MAE, where only some patches were seen (see `Decoder.forward`).
        """
        decoder = self.decoder
        if self.fusion is None:
            return unpatchify(decoder(tokens, restore), self.patch)
        asking = (decoder.mask_token + decoder.pos_embed).expand(len(tokens), -1, -1)
        return unpatchify(decoder.decode(self.fusion(asking, decoder.embed(tokens), decoder.pos_embed)), self.patch)


class Discriminator(nn.Module):
    """A face to K + 1 outputs: its expression, and whether it is real; the pretrained decoder's blocks inside."""

    def __init__(self, size: Size, input_size: int, classes: int) -> None:
        super().__init__()
        dim = size.decoder_dim
        self.embed = embedding(dim, size.patch, size.stem // 2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(sincos(dim, input_size // size.patch), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(dim, size.decoder_heads, qkv_bias=True, norm_layer=NORM) for _ in range(size.decoder_depth)
        )
        self.norm = NORM(dim)
        self.head = nn.Linear(dim, classes + 1)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K + 1) of normalised faces (B, 3, S, S); the last one says real."""
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        found: Tensor = self.head(self.norm(tokens)[:, 0])
        return found


class PFViT(nn.Module):
    """All five; a forward pass is inference: encoder, separator, classifier."""

    def __init__(self, size: Size, input_size: int, classes: int, options: Options) -> None:
        super().__init__()
        self.size = size
        self.options = options
        self.encoder = Encoder(size, input_size)
        self.separator = Separator(size.dim, options.separator_reduction, options.separator == "token")
        self.generator = Generator(size, input_size, "in-order" if options.multitask else options.fusion)
        self.discriminator = Discriminator(size, input_size, classes)
        self.classifier = nn.Linear(size.dim, classes)
        initialise(self)
        if self.generator.fusion is not None and options.fusion_start == "look-up":
            self.generator.fusion.begin_as_look_up(self.encoder.side)

    def forward(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Logits (B, K) of the class token of V_e (Eq. 4).

        Args:
            images: (B, 3, S, S), normalised.
            kept: of Multi-Task MAE, the patches that are seen (see `Encoder.forward`).
        """
        return self.classify(self.separate(images, kept))

    def separate(self, images: Tensor, kept: Tensor | None = None) -> Separated:
        """Eqs. 1 and 2."""
        found: Separated = self.separator(self.encoder(images, kept))
        return found

    def classify(self, separated: Separated) -> Tensor:
        """Logits (B, K)."""
        found: Tensor = self.classifier(separated.emotion[:, 0])
        return found

    def faces(self, images: Tensor, kept: Tensor | None = None, restore: Tensor | None = None) -> Faces:
        """What the generator makes of normalised images (B, 3, S, S); arguments as of `forward` and `Generator`."""
        return Faces(*self.generate(self.separate(images, kept), restore))

    def generate(self, components: Sequence[Tensor], restore: Tensor | None = None) -> tuple[Tensor, ...]:
        """A face (B, 3, S, S) of each component (B, 1 + n, L), in one pass of the generator."""
        count = len(components)
        restore = None if restore is None else restore.repeat(count, 1)
        return self.generator(torch.cat(list(components)), restore).chunk(count)
