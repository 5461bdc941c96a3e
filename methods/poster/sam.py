"""Sharpness-aware minimisation (Foret et al., 2021, Algorithm 1) around any optimizer, as in POSTER's released code.

A step takes two forward-backward passes on the same batch:

    backward at w          climb():    w -> w + rho g / ||g||, with ||g|| the norm of all gradients taken together
    backward at that point descend():  w restored, then the optimizer's own step with the gradient found up there
"""

from __future__ import annotations

import torch
from torch import Tensor


class SAM:
    """Climbs and comes back; everything else (learning rate, moments, decay) stays the optimizer's.

    Nothing of it outlives a step, so there is no state to save. Nothing waits for the device.

    Args:
        optimizer: moves the weights.
        rho: length of the climb, in the norm of all parameters taken together.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rho: float) -> None:
        self.optimizer = optimizer
        self.rho = rho
        self._moved: list[Tensor] = []
        self._before: list[Tensor] = []

    @torch.no_grad()
    def climb(self) -> None:
        """Go to the point where the loss, to first order, is highest within `rho`; uses up the gradients.

        Parameters without a gradient stay where they are and do not count in the norm.
        """
        self._moved = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in self._moved if p.grad is not None]
        self._before = [torch.empty_like(p) for p in self._moved]
        torch._foreach_copy_(self._before, self._moved)  # subtracting the climb again would leave rounding errors
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, self.rho / (norm + 1e-12))
        torch._foreach_add_(self._moved, gradients)
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def descend(self) -> None:
        """Back to where `climb` started, then one step of the optimizer with the gradients of the climbed point."""
        torch._foreach_copy_(self._moved, self._before)
        self._moved, self._before = [], []
        self.optimizer.step()
