"""PF-ViT's networks: parameters of published size, separator and cross fusion from their equations, generated faces."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers_pfvit import CLASSES, SIZE, SMALLEST, build_small, changed, faces, small, snapshot
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from bench.method import macs, parameter_counts
from methods.mae.sizes import SIZES
from methods.mae.vit import shuffled, unpatchify
from methods.pfvit import start_discriminator
from methods.pfvit.model import CrossFusion, PFViT, Separator
from methods.pfvit.options import Options


def count(*parts: nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)


def full(size: str = "base", **options: str) -> PFViT:
    """A network of published size for seven classes, without memory for its numbers."""
    with torch.device("meta"):
        return PFViT(SIZES["full"][size], 224, 7, Options(**options))


def test_parameters_of_published_size() -> None:
    net = full()
    assert count(net.separator) == 2 * 768 * 48 + 48 + 768 == 74_544
    assert count(net.generator.decoder.embed) == 393_728
    assert net.generator.fusion is not None
    fusion = net.generator.fusion
    assert count(fusion.query, fusion.key, fusion.value, fusion.proj) == 4 * (512 * 512 + 512) == 1_050_624
    assert count(net.encoder) == 85_647_360
    assert count(net.classifier) == 5_383
    assert count(net.encoder, net.separator, net.classifier) / 1e6 == pytest.approx(85.73, abs=0.005)
    decoder = net.generator.decoder
    assert count(decoder.blocks, decoder.norm, decoder.pred) / 1e6 == pytest.approx(25.61, abs=0.005)
    assert count(net.discriminator) / 1e6 == pytest.approx(25.62, abs=0.005)
    assert count(full(fusion="self").generator.fusion) == 3_152_384  # type: ignore[arg-type]


def test_what_is_counted_of_a_run() -> None:
    """All five networks are parameters; the cost of one image is that of inference."""
    method = build_small()
    total, trained = parameter_counts(method.net)
    assert trained == count(method.net)
    fixed = [name for name, parameter in method.net.named_parameters() if not parameter.requires_grad]
    assert fixed == ["encoder.pos_embed", "generator.decoder.pos_embed", "discriminator.pos_embed"]
    assert total - trained == sum(dict(method.net.named_parameters())[name].numel() for name in fixed)
    before = macs(method.net, SIZE)
    method.net.generator, method.net.discriminator = nn.Identity(), nn.Identity()
    assert macs(method.net, SIZE) == before > 0


# ------------------------------------------------------------------------------------------------------------ separator
@pytest.mark.parametrize("by_token", [False, True])
def test_separator_against_equation_2(by_token: bool) -> None:
    torch.manual_seed(0)
    separator = Separator(dim=8, reduction=4, by_token=by_token).double().requires_grad_(False)
    tokens = torch.randn(2, 5, 8, dtype=torch.double)
    found = separator(tokens)
    squeeze, excite = separator.squeeze, separator.excite
    for image in range(2):
        for token in range(5):
            seen = tokens[image, token] if by_token else sum(tokens[image, other] for other in range(5)) / 5
            hidden = [max(0.0, float(squeeze.weight[i] @ seen + squeeze.bias[i])) for i in range(2)]
            for feature in range(8):
                raw = sum(float(excite.weight[feature, i]) * hidden[i] for i in range(2)) + float(excite.bias[feature])
                mask = 1 / (1 + math.exp(-raw))
                z = float(tokens[image, token, feature])
                assert float(found.emotion[image, token, feature]) == pytest.approx(mask * z)
                assert float(found.rest[image, token, feature]) == pytest.approx((1 - mask) * z)
    torch.testing.assert_close(found.emotion + found.rest, tokens)
    assert found.whole is tokens


def test_a_separators_hidden_layer_never_vanishes() -> None:
    assert Separator(dim=8, reduction=16, by_token=False).squeeze.out_features == 1


# ----------------------------------------------------------------------------------------------------------- generator
def plain_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias


def random_fusion(joint: bool) -> tuple[CrossFusion, Tensor, Tensor, Tensor]:
    """Twelve numbers, three heads, and in double precision what it is asked, what it knows, and their positions."""
    torch.manual_seed(0)
    fusion = CrossFusion(12, 3, joint).double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.5)
    return fusion, *(torch.randn(2, 5, 12, dtype=torch.double) for _ in range(3))


def test_cross_fusion_against_equation_3() -> None:
    """Every place's answer, head by head, from its definition; keys have positions, values not."""
    fusion, asking, tokens, positions = random_fusion(joint=False)
    dim, heads = 12, 3
    query = plain_norm(fusion.norm_query, asking) @ fusion.query.weight.T + fusion.query.bias
    centred = positions - positions.mean(dim=2, keepdim=True)
    placed = centred / (centred.square().mean(dim=2, keepdim=True) + 1e-5).sqrt()
    key = (plain_norm(fusion.norm_key, tokens) + placed) @ fusion.key.weight.T + fusion.key.bias
    value = tokens @ fusion.value.weight.T + fusion.value.bias
    width = dim // heads
    answers = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = torch.einsum("bqd,bkd->bqk", query[..., own], key[..., own]) / math.sqrt(width)
        shares = scores.exp() / scores.exp().sum(dim=2, keepdim=True)
        answers.append(torch.einsum("bqk,bkd->bqd", shares, value[..., own]))
    expected = asking + torch.cat(answers, dim=2) @ fusion.proj.weight.T + fusion.proj.bias
    torch.testing.assert_close(fusion(asking, tokens, positions), expected)


