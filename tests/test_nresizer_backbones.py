"""Backbones behind the resizer: sizes of the tables, heads, miniatures, and weight files of timm then and now."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from bench.errors import UnfitWeights, UserError
from methods.nresizer.backbones import (
    MINIATURES,
    NAMES,
    check_published,
    load_pretrained,
    make_backbone,
    table_name,
    timm_name,
)
from methods.nresizer.timm_names import to_current

PRINTED = {  # millions with one Linear and 8 classes
    "vit_small_patch16": 21.7, "deit_small_patch16": 21.7, "convit_small": 27.3, "xcit_small_12_p16": 25.9,
    "swin_small": 48.8, "swin_base": 86.8, "swin_large": 195.0,
}  # fmt: skip
WITH_HEAD = {"swin_small": 49_236_114, "swin_base": 87_273_152}  # of the released code without STN and resizer
SWINS = ["swin_small", "swin_base", "swin_large"]


def size_of(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def filled(name: str, classes: int = 8, seed: int = 0, head_hidden: int = 0) -> nn.Module:
    """The smallest version, none of whose tensors is what it was built with; as timm has it by default."""
    torch.manual_seed(seed)
    net = make_backbone(name, 56, classes, head_hidden, scale_down="quick")
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
    return net.eval()


def of_2022(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state of today as timm 0.5 would have written it."""
    old = {}
    for key, value in state.items():
        if name.startswith("swin"):
            key = re.sub(r"^layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", key)
            key = key.replace("head.fc.", "head.")
        old[key.replace("pos_embed.", "pos_embeder.")] = value.clone()
    if name.startswith("swin"):
        old["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
        old["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    return old


@pytest.mark.parametrize("name", PRINTED)
def test_parameter_counts_are_the_printed_ones(name: str) -> None:
    with torch.device("meta"):
        plain, headed = make_backbone(name, 224, 8, head_hidden=0), make_backbone(name, 224, 8)
    assert round(size_of(plain) / 1e6, 1) == PRINTED[name]
    assert size_of(headed) == WITH_HEAD.get(name, size_of(headed))
    features = plain.num_features
    added = features * 512 + 3 * 512 + 512 * 8 + 8 - (features * 8 + 8)
    assert size_of(headed) - size_of(plain) == added


def test_the_head_is_the_released_one() -> None:
    net = make_backbone("swin_small", 56, 7, 20, 0.3, "quick")
    kinds = [type(layer) for layer in net.head.fc]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    assert net.head.fc[3].p == 0.3
    assert (net.head.fc[0].out_features, net.head.fc[4].out_features) == (20, 7)


@pytest.mark.parametrize("scale", ["quick", "short"])
def test_every_family_has_miniatures_for_small_images(scale: str) -> None:
    sizes = {}
    for name in NAMES:
        with torch.device("meta"):
            net = make_backbone(name, 56, 7, scale_down=scale)
            logits = net(torch.zeros(2, 3, 56, 56))
        logits.sum().backward()
        assert logits.shape == (2, 7)
        assert all(parameter.grad is not None for parameter in net.parameters()), name
        sizes[name] = size_of(net)
    assert max(sizes.values()) < {"quick": 700_000, "short": 3_200_000}[scale]
    assert sizes["swin_small"] < sizes["swin_base"] < sizes["swin_large"]
    assert set(MINIATURES) == set(NAMES.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [48, 64])
def test_miniatures_work_at_other_sizes(name: str, size: int) -> None:
    net = make_backbone(name, size, 8, 0, scale_down="quick").eval()
    assert net(torch.zeros(1, 3, size, size)).shape == (1, 8)


@pytest.mark.parametrize("name", ["test_resnet", "test_resnet.r160_in1k", "mobilenetv3_small_050", "test_convnext"])
def test_any_other_model_of_timm_is_taken_as_it_is(name: str) -> None:
    sizes = set()
    for scale in ("full", "quick"):
        net = make_backbone(name, 37, 7, 16, scale_down=scale).eval()
        assert net(torch.zeros(2, 3, 37, 37)).shape == (2, 7)
        sizes.add(size_of(net))
    assert len(sizes) == 1


def test_both_heads_of_a_distilled_model_are_replaced() -> None:
    with torch.device("meta"):
        net = make_backbone("deit_tiny_distilled_patch16_224", 32, 7, 16)
        assert (len(net.head), len(net.head_dist)) == (5, 5)
        assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_tag_names_weights_not_another_network() -> None:
    assert timm_name("swin_small_patch4_window7_224.ms_in1k") == "swin_small_patch4_window7_224.ms_in1k"
    plain, tagged = (
        make_backbone(f"swin_small{rest}", 56, 8, 0, scale_down="quick") for rest in ("", "_patch4_window7_224.ms_in1k")
    )
    assert plain.state_dict().keys() == tagged.state_dict().keys()
    assert size_of(plain) == size_of(tagged)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("swin_smal", "swin_small"),
        ("resnet81", "resnet18"),
        ("swin_small_patch4_window7_224.ms_in2k", "swin_small_patch4_window7_224.ms_in1k"),
        ("hf-hub:timm/resnet18", ""),
        ("qqqqqqqqqqqq", "known: vit_small_patch16, deit_small_patch16"),
    ],
)
def test_unknown_backbones_are_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UserError, match="unknown backbone") as told:
        make_backbone(name, 56, 8)
    assert near in told.value.hint


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown scale_down 'quik'"):
        make_backbone("swin_small", 56, 8, scale_down="quik")
    with pytest.raises(UserError, match="patches of 8 pixels do not divide images of 37"):
        make_backbone("vit_small_patch16", 37, 8, scale_down="quick")
    with pytest.raises(UserError, match=r"xcit_small_12_p16.*images of 37 pixels"):
        make_backbone("xcit_small_12_p16", 37, 8, scale_down="quick")
    with torch.device("meta"), pytest.raises(UserError, match=r"maxvit_rmlp_pico_rw_256.*images of 56 pixels"):
        make_backbone("maxvit_rmlp_pico_rw_256", 56, 8)


