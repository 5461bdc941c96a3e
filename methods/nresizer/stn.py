"""The spatial transformer in front of the resizer: an affine view of each image, found by a small network."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError

CHANNELS = 10  # of the map that the last two layers read
HIDDEN = 32
SMALLEST = 18  # pixels, of which one cell is left


class STN(nn.Module):
    """Images (B, 3, S, S) to their affine views (B, 3, S, S); at the start each is the image itself.

    The localiser is that of PyTorch's tutorial; names are the released ones. Where a view leaves the image it is zero,
    the mean of normalised images. 2,711,904 parameters for 384 pixels.

    Raises:
        UserError: images are too small for the localiser.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < SMALLEST:
            raise UserError(f"input_size {size} is too small for the STN", f"give at least {SMALLEST}, or stn: false")
        side = ((size - 6) // 2 - 4) // 2
        self.localization = nn.Sequential(
            nn.Conv2d(3, 8, 7), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, CHANNELS, 5), nn.MaxPool2d(2), nn.ReLU()
        )
        self.fc_loc = nn.Sequential(nn.Linear(CHANNELS * side * side, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 6))
        last = self.fc_loc[2]
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        grid = affine_grid(self.theta(images), images.shape[-1])
        return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", align_corners=True)

    def theta(self, images: Tensor) -> Tensor:
        """Affine maps (B, 2, 3) from coordinates of the view to those of the image, both over [-1, 1].

        Never in half precision: near 1 bf16 knows no numbers closer than 1/128, a pixel and a half of 384.
        """
        kind, weight = images.device.type, self.fc_loc[0].weight
        known = torch.amp.is_autocast_available(kind)  # the meta device has none
        with torch.autocast(kind, enabled=False) if known else nullcontext():
            found = self.fc_loc(self.localization(images.to(weight.dtype)).flatten(1))
        return found.unflatten(1, (2, 3))


def affine_grid(theta: Tensor, size: int) -> Tensor:
    """Positions (B, S, S, 2) in the image, as (x, y), of the pixels of its view; the outermost pixels are at -1 and 1.

    As `torch.nn.functional.affine_grid` with align_corners, whose matrix product would under bf16 give positions of
    eight bits, coarser than a pixel.
    """
    at = torch.linspace(-1, 1, size, dtype=theta.dtype, device=theta.device)
    x, y = at[None, :, None], at[:, None, None]
    along_x, along_y, shift = theta[:, None, None].unbind(-1)
    return along_x * x + along_y * y + shift