def test_self_fusion_keeps_the_places_of_the_mask_tokens() -> None:
    fusion, asking, tokens, positions = random_fusion(joint=True)
    assert fusion.joint is not None
    together = fusion.joint(torch.cat([asking, tokens + positions], dim=1))
    torch.testing.assert_close(fusion(asking, tokens, positions), together[:, :5])


@pytest.mark.parametrize("scale", ["quick", "short"])
def test_cross_fusion_begins_as_a_look_up(scale: str) -> None:
    """What it adds to what asked is each place's own token, a little blurred, however large tokens are."""
    size = SIZES[scale]["tiny"]
    torch.manual_seed(0)
    net = PFViT(size, 8 * size.patch, len(CLASSES), Options())
    fusion, positions = net.generator.fusion, net.generator.decoder.pos_embed
    assert fusion is not None
    tokens = 5 * torch.randn(2, 65, size.decoder_dim)
    answered = fusion(positions, tokens, positions) - positions
    similar = torch.cosine_similarity(answered, tokens, dim=2)[:, 1:]
    assert similar.mean() > 0.8
    assert (fusion.norm_key.weight == 0).all()
    assert fusion.norm_key.weight.requires_grad


def test_cross_fusion_may_begin_with_random_weights() -> None:
    """Everything else has the same first weights; what it adds has nothing to do with each place's own token."""
    nets = {start: small(fusion_start=start) for start in ("look-up", "random")}
    own = {name for name, _ in nets["random"].generator.fusion.named_parameters(prefix="generator.fusion")}  # type: ignore[union-attr]
    differing = changed(nets["look-up"], snapshot(nets["random"]))
    assert "generator.fusion.norm_key.weight" in differing
    assert differing < own
    fusion, positions = nets["random"].generator.fusion, nets["random"].generator.decoder.pos_embed
    assert fusion is not None
    tokens = 5 * torch.randn(2, positions.shape[1], positions.shape[2])
    answered = fusion(positions, tokens, positions) - positions
    assert torch.cosine_similarity(answered, tokens, dim=2)[:, 1:].mean() < 0.4


@pytest.mark.parametrize("others", [{"fusion": "self"}, {"multitask": True}])
def test_nothing_but_the_cross_fusion_has_a_start(others: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="fusion_start random is of the cross fusion"):
        Options(fusion_start="random", **others)


def test_generator_asks_with_mask_tokens_and_positions() -> None:
    net = small()
    tokens = net.encoder(faces(2))
    decoder, fusion = net.generator.decoder, net.generator.fusion
    assert fusion is not None
    asking = (decoder.mask_token + decoder.pos_embed).expand(2, -1, -1)
    fused = fusion(asking, decoder.embed(tokens), decoder.pos_embed)
    for block in decoder.blocks:
        fused = block(fused)
    expected = unpatchify(decoder.pred(decoder.norm(fused))[:, 1:], SMALLEST.patch)
    torch.testing.assert_close(net.generator(tokens), expected)


