"""Checkpoints of the released NR code: every name and shape has its place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from test_nresizer_backbones import of_2022
from torch import Tensor

from bench.errors import UserError
from bench.weight_files import load_strict
from methods.nresizer.model import NeuralResizer
from methods.nresizer.options import Options
from methods.nresizer.released import to_ours

TABLE = Path(__file__).resolve().parents[2] / "shared" / "facts" / "state-dicts" / "nresizer-swin-b-stn.tsv"
TENSORS = 376
# SHA-256 of the sorted lines "name<TAB>shape" (100x100x2; nothing for a scalar)
DIGEST = "36b7a9e41d79997e85427653112fc109318eee5ade46bc3fa9ee41602b36dd1f"


def lines(state: dict[str, Tensor]) -> list[str]:
    return sorted(f"{name}\t{'x'.join(map(str, value.shape))}" for name, value in state.items())


def setting_e() -> NeuralResizer:
    """The released network, without memory for its numbers."""
    with torch.device("meta"):
        return NeuralResizer(8, "swin_base", 384, Options())


def small(seed: int, **options: object) -> NeuralResizer:
    torch.manual_seed(seed)
    return NeuralResizer(8, "swin_base", 96, Options(scale_down="quick", **options)).eval()


def of_the_release(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state of ours as the released code wrote it, whose timm is of 2022."""
    backbone = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    old = {f"model.{name}": value for name, value in of_2022("swin_base", backbone).items()}
    return {name: value.clone() for name, value in state.items() if not name.startswith("model.")} | old


def test_names_and_shapes_are_the_released_ones() -> None:
    found = lines(setting_e().state_dict())
    if TABLE.exists():  # names what differs; the digest says only that something does
        assert found == sorted(TABLE.read_text().rstrip("\n").split("\n")[1:])
    assert len(found) == TENSORS
    assert hashlib.sha256("\n".join(found).encode()).hexdigest() == DIGEST


def test_a_checkpoint_with_the_names_of_today_maps_one_to_one() -> None:
    if not TABLE.exists():
        pytest.skip("the table of the released names is not here")
    state = {}
    for line in TABLE.read_text().rstrip("\n").split("\n")[1:]:
        name, _, shape = line.partition("\t")
        state[name] = torch.empty([int(side) for side in shape.split("x") if side], device="meta")
    assert list(to_ours(state)) == list(state)
    assert load_strict(setting_e(), to_ours(state), "the table") == TENSORS


@pytest.mark.parametrize("stn", [True, False])
def test_a_checkpoint_of_2022_loads_whole(stn: bool) -> None:
    source, target = small(0, stn=stn), small(1, stn=stn)
    file = of_the_release(source.state_dict())
    assert {"model.head.0.weight", "model.layers.0.downsample.reduction.weight"} < set(file)
    assert "model.layers.0.blocks.1.attn_mask" in file
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(source(images), target(images))
        assert load_strict(target, to_ours(file), "the test's file") == len(source.state_dict())
        torch.testing.assert_close(source(images), target(images), rtol=0, atol=0)


def test_checkpoints_of_ours_stay_as_they_are() -> None:
    state = small(0).state_dict()
    assert list(to_ours(state)) == list(state)


def test_what_is_no_neural_resizer_is_refused() -> None:
    file = of_the_release(small(0).state_dict())
    backbone = {name.removeprefix("model."): value for name, value in file.items() if name.startswith("model.")}
    with pytest.raises(UserError, match=r"'patch_embed\.proj\.0\.weight' and .* more"):
        to_ours(backbone)
    with pytest.raises(UserError, match="no backbone"):
        to_ours({name: value for name, value in file.items() if name.startswith("res.")})
    without = {name: value for name, value in file.items() if name != "model.layers.0.downsample.norm.bias"}
    with pytest.raises(UserError, match=r"1 missing: model\.layers\.1\.downsample\.norm\.bias"):
        load_strict(small(1), to_ours(without), "the test's file")