@pytest.mark.parametrize("name", ["tnt_s_patch16_224", "mixer_b16_224", "gmlp_s16_224", "vit_tiny_patch16_224"])
def test_patches_that_would_drop_the_border_are_refused(name: str) -> None:
    """Whatever the model calls the module that cuts the image."""
    with torch.device("meta"):
        with pytest.raises(UserError, match="patches of 16 pixels do not divide images of 56") as told:
            make_backbone(name, 56, 7)
        make_backbone(name, 64, 7)
    assert "take another backbone, such as resnet18, or `--profile paper`" in told.value.hint
    with torch.device("meta"), pytest.raises(UserError) as told:
        make_backbone(name, 230, 7)
    assert "--profile" not in told.value.hint, "images are large enough"


@pytest.mark.parametrize(("name", "size"), [("volo_d1_224", 224), ("dla34", 64), ("dpn68", 64), ("levit_128s", 224)])
def test_heads_of_other_kinds_train(name: str, size: int) -> None:
    """VOLO has a second classifier on tokens; DLA and DPN classify with a convolution on features of one pixel."""
    with torch.device("meta"):
        net = make_backbone(name, size, 7, 16)
        assert net.training
        assert net(torch.zeros(2, 3, size, size)).shape == (2, 7)
        plain = make_backbone(name, size, 7, 0)
    assert any(isinstance(part, nn.BatchNorm1d) and part.num_features == 16 for part in net.modules())
    assert plain(torch.zeros(2, 3, size, size, device="meta")).shape == (2, 7)
    if name.startswith("volo"):
        assert isinstance(net.aux_head, nn.Linear)


