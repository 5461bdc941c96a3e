"""What stored images go through ahead of augmentation: super-resolution by a fixed network, or interpolation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import registry
from bench.errors import UserError
from bench.method import Context, Front, require_weights
from bench.weight_files import read_state
from methods.nresizer import dic
from methods.nresizer.options import Options
from methods.superres import network

# Roles whose file or stage is a network for super-resolution, and what builds it; at most one in an experiment.
LOADERS: dict[str, Callable[[Mapping[str, Tensor], str], nn.Module]] = {
    "dic-helen": dic.from_state,
    "sr-synthfer": network.from_state,
    "sr-real": network.from_state,
}
PIXELS = 384**2  # of a unit of work: one at a time on a processor, up to MOST on an accelerator
UNIT_BYTES = 1.7e9  # that DIC works in for a unit, on any device
MOST = 16


class SuperResolution:
    """Float (B, C, H, W) in [0, 1] to the same kind at side x scale ** times pixels.

    Args:
        net: with `scale`; float (B, C, h, w) in [0, 1] to (B, C', scale h, scale w) in [0, 1].
        side: pixels the network gets; other images are resized to it, bilinear and, where they shrink, antialiased.
        times: how often the network is applied.
    """

    def __init__(self, net: nn.Module, side: int, times: int) -> None:
        self.net, self.side, self.times = net.requires_grad_(False).eval(), side, times

    def __call__(self, images: Tensor) -> Tensor:
        images = resize(images, self.side, "bilinear")
        for _ in range(self.times):
            images = self.net(images)
        return images


def make_front(options: Options, size: int, context: Context) -> Front | None:
    """What the option `up` asks for, to images of `size` pixels.

    Raises:
        UserError: no file for super-resolution is given (while `context.restoring` the front says so when it is
            applied), two are, one is that has no place, or the network's scale does not lead to `size`.
    """
    given = [role for role in LOADERS if role in context.weights]
    if options.up != "sr":
        if given:
            message = f"weights '{given[0]}' have no place in nresizer with up {options.up}"
            raise UserError(message, "set up to sr, or take the role off 'weights:'")
        return None if options.up == "none" else Front(partial(resize, size=size, mode=options.up))
    if len(given) > 1:
        raise UserError(f"weights '{given[0]}' and '{given[1]}' are both for super-resolution", "name one of them")
    if not given:
        if context.restoring:
            return Front(_absent)
        raise UserError(
            "nresizer with up sr has no weights for super-resolution",
            f"name one of {', '.join(LOADERS)} under 'weights:', or set up to bilinear",
        )
    path = require_weights(context, given[0])
    net = LOADERS[given[0]](read_state(path), f"{path} ({given[0]})").to(context.device)
    times = applications(int(net.scale), options.sr_input, size)
    # where this file or those networks compute other numbers, the method's version is raised: its runs change as well
    version = registry.find("method", "nresizer").version
    what = f"{given[0]} version {version}, sha256 {fingerprint(net)}, {times} x on {options.sr_input} pixels"
    batch = max(1, _units(context.device) * PIXELS // size**2)
    return Front(SuperResolution(net, options.sr_input, times), what, batch)


def _units(device: torch.device) -> int:
    """How many images of PIXELS are computed at a time: a quarter of what memory is free, as other runs share it."""
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return min(MOST, max(1, int(free / 4 / UNIT_BYTES)))


def applications(scale: int, small: int, size: int) -> int:
    """How often a network that enlarges by `scale` is applied to get from `small` pixels to `size`, at least once.

    Raises:
        UserError: no number of times does.
    """
    times, side = 1, small * scale
    while side < size and scale > 1:
        times, side = times + 1, side * scale
    if side != size:
        message = f"super-resolution by {scale} does not lead from {small} to {size} pixels"
        raise UserError(message, "change sr_input or input_size, or take a network of another scale")
    return times


def resize(images: Tensor, size: int, mode: str) -> Tensor:
    """Float (B, C, H, W) to (B, C, size, size) in [0, 1], antialiased where it shrinks; as they are at that size."""
    if images.shape[-2:] == (size, size):
        return images
    if mode == "nearest":
        return F.interpolate(images, (size, size), mode=mode)
    shrinks = max(images.shape[-2:]) > size
    # bicubic leaves the range beside edges
    return F.interpolate(images, (size, size), mode=mode, align_corners=False, antialias=shrinks).clamp(0, 1)


def fingerprint(net: nn.Module) -> str:
    """SHA-256 over the network's tensors with their names, types and shapes."""
    found = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _absent(images: Tensor) -> Tensor:
    raise UserError(
        "this network sees images behind super-resolution, whose weights are not at hand",
        f"give a local file for the one it was trained with ({', '.join(LOADERS)})",
    )
