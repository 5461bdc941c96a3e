"""POSTER's network: sizes of the released code and of Table 4's steps, what its tokens mean, what learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import product
from typing import Any

import pytest
import torch
from helpers_poster import PAPER, SMALL, STEPS, faces, full, small
from torch import Tensor, nn

from bench.errors import UserError
from bench.method import macs, parameter_counts
from methods.poster.attention import CrossFusionAttention, Place, SelfAttention, recorded
from methods.poster.encoder import CrossFusionEncoder, VanillaEncoder
from methods.poster.model import POSTER
from methods.poster.options import Options


def changed(before: Tensor, after: Tensor) -> set[int]:
    """Tokens (dimension 1) that differ."""
    return set((before != after).any(-1)[0].nonzero().flatten().tolist())


# ---------------------------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    ("options", "total", "trainable", "gmacs"),
    [
        ({"depth": 4}, 52_229_135, 51_221_887, 6.79),
        ({"depth": 6}, 62_039_767, 61_032_519, 7.32),
        ({}, 71_850_399, 70_843_151, 7.86),
        ({"token_mixing": False}, 71_607_999, 70_600_751, 7.79),
    ],
    ids=["small", "base", "large", "large-affectnet"],
)
def test_the_released_networks_have_their_size(
    options: dict[str, Any], total: int, trainable: int, gmacs: float
) -> None:
    net = full(**options)
    assert parameter_counts(net) == (total, trainable)
    assert macs(net, 224) / 1e9 == pytest.approx(gmacs, abs=0.005)


def test_a_processor_counts_the_same_as_no_device_at_all() -> None:
    with torch.device("meta"):
        empty = POSTER(7, Options.parse(SMALL))
    assert macs(small(), 32) == macs(empty, 32)


@pytest.mark.parametrize(
    ("step", "learning"),
    [
        ("landmark", 17_377_799),
        ("image", 35_514_567),
        ("baseline", 35_514_567),
        ("pyramid", 41_173_039),
        ("cross-fusion", 48_215_143),
        ("poster", 57_995_023),
    ],
)
def test_the_steps_of_table_4_have_the_size_of_their_construction(step: str, learning: int) -> None:
    frozen = 0 if step == "image" else 1_007_248
    assert parameter_counts(full(released_extras=False, **STEPS[step])) == (learning + frozen, learning)


def test_released_extras_are_the_face_recognition_head_and_a_class_token() -> None:
    extras = set(full().state_dict()) - set(full(released_extras=False).state_dict())
    assert {name.rpartition(".")[0] for name in extras if "output_layer" in name} == {
        f"image_net.output_layer.{layer}" for layer in (0, 3, 4)
    }
    assert {name for name in extras if "output_layer" not in name} == {"class_token"}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("variant", [{}, PAPER], ids=["code", "paper"])
def test_every_step_answers(step: str, variant: dict[str, Any]) -> None:
    net = small(**{**variant, **STEPS[step]}).eval()
    assert net(faces()).shape == (3, 7)
    assert net.features(faces()).shape == (3, 32)


def test_levels_differ_in_width_and_not_in_length() -> None:
    net, seen = small(), []
    net.blocks[0].register_forward_hook(lambda module, inputs, output: seen.extend([*inputs[0], *output]))
    net(faces())
    assert [tuple(tokens.shape) for tokens in seen] == [(3, 10, 32), (3, 10, 16), (3, 10, 8)] * 2


def test_stochastic_depth_grows_over_the_blocks() -> None:
    net = full()
    rates = [block.encoders["large"].image.drop_path.drop_prob for block in net.blocks]
    assert rates == pytest.approx([0.1 * i / 7 for i in range(8)])
    assert {m.eps for m in net.blocks.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


# ---------------------------------------------------------------------------------------------------- code and paper
def test_the_paper_s_network() -> None:
    code, paper = full(), full(**PAPER)
    names = {name for name, _ in paper.named_parameters()}
    for part in ("gate.", "mixing", "image.attention_norm", "class_token", "output_layer.3"):
        assert any(part in name for name, _ in code.named_parameters()), part
        assert not any(part in name for name in names if not name.startswith("landmark_net.")), part
    assert paper.blocks[7].encoders["small"].landmark.attention.query.weight.shape == (128, 128)
    # Per level W_Q with bias for two streams comes; two norms of two streams and the convolution go.
    block = {
        name: sum(p.numel() for p in net.blocks[0].parameters()) for name, net in (("code", code), ("paper", paper))
    }
    widths = (512, 256, 128)
    assert block["paper"] - block["code"] == sum(2 * (d * d + d) - 4 * d - 100 * 101 for d in widths)


def reference(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Softmax(Q K^T / sqrt(d)) V for (B, N, D), written out."""
    split = [tokens.reshape(*tokens.shape[:2], heads, -1) for tokens in (query, key, value)]
    scores = torch.einsum("bihd,bjhd->bhij", split[0], split[1]) / split[0].shape[-1] ** 0.5
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), split[2]).flatten(2)


