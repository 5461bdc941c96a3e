"""Sharpness-aware minimisation against its definition."""

from __future__ import annotations

import pytest
import torch
from helpers_poster_training import changed, snapshot
from torch import Tensor, nn

from methods.poster.sam import SAM


def quadratic() -> tuple[Tensor, Tensor, list[nn.Parameter]]:
    """0.5 w A w + b w over w, which is two parameters one behind the other."""
    torch.manual_seed(3)
    root = torch.randn(5, 5, dtype=torch.double)
    parts = [nn.Parameter(torch.randn(2, dtype=torch.double)), nn.Parameter(torch.randn(3, 1, dtype=torch.double))]
    return root @ root.T, torch.randn(5, dtype=torch.double), parts


def flat(parts: list[nn.Parameter]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_sam_on_a_quadratic(rho: float) -> None:
    a, b, parts = quadratic()
    still = nn.Parameter(torch.ones(4))  # gets no gradient: neither moves nor counts in the norm
    sam = SAM(torch.optim.SGD([*parts, still], 0.1), rho)
    for _ in range(3):
        w = flat(parts).detach()
        gradient = a @ w + b
        above = w + rho * gradient / gradient.norm()
        for step in (sam.climb, sam.descend):
            sam.optimizer.zero_grad()
            point = flat(parts)
            (0.5 * point @ a @ point + b @ point).backward()
            step()
            if step == sam.climb:
                torch.testing.assert_close(flat(parts).detach(), above)
        torch.testing.assert_close(flat(parts).detach(), w - 0.1 * (a @ above + b))
    assert torch.equal(still, torch.ones(4))


def test_sam_comes_back_to_the_very_same_weights() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 3))
    before = snapshot(layers)
    sam = SAM(torch.optim.SGD(layers.parameters(), 0.0), rho=0.7)
    layers(torch.randn(4, 30)).square().sum().backward()
    sam.climb()
    assert len(changed(layers, before)) == 4
    assert all(parameter.grad is None for parameter in layers.parameters())
    layers(torch.randn(4, 30)).square().sum().backward()
    sam.descend()
    assert changed(layers, before) == set()


def test_without_any_gradient_sam_moves_nothing() -> None:
    parameter = nn.Parameter(torch.ones(3))
    sam = SAM(torch.optim.SGD([parameter], 0.1), 0.05)
    (parameter * 0).sum().backward()
    sam.climb()
    assert torch.equal(parameter, torch.ones(3))
