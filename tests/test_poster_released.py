"""Released POSTER checkpoints: every name and shape has its place, and the place does what the released code did."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_poster import SMALL
from torch import Tensor
from torch.nn import functional as F

from bench.errors import UserError
from bench.weight_files import load_strict
from methods.poster.model import POSTER
from methods.poster.options import Options
from methods.poster.released import to_ours, to_released

TABLES = Path(__file__).resolve().parents[2] / "shared" / "facts" / "state-dicts"
FILES: dict[str, tuple[dict[str, Any], int, str]] = {
    # Options, tensors, SHA-256 of the sorted lines "name<TAB>shape" (100x100x2; nothing for a scalar).
    "rafdb": ({}, 1309, "821d92cbb028f40b5ed08713fbb688ff40d920785de0dd78b3b3a7335b0ed9e7"),
    "affectnet7": (
        {"token_mixing": False}, 1261, "82cdc8b3483da32b9180dd0b88580e2b8fa1ab834f46ecf90c92c3cec43e6e51",
    ),
}  # fmt: skip
BACKBONES = {
    "image_net": (304, "8a2dfde02f4155203725f7413a29037827c3adb295e0511869fd6cc2d939b3f4"),
    "landmark_net": (333, "cc2f4f5b0d47cab4c85e131b4890e2ab3c32a0a33f0f221472fd8818424c1f53"),
}


def lines(state: dict[str, Tensor]) -> list[str]:
    return sorted(f"{name}\t{'x'.join(map(str, value.shape))}" for name, value in state.items())


def digest(listed: list[str]) -> str:
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def net_of(file: str) -> POSTER:
    """The released network, without memory for its numbers."""
    with torch.device("meta"):
        return POSTER(7, Options.parse(FILES[file][0]))


def random_net(seed: int, **options: Any) -> POSTER:
    """A small network none of whose tensors is what it was built with."""
    torch.manual_seed(seed)
    net = POSTER(7, Options.parse(SMALL | options)).eval()
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "running_var" in name else 0.2 * torch.randn_like(value))
    return net


@pytest.mark.parametrize("file", FILES)
def test_names_and_shapes_are_the_released_ones(file: str) -> None:
    _, count, expected = FILES[file]
    released = lines(to_released(net_of(file).state_dict()))
    table = TABLES / f"poster-large-{file}.tsv"
    if table.exists():  # names what differs; the digest says only that something does
        assert released == sorted(table.read_text().splitlines()[1:])
    assert len(released) == count
    assert digest(released) == expected


@pytest.mark.parametrize("part", BACKBONES)
def test_backbones_have_the_names_of_their_files(part: str) -> None:
    named = lines(getattr(net_of("rafdb"), part).state_dict())
    assert (len(named), digest(named)) == BACKBONES[part]


@pytest.mark.parametrize("file", FILES)
def test_names_are_one_to_one(file: str) -> None:
    state = net_of(file).state_dict()
    there = to_released(state)
    assert len(there) == len(state)
    assert not set(there) & set(state)
    assert list(to_ours(there)) == list(state)


@pytest.mark.parametrize("mixing", [True, False])
def test_a_released_checkpoint_loads_whole(mixing: bool) -> None:
    source, target = random_net(0, token_mixing=mixing), random_net(1, token_mixing=mixing)
    images = torch.randn(2, 3, 64, 64)
    assert not torch.allclose(source(images), target(images))
    file = {name: value.clone() for name, value in to_released(source.state_dict()).items()}
    assert load_strict(target, to_ours(file), "the test's file") == len(file)
    torch.testing.assert_close(source(images), target(images), rtol=0, atol=0)


@pytest.mark.parametrize("mixing", [True, False])
def test_every_name_does_what_it_did_in_the_released_code(mixing: bool) -> None:
    net, images = random_net(0, token_mixing=mixing), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(images), released_forward(net, images))


def released_forward(net: POSTER, images: Tensor) -> Tensor:
    """The released forward pass behind the two backbones, spelt out by the released names."""
    state = to_released(net.state_dict())
    heads = net.options.heads

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def attention(name: str, own: Tensor, other: Tensor) -> Tensor:
        key, value = linear(f"{name}.kv", own).chunk(2, -1)
        q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (other, key, value))
        weights = (torch.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5).softmax(-1)
        return linear(f"{name}.proj", torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))

    def encoder(name: str, x: Tensor) -> Tensor:
        image, landmark = x.chunk(2, 1)
        image = image + attention(f"{name}.attn_img", *norm(f"{name}.norm1", x).chunk(2, 1))
        image = image + linear(f"{name}.mlp1.fc2", F.gelu(linear(f"{name}.mlp1.fc1", norm(f"{name}.norm2", image))))
        landmark = landmark + attention(f"{name}.attn_lm", *norm(f"{name}.norm3", x).chunk(2, 1)[::-1])
        landmark = landmark + linear(
            f"{name}.mlp2.fc2", F.gelu(linear(f"{name}.mlp2.fc1", norm(f"{name}.norm4", landmark)))
        )
        x = torch.cat([image, landmark], 1)
        if not net.options.token_mixing:
            return x
        return F.conv1d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"])

    def resized(name: str, convolution: Any, x: Tensor, stride: int) -> Tensor:
        return convolution(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=stride)

    image = linear("ir_layer", net.image_map(images).reshape(3, 4, 128))
    landmark = net.landmark_tokens(images)
    image, landmark = (torch.cat([x.mean(1, keepdim=True), x], 1) for x in (image, landmark))
    large = torch.cat([image + state["pyramid_fuse.pos_embed"], landmark], 1)
    medium = resized("pyramid_fuse.downsample_m", F.conv1d, large, 2)
    small = resized("pyramid_fuse.downsample_s", F.conv1d, large, 4)
    for number in range(net.options.depth):
        block = f"pyramid_fuse.blocks.{number}"
        large, medium, small = (
            encoder(f"{block}.block_{level}", x) for level, x in (("l", large), ("m", medium), ("s", small))
        )
        medium = medium + resized(f"{block}.upsample_s", F.conv_transpose1d, small, 2)
        large = large + resized(f"{block}.upsample_m", F.conv_transpose1d, medium, 2)
    vector = norm("pyramid_fuse.norm", large)[:, 0]
    gate = linear("se_block.linear2", linear("se_block.linear1", vector).relu()).sigmoid()
    return linear("head.linear", vector * gate)


def test_what_does_not_fit_is_refused_by_name() -> None:
    net = random_net(0)
    file = to_released(net.state_dict())
    lost = {name: value for name, value in file.items() if name != "pyramid_fuse.blocks.1.upsample_m.bias"}
    with pytest.raises(UserError, match=r"1 missing: blocks\.1\.lifts\.medium\.bias"):
        load_strict(net, to_ours(lost), "the test's file")
    extra = {**file, "pyramid_fuse.blocks.0.block_l.norm5.weight": torch.zeros(32), "optimizer": torch.zeros(1)}
    with pytest.raises(UserError, match=r"2 left over: blocks\.0\.block_l\.norm5\.weight, optimizer"):
        load_strict(net, to_ours(extra), "the test's file")
    other = {**file, "head.linear.weight": torch.zeros(8, 32)}
    with pytest.raises(UserError, match=r"head\.weight \(8, 32\) instead of \(7, 32\)"):
        load_strict(net, to_ours(other), "the test's file")


def test_the_two_files_are_not_taken_for_each_other() -> None:
    for file, other in (("rafdb", "affectnet7"), ("affectnet7", "rafdb")):
        with pytest.raises(UserError, match=r"24|48"):
            load_strict(net_of(other), to_ours(to_released(net_of(file).state_dict())), file)
