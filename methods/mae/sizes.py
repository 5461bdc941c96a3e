"""How wide and deep the encoders and decoders are: PF-ViT Table 1, and miniatures of them for shortened recipes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.errors import UserError, unknown

SCALES = ("full", "short", "quick")


@dataclass(frozen=True)
class Size:
    """One masked autoencoder.

    Attributes:
        patch: side of a patch in pixels.
        dim, depth, heads: of the encoder.
        decoder_dim, decoder_depth, decoder_heads: of the decoder.
        stem: channels after the first of the convolutions that embed a patch; 0: one linear layer, as in the paper.
    """

    patch: int
    dim: int
    depth: int
    heads: int
    decoder_dim: int
    decoder_depth: int
    decoder_heads: int
    stem: int = 0


# Table 1: 64 dimensions a head in encoders, 32 in decoders, depths 12 and 8, patches of 16 pixels.
# The miniatures keep the order of the three in width; their pictures are small, so their patches are too, and
# convolutions embed them: with one linear layer they stay at the largest class for hundreds of steps.
SIZES: dict[str, dict[str, Size]] = {
    "full": {
        "tiny": Size(16, 192, 12, 3, 128, 8, 4),
        "small": Size(16, 384, 12, 6, 256, 8, 8),
        "base": Size(16, 768, 12, 12, 512, 8, 16),
    },
    "short": {
        "tiny": Size(8, 96, 4, 3, 64, 2, 2, stem=32),
        "small": Size(8, 160, 4, 5, 96, 2, 3, stem=32),
        "base": Size(8, 192, 4, 6, 128, 2, 4, stem=32),
    },
    "quick": {
        "tiny": Size(8, 96, 2, 3, 48, 1, 2, stem=32),
        "small": Size(8, 112, 2, 4, 64, 1, 2, stem=32),
        "base": Size(8, 128, 2, 4, 96, 1, 3, stem=32),
    },
}


def size_of(backbone: str, scale_down: str, input_size: int) -> Size:
    """The size behind `vit_<tiny|small|base>_patch16`, or that of its miniature.

    Raises:
        UserError: no such backbone or scale, or patches that do not divide the image.
    """
    match = re.fullmatch(r"vit_([a-z]+)_patch16", backbone)
    if match is None or match[1] not in SIZES["full"]:
        raise unknown("backbone", backbone, [f"vit_{size}_patch16" for size in SIZES["full"]])
    if scale_down not in SIZES:
        raise unknown("scale_down", scale_down, SCALES)
    size = SIZES[scale_down][match[1]]
    if input_size % size.patch:
        message = f"patches of {size.patch} pixels do not divide images of {input_size}"
        raise UserError(message, "change input_size")
    return size
