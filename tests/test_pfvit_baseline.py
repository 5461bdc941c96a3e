"""PF-ViT's baselines: sizes, which files fill them, what is trained, numbers that may not drift."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bench import declare, job, matrix, registry
from bench.declare import RECIPE_FIELDS
from bench.errors import UserError
from bench.method import Context, Method, Spec, parameter_counts
from methods.mae.model import MAE
from methods.mae.released import to_public
from methods.mae.sizes import SIZES, Size, size_of
from methods.mae.vit import sincos
from methods.pfvit_baseline import SUPERVISED, Baseline

CLASSES = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
PLAIN = Size(patch=8, dim=64, depth=4, heads=2, decoder_dim=48, decoder_depth=1, decoder_heads=2)
RECIPE = {name: value for name, value in RECIPE_FIELDS.items() if isinstance(value, (int, float, str, list))} | {
    "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 7, "epochs": 1, "input_size": 64,
}  # fmt: skip
AUGREG, MASKED = "vit-tiny-patch16-augreg", "mae-vit-tiny-affectnet"


@pytest.fixture(autouse=True)
def a_small_size_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """A miniature with one linear layer a patch, as the published sizes have; those of profiles have convolutions."""
    monkeypatch.setitem(SIZES["quick"], "tiny", PLAIN)


def build(
    pretraining: str = "none", weights: dict[str, Path] | None = None, options: dict[str, Any] | None = None,
    backbone: str = "vit_tiny_patch16", **context: Any,
) -> Method:  # fmt: skip
    torch.manual_seed(0)
    about = Context(CLASSES, 64, 10, torch.device("cpu"), weights=weights or {}, **context)
    options = {"scale_down": "quick"} if options is None else options
    return registry.find("method", "pfvit-baseline").load()(
        Spec("test", backbone, pretraining, options), RECIPE, about
    )  # fmt: skip


def faces(count: int = 3, size: int = 64) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


def timm_vit(patch: int = PLAIN.patch, size: int = 64) -> VisionTransformer:
    """timm's own network of the quick size, with positions that were learnt."""
    torch.manual_seed(3)
    net = VisionTransformer(
        img_size=size, patch_size=patch, num_classes=1000, embed_dim=PLAIN.dim, depth=PLAIN.depth,
        num_heads=PLAIN.heads,
    )  # fmt: skip
    return net.eval()


