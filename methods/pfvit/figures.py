"""Faces with their emotional components and their poker faces: Figures 3 and B2, section 4.4."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.figure import Faces, Row, grid, write
from bench.registry import figure
from methods.mae.vit import shuffled
from methods.pfvit.measures import error_where
from methods.pfvit.model import Faces as Generated
from methods.pfvit.model import PFViT

SAID = "Emotion and poker face: what the generator makes of V_e and of V_p alone."
TWINS = (
    "Neutral twin: the same face rendered without expression, which no network has seen. dB: PSNR to it over the "
    "pixels where original and twin differ."
)


@figure("poker-faces", version=1)
def draw(nets: Mapping[str, PFViT], faces: Faces, path: Path) -> None:
    """Draw faces in columns; below each, for every network, G(V_e) and G(V_p), and at the end a true neutral twin.

    Args:
        nets: networks by title; the original is shown as the first one gets it.
        faces: those shown.
    """
    at = np.arange(len(faces))
    rows: list[Row] = []
    for title, net in nets.items():
        images = faces.inputs(title, at)
        made = generated(net, images)
        original, emotion, poker = (faces.pictures(title, some) for some in (images, made.emotion, made.poker))
        twin = None if faces.twins is None else faces.pictures(title, faces.twins(title, at))
        if not rows:
            rows.append(Row("original", original, _nearness(original, original, twin)))
        whose = f"{title}: " if len(nets) > 1 else ""
        rows.append(Row(f"{whose}emotion", emotion))
        rows.append(Row(f"{whose}poker face", poker, _nearness(poker, original, twin)))
    if twin is not None:
        rows.append(Row("neutral twin", twin))
    hidden = {title: net.options.test_mask for title, net in nets.items() if net.options.test_mask}
    said = [SAID, *(f"{title} sees {1 - share:.0%} of a face's patches." for title, share in hidden.items())]
    said += [TWINS] if twin is not None else []
    write(grid(rows, [faces.classes[label] for label in faces.labels]), faces, path, " ".join(said))


@torch.no_grad()
def generated(net: PFViT, images: Tensor) -> Generated:
    """What the generator makes of normalised images (k, 3, S, S) on any device."""
    images = images.to(next(net.parameters()).device)
    if not net.options.test_mask:
        return net.faces(images)
    noise = np.random.default_rng(0).random((len(images), net.encoder.side**2), np.float32)
    return net.faces(images, *shuffled(torch.from_numpy(noise).to(images.device), net.options.test_mask))


def _nearness(pictures: Tensor, original: Tensor, twin: Tensor | None) -> list[str]:
    """Words below pictures (k, S, S, 3): their PSNR to the twins where those differ from the originals."""
    if twin is None:
        return []
    errors = error_where(*(some.permute(0, 3, 1, 2) for some in (original, twin, pictures)))
    return ["no difference" if error.isnan() else f"{-10 * error.log10():.1f} dB" for error in errors]
