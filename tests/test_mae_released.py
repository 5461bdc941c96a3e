"""Files of masked autoencoders: the public format loads completely and means the same, others are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from helpers_mae import MINIATURE, SIZE, build, miniature, pictures, plain_decoder, plain_encoder, plain_kept
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bench import weights
from bench.errors import UserError
from bench.weights_add import verify
from methods.mae.model import MAE
from methods.mae.released import load_encoder, load_mae, to_ours, to_public
from methods.mae.sizes import size_of
from methods.mae.vit import sincos

PATCHES = (SIZE // MINIATURE.patch) ** 2
TABLE = ROOT.parent / "shared" / "facts" / "state-dicts" / "mae-pretrain-vit-b.tsv"
Change = Callable[[dict[str, Tensor]], object]


def block(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.norm1.weight": (dim,), f"{name}.norm1.bias": (dim,),
        f"{name}.attn.qkv.weight": (3 * dim, dim), f"{name}.attn.qkv.bias": (3 * dim,),
        f"{name}.attn.proj.weight": (dim, dim), f"{name}.attn.proj.bias": (dim,),
        f"{name}.norm2.weight": (dim,), f"{name}.norm2.bias": (dim,),
        f"{name}.mlp.fc1.weight": (4 * dim, dim), f"{name}.mlp.fc1.bias": (4 * dim,),
        f"{name}.mlp.fc2.weight": (dim, 4 * dim), f"{name}.mlp.fc2.bias": (dim,),
    }  # fmt: skip


def public_shapes(decoder: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the public format, at the size of the miniature."""
    dim, narrow, patch = MINIATURE.dim, MINIATURE.decoder_dim, MINIATURE.patch
    found: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + PATCHES, dim)}
    found |= {"patch_embed.proj.weight": (dim, 3, patch, patch), "patch_embed.proj.bias": (dim,)}
    for number in range(MINIATURE.depth):
        found |= block(f"blocks.{number}", dim)
    found |= {"norm.weight": (dim,), "norm.bias": (dim,)}
    if not decoder:
        return found
    found |= {"mask_token": (1, 1, narrow), "decoder_pos_embed": (1, 1 + PATCHES, narrow)}
    found |= {"decoder_embed.weight": (narrow, dim), "decoder_embed.bias": (narrow,)}
    for number in range(MINIATURE.decoder_depth):
        found |= block(f"decoder_blocks.{number}", narrow)
    found |= {"decoder_norm.weight": (narrow,), "decoder_norm.bias": (narrow,)}
    return found | {"decoder_pred.weight": (3 * patch**2, narrow), "decoder_pred.bias": (3 * patch**2,)}


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int = 5) -> dict[str, Tensor]:
    """A file's tensors: random, the position tables as published."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("pos_embed"):
            state[name] = sincos(shape[2], round((shape[1] - 1) ** 0.5))
        else:
            limit = (2 / shape[-1]) ** 0.5  # sums over wide layers stay of one size
            state[name] = torch.empty(shape).uniform_(-limit, limit, generator=generator) + 1.0 * ("norm" in name)
    return state


def written(path: Path, state: Mapping[str, Tensor], wrapped: bool = True) -> Path:
    """A PyTorch file, as MAE's scripts write one (with the epoch and the training arguments), or as timm's hub does."""
    if path.suffix == ".safetensors":
        save_file(dict(state), path)
    else:
        torch.save({"model": dict(state), "epoch": 299} if wrapped else dict(state), path)
    return path


def same(net: torch.nn.Module, state: Mapping[str, Tensor], prefix: str = "") -> bool:
    own = net.state_dict()
    wanted = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return own.keys() == wanted.keys() and all(torch.equal(own[name], value) for name, value in wanted.items())


# --------------------------------------------------------------------------------------------------------------- names
def test_names_go_to_ours_and_back() -> None:
    state = drawn(public_shapes())
    ours = to_ours(state)
    assert ours.keys() == miniature().state_dict().keys()
    assert to_ours(ours).keys() == ours.keys(), "ours pass through"
    back = to_public(ours)
    assert back.keys() == state.keys()
    assert all(back[name] is value for name, value in state.items())


def test_names_of_nothing_known_stay() -> None:
    state = {
        name: torch.zeros(1)
        for name in ("head.weight", "cls_token_extra", "normal.weight", "decoder_x", "fc_norm.bias")
    }
    assert to_ours(state).keys() == state.keys()
    assert to_public(state).keys() == state.keys()


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of MAE's own ViT-B file with its decoder."""
    if not TABLE.is_file():
        pytest.skip(f"{TABLE} is not on this machine")
    lines = [line.split("\t") for line in TABLE.read_text().splitlines()[1:]]
    return {name: tuple(map(int, shape.split("x"))) for name, shape in lines}


