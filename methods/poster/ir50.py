"""IR-50 without its last stage, POSTER's image backbone (section 4.2), and how its map becomes tokens.

The residual network of ArcFace (Deng et al., 2019) as face.evoLVe trains it. Parameter names are those of
face.evoLVe's files and of the released POSTER, so both load as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F


class Unit(nn.Module):
    """BatchNorm, 3x3, PReLU, 3x3 (with the stride), BatchNorm; the shortcut has a convolution where channels change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut_layer: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        # Striding the shortcut's input is what its 1x1 convolution or max-pooling of one cell would do.
        return self.res_layer(maps) + self.shortcut_layer(maps[..., :: self.stride, :: self.stride])


class IR50(nn.Module):
    """Normalised faces (B, 3, S, S) to maps (B, 4 x width, S / 8, S / 8): 256 x 14 x 14 for S = 112.

    Args:
        width: channels of the stem and the first stage; the next two have twice and four times as many.
        units: residual units of the three stages; the first unit of each halves the map.
        head_size: S, if the face recognition head is to be held, else None. Nothing uses it: it reads the fourth
            stage's map, which POSTER leaves out, but released files have it.
    """

    def __init__(self, width: int = 64, units: tuple[int, int, int] = (3, 4, 14), head_size: int | None = None) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
        )
        body: list[Unit] = []
        for stage, count in enumerate(units):
            outputs = width * 2**stage
            inputs = [max(width, outputs // 2)] + [outputs] * (count - 1)
            body += [Unit(before, outputs, stride=1 if i else 2) for i, before in enumerate(inputs)]
        self.body = nn.Sequential(*body)
        if head_size is not None:
            wide = 8 * width
            flat = wide * (head_size // 16) ** 2
            self.output_layer = nn.Sequential(
                nn.BatchNorm2d(wide), nn.Dropout(0.0), nn.Flatten(), nn.Linear(flat, wide), nn.BatchNorm1d(wide)
            )

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.input_layer(images))

    def surplus(self, names: Iterable[str]) -> list[str]:
        """Those of a whole face.evoLVe file's names that belong to units behind ours, or to a head we do not hold."""
        head = not hasattr(self, "output_layer")
        numbers = {name: re.match(r"body\.(\d+)\.", name) for name in names}
        return [
            name
            for name, number in numbers.items()
            if (number and int(number[1]) >= len(self.body)) or (head and name.startswith("output_layer."))
        ]


def to_tokens(maps: Tensor, how: str) -> Tensor:
    """A map (B, C, 2s, 2s) as s x s tokens (B, s x s, 4 C); no number is lost, `to_map` is the way back.

    Args:
        how: "patches": a token is the four cells of a 2x2 neighbourhood, row by row from the top left: the order and
            the places of the landmark net's cells. "channels", the released code: the map is cut in memory order, so
            token t has numbers 4 C t to 4 C (t + 1) of it, which is about five whole channels one behind the other
            (256 channels in 49 tokens) and no place in the image.
    """
    if how == "patches":
        return F.pixel_unshuffle(maps, 2).flatten(2).transpose(1, 2)
    batch, channels, rows, columns = maps.shape
    return maps.reshape(batch, rows * columns // 4, 4 * channels)


def to_map(tokens: Tensor, how: str) -> Tensor:
    """The inverse of `to_tokens`: (B, s x s, 4 C) to (B, C, 2s, 2s).

    This is how something found for tokens gets back into the image: write a value for each number of a token (in
    "channels" mode a share of the token's value, since each of its numbers has another place), and sum over C.
    """
    batch, count, width = tokens.shape
    side = round(count**0.5)
    if how == "patches":
        return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (side, side)), 2)
    return tokens.reshape(batch, width // 4, 2 * side, 2 * side)
