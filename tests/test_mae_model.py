"""The masked autoencoder: Table 1's sizes, the forward pass and loss of the equations, which patches are hidden."""

from __future__ import annotations

import pytest
import torch
from helpers_mae import (
    MINIATURE,
    SIZE,
    build,
    miniature,
    pictures,
    plain_decoder,
    plain_encoder,
    plain_error,
    plain_kept,
    plain_positions,
)
from torch import Tensor

from bench.errors import UserError
from methods.mae import count
from methods.mae.model import MAE, masked_error
from methods.mae.sizes import SIZES, size_of
from methods.mae.vit import patchify, shuffled, sincos, unpatchify

PATCHES = (SIZE // MINIATURE.patch) ** 2
# Per size: blocks of encoder and decoder (PF-ViT, Table 1), the trained parameters of both, the encoder's positions.
PUBLISHED = {
    "tiny": (5_338_368, 1_586_176, 5_486_592, 1_710_336, 37_824),
    "small": (21_293_568, 6_318_080, 21_590_016, 6_614_784, 75_648),
    "base": (85_054_464, 25_219_072, 85_647_360, 26_008_320, 151_296),
}


def full(size: str) -> MAE:
    """A network of published size, without memory for its numbers."""
    with torch.device("meta"):
        return MAE(size_of(f"vit_{size}_patch16", "full", 224), 224)


# --------------------------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_those_of_table_1(size: str) -> None:
    net, (encoder_blocks, decoder_blocks, encoder, decoder, positions) = full(size), PUBLISHED[size]
    assert (count(net.encoder.blocks), count(net.decoder.blocks)) == (encoder_blocks, decoder_blocks)
    trained = [sum(p.numel() for p in part.parameters() if p.requires_grad) for part in (net.encoder, net.decoder)]
    assert trained == [encoder, decoder]
    assert net.encoder.pos_embed.numel() == positions
    assert not net.encoder.pos_embed.requires_grad
    assert not net.decoder.pos_embed.requires_grad


def test_the_method_tells_the_parts_of_table_1() -> None:
    method = build({"scale_down": "full"}, input_size=224)
    assert method.parameter_parts() == {"encoder": 5_338_368, "decoder": 1_586_176}


def test_heads_have_64_dimensions_in_encoders_and_32_in_decoders() -> None:
    for name, size in SIZES["full"].items():
        assert (size.dim // size.heads, size.decoder_dim // size.decoder_heads) == (64, 32), name


@pytest.mark.parametrize("scale", ["short", "quick"])
def test_miniatures_keep_the_order_and_can_be_built(scale: str) -> None:
    widths = [SIZES[scale][name].dim for name in ("tiny", "small", "base")]
    assert widths == sorted(set(widths))
    for size in SIZES[scale].values():
        net = MAE(size, 8 * size.patch)
        predicted, unseen = net(torch.randn(2, 3, 8 * size.patch, 8 * size.patch))
        assert predicted.shape == (2, 64, size.patch**2 * 3)
        assert unseen.sum(dim=1).tolist() == [48, 48]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vit_huge_patch16", "full", 224), "unknown backbone 'vit_huge_patch16'"),
        (("vit_base_patch32", "full", 224), "unknown backbone 'vit_base_patch32'"),
        (("vit_base_patch16", "quik", 224), "unknown scale_down 'quik'\n  -> did you mean quick"),
        (("vit_base_patch16", "full", 100), "patches of 16 pixels do not divide images of 100"),
    ],
)
def test_sizes_that_do_not_exist_are_named(arguments: tuple[str, str, int], message: str) -> None:
    with pytest.raises(UserError) as error:
        size_of(*arguments)
    assert message in str(error.value)


# -------------------------------------------------------------------------------------------------------- equations
@pytest.mark.parametrize(("dim", "side"), [(24, 4), (16, 4), (192, 14)])
def test_positions_are_sines_and_cosines_of_column_and_row(dim: int, side: int) -> None:
    torch.testing.assert_close(sincos(dim, side)[0].double(), torch.from_numpy(plain_positions(dim, side)))


def test_patches_are_rows_of_pixels_with_their_channels_together() -> None:
    images = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    patches = patchify(images, 2)
    assert patches.shape == (2, 4, 12)
    assert patches[0, 1].tolist() == [2, 18, 34, 3, 19, 35, 6, 22, 38, 7, 23, 39]
    assert torch.equal(unpatchify(patches, 2), images)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("mask_ratio", [0.75, 0.3])
