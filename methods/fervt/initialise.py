"""Starting values: FER-VT section 4.2.2.

The paper asks for Kaiming uniform "weights and biases" in all convolutions but the residual fusion's, and for ViT's
settings in the attention blocks. Neither rule is defined for a bias vector, so biases start at zero. Kaiming's gain is
that of ReLU, its mode fan-in, PyTorch's default.
"""

from __future__ import annotations

from torch import nn


def kaiming(module: nn.Module) -> None:
    """For `Module.apply`: Kaiming uniform for a convolution's weight, zero for its bias."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def vit(module: nn.Module) -> None:
    """For `Module.apply`: ViT's truncated normal of standard deviation 0.02 for a linear weight, zero for its bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
