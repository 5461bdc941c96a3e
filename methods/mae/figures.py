"""Masked faces and what masked autoencoders make of them: PF-ViT, Figure A1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError
from bench.figure import Faces, Row, grid, write
from bench.registry import figure
from methods.mae import psnr
from methods.mae.model import MAE
from methods.mae.vit import patchify, unpatchify

GREY = 0.5  # what stands for a patch that was not seen
SAID = (
    "Masked: {ratio:.0%} of each face's patches are not seen (grey), the same ones by every network (seed 0). Below: "
    "each network's answer for those patches, put into the face; seen patches are shown as they are. dB: PSNR over the "
    "unseen patches."
)
NORMALISED = (
    "Answers of {names} are relative to a patch's own mean and deviation; these are taken from the original patch, so "
    "brightness and contrast of each unseen patch are given away."
)


@figure("reconstructions", version=1)
def draw(nets: Mapping[str, MAE], faces: Faces, path: Path) -> None:
    """Draw faces in columns: the original, masked, and filled in by each network.

    Args:
        nets: masked autoencoders by title; all see the same patches of the same size.
        faces: those shown.

    Raises:
        UserError: two networks cut faces into different patches, or hide another share of them.
    """
    at = np.arange(len(faces))
    first = next(iter(nets))
    side, ratio = nets[first].encoder.side, nets[first].mask_ratio
    noise = torch.from_numpy(np.random.default_rng(0).random((len(faces), side**2), np.float32))
    rows: list[Row] = []
    for title, net in nets.items():
        if (net.encoder.side, net.mask_ratio) != (side, ratio):
            raise UserError(f"{title} and {first} do not see the same patches", "draw them in figures of their own")
        images = faces.inputs(title, at)
        filled, unseen = filled_in(net, images, noise)
        original, answer = faces.pictures(title, images), faces.pictures(title, filled)
        if not rows:
            hidden = _pixels(unseen, net.size.patch)
            rows = [Row("original", original), Row("masked", torch.where(hidden, GREY, original))]
        near = _psnr(answer, original, unseen, net.size.patch)
        rows.append(Row(title, answer, [f"{value:.1f} dB" for value in near]))
    said = SAID.format(ratio=ratio)
    relative = [title for title, net in nets.items() if net.normalised_targets]
    said += f" {NORMALISED.format(names=', '.join(relative))}" if relative else ""
    write(grid(rows, [faces.classes[label] for label in faces.labels]), faces, path, said)


@torch.no_grad()
def filled_in(net: MAE, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised images (k, 3, S, S) with the network's answer in the place of unseen patches, on the CPU.

    Args:
        noise: (k, N); see `MAE.forward`.

    Returns:
        The images, and which patches were not seen: bool (k, N).
    """
    device = next(net.parameters()).device
    predicted, unseen = (found.cpu() for found in net(images.to(device), noise.to(device)))
    patches = patchify(images, net.size.patch)
    if net.normalised_targets:  # the inverse of what `masked_error` asks for
        deviation = (patches.var(dim=2, keepdim=True) + 1e-6).sqrt()
        predicted = predicted * deviation + patches.mean(dim=2, keepdim=True)
    return unpatchify(torch.where(unseen[..., None], predicted.float(), patches), net.size.patch), unseen


def _pixels(unseen: Tensor, patch: int) -> Tensor:
    """Patches, bool (k, N), as pixels (k, S, S, 1)."""
    return unpatchify(unseen[..., None].float().expand(-1, -1, patch * patch), patch).permute(0, 2, 3, 1) > 0


def _psnr(found: Tensor, true: Tensor, unseen: Tensor, patch: int) -> Tensor:
    """In dB, (k,), of pictures (k, S, S, 3) over the unseen patches."""
    found, true = (patchify(pictures.permute(0, 3, 1, 2), patch).unflatten(2, (-1, 3)) for pictures in (found, true))
    return psnr(found, true, unseen)