def saved(state: dict[str, Tensor], path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


@pytest.mark.parametrize(
    ("size", "total", "trained"),
    [("tiny", 5_525_767, 5_487_943), ("small", 21_668_359, 21_592_711), ("base", 85_804_039, 85_652_743)],
)
def test_parameter_counts_at_224_pixels_and_seven_classes(size: str, total: int, trained: int) -> None:
    with torch.device("meta"):
        net = Baseline(size_of(f"vit_{size}_patch16", "full", 224), 224, 7)
    assert parameter_counts(net) == (total, trained)  # the position table is fixed


def test_faces_without_classes_are_refused_in_words() -> None:
    declared = declare.load()
    entry = declared.entry("vit-t-scratch:synth-ferplus-8")
    bare = entry.protocol.model_copy(update={"id": "own/crawl", "classes": ()})
    (run,) = matrix.runs_of(declared, entry.model_copy(update={"protocol": bare}), "quick", [0])
    with pytest.raises(UserError, match="pfvit-baseline classifies, own/crawl has no classes"):
        job._build(run, {}, 10, torch.device("cpu"))


def test_supervised_file_gives_timms_features_and_its_positions_are_trained(tmp_path: Path) -> None:
    theirs = timm_vit()
    method = build(SUPERVISED, {AUGREG: saved(theirs.state_dict(), tmp_path / "vit.safetensors")})
    net = method.net
    assert isinstance(net, Baseline)
    with torch.inference_mode():
        torch.testing.assert_close(net.encoder(faces()), theirs.forward_features(faces()), atol=1e-5, rtol=1e-5)
        expected = net.classifier(theirs.forward_head(theirs.forward_features(faces()), pre_logits=True))
        torch.testing.assert_close(method.predict(faces()), expected, atol=1e-5, rtol=1e-5)
    before = net.encoder.pos_embed.detach().clone()
    method.update(faces(7), torch.arange(7))
    assert not torch.equal(net.encoder.pos_embed, before)


@pytest.mark.parametrize("form", ["ours", "public", "public with classifier"])
def test_masked_file_gives_its_encoder_and_a_fixed_table(form: str, tmp_path: Path) -> None:
    torch.manual_seed(4)
    pretrained = MAE(PLAIN, 64)
    state = pretrained.state_dict()
    if form != "ours":
        state = to_public(state)
        state |= {"head.weight": torch.zeros(8, PLAIN.dim)} if "classifier" in form else {}
        torch.save({"model": state, "epoch": 299}, tmp_path / "mae.pth")
        path = tmp_path / "mae.pth"
    else:
        path = saved(state, tmp_path / "model.safetensors")
    method = build("mae-affectnet", {MASKED: path})
    with torch.inference_mode():
        assert torch.equal(method.net.encoder(faces()), pretrained.encoder(faces()))  # type: ignore[operator]
    method.update(faces(7), torch.arange(7))
    trained = dict(method.net.named_parameters())
    assert torch.equal(trained.pop("encoder.pos_embed"), sincos(PLAIN.dim, 8))
    before = dict(build("mae-affectnet", {MASKED: path}).net.named_parameters())
    assert [name for name, tensor in trained.items() if torch.equal(tensor, before[name])] == []


def test_patches_of_another_size_are_refused(tmp_path: Path) -> None:
    """The released ViT-S has patches of 32; loading what fits of a file of 16 would leave the rest random."""
    path = saved(timm_vit(patch=16).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(UserError) as refused:
        build(SUPERVISED, {AUGREG: path})
    for told in (AUGREG, "patch_embed.proj.weight (64, 3, 16, 16) instead of (64, 3, 8, 8)", "pos_embed"):
        assert told in str(refused.value)
    torch.save({"model": to_public(MAE(replace(PLAIN, patch=16), 64).state_dict())}, tmp_path / "mae.pth")
    with pytest.raises(UserError) as refused:
        build("mae-affectnet", {MASKED: tmp_path / "mae.pth"})
    assert MASKED in str(refused.value)
    assert "patch_embed.proj.weight" in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"scale_don": "quick"}}, "unknown option of pfvit-baseline 'scale_don'"),
        ({"options": {"scale_down": "tiny"}}, "scale_down of pfvit-baseline"),
        ({"backbone": "vit_smal_patch16"}, "unknown backbone 'vit_smal_patch16'"),
        ({"pretraining": "imagenet1k"}, "unknown pretraining of pfvit-baseline 'imagenet1k'"),
        ({"pretraining": "mae-affectnet"}, "pretrained weights of vit_tiny_patch16 (mae-affectnet) are not at hand"),
        ({"pretraining": SUPERVISED, "weights": {MASKED: Path("x")}}, "(imagenet21k-supervised) are not at hand"),
        ({"weights": {MASKED: Path("x")}}, f"weights '{MASKED}' have no place in pfvit-baseline with pretraining none"),
        (
            {"pretraining": SUPERVISED, "weights": {AUGREG: Path("x"), MASKED: Path("y")}},
            f"weights '{MASKED}' have no place",
        ),
    ],
)
def test_wrong_entries_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(**arguments)
    assert message in str(error.value)


def test_no_file_is_needed_where_the_weights_are_loaded_afterwards(tmp_path: Path) -> None:
    first = build(restoring=True)
    theirs = timm_vit()
    theirs.reset_classifier(7)
    state = theirs.state_dict()
    first.load_released(state)  # timm's names, as the released script saves them
    with torch.inference_mode():
        torch.testing.assert_close(first.predict(faces()), theirs(faces()), atol=1e-5, rtol=1e-5)
    second = build("mae-affectnet", restoring=True)
    second.load_released(first.net.state_dict())
    assert torch.equal(first.predict(faces()), second.predict(faces()))
    with pytest.raises(UserError, match=r"classifier\.bias"):
        second.load_released({name: tensor for name, tensor in state.items() if name != "head.bias"})


def test_a_miniature_says_so() -> None:
    assert build().remark == "a miniature of vit_tiny_patch16"


# Losses of three seeded float64 steps and the version they belong to; if they change, raise it in pfvit_baseline.py.
GOLDEN_VERSION, GOLDEN = 1, [2.977288, 2.271810, 2.142835]


def test_golden_losses() -> None:
    assert registry.find("method", "pfvit-baseline").version == GOLDEN_VERSION, "record the losses of the new version"
    assert golden() == pytest.approx(GOLDEN, abs=1e-4), "numbers changed: raise the method's version"


def golden() -> list[float]:
    method = build()
    method.net.double()
    losses = []
    for step in range(3):
        images = torch.randn(7, 3, 64, 64, generator=torch.Generator().manual_seed(step)).double()
        losses.append(float(method.update(images, torch.arange(7))["loss"]))
    return losses
