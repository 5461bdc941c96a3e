"""DIC: the face super-resolution network in front of the Neural Resizer, x8, four steps.

Ma et al., Deep Face Super-Resolution with Iterative Collaboration between Attentive Recovery and Landmark Estimation
(CVPR 2020). Each step enlarges the face and finds landmarks in the result, which tell the next step where the facial
parts are. Layers, order and parameter names are those of the released state dicts
(github.com/Maclory/Deep-Iterative-Collaboration, options DIC_Helen), so a released file loads as it is.

The network is used as it was trained, never trained here. It was trained from 16 to 128 pixels and takes any sides that
are multiples of 8. Its maps of 768x768 cost 1.6 GiB of memory for each 48-pixel image of a batch, whose results do not
depend on each other: a large batch needs a large GPU, on a processor one image at a time is as fast.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from bench.weight_files import load_strict
from methods.nresizer.dic_hourglass import FeedbackHourglass

STEPS = 4
WIDTH = 48
GROUPS = 6
FUSION_BLOCKS = 7
MEAN = (0.509, 0.424, 0.378)  # red, green, blue; taken off what goes in, added to what comes out
STRIDE = 8  # of the sides that go in: the hourglass halves maps of twice their size four times
FAINTEST = 0.05  # heat maps whose maximum is below are divided by this instead
# Landmarks in iBUG order, [first, last), of the parts that attention tells apart; the outline is jaw and brows.
PARTS = {"left eye": (36, 42), "right eye": (42, 48), "nose": (27, 36), "mouth": (48, 68), "outline": (0, 27)}


def _with_prelu(convolution: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, nn.PReLU(init=0.2))


def _pointwise(inputs: int) -> nn.Sequential:
    return _with_prelu(nn.Conv2d(inputs, WIDTH, 1))


class Fusion(nn.Module):
    """Features of each facial part by grouped residual blocks, averaged with the parts' attention as weights."""

    def __init__(self) -> None:
        super().__init__()
        channels = WIDTH * len(PARTS)
        self.conv_in = nn.Sequential(nn.Conv2d(WIDTH, channels, 1), nn.LeakyReLU(0.2, inplace=True))
        self.resnet = nn.Sequential(*(GroupedResidual(channels) for _ in range(FUSION_BLOCKS)))

    def forward(self, maps: Tensor, parts: Tensor) -> Tensor:
        """Maps (B, 48, H, W) and part maps (B, 5, H, W) to (B, 48, H, W)."""
        by_part = self.resnet(self.conv_in(maps)).unflatten(1, (len(PARTS), WIDTH))
        return (by_part * parts.softmax(dim=1).unsqueeze(2)).sum(dim=1)