@pytest.mark.parametrize("fusion", ["cross", "self"])
def test_faces_are_those_of_their_components(fusion: str) -> None:
    net, images = small(fusion=fusion), faces(3)
    found, separated = net.faces(images), net.separate(images)
    for face, tokens in (
        (found.rebuilt, separated.emotion + separated.rest), (found.emotion, separated.emotion),
        (found.poker, separated.rest),
    ):  # fmt: skip
        assert face.shape == images.shape
        torch.testing.assert_close(face, net.generator(tokens))
    assert not torch.allclose(found.poker, found.emotion)


# ------------------------------------------------------------------------------------------------------- discriminator
def test_discriminators_stem_of_the_encoder_gives_the_decoders_tokens() -> None:
    net = small()
    discriminator, decoder = net.discriminator, net.generator.decoder
    start_discriminator(discriminator, net.encoder, decoder, "encoder")
    images = faces(2)
    expected = decoder.embed(net.encoder.patch_embed.proj(images).flatten(2).transpose(1, 2))
    torch.testing.assert_close(discriminator.embed(images).flatten(2).transpose(1, 2), expected)
    torch.testing.assert_close(discriminator.cls_token, decoder.embed(net.encoder.cls_token))
    assert discriminator.embed.weight.requires_grad


@pytest.mark.parametrize("stem", ["own", "encoder"])
def test_discriminator_and_generator_start_alike(stem: str) -> None:
    net = small()
    before = net.discriminator.embed.weight.clone()
    start_discriminator(net.discriminator, net.encoder, net.generator.decoder, stem)
    for part in ("blocks", "norm"):
        own, other = (getattr(whole, part).state_dict() for whole in (net.discriminator, net.generator.decoder))
        for name, tensor in own.items():
            assert torch.equal(tensor, other[name])
            assert tensor.data_ptr() != other[name].data_ptr(), "copies, not the same weights"
    assert torch.equal(net.discriminator.embed.weight, before) == (stem == "own")


def test_discriminator_answers_for_every_face_alone() -> None:
    net, images = small(), faces(3)
    answers = net.discriminator(images)
    assert answers.shape == (3, len(CLASSES) + 1)
    torch.testing.assert_close(torch.cat([net.discriminator(image[None]) for image in images]), answers)


# ----------------------------------------------------------------------------------------------------------- inference
def test_inference_reads_the_class_token_of_the_emotional_component() -> None:
    net, images = small(), faces(3)
    logits = net(images)
    expected = net.separate(images).emotion[:, 0] @ net.classifier.weight.T + net.classifier.bias
    torch.testing.assert_close(logits, expected)
    logits.sum().backward()
    used = {name.split(".")[0] for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert used == {"encoder", "separator", "classifier"}


def test_multitask_sees_only_the_kept_patches() -> None:
    net, images = small(multitask=True), faces(2)
    kept, restore = shuffled(torch.rand(2, 16), 0.5)
    unseen = torch.ones(2, 16, dtype=torch.bool).scatter_(1, kept, False)
    hidden = F.interpolate(unseen.view(2, 1, 4, 4).float(), SIZE)
    other = images + 3 * hidden
    torch.testing.assert_close(net(other, kept), net(images, kept))
    torch.testing.assert_close(net.faces(other, kept, restore), net.faces(images, kept, restore))
    assert not torch.allclose(net(other), net(images))
    separated = net.separate(images, kept)
    expected = net.generator.decoder(separated.rest, restore)
    torch.testing.assert_close(net.faces(images, kept, restore).poker, unpatchify(expected, SMALLEST.patch))


def test_multitask_without_a_mask_has_no_mask_tokens() -> None:
    net, images = small(multitask=True), faces(2)
    before = net.faces(images)
    with torch.no_grad():
        net.generator.decoder.mask_token.fill_(3.0)
    torch.testing.assert_close(net.faces(images), before)
