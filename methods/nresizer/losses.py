"""F-PDLS and PDLS: cross-entropy against a label softened by what raters confuse its class with (Eq. 2 and 3).

An image of class k counts as w_c = alpha [c = k] + (1 - alpha) d_kc of class c, where d is a prior matrix: how the
votes of class k's training images are spread. F-PDLS also multiplies the share of each class by (1 - p_c)^gamma, with
that class's own probability, so that classes the network is already sure of count less.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import unknown

PROBABILITIES = ("softmax", "sigmoid")


def prior_weighted(
    logits: Tensor, targets: Tensor, prior: Tensor, alpha: float, gamma: float, probability: str = "softmax"
) -> Tensor:
    """Mean over images of - sum_c w_c (1 - p_c)^gamma log p_c: F-PDLS; with gamma 0 PDLS.

    k is the image's label. The released code takes the largest entry of row k of the prior instead, which is the same
    only while every row peaks on its diagonal.

    Args:
        logits: (B, K); half precision is computed in fp32.
        targets: int64 (B,), classes.
        prior: (K, K), row k the distribution of class k.
        alpha: share of the label itself, 0..1.
        gamma: focal exponent, 0 or more.
        probability: softmax over the classes, or sigmoid of each. The paper's sigma is undefined; the released code
            uses softmax.

    Returns:
        Scalar, finite with finite gradients for any finite logits.

    Raises:
        UserError: unknown probability.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    log_p, focus = _log_and_focus(logits, gamma, probability)
    label = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    weights = alpha * label + (1 - alpha) * prior.to(logits)[targets]
    return -(weights * focus * log_p).sum(1).mean()


def _log_and_focus(logits: Tensor, gamma: float, probability: str) -> tuple[Tensor, Tensor]:
    """log p and (1 - p)^gamma, each (B, K)."""
    if probability == "softmax":
        log_p = F.log_softmax(logits, 1)
        # 0^gamma has no finite slope for gamma below one; clamped, its slope is zero
        rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return log_p, rest**gamma
    if probability == "sigmoid":
        return F.logsigmoid(logits), torch.exp(gamma * F.logsigmoid(-logits))
    raise unknown("probability", probability, PROBABILITIES)