@pytest.mark.parametrize("projection", [False, True])
def test_cross_fusion_asks_with_the_other_stream(projection: bool) -> None:
    torch.manual_seed(0)
    attention = CrossFusionAttention(24, 3, projection)
    own, other = torch.randn(2, 2, 5, 24)
    weight, bias = attention.key_value.weight, attention.key_value.bias
    query = other @ attention.query.weight.T + attention.query.bias if projection else other
    mixed = reference(query, own @ weight[:24].T + bias[:24], own @ weight[24:].T + bias[24:], heads=3)
    torch.testing.assert_close(attention(own, other), attention.output(mixed))


def test_vanilla_attention() -> None:
    torch.manual_seed(0)
    attention, tokens = SelfAttention(24, 3), torch.randn(2, 5, 24)
    query, key, value = (tokens @ w.T + b for w, b in zip(
        attention.query_key_value.weight.split(24), attention.query_key_value.bias.split(24), strict=True
    ))  # fmt: skip
    torch.testing.assert_close(attention(tokens), attention.output(reference(query, key, value, heads=3)))


@pytest.mark.parametrize("pre_norm", [True, False])
def test_an_encoder_follows_its_equations(pre_norm: bool) -> None:
    torch.manual_seed(0)
    options = Options.parse(SMALL | {"pre_norm": pre_norm, "token_mixing": False})
    encoder = CrossFusionEncoder(32, 10, 0.0, options)
    for module in encoder.modules():  # LayerNorms of one stream differ from those of the other
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight), nn.init.normal_(module.bias)
    image, landmark = torch.randn(2, 2, 5, 32)
    for half, own, other in ((0, image, landmark), (1, landmark, image)):
        side = encoder.landmark if half else encoder.image
        normed = (side.attention_norm(own), side.attention_norm(other)) if pre_norm else (own, other)
        middle = side.attention(*normed) + own  # Equations 9 and 11
        expected = side.mlp(side.mlp_norm(middle)) + middle  # Equations 10 and 12
        torch.testing.assert_close(encoder(torch.cat([image, landmark], 1)).chunk(2, 1)[half], expected)
    vanilla, tokens = VanillaEncoder(32, 0.0, options), torch.cat([image, landmark], 1)
    middle = vanilla.attention(vanilla.attention_norm(tokens) if pre_norm else tokens) + tokens  # Equation 3
    torch.testing.assert_close(vanilla(tokens), vanilla.mlp(vanilla.mlp_norm(middle)) + middle)  # Equation 4


