"""Which places of a face POSTER's prediction rests on, stream by stream: section 4.5 and Figure 7.

The paper uses Chefer et al., Transformer interpretability beyond attention visualization (CVPR 2021), which carries
relevance back through every layer by LRP rules and weighs attention with it and its gradient. Those rules are given for
the layers of a ViT; there are none for convolutions across tokens, for lifts between levels, for queries of another
stream or for the gate. So this is the form the same authors reduced it to, in Generic attention-model explainability
(ICCV 2021): attention takes the place of its LRP relevance, Equations 5 and 6 there,

    A' = mean over heads of (dy/dA * A)+,    R <- R + A' R,    R = 1 before the first block,

with y the logit of the predicted class. What we decide where POSTER is no ViT:

* Streams. In cross-fusion values come from a stream's own tokens, the other stream gives only the queries, so each
  stream has an R of its own, and we read the row of its class token: the image stream's goes to the classifier, the
  landmark stream's is what asks for it. A vanilla encoder has one R over all tokens, whose first row is cut in two.
* Levels. Only the large level: it is the one the classifier reads, and before the first block its tokens are those of
  the backbones, while shrinking mixes all tokens, so that those of the other levels belong to no place.
* Mixing. The convolutions across tokens and the lifts are passed over, as the rollout passes over every MLP.
* Places. A landmark token is a cell of the landmark net's map. An image token is many numbers of IR-50's map, in the
  released code a group of channels over the whole face: its relevance is shared out among its numbers by (x dy/dx)+,
  and the shares are summed over channels. The class token's own relevance is left out, as is usual.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.poster.attention import recorded
from methods.poster.ir50 import to_map, to_tokens
from methods.poster.model import POSTER


@dataclass(frozen=True)
class Relevance:
    """Relevance of the predicted class, none of it negative; None where the network has no such stream.

    Attributes:
        predicted: int64 (B,).
        image: (B, 2s, 2s), cells of IR-50's map, 14x14 for faces of 112 pixels.
        landmark: (B, s, s), cells of the landmark net's map.
    """

    predicted: Tensor
    image: Tensor | None
    landmark: Tensor | None


@torch.enable_grad()
def relevance(net: POSTER, images: Tensor) -> Relevance:
    """Relevance maps of images (B, 3, S, S), on the CPU; the network is left as it was, without gradients."""
    kept: list[Tensor] = []
    streams = net.options.streams
    hook = net.image_net.register_forward_hook(lambda _, __, out: kept.append(out)) if streams != "landmark" else None
    try:
        with recorded(net) as maps:
            best, predicted = net(images).max(1)
    finally:
        if hook is not None:
            hook.remove()
    large = {place: weights for place, weights in maps.items() if place.level == "large"}
    # the landmark half of the last block may lead nowhere: no gradient is a gradient of zero
    gradients = torch.autograd.grad(best.sum(), [*large.values(), *kept], allow_unused=True, materialize_grads=True)
    by_stream: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for (place, weights), gradient in zip(large.items(), gradients, strict=False):
        by_stream.setdefault(place.stream, []).append((weights.detach(), gradient))
    rows = {stream: rollout(pairs)[:, 0] for stream, pairs in by_stream.items()}
    tokens = _by_stream(rows, streams)
    image = landmark = None
    if "image" in tokens:
        image = to_image(tokens["image"], kept[0].detach(), gradients[-1], net.options.tokens).cpu()
    if "landmark" in tokens:
        side = round(tokens["landmark"].shape[1] ** 0.5)
        landmark = tokens["landmark"].unflatten(1, (side, side)).cpu()
    return Relevance(predicted.cpu(), image, landmark)


def rollout(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Relevance (B, N, N) of token j for token i, after attention maps and their gradients (B, heads, N, N)."""
    found: Tensor | None = None
    for weights, gradient in pairs:
        step = (weights * gradient).clamp_min(0).mean(1)
        found = torch.eye(step.shape[1], device=step.device) if found is None else found
        found = found + step @ found
    assert found is not None, "a network has at least one block"
    return found


def _by_stream(rows: dict[str, Tensor], streams: str) -> dict[str, Tensor]:
    """Relevance (B, P) of each stream's tokens without its class token, from rows of class tokens."""
    if "all" not in rows:
        return {stream: row[:, 1:] for stream, row in rows.items()}
    if streams != "both":
        return {streams: rows["all"][:, 1:]}
    image, landmark = rows["all"].chunk(2, dim=1)
    return {"image": image[:, 1:], "landmark": landmark[:, 1:]}


def to_image(tokens: Tensor, maps: Tensor, gradient: Tensor, how: str) -> Tensor:
    """Relevance of image tokens on the cells of IR-50's map (B, 2s, 2s); its sum is that of the tokens.

    A token's relevance is shared out among its numbers by activation times gradient where that is positive, evenly
    where it is nowhere.

    Args:
        tokens: (B, P).
        maps: IR-50's map (B, C, 2s, 2s).
        gradient: of the logit by it.
        how: the token reading, see `ir50.to_tokens`.
    """
    shares = to_tokens((maps * gradient).clamp_min(0), how)  # (B, P, 4 C)
    total = shares.sum(2, keepdim=True)
    shares = torch.where(total > 0, shares / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / shares.shape[2])
    return to_map(shares * tokens[:, :, None], how).sum(1)