def test_a_model_is_tried_at_its_own_size_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timm.create_model

    def broken(*words: Any, **more: Any) -> nn.Module:
        net = made(*words, **more)
        net.forward = lambda images: (net.forward_features(images), None)
        return net

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(UserError, match=r"test_resnet.*images of 160 pixels \(it gives no logits\)"):
        make_backbone("test_resnet", 160, 7)


def test_trying_a_model_changes_nothing() -> None:
    torch.manual_seed(0)
    net, drawn = make_backbone("test_resnet", 40, 7, 0), torch.rand(1)
    torch.manual_seed(0)
    plain, next_drawn = timm.create_model("test_resnet", num_classes=7), torch.rand(1)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in net.state_dict().items())
    assert torch.equal(drawn, next_drawn)
    assert all(part.training and not part._forward_pre_hooks for part in net.modules())


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("vit_tiny_patch16_384", 224, "'vit_tiny_patch16_384' are for images of 384 pixels, and the backbone gets"),
        ("vit_tiny_patch16_224", 224, ""),
        ("vit_tiny_patch16_384", 384, ""),
        ("xcit_nano_12_p16_384", 224, ""),  # no tensor depends on the size
        ("resnet18", 56, ""),
        ("vit_small_patch16", 224, ""),
    ],
)
def test_published_weights_of_another_size_are_refused(name: str, size: int, says: str) -> None:
    if not says:
        check_published(name, size)
        return
    with pytest.raises(UnfitWeights, match=says) as told:
        check_published(name, size)
    assert "such as vit_tiny_patch16_224" in told.value.hint


def test_one_network_has_one_name() -> None:
    assert table_name("swin_base_patch4_window7_224.ms_in1k") == table_name("swin_base") == "swin_base"
    assert [table_name(name) for name in ("resnet18.a1_in1k", "convit_small")] == ["resnet18", "convit_small"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("time", ["2022", "today"])
def test_pretrained_files_load_but_for_the_classifier(name: str, time: str) -> None:
    source, net = filled(name, classes=1000), filled(name, seed=1, head_hidden=16)
    state = source.state_dict()
    head = {key: value.clone() for key, value in net.state_dict().items() if key.startswith("head.")}
    file = of_2022(name, state) if time == "2022" else state
    images = torch.rand(2, 3, 56, 56)
    with torch.no_grad():
        before = net.forward_features(images)
        assert load_pretrained(net, file, "the test's file") == len(state) - 2
        torch.testing.assert_close(net.forward_features(images), source.forward_features(images), rtol=0, atol=0)
        assert not torch.allclose(before, source.forward_features(images))
    assert all(torch.equal(net.state_dict()[key], value) for key, value in head.items())


@pytest.mark.parametrize("name", NAMES)
def test_old_names_differ_where_they_should(name: str) -> None:
    state = filled(name).state_dict()
    old = of_2022(name, state)
    assert (set(old) != set(state)) == (name in SWINS or name.startswith("xcit"))
    assert list(to_current(old)) == list(state)
    assert list(to_current(state)) == list(state)


@pytest.mark.parametrize("name", ["vit_small_patch16", "swin_base"])
def test_pretrained_files_of_another_network_are_refused(name: str) -> None:
    net = filled(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = dict(filled(name, classes=1000, seed=1).state_dict())
    lost = {key: value for key, value in state.items() if not key.endswith("blocks.0.norm1.bias")}
    with pytest.raises(UserError, match=r"the test's file: does not fit .* missing: .*blocks\.0\.norm1\.bias"):
        load_pretrained(net, lost, "the test's file")
    with pytest.raises(UserError, match=r"1 left over: extra"):
        load_pretrained(net, {**state, "extra": torch.zeros(1)}, "the test's file")
    other = {"vit_small_patch16": "deit_small_patch16", "swin_base": "swin_small"}[name]
    torch.manual_seed(0)
    unlike = make_backbone(other, 56, 8, 0, scale_down="short").state_dict()
    with pytest.raises(UserError, match="of another shape"):
        load_pretrained(net, unlike, "the test's file")
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())
