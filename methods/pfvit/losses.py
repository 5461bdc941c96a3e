"""What PF-ViT's networks are to minimise: Eqs. 5 to 8 and the constraint of Eq. 2, all in float32.

Readings, where the paper leaves room: norms are taken of the mean over pixels, so that sizes of images do not matter;
Eq. 7 is summed over the K + 1 outputs, as printed, and averaged over the images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def emotion(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the classifier (Eq. 5); logits (B, K), labels int64 (B,)."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def reconstruction(rebuilt: Tensor, images: Tensor, kind: str) -> Tensor:
    """First term of Eq. 6: how far rebuilt faces are from the images, both (B, 3, S, S)."""
    return distance(rebuilt, images, kind).mean()


def neutral_reconstruction(poker: Tensor, images: Tensor, labels: Tensor, neutral: int, kind: str) -> Tensor:
    """Second term of Eq. 6: how far poker faces are from images that are neutral.

    The expectation is over all images and the indicator stands inside, so the mean is over the batch: a batch with few
    neutral faces counts this little.
    """
    return (distance(poker, images, kind) * (labels == neutral)).mean()


def distance(faces: Tensor, images: Tensor, kind: str) -> Tensor:
    """(B,): mean squared difference of pixels (`squared`), or its root (`norm`)."""
    error = (faces.float() - images.float()).square().mean(dim=(1, 2, 3))
    return error if kind == "squared" else error.clamp(min=1e-12).sqrt()  # a root has no slope at zero


def wanted(labels: Tensor, classes: int, real: bool) -> Tensor:
    """Eq. 8: what the discriminator is to answer, float (B, K + 1); one-hot labels, and behind them whether it is real.

    Args:
        labels: int64 (B,); of poker faces, all neutral.
        classes: K.
    """
    targets = (labels[:, None] == torch.arange(classes + 1, device=labels.device)).float()
    targets[:, classes] = float(real)
    return targets


def discrimination(answers: Tensor, targets: Tensor) -> Tensor:
    """Eq. 7 of each image, (B,): binary cross-entropies of the K + 1 outputs added up.

    Args:
        answers: logits (B, K + 1).
        targets: float (B, K + 1).
    """
    return F.binary_cross_entropy_with_logits(answers.float(), targets, reduction="none").sum(dim=1)


def discriminator(answers: Tensor, labels: Tensor, neutral: int, emotions: str) -> Tensor:
    """What D minimises: Eq. 7 over real images, rebuilt faces and poker faces.

    Args:
        answers: logits (3B, K + 1), those three one after the other.
        labels: int64 (B,), of the real images.
        neutral: number of the neutral class.
        emotions: `all-faces`: as printed, so that D is also taught to call every poker face neutral, whatever it looks
            like; `real-faces`: of generated faces only whether they are real, since D "learns how to distinguish
            emotions using real facial expressions" (section 3.2); `remains`: of poker faces the label of their input,
            so that D looks for what is left of it while the generator is asked for a neutral face.
    """
    classes, count = answers.shape[1] - 1, len(labels)
    real = discrimination(answers[:count], wanted(labels, classes, real=True))
    named = torch.cat([labels, labels if emotions == "remains" else torch.full_like(labels, neutral)])
    targets, generated = wanted(named, classes, real=False), answers[count:]
    if emotions == "real-faces":
        targets, generated = targets[:, classes:], generated[:, classes:]
    return torch.cat([real, discrimination(generated, targets)]).mean()


def adversarial(answers: Tensor, labels: Tensor, neutral: int, sign: str) -> Tensor:
    """What E, S and G minimise: Eq. 7 of generated faces called real (`swapped-target`), or its negative (`literal`).

    Real images are left out: E, S and G have no part in what D says of them.

    Args:
        answers: logits (2B, K + 1) of rebuilt faces, then of poker faces.
        labels: int64 (B,), of the real images.
        neutral: number of the neutral class.
    """
    classes = answers.shape[1] - 1
    swapped = sign == "swapped-target"
    named = torch.cat([labels, torch.full_like(labels, neutral)])  # rebuilt faces keep their labels
    loss = discrimination(answers, wanted(named, classes, real=swapped)).mean()
    return loss if swapped else -loss


def orthogonality(first: Tensor, second: Tensor, kind: str) -> Tensor:
    """Mean over all vectors (..., L) of the squared or absolute cosine between them; scalar, 0 where orthogonal."""
    cosine = F.cosine_similarity(first.float(), second.float(), dim=-1)
    return (cosine.square() if kind == "squared-cosine" else cosine.abs()).mean()


def sameness(first: Tensor, second: Tensor) -> Tensor:
    """Mean over all vectors (..., L) of one less the cosine between them; scalar, 0 where they point the same way."""
    return (1 - F.cosine_similarity(first.float(), second.float(), dim=-1)).mean()
