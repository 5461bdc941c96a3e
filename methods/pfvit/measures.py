"""How good poker faces are: what can be measured where every face has a true neutral twin.

Beside each number stands what doing nothing would give, the face itself taken for its poker face.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import UserError
from bench.figure import BATCH, Faces
from bench.measures import Judge
from bench.registry import measure
from methods.pfvit.model import PFViT

NEUTRAL = "neutral"
VISIBLE = 2 / 255  # two pixels differ where some channel does by more
LEAST_ERROR = 1e-10  # PSNR is 100 dB at most
WINDOW, SIGMA = 11, 1.5  # of SSIM
K1, K2 = 0.01, 0.03


@measure("pokerface", version=1)
def pokerface(net: PFViT, faces: Faces, title: str, judges: Mapping[str, Judge]) -> dict[str, np.ndarray]:
    """Poker faces beside the true neutral twins: pixels, identity, residual expression; orthogonality.

    Judges: `identity` answers pictures with features, `expression` inputs with logits of the faces' classes.

    Raises:
        UserError: the faces have no twins, or their persons are not known.
    """
    if faces.twins is None or faces.persons is None or NEUTRAL not in faces.classes:
        raise UserError("poker faces are measured against neutral twins", "use a protocol of SynthFER with neutral")
    parts = []
    twin_features = []
    for start in range(0, len(faces), BATCH):
        at = np.arange(start, min(start + BATCH, len(faces)))
        pictures = _pictures(net, faces, title, at)
        features = {name: judges["identity"].net(_on(judges["identity"], shown)) for name, shown in pictures.items()}
        twin_features.append(features["twin"].cpu())
        found = {**pixel_measures(pictures), **identity_measures(features)}
        found |= expression_measures(pictures, faces, at, judges["expression"])
        found["cosine_tokens"] = token_cosine(net, faces.inputs(title, at))
        parts.append({name: values.cpu().double().numpy() for name, values in found.items()})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    twins = torch.cat(twin_features)
    other = next_of_another(faces.persons)
    return whole | {"identity_other": distance(twins, twins[torch.from_numpy(other)]).double().numpy()}


def _pictures(net: PFViT, faces: Faces, title: str, at: np.ndarray) -> dict[str, Tensor]:
    """RGB float (B, 3, S, S) in [0, 1] on the CPU: face, its twin, and what the network makes of the face."""
    assert faces.twins is not None
    inputs = faces.inputs(title, at)
    made = net.faces(inputs.to(next(net.parameters()).device))
    shown = {"input": inputs, "twin": faces.twins(title, at), **made._asdict()}
    return {name: faces.pictures(title, images).permute(0, 3, 1, 2) for name, images in shown.items()}


def _on(judge: Judge, pictures: Tensor) -> Tensor:
    return pictures.to(next(judge.net.parameters()).device)


# -------------------------------------------------------------------------------------------------------------- pixels
def pixel_measures(pictures: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each (B,), of pictures (B, 3, S, S) in [0, 1] called input, twin, poker and rebuilt.

    `error_*` are mean squared errors to the twin over the pixels where input and twin differ (NaN where none does),
    `nearer` is 1 where that of the poker face is the smaller one.
    """
    face, twin, poker, rebuilt = (pictures[name] for name in ("input", "twin", "poker", "rebuilt"))
    error_poker, error_input = error_where(face, twin, poker), error_where(face, twin, face)
    nearer = torch.where(error_input.isnan(), error_input, (error_poker < error_input).to(error_input.dtype))
    return {
        "psnr_poker": psnr(poker, twin), "psnr_input": psnr(face, twin), "psnr_rebuilt": psnr(rebuilt, face),
        "ssim_poker": ssim(poker, twin), "ssim_input": ssim(face, twin), "ssim_rebuilt": ssim(rebuilt, face),
        "error_poker": error_poker, "error_input": error_input, "nearer": nearer,
    }  # fmt: skip


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of pictures with peak 1; 100 at most."""
    error = (a - b).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp(min=LEAST_ERROR).log10()


def error_where(face: Tensor, twin: Tensor, shown: Tensor) -> Tensor:
    """Mean squared error (B,) of `shown` to the twin over all channels of the pixels where face and twin differ."""
    differs = ((face - twin).abs() > VISIBLE).any(dim=1)
    return ((shown - twin).square().mean(dim=1) * differs).sum(dim=(1, 2)) / differs.sum(dim=(1, 2))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (B,) of pictures (B, C, H, W) with range 1, mean over channels (Wang et al. 2004).

    Means and (co)variances under a Gaussian window of 11 pixels, sigma 1.5, only where it lies wholly in the picture.
    """
    places = torch.arange(WINDOW, dtype=a.dtype) - WINDOW // 2
    gauss = torch.exp(-places.square() / (2 * SIGMA**2))
    gauss = gauss / gauss.sum()
    kernel = torch.outer(gauss, gauss)[None, None]

    def mean(images: Tensor) -> Tensor:
        channels = images.shape[1]
        return F.conv2d(images, kernel.expand(channels, -1, -1, -1), groups=channels)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    both = mean(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + K1**2) * (2 * both + K2**2)
    found: Tensor = (likeness / ((mean_a**2 + mean_b**2 + K1**2) * (var_a + var_b + K2**2))).mean(dim=(1, 2, 3))
    return found


# ------------------------------------------------------------------------------------------------ identity, expression
def distance(a: Tensor, b: Tensor) -> Tensor:
    """1 less the cosine (B,) of features (B, D)."""
    return 1 - F.cosine_similarity(a, b)


def identity_measures(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cosine distances to the twin, and how far from orthogonal the two generated faces are."""
    return {
        "identity_poker": distance(features["poker"], features["twin"]),
        "identity_input": distance(features["input"], features["twin"]),
        "cosine_faces": F.cosine_similarity(features["emotion"], features["poker"]).abs(),
    }


def next_of_another(persons: np.ndarray) -> np.ndarray:
    """For each image the next one, from the last on to the first, that shows another person: its position.

    Raises:
        UserError: there is one person only.
    """
    if len(np.unique(persons)) < 2:
        raise UserError("the test images show one person", "identity needs two at least")
    found = (np.arange(len(persons)) + 1) % len(persons)
    while (same := persons[found] == persons).any():
        found[same] = (found[same] + 1) % len(persons)
    return found


def expression_measures(
    pictures: Mapping[str, Tensor], faces: Faces, at: np.ndarray, judge: Judge
) -> dict[str, Tensor]:
    """0 or 1 for input, twin and poker face: the judge sees the input's expression in it, or a neutral face."""
    labels = torch.from_numpy(faces.labels[at])
    neutral = faces.classes.index(NEUTRAL)
    found = {}
    for name in ("input", "twin", "poker"):
        seen = judge.net(judge.inputs(pictures[name])).argmax(dim=1).cpu()
        found[f"expression_{name}"] = (seen == labels).double()
        found[f"neutral_{name}"] = (seen == neutral).double()
    return found


def token_cosine(net: PFViT, inputs: Tensor) -> Tensor:
    """Mean over tokens (B,) of the absolute cosine of V_e and V_p (Eq. 2)."""
    separated = net.separate(inputs.to(next(net.parameters()).device))
    return F.cosine_similarity(separated.emotion, separated.rest, dim=2).abs().mean(dim=1)
