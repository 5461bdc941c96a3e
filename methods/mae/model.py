"""A masked autoencoder: encoder on the seen patches, decoder for all of them, loss on the unseen (He et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.mae.sizes import Size
from methods.mae.vit import Decoder, Encoder, patchify, shuffled


class MAE(nn.Module):
    """The network that pretraining leaves; encoder and decoder are taken from it."""

    def __init__(self, size: Size, input_size: int, mask_ratio: float = 0.75, normalised_targets: bool = False) -> None:
        super().__init__()
        self.size = size
        self.mask_ratio = mask_ratio
        self.normalised_targets = normalised_targets
        self.encoder = Encoder(size, input_size)
        self.decoder = Decoder(size, input_size)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the decoder answers for every patch, and which patches were not seen.

        Args:
            images: (B, 3, S, S), normalised.
            noise: (B, N); its smallest values are seen. None: drawn.

        Returns:
            predicted: (B, N, patch² x 3); in units of each patch's own deviation where it learnt normalised targets.
            unseen: bool (B, N).
        """
        if noise is None:
            noise = torch.rand(len(images), self.encoder.side**2, device=images.device)
        kept, restore = shuffled(noise, self.mask_ratio)
        predicted = self.decoder(self.encoder(images, kept), restore)
        return predicted, restore >= kept.shape[1]


def masked_error(predicted: Tensor, images: Tensor, unseen: Tensor, patch: int, normalised: bool) -> Tensor:
    """Mean squared error of each image's unseen patches, (B,), in float32.

    Args:
        predicted: (B, N, patch² x 3).
        images: (B, 3, S, S), what the network got.
        unseen: bool (B, N).
        normalised: whether targets are each patch less its mean over its deviation (unbiased, 1e-6 on the variance).
    """
    target = patchify(images.float(), patch)
    if normalised:
        centred = target - target.mean(dim=2, keepdim=True)
        target = centred / (target.var(dim=2, keepdim=True) + 1e-6).sqrt()
    error = (predicted.float() - target).square().mean(dim=2)
    return (error * unseen).sum(dim=1) / unseen.sum(dim=1).clamp(min=1)