# --------------------------------------------------------------------------------------------------------------- tokens
@pytest.mark.parametrize("landmark", ["mobilefacenet", "onet"])
def test_a_cell_of_the_landmark_net_is_a_token(landmark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = small(landmark=landmark)
    channels = 32 if landmark == "mobilefacenet" else 128
    maps = net.landmark_net.features(faces(1))
    assert maps.shape == (1, channels, 2, 2)
    monkeypatch.setattr(net.landmark_net, "features", lambda images: maps)
    before = net.landmark_tokens(faces(1))
    for row, column in product(range(2), range(2)):
        touch = torch.zeros_like(maps)
        touch[..., row, column] = 1
        monkeypatch.setattr(net.landmark_net, "features", lambda images, touch=touch: maps + touch)
        assert changed(before, net.landmark_tokens(faces(1))) == {2 * row + column}


def test_class_tokens_are_means_and_only_the_first_stream_has_positions() -> None:
    net = small().eval()
    assert net.positions.shape == (1, 5, 32)
    assert not net.positions.any()
    image, landmark = net.tokens(faces()).chunk(2, dim=1)
    for stream in (image, landmark):
        torch.testing.assert_close(stream[:, 0], stream[:, 1:].mean(1))
    torch.testing.assert_close(landmark[:, 1:], net.landmark_tokens(faces()))
    nn.init.normal_(net.positions)
    moved = net.tokens(faces()).chunk(2, dim=1)
    torch.testing.assert_close(moved[0], image + net.positions)
    torch.testing.assert_close(moved[1], landmark)


def test_backbones_see_the_inner_size_nearest_neighbours() -> None:
    net = small().eval()
    images = faces(2, 64)
    torch.testing.assert_close(net(images), net(images[..., ::2, ::2]))
    torch.testing.assert_close(net(images, net.landmark_tokens(images)), net(images))
    assert net(faces(2, 16)).shape == (2, 7)


# ------------------------------------------------------------------------------------------------------------- learning
def without_gradient(net: POSTER) -> set[str]:
    net(faces(4)).logsumexp(1).sum().backward()
    return {name for name, parameter in net.named_parameters() if parameter.grad is None}


@pytest.mark.parametrize("variant", [{}, PAPER], ids=["code", "paper"])
@pytest.mark.parametrize("step", STEPS)
def test_gradients_reach_what_learns(step: str, variant: dict[str, Any]) -> None:
    net = small(**{**variant, **STEPS[step]})
    idle = {name for name, _ in net.named_parameters() if name.startswith("image_net.output_layer.")}
    idle |= {name for name, _ in net.named_parameters() if name == "class_token"}
    frozen = {name for name, _ in net.named_parameters() if name.startswith("landmark_net.")}
    assert (not idle) == (not net.options.released_extras)
    assert bool(frozen) == (step != "image")
    assert without_gradient(net) == idle | frozen
    assert frozen == {name for name, parameter in net.named_parameters() if not parameter.requires_grad}


def test_o_net_is_frozen_but_its_projection_learns() -> None:
    net = small(landmark="onet", released_extras=False)
    names = {name for name, _ in net.named_parameters() if name.startswith("landmark_net.")}
    assert without_gradient(net) == names
    assert net.landmark_embed.weight.grad.any()


@pytest.mark.parametrize(("mixing", "idle"), [(False, 1_840_128), (True, 0)])
def test_without_mixing_the_last_landmark_half_learns_nothing(mixing: bool, idle: int) -> None:
    torch.manual_seed(0)
    net = POSTER(
        7, Options.parse({**SMALL, "dims": [512, 256, 128], "heads": 8, "drop_path": 0, "token_mixing": mixing})
    )
    net(faces(2)).logsumexp(1).sum().backward()
    learning = [parameter for parameter in net.blocks.parameters() if parameter.grad is not None]
    assert sum(parameter.numel() for parameter in learning if not parameter.grad.any()) == idle


def statistics(net: POSTER) -> list[Tensor]:
    return [value.clone() for name, value in net.landmark_net.named_buffers() if "running" in name]


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_frozen_statistics_move_only_if_asked(batch_statistics: bool) -> None:
    net = small(landmark_batch_statistics=batch_statistics)
    before, images = statistics(net), faces()
    net.eval()(images)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(net), strict=True))
    settled = net.landmark_tokens(images)
    net.train()
    assert torch.equal(net.landmark_tokens(images), settled) != batch_statistics
    moved = [not torch.equal(a, b) for a, b in zip(before, statistics(net), strict=True)]
    assert any(moved) == batch_statistics
    assert all(module.training for module in net.blocks.modules())