class GroupedResidual(nn.Module):
    """Two 3x3 convolutions that keep the facial parts apart, LeakyReLU between them, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1, groups=len(PARTS)) for _ in range(2))
        self.res = nn.Sequential(first, nn.LeakyReLU(0.2, inplace=True), second)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.res(maps)


class Recovery(nn.Module):
    """Six projections up (x8) and down, each fed with the results of all before it (SRFBN's feedback block).

    The first step's takes the image's features alone. Those of the later steps also take the last step's result and,
    through `fusion_block`, where the facial parts are.
    """

    def __init__(self, feedback: bool) -> None:
        super().__init__()
        self.compress_in = _pointwise(2 * WIDTH if feedback else WIDTH)
        self.upBlocks, self.downBlocks, self.uptranBlocks, self.downtranBlocks = (nn.ModuleList() for _ in range(4))
        for group in range(GROUPS):
            self.upBlocks.append(_with_prelu(nn.ConvTranspose2d(WIDTH, WIDTH, 12, stride=8, padding=2)))
            self.downBlocks.append(_with_prelu(nn.Conv2d(WIDTH, WIDTH, 12, stride=8, padding=2)))
            if group:
                self.uptranBlocks.append(_pointwise(WIDTH * (group + 1)))
                self.downtranBlocks.append(_pointwise(WIDTH * (group + 1)))
        self.compress_out = _pointwise(WIDTH * GROUPS)
        if feedback:
            self.fusion_block = Fusion()

    def forward(self, maps: Tensor, before: Tensor | None = None, parts: Tensor | None = None) -> Tensor:
        """Maps (B, 48, H, W), those of the step before and the part maps (B, 5, H, W) to (B, 48, H, W)."""
        if before is not None and parts is not None:
            maps = self.fusion_block(self.compress_in(torch.cat((maps, before), dim=1)), parts)
        else:
            maps = self.compress_in(maps)
        low, high = [maps], list[Tensor]()
        for up, down in zip(self.upBlocks, self.downBlocks):
            high.append(up(_gathered(low, self.uptranBlocks)))
            low.append(down(_gathered(high, self.downtranBlocks)))
        return self.compress_out(torch.cat(low[1:], dim=1))


def _gathered(maps: list[Tensor], transitions: nn.ModuleList) -> Tensor:
    """All maps so far as one of 48 channels; a single one needs no convolution."""
    found: Tensor = transitions[len(maps) - 2](torch.cat(maps, dim=1)) if len(maps) > 1 else maps[0]
    return found


class DIC(nn.Module):
    """Faces (B, 1 or 3, h, w) in [0, 1], RGB, to (B, 3, 8h, 8w) in [0, 1]; h and w are multiples of 8."""

    scale = 8
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = _with_prelu(nn.Conv2d(3, 4 * WIDTH, 3, padding=1))
        self.feat_in = nn.PixelShuffle(2)
        self.first_block = Recovery(feedback=False)
        self.block = Recovery(feedback=True)
        self.out = _with_prelu(nn.ConvTranspose2d(WIDTH, WIDTH, 8, stride=4, padding=2))
        self.conv_out = nn.Sequential(nn.Conv2d(WIDTH, 3, 3, padding=1))
        self.HG = FeedbackHourglass()
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The last step's image; the landmarks in it, which no step uses, are not looked for."""
        pictures, _ = self.steps(images, last_landmarks=False)
        return pictures[-1].clamp(0, 1)

    def steps(self, images: Tensor, last_landmarks: bool = True) -> tuple[list[Tensor], list[Tensor]]:
        """What every step finds.

        Args:
            last_landmarks: also find landmarks in the last image.

        Returns:
            Four images (B, 3, 8h, 8w), not clamped, and as many sets of heat maps (B, 68, 2h, 2w), or one fewer.

        Raises:
            UserError: sides that are no multiples of 8, or neither one nor three channels.
        """
        faces = _colour(images) - self.mean
        if faces.device.type == "cpu":  # where this order of the numbers in memory takes two thirds of the time
            faces = faces.contiguous(memory_format=torch.channels_last)
        enlarged = F.interpolate(faces, scale_factor=self.scale, mode="bilinear", align_corners=False)
        shallow = self.feat_in(self.conv_in(faces))
        pictures, heatmaps = list[Tensor](), list[Tensor]()
        deep, hidden = None, None
        for step in range(STEPS):
            deep = self.block(shallow, deep, facial_parts(heatmaps[-1])) if step else self.first_block(shallow)
            picture = enlarged + self.conv_out(self.out(deep))
            pictures.append(picture + self.mean)
            if last_landmarks or step + 1 < STEPS:
                found, hidden = self.HG(picture, hidden)
                heatmaps.append(found)
        return pictures, heatmaps


def _colour(images: Tensor) -> Tensor:
    """Images with three channels, of sides that fit."""
    channels, *sides = images.shape[1:]
    if channels not in (1, 3) or any(side % STRIDE or not side for side in sides):
        shape = "x".join(map(str, images.shape[1:]))
        raise UserError(
            f"DIC cannot enlarge images of {shape} (channels, height, width)",
            f"give grey or RGB images whose sides are multiples of {STRIDE}, such as 48",
        )
    return images.expand(-1, 3, -1, -1)


def facial_parts(heatmaps: Tensor) -> Tensor:
    """Heat maps of 68 landmarks (B, 68, H, W), each with its maximum at one, summed over each part: (B, 5, H, W)."""
    even = heatmaps / heatmaps.amax(dim=(2, 3), keepdim=True).clamp(min=FAINTEST)
    return torch.stack([even[:, first:end].sum(dim=1) for first, end in PARTS.values()], dim=1)


def from_state(state: Mapping[str, Tensor], what: str) -> DIC:
    """DIC with a released file's numbers, frozen, in evaluation mode.

    Args:
        state: the file's tensors by name (`weight_files.read_state`). The released trainer keeps them under
            `state_dict` beside its own state; DICGAN's, which keeps the same network under `netG`, is no file of DIC.
        what: the file and its role, for messages.

    Raises:
        UserError: tensors are missing, left over or of another shape.
    """
    net = DIC()
    load_strict(net, state, what)
    return net.requires_grad_(False).eval()