def test_the_published_base_model_has_exactly_our_tensors() -> None:
    given = {name: torch.empty(shape, device="meta") for name, shape in published_shapes().items()}
    with torch.device("meta"):
        own = MAE(size_of("vit_base_patch16", "full", 224), 224).state_dict()
    assert {name: value.shape for name, value in to_ours(given).items()} == {n: v.shape for n, v in own.items()}


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_the_records_of_weights_fit_our_networks(size: str) -> None:
    """What `weights add` looks at is there under its public name, and as many tensors are loaded as it counts."""
    with torch.device("meta"):
        given = to_public(MAE(size_of(f"vit_{size}_patch16", "full", 224), 224).state_dict())
    records = [record for role, record in weights.records().items() if role.startswith(f"mae-vit-{size}-")]
    assert records
    for record in records:
        for name, shape in record.has.items():
            assert given[name].shape == shape, record.role
        loaded = [name for name in given if not name.startswith(record.left_out)]
        assert record.tensors in (0, len(loaded)), record.role


# -------------------------------------------------------------------------------------------------------------- loading
@pytest.mark.parametrize(("file", "wrapped"), [("a.pth", True), ("a.pth", False), ("a.safetensors", False)])
def test_a_public_file_loads_completely(tmp_path: Path, file: str, wrapped: bool) -> None:
    state, net = drawn(public_shapes()), miniature()
    load_mae(net.encoder, net.decoder, written(tmp_path / file, state, wrapped), "mae-test")
    assert same(net, to_ours(state))


def test_a_public_file_means_the_same() -> None:
    """The plain implementation reads the file's tensors by their public names."""
    net, images = miniature().double(), pictures(3, dtype=torch.double)
    state = {name: value.double() for name, value in drawn(public_shapes()).items()}
    net.load_state_dict(to_ours(state))
    noise = torch.rand(3, PATCHES, dtype=torch.double)
    predicted, _ = net(images, noise)
    kept = plain_kept(noise, net.mask_ratio)
    tokens = plain_encoder(state, images, MINIATURE.heads, kept)
    wanted = plain_decoder(state, tokens, kept, PATCHES, MINIATURE.decoder_heads)
    torch.testing.assert_close(predicted, wanted)
    torch.testing.assert_close(net.encoder(images), plain_encoder(state, images, MINIATURE.heads))


def test_timms_transformer_gives_the_same_features(tmp_path: Path) -> None:
    """The form on the hub (timm/vit_base_patch16_224.mae): no wrapper, no decoder."""
    state, images = drawn(public_shapes(decoder=False)), pictures(3)
    theirs = VisionTransformer(
        img_size=SIZE, patch_size=MINIATURE.patch, embed_dim=MINIATURE.dim, depth=MINIATURE.depth,
        num_heads=MINIATURE.heads, num_classes=0, global_pool="token",
    )  # fmt: skip
    theirs.load_state_dict(state)
    encoder = miniature().encoder
    load_encoder(encoder, written(tmp_path / "hub.safetensors", state), "mae-test")
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), theirs.forward_features(images), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder(images)[:, 0], theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("left_over", [[], ["head.weight", "head.bias"], ["fc.weight", "fc.bias"]])
@pytest.mark.parametrize("decoder", [True, False])
def test_an_encoder_is_taken_from_files_with_more(tmp_path: Path, decoder: bool, left_over: list[str]) -> None:
    state = drawn(public_shapes(decoder)) | {name: torch.zeros(7) for name in left_over}
    encoder = miniature().encoder
    load_encoder(encoder, written(tmp_path / "a.pth", state), "mae-test")
    assert same(encoder, to_ours(drawn(public_shapes())), "encoder.")


