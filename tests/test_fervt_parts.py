"""FER-VT's parts against plain references: grid attention, fusion, local feature networks, small-map convolution."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers_fervt import build, faces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from methods.fervt.convolution import SmallMapConv2d
from methods.fervt.gwa import GWA, GridAttention, from_grids, to_grids
from methods.fervt.local import InvertedBottleneck, LocalRelation

# --- grids and attention ---------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_grid_and_ungrid_are_inverse(h: int, w: int, rows: int, columns: int, channels: int) -> None:
    images = torch.arange(2 * channels * h * rows * w * columns).view(2, channels, h * rows, w * columns)
    grids = to_grids(images, h, w)
    for i, j in itertools.product(range(h), range(w)):
        cell = images[:, :, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        assert torch.equal(grids[:, i * w + j], cell)
    assert torch.equal(from_grids(grids, h, w), images)
    assert torch.equal(to_grids(from_grids(grids, h, w), h, w), grids)


@pytest.mark.parametrize("grid", [(3, 3), (3, 2), (4, 4)])
def test_the_literal_softmax_axis_makes_attention_a_constant(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = GridAttention(grid, "ibn", "literal")
    weights = attention.weights(faces(4))
    torch.testing.assert_close(weights, torch.full_like(weights, grid[0] / 48), atol=1e-7, rtol=0)
    attention.weights(faces(4)).square().sum().backward()
    assert max(parameter.grad.abs().max() for parameter in attention.parameters()) < 1e-7


def test_over_grids_and_channels_the_weights_compete() -> None:
    torch.manual_seed(0)
    over_grids = GridAttention((3, 3), "ibn", "grid").weights(faces(4))
    torch.testing.assert_close(over_grids.sum(1), torch.ones(4, 3))
    assert over_grids.mean().item() == pytest.approx(1 / 9)
    assert over_grids.std(1).min() > 1e-3
    over_channels = GridAttention((3, 3), "ibn", "channel").weights(faces(4))
    torch.testing.assert_close(over_channels.sum(2), torch.ones(4, 9))


@pytest.mark.parametrize("grid", [(3, 3), (3, 2)])
def test_grid_attention_against_a_plain_reference(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = GridAttention(grid, "ibn", "grid").double().eval()
    images = faces(2).double()
    (h, w), rows, columns = grid, 48 // grid[0], 48 // grid[1]
    cells = [
        images[:, :, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        for i, j in itertools.product(range(h), range(w))
    ]
    features = [attention.local(cell) for cell in cells]
    scores = torch.stack([torch.einsum("bcpx,bcqx->bcpq", cell, cell) / columns for cell in features])
    shares = scores.exp() / scores.exp().sum(0)
    weighted = torch.zeros_like(images)
    for index, (i, j) in enumerate(itertools.product(range(h), range(w))):
        scalar = shares[index].mean((-2, -1))[..., None, None]
        weighted[:, :, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns] = scalar * cells[index]
    torch.testing.assert_close(attention(images), weighted)


def test_residual_fusion_against_the_equation() -> None:
    torch.manual_seed(0)
    fusion = GWA().fusion.eval()
    images, weighted = faces(2), faces(2, seed=2)
    total = fusion.image(images) + fusion.weighted(weighted)
    chain = fusion.inner[1](fusion.inner[0](total))
    torch.testing.assert_close(fusion(images, weighted), torch.sigmoid(fusion.last(chain + total)))
    assert not torch.equal(fusion.image[0].weight, fusion.weighted[0].weight)


def test_gwa_and_stem_keep_full_precision_and_layout() -> None:
    """GWA's output is one half plus a faint image: bfloat16 would round most of it away."""
    net = build({}, channels_last=True).net.eval()
    images = faces(2).contiguous(memory_format=torch.channels_last)
    expected = net.gwa(images), net.backbone.stem(images)
    with torch.autocast("cpu", torch.bfloat16):
        enhanced, stem = net.gwa(images), net.backbone.stem(images)
        assert net(images).dtype == torch.bfloat16
    assert torch.equal(enhanced, expected[0])
    assert torch.equal(stem, expected[1].bfloat16())
    assert all(parameter.is_contiguous() for parameter in net.gwa.parameters())


# --- local feature networks and the small-map convolution ------------------------------------------------------------


def test_the_folded_inverted_bottleneck_equals_plain_layers() -> None:
    torch.manual_seed(0)
    ours = InvertedBottleneck(3).double()
    up = [nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.1)]
    down = [nn.Conv2d(64, 3, 1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1)]
    plain = nn.Sequential(*up, *down).double()
    for target, source in zip((plain[0], plain[1], plain[3], plain[4]), ours.children()):
        target.load_state_dict(source.state_dict())
    grids = torch.randn(18, 3, 16, 24, dtype=torch.double) * 2 + 1
    upstream = torch.randn_like(grids)
    for _ in range(2):
        for module in (ours, plain):
            module.zero_grad()
            (module(grids) * upstream).sum().backward()
    torch.testing.assert_close(ours(grids), plain(grids))
    torch.testing.assert_close(ours.up.weight.grad, plain[0].weight.grad)
    torch.testing.assert_close(ours.up_norm.weight.grad, plain[1].weight.grad)
    torch.testing.assert_close(ours.down.weight.grad, plain[3].weight.grad)
    for ours_norm, plain_norm in ((ours.up_norm, plain[1]), (ours.down_norm, plain[4])):
        for name, value in plain_norm.state_dict().items():
            torch.testing.assert_close(ours_norm.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(grids), plain.eval()(grids))


def test_local_relation_against_a_plain_reference() -> None:
    torch.manual_seed(0)
    layer = LocalRelation(2, window=3).double()
    grids = torch.randn(1, 2, 4, 5, dtype=torch.double)
    query, key, prior = layer.query(grids), layer.key(grids), layer.prior(layer.positions)
    expected = torch.zeros_like(grids)
    for channel, row, column in itertools.product(range(2), range(4), range(5)):
        window = [
            (i, j) for i, j in itertools.product((-1, 0, 1), repeat=2) if 0 <= row + i < 4 and 0 <= column + j < 5
        ]
        keys = torch.stack([key[0, channel, row + i, column + j] for i, j in window])
        priors = torch.stack([prior[0, channel, i + 1, j + 1] for i, j in window])
        logits = priors - (query[0, channel, row, column] - keys) ** 2
        values = torch.stack([grids[0, channel, row + i, column + j] for i, j in window])
        expected[0, channel, row, column] = (logits.softmax(0) * values).sum()
    torch.testing.assert_close(layer.aggregate(grids), expected)


@given(
    kernel=st.sampled_from([1, 3, 7]), stride=st.integers(1, 4), rows=st.integers(1, 7), columns=st.integers(1, 7),
    bias=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_small_map_convolution_equals_conv2d(kernel: int, stride: int, rows: int, columns: int, bias: bool) -> None:
    torch.manual_seed(0)
    ours = SmallMapConv2d(3, 4, kernel, stride, padding=kernel // 2, bias=bias).double()
    maps = torch.randn(2, 3, rows, columns, dtype=torch.double, requires_grad=True)
    found = ours(maps)
    expected = F.conv2d(maps, ours.weight, ours.bias, stride, kernel // 2)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    inputs = (maps, ours.weight)
    for a, b in zip(torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream)):
        torch.testing.assert_close(a, b)
