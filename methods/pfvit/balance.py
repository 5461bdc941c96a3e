"""Weights of PF-ViT's losses: "roughly balanced according to their magnitudes" (section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Balance:
    """A weight for each term beside the emotion loss, which has weight 1.

    Reading of the paper: each term is brought to the size of the emotion loss by the means of both over the first
    steps, after which weights stay as they are. Everything is on the device, so that no step waits for it.
    """

    def __init__(self, shares: Mapping[str, float], steps: int, device: torch.device) -> None:
        """Weights of the terms in `shares`.

        Args:
            shares: by term, what its weight is multiplied by.
            steps: how many steps the means are over; 0: the shares are the weights.
        """
        self.names = tuple(shares)
        self.shares = torch.tensor([float(share) for share in shares.values()], device=device)
        self.steps = steps
        self.seen = 0
        self.sums = torch.zeros(1 + len(shares), device=device)

    def weights(self, emotion: Tensor, terms: Mapping[str, Tensor]) -> Tensor:
        """Weights of this step, in the order of `names`; within the first steps this one counts already.

        Args:
            emotion: scalar loss.
            terms: scalar losses by name, all of `names`; of a negative one the size counts.
        """
        if self.seen < self.steps:
            self.sums += torch.stack([emotion, *(terms[name] for name in self.names)]).detach().float().abs()
            self.seen += 1
        if not self.steps:
            return self.shares
        return self.shares * self.sums[0] / self.sums[1:].clamp(min=1e-12)

    def state_dict(self) -> dict[str, Any]:
        """What the first steps have shown."""
        return {"seen": self.seen, "sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.seen = int(state["seen"])
        self.sums = state["sums"].to(self.sums.device).clone()