def test_forward_and_loss_are_those_of_the_equations(mask_ratio: float, normalised: bool) -> None:
    net, images = miniature(mask_ratio=mask_ratio).double(), pictures(3, dtype=torch.double)
    state = net.state_dict()
    noise = torch.rand(3, PATCHES, dtype=torch.double)
    predicted, unseen = net(images, noise)
    kept = plain_kept(noise, mask_ratio)
    tokens = plain_encoder(state, images, MINIATURE.heads, kept, "encoder.")
    wanted = plain_decoder(state, tokens, kept, PATCHES, MINIATURE.decoder_heads, "decoder.", "decoder.mask_token")
    torch.testing.assert_close(predicted, wanted, rtol=1e-9, atol=1e-9)
    assert [row.nonzero().flatten().tolist() for row in unseen] == [
        sorted(set(range(PATCHES)) - set(own)) for own in kept.tolist()
    ]
    loss = masked_error(predicted, images, unseen, MINIATURE.patch, normalised)
    expected = plain_error(wanted, images, kept, MINIATURE.patch, normalised)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)


def test_all_patches_seen_are_the_plain_encoder_and_decoder() -> None:
    net, images = miniature().double(), pictures(2, dtype=torch.double)
    state, everything = net.state_dict(), torch.arange(PATCHES).expand(2, -1)
    tokens = net.encoder(images)
    torch.testing.assert_close(tokens, plain_encoder(state, images, MINIATURE.heads, None, "encoder."))
    wanted = plain_decoder(
        state, tokens, everything, PATCHES, MINIATURE.decoder_heads, "decoder.", "decoder.mask_token"
    )
    torch.testing.assert_close(net.decoder(tokens), wanted)


@pytest.mark.parametrize("normalised", [False, True])
def test_what_the_decoder_learnt_perfectly_costs_nothing(normalised: bool) -> None:
    images = pictures(2)
    target = patchify(images, 8)
    if normalised:
        target = (target - target.mean(dim=2, keepdim=True)) / target.std(dim=2, keepdim=True)
    unseen = torch.rand(2, PATCHES) < 0.75
    assert masked_error(target, images, unseen, 8, normalised).max() < 1e-9
    assert masked_error(target, images, unseen, 8, not normalised).min() > 0.01


# ------------------------------------------------------------------------------------------------------------- hiding
@pytest.mark.parametrize(
    ("patches", "mask_ratio", "seen"), [(196, 0.75, 49), (64, 0.75, 16), (196, 0.5, 98), (16, 0.3, 11)]
)
def test_so_many_patches_are_seen(patches: int, mask_ratio: float, seen: int) -> None:
    torch.manual_seed(0)
    kept, restore = shuffled(torch.rand(5, patches), mask_ratio)
    assert kept.shape == (5, seen)
    assert all(len(set(row)) == seen for row in kept.tolist())
    assert ((restore < seen).sum(dim=1) == seen).all()
    for row, back in zip(kept.tolist(), restore, strict=True):
        assert sorted(row) == (back < seen).nonzero().flatten().tolist()


def test_every_patch_is_hidden_equally_often() -> None:
    torch.manual_seed(0)
    net, images = miniature(), pictures(1).expand(4000, -1, -1, -1)
    with torch.no_grad():
        net.encoder.blocks, net.decoder.blocks = torch.nn.ModuleList(), torch.nn.ModuleList()  # only which are hidden
        _, unseen = net(images)
    assert (unseen.sum(dim=1) == 12).all()
    share = unseen.float().mean(dim=0)
    assert (share - 0.75).abs().max() < 5 * (0.75 * 0.25 / 4000) ** 0.5
    assert len({tuple(row) for row in unseen.tolist()}) > 1000  # of 1820 that there are


def loss_of(net: MAE, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    predicted, unseen = net(images, noise)
    predicted.retain_grad()
    return masked_error(predicted, images, unseen, MINIATURE.patch, False).mean(), predicted, unseen


def test_gradients_come_from_unseen_patches_alone() -> None:
    loss, predicted, unseen = loss_of(miniature(), pictures(), torch.rand(6, PATCHES))
    loss.backward()
    assert predicted.grad is not None
    assert (predicted.grad[~unseen] == 0).all()
    assert (predicted.grad[unseen].abs().amax(dim=1) > 0).all()


def test_pixels_that_are_not_seen_reach_the_loss_as_targets_alone() -> None:
    net, images, noise = miniature(), pictures(2), torch.rand(2, PATCHES)
    predicted, unseen = net(images, noise)
    other = unpatchify(torch.where(unseen[..., None], torch.randn(2, PATCHES, 192), patchify(images, 8)), 8)
    assert torch.equal(net(other, noise)[0], predicted)
    seen = unpatchify(torch.where(unseen[..., None], patchify(images, 8), torch.randn(2, PATCHES, 192)), 8)
    assert not torch.equal(net(seen, noise)[0], predicted)


def test_every_trained_parameter_gets_a_gradient() -> None:
    net = miniature()
    loss, _, _ = loss_of(net, pictures(), torch.rand(6, PATCHES))
    loss.backward()
    without = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert without == {"encoder.pos_embed", "decoder.pos_embed"}