@pytest.mark.slow
def test_a_file_of_the_published_size_loads_and_means_the_same(tmp_path: Path) -> None:
    """All 254 tensors of a file with the published names and shapes; features of some patches of one image."""
    state = drawn(published_shapes())
    with torch.device("meta"):
        net = MAE(size_of("vit_base_patch16", "full", 224), 224)
    net.to_empty(device="cpu")
    load_mae(net.encoder, net.decoder, written(tmp_path / "mae.pth", state), "mae-vit-base-imagenet1k-full")
    assert same(net, to_ours(state))
    image, kept = pictures(1, size=224), torch.tensor([[3, 100, 195]])
    with torch.no_grad():
        wanted = plain_encoder(state, image, 12, kept)
        torch.testing.assert_close(net.encoder(image, kept), wanted, rtol=1e-3, atol=1e-3)


def test_our_own_stage_loads(tmp_path: Path) -> None:
    source, whole, alone = miniature(seed=3), miniature(), miniature()
    path = written(tmp_path / "model.safetensors", source.state_dict())
    load_mae(whole.encoder, whole.decoder, path, "mae-own")
    assert same(whole, source.state_dict())
    load_encoder(alone.encoder, path, "mae-own")
    assert same(alone.encoder, source.encoder.state_dict())
    assert same(alone.decoder, miniature().decoder.state_dict()), "the decoder is left as it is"


def test_the_method_takes_public_and_own_tensors() -> None:
    method = build()
    ours = build(seed=4).net.state_dict()
    for state in (ours, to_public(ours)):
        method = build()
        method.load_released(state)
        assert same(method.net, ours)


def test_positions_stay_fixed_after_loading(tmp_path: Path) -> None:
    net = miniature()
    load_mae(net.encoder, net.decoder, written(tmp_path / "a.pth", drawn(public_shapes())), "mae-test")
    assert not net.encoder.pos_embed.requires_grad
    assert not net.decoder.pos_embed.requires_grad


# ------------------------------------------------------------------------------------------------------------ refusing
def cut(beginning: str) -> Change:
    return lambda state: [state.pop(name) for name in list(state) if name.startswith(beginning)]


def put(**tensors: Tensor) -> Change:
    return lambda state: state.update({name.replace("__", "."): value for name, value in tensors.items()})