# ---------------------------------------------------------------------------------------------------------------- probe
def places(options: Options) -> Iterator[Place]:
    streams = ("image", "landmark") if options.cross_fusion else ("all",)
    yield from (Place(*place) for place in product(range(2), (name for name, _ in options.levels), streams))


@pytest.mark.parametrize("step", STEPS)
def test_recorded_attention_is_what_the_network_used(step: str) -> None:
    net = small(**STEPS[step]).eval()
    plain = net(faces())
    with recorded(net) as maps:
        logits = net(faces())
        torch.testing.assert_close(logits, plain)
        assert list(maps) == list(places(net.options))
        length = 5 if "streams" in STEPS[step] or net.options.cross_fusion else 10
        for weights in maps.values():
            assert weights.shape == (3, 2, length, length)
            torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, length))
        gradients = torch.autograd.grad(logits[:, 0].sum(), list(maps.values()))
        assert all(gradient.any() for gradient in gradients)
    assert all(attention.probe is None for attention in net.attentions().values())
    maps.clear()
    net(faces())
    assert not maps


# -------------------------------------------------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cross_fuson": True}, "cross_fusion"),
        ({"streams": "images"}, "image"),
        ({"tokens": "patch"}, "patches"),
        ({"landmark": "mobilenet"}, "mobilefacenet"),
        ({"streams": "image"}, "cross-fusion needs both streams"),
        ({"inner_size": 100}, "multiple of 16"),
        ({"dims": [512, 256, 100]}, "do not divide"),
        ({"heads": 3}, "do not divide"),
        ({"dims": [128, 256, 512]}, "do not decrease"),
        ({"dims": [512, 256]}, "dims of poster is [512, 256], not three whole numbers"),
        ({"dims": 512}, "not three whole numbers"),
        ({"ir_units": [1, 1]}, "ir_units of poster is [1, 1], not three whole numbers"),
        ({"ir_units": [3, 4, 0]}, "less than 1"),
        ({"ir_units": [3, 4, 1.5]}, "not three whole numbers"),
        ({"depth": 0}, "depth of poster is 0, less than 1"),
        ({"depth": "8"}, "depth of poster is '8', not a whole number"),
        ({"depth": True}, "not a whole number"),
        ({"heads": 0}, "less than 1"),
        ({"heads": None}, "not a whole number"),
        ({"inner_size": 0}, "less than 16"),
        ({"ir_width": 0}, "less than 1"),
        ({"landmark_width": -64}, "less than 1"),
        ({"mlp_ratio": -1}, "less than 0"),
        ({"mlp_ratio": 0.001}, "no hidden unit"),
        ({"drop_path": 2}, "nothing would be left"),
        ({"drop_path": "0.1"}, "not a number"),
        ({"sam_rho": -0.05}, "less than 0"),
        ({"sam_rho": float("nan")}, "not a number"),
        ({"pyramid": 1}, "pyramid of poster is 1, not true or false"),
        ({"streams": ["both"]}, "not a word"),
    ],
)
def test_options_that_make_no_network_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Options.parse(options)
    assert said in str(caught.value)


def test_every_option_changes_the_network() -> None:
    """None is read by nothing: each shows in the parameters, in the tokens or in the training behaviour."""
    other: dict[str, Any] = {
        "streams": "image", "cross_fusion": False, "pyramid": False, "depth": 3, "dims": [64, 16, 8], "heads": 4,
        "mlp_ratio": 1, "drop_path": 0.5, "tokens": "patches", "token_mixing": False, "query_projection": True,
        "pre_norm": False, "squeeze_excitation": False, "released_extras": False, "landmark": "onet",
        "landmark_batch_statistics": False, "inner_size": 64, "ir_width": 4, "ir_units": [1, 1, 2], "landmark_width": 4,
    }  # fmt: skip
    assert set(other) == {field.name for field in fields(Options)} - {"sam_rho"}  # the training's
    for name, value in other.items():
        extra = {"cross_fusion": False} if name == "streams" else {}
        torch.manual_seed(1)
        before = small(**extra)(faces())
        torch.manual_seed(1)
        after = small(**extra, **{name: value})(faces())
        assert not torch.allclose(before, after), name
