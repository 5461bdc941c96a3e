"""The plain vision transformer of masked autoencoders: positions, encoder, decoder (He et al. 2022, section 3)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from methods.mae.sizes import Size

NORM = partial(nn.LayerNorm, eps=1e-6)


def sincos(dim: int, side: int) -> Tensor:
    """Fixed positions of `side` x `side` patches behind one class token, (1, 1 + side², dim).

    The first half of the numbers is about the column, the second about the row (as in the released files: their grid
    has the column first); in each half sines, then cosines, of frequencies from 1 down to 1/10,000. The class token has
    zeros.
    """
    quarter = dim // 4
    frequency = 1.0 / 10_000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    angles = [place.reshape(-1, 1) * frequency for place in (columns, rows)]
    table = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([torch.zeros(1, dim, dtype=torch.float64), table])[None].float()


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, 3, S, S) to (B, N, patch² x 3): rows of pixels, their channels innermost, as the public decoders answer."""
    batch, channels, height, width = images.shape
    split = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return split.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """The inverse of `patchify`."""
    batch, count, length = patches.shape
    side, channels = round(count**0.5), length // patch**2
    split = patches.reshape(batch, side, side, patch, patch, channels)
    return split.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, side * patch, side * patch)


def initialise(module: nn.Module) -> None:
    """Glorot for linear layers, including the patch embedding seen as one; small normals for tokens."""
    for name, parameter in module.named_parameters():
        if name.endswith(("cls_token", "mask_token")):
            nn.init.normal_(parameter, std=0.02)
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(part.weight.flatten(1))  # a classifier of no classes may be empty
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def embedding(dim: int, patch: int, stem: int) -> nn.Module:
    """Images (B, 3, S, S) to (B, dim, S / patch, S / patch): one linear layer a patch, or a miniature's `Stem`."""
    return Stem(dim, patch, stem) if stem else nn.Conv2d(3, dim, patch, stride=patch)


class Stem(nn.Module):
    """How a miniature embeds patches: a linear layer, from which pixels come back, plus convolutions, which classify.

    Each convolution halves the side; `patch` is a power of two and `width` the channels after the first.
    """

    def __init__(self, dim: int, patch: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(3, dim, patch, stride=patch)
        widths = [3, *(width << i for i in range(patch.bit_length() - 2)), dim]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(dim, dim, 1))

    def forward(self, images: Tensor) -> Tensor:
        """See `embedding`."""
        found: Tensor = self.linear(images) + self.layers(images)
        return found


class Encoder(nn.Module):
    """Images to tokens."""

    def __init__(self, size: Size, input_size: int) -> None:
        super().__init__()
        self.patch = size.patch
        self.side = input_size // size.patch
        self.patch_embed = nn.Module()
        self.patch_embed.proj = embedding(size.dim, size.patch, size.stem)
        self.overlaps = size.stem > 0
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pos_embed = nn.Parameter(sincos(size.dim, self.side), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(size.dim, size.heads, qkv_bias=True, norm_layer=NORM) for _ in range(size.depth)
        )
        self.norm = NORM(size.dim)
        initialise(self)

    def forward(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Tokens (B, 1 + n, L) after the last norm, the class token first.

        Args:
            images: (B, 3, S, S).
            kept: int64 (B, n), the patches that are seen, in this order; None: all N.
        """
        if kept is not None and self.overlaps:
            images = self._without_unseen(images, kept)
        tokens = self.patch_embed.proj(images).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        if kept is not None:
            tokens = torch.gather(tokens, 1, kept[..., None].expand(-1, -1, tokens.shape[2]))
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        found: Tensor = self.norm(tokens)
        return found

    def _without_unseen(self, images: Tensor, kept: Tensor) -> Tensor:
        """Images with unseen patches grey: convolutions reach beyond their own patch."""
        seen = torch.zeros(len(images), self.side**2, device=images.device, dtype=images.dtype).scatter_(1, kept, 1.0)
        seen = seen.view(-1, 1, self.side, self.side)
        return images * F.interpolate(seen, scale_factor=float(self.patch), mode="nearest")


class Decoder(nn.Module):
    """Tokens of the seen patches to the pixels of all patches."""

    def __init__(self, size: Size, input_size: int) -> None:
        super().__init__()
        side = input_size // size.patch
        self.embed = nn.Linear(size.dim, size.decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.decoder_dim))
        self.pos_embed = nn.Parameter(sincos(size.decoder_dim, side), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(size.decoder_dim, size.decoder_heads, qkv_bias=True, norm_layer=NORM)
            for _ in range(size.decoder_depth)
        )
        self.norm = NORM(size.decoder_dim)
        self.pred = nn.Linear(size.decoder_dim, size.patch**2 * 3)
        initialise(self)

    def forward(self, tokens: Tensor, restore: Tensor | None = None) -> Tensor:
        """Pixels (B, N, patch² x 3) of all patches.

        Args:
            tokens: (B, 1 + n, L), of an encoder.
            restore: int64 (B, N), where each patch stands among the seen ones followed by the unseen; None: n is N and
                they are in order.
        """
        tokens = self.in_order(self.embed(tokens), restore)
        return self.decode(tokens + self.pos_embed)

    def in_order(self, tokens: Tensor, restore: Tensor | None) -> Tensor:
        """Embedded tokens (B, 1 + N, D) in the order of patches, mask tokens where nothing was seen."""
        if restore is None:
            return tokens
        missing = restore.shape[1] + 1 - tokens.shape[1]
        filled = torch.cat([tokens[:, 1:], self.mask_token.to(tokens.dtype).expand(len(tokens), missing, -1)], dim=1)
        filled = torch.gather(filled, 1, restore[..., None].expand(-1, -1, filled.shape[2]))
        return torch.cat([tokens[:, :1], filled], dim=1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Blocks, norm and the last layer on tokens (B, 1 + N, D) that have their positions."""
        for block in self.blocks:
            tokens = block(tokens)
        found: Tensor = self.pred(self.norm(tokens))[:, 1:]
        return found


def shuffled(noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor]:
    """Which patches are seen, by sorting noise (B, N).

    Returns:
        kept: int64 (B, n), the n = floor(N (1 - mask_ratio)) patches with the least noise.
        restore: int64 (B, N), where each patch stands in the whole shuffled order; unseen: at least n.
    """
    order = noise.argsort(dim=1)
    kept = order[:, : int(noise.shape[1] * (1 - mask_ratio))]
    return kept, order.argsort(dim=1)