BOTH: list[tuple[str, Change, str]] = [
    ("patch-32", put(patch_embed__proj__weight=torch.zeros(24, 3, 32, 32)),
     r"patches \(encoder\.patch_embed\.proj\.weight\) of side 32 instead of 8"),
    ("wider", put(cls_token=torch.zeros(1, 1, 48)), r"encoder's width \(encoder\.cls_token\) 48 instead of 24"),
    ("larger-images", put(pos_embed=torch.zeros(1, 50, 24)), r"places \(encoder\.pos_embed\) 50 instead of 17"),
    ("shallow", cut("blocks.1."), r"blocks \(encoder\.blocks\) 1 instead of 2"),
    ("one-missing", cut("blocks.1.mlp.fc2.bias"), r"1 missing: encoder\.blocks\.1\.mlp\.fc2\.bias"),
    ("misshapen", put(blocks__0__mlp__fc1__weight=torch.zeros(48, 24)),
     r"1 of another shape: encoder\.blocks\.0\.mlp\.fc1\.weight \(48, 24\) instead of \(96, 24\)"),
    ("extra", put(blocks__0__gamma=torch.zeros(24)), r"1 left over: encoder\.blocks\.0\.gamma"),
    ("mean-pooled", lambda state: [state.update(fc_norm__x=torch.zeros(1)), cut("norm.")(state)],
     r"2 missing: encoder\.norm\.weight, encoder\.norm\.bias; 1 left over: fc_norm__x"),
]  # fmt: skip
DECODER: list[tuple[str, Change, str]] = [
    ("no-decoder", lambda state: [cut("decoder_")(state), cut("mask_token")(state)],
     r"holds an encoder without its decoder \(no decoder_blocks\)"),
    ("narrow", put(mask_token=torch.zeros(1, 1, 8)), r"decoder's width \(decoder\.mask_token\) 8 instead of 16"),
    ("shallow-decoder", cut("decoder_blocks.1."), r"blocks \(decoder\.blocks\) 1 instead of 2"),
    ("no-pixels", cut("decoder_pred."), r"2 missing: decoder\.pred\.weight, decoder\.pred\.bias"),
    ("other-pixels", put(decoder_pred__weight=torch.zeros(768, 16)),
     r"1 of another shape: decoder\.pred\.weight \(768, 16\) instead of \(192, 16\)"),
]  # fmt: skip


def named(cases: list[tuple[str, Change, str]]) -> list[object]:
    return [pytest.param(change, message, id=name) for name, change, message in cases]


@pytest.mark.parametrize(("change", "message"), named(BOTH))
def test_another_encoder_is_refused_by_name(tmp_path: Path, change: Change, message: str) -> None:
    state = drawn(public_shapes(decoder=False))
    change(state)
    encoder = miniature().encoder
    with pytest.raises(UserError, match=rf"a\.pth \(mae-test\): .*{message}"):
        load_encoder(encoder, written(tmp_path / "a.pth", state), "mae-test")
    assert same(encoder, miniature().encoder.state_dict()), "all or nothing"


@pytest.mark.parametrize(("change", "message"), named(BOTH + DECODER))
def test_another_autoencoder_is_refused_by_name(tmp_path: Path, change: Change, message: str) -> None:
    state, net = drawn(public_shapes()), miniature()
    change(state)
    with pytest.raises(UserError, match=rf"a\.pth \(mae-test\): .*{message}"):
        load_mae(net.encoder, net.decoder, written(tmp_path / "a.pth", state), "mae-test")
    assert same(net, miniature().state_dict()), "all or nothing"


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pth", {"conv1.weight": torch.zeros(8, 3, 3, 3), "conv1.bias": torch.zeros(8)})
    net = miniature()
    with pytest.raises(UserError, match=r"\(mae-test\): no tensor has a name of the network; it has conv1\.weight"):
        load_encoder(net.encoder, path, "mae-test")
    with pytest.raises(UserError, match="no tensor has a name of the network"):
        load_mae(net.encoder, net.decoder, path, "mae-test")


def test_the_released_small_encoder_with_32_pixel_patches_is_refused() -> None:
    """The ViT-S class of MAE-SFER has them, its files are called 16 (methods/mae/released.py)."""
    method = build({"scale_down": "full"}, backbone="vit_small_patch16", input_size=224)
    state = to_public(method.net.state_dict())
    state["patch_embed.proj.weight"] = torch.zeros(384, 3, 32, 32)
    state["pos_embed"] = torch.zeros(1, 50, 384)
    with pytest.raises(UserError, match=r"'patch_embed\.proj\.weight' of shape \(384, 3, 16, 16\) has shape"):
        verify("mae-vit-small-affectnet", Path("a.pth"), state)
    with pytest.raises(UserError) as error:
        method.load_released(state)
    told = "the checkpoint: another size of network: patches (encoder.patch_embed.proj.weight) of side 32 instead of 16"
    assert f"{told}; places (encoder.pos_embed) 50 instead of 197" in str(error.value)
