"""Augmentations of PF-ViT: the paper's two words, the released baseline script, and masked pretraining.

Arguments and results are as in bench.data.augment.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.augment import affine, erase_to_mean, uniform
from bench.data.nresizer_augment import luma
from bench.registry import augmentation

ZOOM = (1.0, 1.25)
SHIFT = 0.1  # of the side, at most, both ways
JITTER = 0.25  # brightness, contrast and saturation by factors of 1 - JITTER to 1 + JITTER, the hue by JITTER of a turn
CROP_AREA, CROP_ASPECT = (0.2, 1.0), (3 / 4, 4 / 3)  # of the picture; width to height
TRIES = 10  # torchvision's, for a crop that fits
CUBIC = -0.5  # the cubic of Pillow's resizing; PyTorch's own has -0.75
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@augmentation("pfvit-paper", version=1)
def pfvit_paper(images: Tensor, generator: torch.Generator) -> Tensor:
    """PF-ViT says "random scaling and flipping" (section 4.2); our reading: flip for half, 1 to 1.25 times as large."""
    return affine(images, generator, flip=0.5, scale=ZOOM)


@augmentation("pfvit-code", version=1)
def pfvit_code(images: Tensor, generator: torch.Generator) -> Tensor:
    """PF-ViT's released baseline: flip for half; for half colour jitter, shift and zoom; then random erasing.

    With torchvision's defaults: shift and zoom take the nearest pixel, what comes from outside is black, shifts are
    whole pixels, and each image has its changes of colour in an order of its own. Values stay floats.
    """
    count, _, height, width = images.shape
    mirrored, chosen = (uniform(count, 0, 1, images, generator)[:, None, None, None] < 0.5 for _ in range(2))
    images = torch.where(mirrored, images.flip(-1), images)
    factors = [uniform(count, 1 - JITTER, 1 + JITTER, images, generator) for _ in range(3)]
    factors.append(uniform(count, -JITTER, JITTER, images, generator))
    order = torch.rand(count, 4, generator=generator, device=images.device).argsort(1)
    dx, dy = (uniform(count, -SHIFT * side, SHIFT * side, images, generator).round() for side in (width, height))
    zoom = uniform(count, *ZOOM, images, generator)
    changed = magnify(recolour(images, torch.stack(factors, dim=1), order), zoom, dx, dy)
    return torch.where(chosen, changed, images)


pfvit_code.after = partial(erase_to_mean, area=(0.02, 0.25))  # type: ignore[attr-defined]


@augmentation("mae", version=1)
def mae(images: Tensor, generator: torch.Generator) -> Tensor:
    """Masked pretraining (He et al. 2022): a crop of 20 to 100 % of the area, bicubic, and a flip for half.

    A crop is enlarged to the stored size, and the loop resizes that to the input's; the released script goes from the
    crop to the input's size at once. Enlarging never aliases, so there is no filter in front of it.
    """
    count, _, height, width = images.shape
    left, top, wide, high = crops(count, height, width, images, generator)
    mirrored = uniform(count, 0, 1, images, generator) < 0.5
    columns, rows = bicubic(left, wide, width), bicubic(top, high, height)
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    return (rows[:, None] @ images @ columns.transpose(1, 2)[:, None]).clamp(0, 1)


def magnify(images: Tensor, zoom: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Images (B, C, H, W) made `zoom` (B,) times as large about their middle, then moved by dx, dy (B,) pixels.

    Nearest pixel, black outside.
    """
    _, _, height, width = images.shape
    places = []
    for length, move in ((width, dx), (height, dy)):
        middle = torch.arange(length, device=images.device) - (length - 1) / 2
        places.append((middle[None] - move[:, None]) / zoom[:, None] / (length / 2))
    grid = torch.stack(
        [places[0][:, None, :].expand(-1, height, -1), places[1][:, :, None].expand(-1, -1, width)], dim=3
    )
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def recolour(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image; one grey plane has no saturation and no hue.

    Args:
        factors: (B, 4), one for each change: of the first three 0 leaves black, the mean grey, and the grey image, and
            1 the image itself; of the hue, in turns.
        order: int64 (B, 4), which change is first, second, third and fourth.
    """
    for kind in order.unbind(1):
        factor = factors.gather(1, kind[:, None])[:, :, None, None]
        kind = kind[:, None, None, None]
        grey = luma(images)
        other = torch.where(kind == CONTRAST, grey.mean(dim=(1, 2, 3), keepdim=True), 0.0)
        if images.shape[1] == 1:
            blended = torch.where(kind >= SATURATION, images, (1 - factor) * other + factor * images)
        else:
            other = torch.where(kind == SATURATION, grey, other)
            blended = torch.where(kind == HUE, turn_hue(images, factor), (1 - factor) * other + factor * images)
        images = blended.clamp(0, 1)
    return images


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Images (B, 3, H, W) with their hue turned by `turns` (B, 1, 1, 1) and value and saturation (HSV) kept."""
    red, green, blue = images.chunk(3, dim=1)
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    some = torch.where(chroma == 0, 1.0, chroma)  # grey has no hue, and no chroma that would show one
    sixths = torch.where(
        value == red, (green - blue) / some,
        torch.where(value == green, (blue - red) / some + 2, (red - green) / some + 4),
    )  # fmt: skip
    sixths = sixths + 6 * turns
    places = [(sixths + n).remainder(6) for n in (5, 3, 1)]  # of red, green and blue on the colour circle
    return torch.cat([value - chroma * torch.minimum(place, 4 - place).clamp(0, 1) for place in places], dim=1)


def crops(
    count: int, height: int, width: int, like: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Left, top, width and height, each (B,) in whole pixels, as torchvision's `RandomResizedCrop` draws them.

    Of ten draws the first that fits; where none does, the middle of the picture.
    """
    drawn = count * TRIES
    area = uniform(drawn, *CROP_AREA, like, generator) * (height * width)
    aspect = torch.exp(uniform(drawn, math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1]), like, generator))
    wide, high = (side.round().view(count, TRIES) for side in (torch.sqrt(area * aspect), torch.sqrt(area / aspect)))
    fits = (wide <= width) & (high <= height) & (wide > 0) & (high > 0)
    first = fits.float().argmax(dim=1, keepdim=True)
    fitting = fits.any(dim=1)
    low, most = CROP_ASPECT
    wide = torch.where(fitting, wide.gather(1, first)[:, 0], min(width, round(height * most)))
    high = torch.where(fitting, high.gather(1, first)[:, 0], min(height, round(width / low)))
    at = [uniform(count, 0, 1, like, generator) for _ in range(2)]
    left, top = (
        torch.where(fitting, (where * (side - part + 1)).floor(), ((side - part) / 2).floor())
        for where, side, part in zip(at, (width, height), (wide, high), strict=True)
    )
    return left, top, wide, high


def bicubic(start: Tensor, length: Tensor, size: int) -> Tensor:
    """What each of `size` pixels takes from each of `size` pixels, (B, size, size), where a part of them is enlarged.

    As Pillow resizes a crop: a cubic of -0.5, over the pixels of the crop alone.

    Args:
        start, length: (B,), the part in whole pixels.
    """
    pixels = torch.arange(size, device=start.device)
    place = (pixels + 0.5)[None] * (length / size)[:, None] + start[:, None] - 0.5
    away = (place[:, :, None] - pixels).abs()
    near = ((CUBIC + 2) * away - (CUBIC + 3)) * away**2 + 1
    far = ((away - 5) * away + 8) * away * CUBIC - 4 * CUBIC
    weights = torch.where(away < 1, near, torch.where(away < 2, far, 0.0))
    inside = (pixels >= start[:, None]) & (pixels < (start + length)[:, None])
    weights = weights * inside[:, None]
    return weights / weights.sum(dim=2, keepdim=True)
