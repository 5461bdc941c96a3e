"""Masked pretraining: what moves and what does not, what is measured, golden numbers, and runs from start to end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_mae import RECIPE, WITH_STEM, build, pictures, small
from helpers_own import folders
from helpers_stages import made, one
from safetensors.torch import load_file

import run_all
from bench import declare, job, loop, matrix, registry, store
from bench.data import source
from bench.data.augment import none
from bench.data.synthfer import facts, images
from bench.declare import Declarations
from bench.errors import UserError
from methods.mae import Pretraining, psnr
from methods.mae.model import MAE
from methods.mae.released import load_mae
from methods.mae.sizes import size_of
from methods.mae.vit import patchify, shuffled

pytest_plugins = ("helpers_engine", "helpers_stages")
NOTHING = torch.zeros(0)  # targets: never read


# ------------------------------------------------------------------------------------------------------ what is trained
def test_vectors_alone_are_free_of_weight_decay() -> None:
    """As `add_weight_decay` of timm has it, which MAE's script calls: tokens have three axes, and are drawn to zero."""
    method = small()
    decayed, free = method.optimizer.param_groups
    names = {id(parameter): name for name, parameter in method.net.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    free_names = {names[id(parameter)] for parameter in free["params"]}
    assert {name.rpartition(".")[2] for name in free_names} == {"weight", "bias"}
    assert all("norm" in name for name in free_names if name.endswith("weight"))
    decayed_names = {names[id(parameter)] for parameter in decayed["params"]}
    assert {"encoder.cls_token", "decoder.mask_token", "encoder.patch_embed.proj.weight"} <= decayed_names
    assert not any("norm" in name or name.endswith(("bias", "pos_embed")) for name in decayed_names)
    trained = {name for name, parameter in method.net.named_parameters() if parameter.requires_grad}
    assert free_names | decayed_names == trained


def test_a_step_moves_everything_but_the_positions() -> None:
    method = small()
    before = {name: value.clone() for name, value in method.net.state_dict().items()}
    for seed in range(3):
        method.update(pictures(8, seed=seed), NOTHING)
    still = {name for name, value in method.net.state_dict().items() if torch.equal(value, before[name])}
    assert still == {"encoder.pos_embed", "decoder.pos_embed"}


def test_gradients_of_parts_add_up_to_those_of_the_batch() -> None:
    """What the released command does in four steps of a quarter of the batch is one step here."""
    whole, parts = small(), small()
    batch, noise = pictures(8), torch.rand(8, 16)

    def loss(method: Any, rows: slice) -> torch.Tensor:
        shown = iter([noise[rows]])
        forward = method.net.forward
        method.net.forward = lambda given: forward(given, next(shown))
        found: torch.Tensor = method.loss(batch[rows], NOTHING)
        method.net.forward = forward
        return found

    loss(whole, slice(0, 8)).backward()
    for start in range(0, 8, 2):
        (loss(parts, slice(start, start + 2)) / 4).backward()
    for (name, one_batch), four in zip(whole.net.named_parameters(), parts.net.parameters(), strict=True):
        if one_batch.requires_grad:
            torch.testing.assert_close(four.grad, one_batch.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_the_loss_falls_on_faces() -> None:
    faces = torch.from_numpy(images(facts("unlabelled", 0, range(32))))
    method, losses = small(mask_ratio=0.5, learning_rate=1e-2), []
    for step in range(40):
        torch.manual_seed(step)
        losses.append(float(method.update(loop.prepare(faces, RECIPE, none), NOTHING)["loss"]))
    assert losses[0] > 0.9
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0]


@pytest.mark.parametrize("normalised", [False, True])
def test_bfloat16_changes_little(normalised: bool) -> None:
    found = []
    for precision in ("fp32", "bf16"):
        method = small(normalised=normalised, precision=precision)
        torch.manual_seed(3)
        found.append(method.update(pictures(8), NOTHING)["loss"])
        assert all(parameter.dtype == torch.float32 for parameter in method.net.parameters())
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[1], found[0], rtol=0.02, atol=0)


def test_continued_training_is_the_same_training() -> None:
    def train(method: Any, steps: range) -> list[float]:
        losses = []
        for step in steps:
            torch.manual_seed(step)
            losses.append(float(method.update(pictures(8, seed=step), NOTHING)["loss"]))
        return losses

    whole, first, second = small(WITH_STEM), small(WITH_STEM), small(WITH_STEM)
    expected = train(whole, range(6))
    train(first, range(3))
    second.load_state_dict(first.state_dict())
    assert train(second, range(3, 6)) == expected[3:]


# --------------------------------------------------------------------------------------------------------- what it says
def test_validation_hides_the_same_patches_every_time() -> None:
    method, shown = small(), pictures(6)
    method.train(False)
    with torch.inference_mode():
        first, second = method.validate(shown, NOTHING), method.validate(shown, NOTHING)
        shorter = method.validate(shown[:4], NOTHING)
    assert set(first) == {"error", "psnr"}
    for name, values in first.items():
        assert values.shape == (6,)
        assert torch.equal(second[name], values)
        torch.testing.assert_close(shorter[name], values[:4])


def test_the_measures_are_those_of_a_network_that_answers_with_the_mean() -> None:
    """Its normalised pixels are zeros: the error is the pictures' square, and PSNR that of a plain colour."""
    method, shown = small(), pictures(4)
    torch.nn.init.zeros_(method.net.decoder.pred.weight)
    noise = torch.from_numpy(np.random.default_rng(0).random((4, 16), np.float32))
    kept, restore = shuffled(noise, 0.75)
    unseen = restore >= kept.shape[1]
    with torch.inference_mode():
        found = method.validate(shown, NOTHING)
    mean, std = (torch.tensor(RECIPE[name])[:, None, None] for name in ("mean", "std"))
    pixels = patchify((shown * std + mean).clamp(0, 1), 8)
    plain = patchify(mean.expand(4, 3, 32, 32), 8)
    for image in range(4):
        hidden = unseen[image]
        error = patchify(shown, 8)[image][hidden].square().mean()
        assert float(found["error"][image]) == pytest.approx(float(error), rel=1e-4)
        expected = -10 * math.log10(float((pixels - plain)[image][hidden].square().mean()))
        assert float(found["psnr"][image]) == pytest.approx(expected, abs=1e-3)


def test_a_decoder_of_normalised_patches_has_no_psnr() -> None:
    with torch.inference_mode():
        assert set(small(normalised=True).validate(pictures(2), NOTHING)) == {"error"}


def test_psnr_of_a_perfect_guess_has_an_end() -> None:
    true = torch.rand(2, 4, 64, 3)
    assert psnr(true, true, torch.ones(2, 4, dtype=torch.bool)).tolist() == [100, 100]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"mask_rati": 0.5}}, "unknown option of mae 'mask_rati'\n  -> did you mean mask_ratio"),
        ({"options": {"mask_ratio": 1.0}}, "mask_ratio 1.0 of 16 patches leaves none to see, or none to guess"),
        ({"options": {"mask_ratio": 0.0}}, "mask_ratio 0.0 of 16 patches leaves none to see, or none to guess"),
        ({"options": {"normalised_targets": 1}}, "normalised_targets of mae is 1, not true or false"),
        ({"options": {"scale_down": "quik"}}, "unknown scale_down of mae 'quik'\n  -> did you mean quick"),
        ({"backbone": "resnet18"}, "unknown backbone 'resnet18'"),
        ({"pretraining": "imagenet1k"}, "unknown pretraining of mae 'imagenet1k'"),
        ({"loss": "cross-entropy"}, "unknown loss 'cross-entropy'"),
        ({"input_size": 30}, "patches of 8 pixels do not divide images of 30"),
    ],
)
def test_wrong_entries_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(**arguments)
    assert message in str(error.value)


# -------------------------------------------------------------------------------------------------------------- numbers

# Losses of three seeded steps per variant, and the method version they belong to. If one changes, results of earlier
# runs no longer come from this code: raise `version` in methods/mae/__init__.py and record the new numbers here.
GOLDEN_VERSION = 1
GOLDEN: dict[str, tuple[dict[str, Any], list[float]]] = {
    "code": ({}, [0.70362, 0.713413, 0.670911]),
    "normalised": ({"normalised": True}, [1.154552, 1.129014, 1.072456]),
    "half": ({"mask_ratio": 0.5}, [0.72145, 0.668137, 0.659442]),
    "stem": ({"size": WITH_STEM}, [0.701744, 0.704615, 0.689207]),
}


@pytest.mark.parametrize("variant", GOLDEN)
def test_golden_losses(variant: str) -> None:
    options, expected = GOLDEN[variant]
    assert registry.find("method", "mae").version == GOLDEN_VERSION, "record the losses of the new version"
    assert golden(options) == pytest.approx(expected, abs=1e-4), "numbers changed: raise the method's version"


def golden(options: dict[str, Any]) -> list[float]:
    """In float64, and with SGD, since Adam makes much of gradients near zero."""
    method = small(**options, optimizer="sgd", learning_rate=0.5)
    method.net.double()
    losses = []
    for step in range(3):
        torch.manual_seed(100 + step)
        losses.append(float(method.update(pictures(8, seed=10 + step, dtype=torch.double), NOTHING)["loss"]))
    return losses


# ------------------------------------------------------------------------------------------------- from start to end
class Killed(BaseException):
    """Nothing in between catches it, so what is on disk is what a kill leaves."""


def test_a_killed_pretraining_ends_with_the_same_network(
    staged: Declarations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = store.run_folder(made(staged, "hidden:tiny-4"))
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "other"))
    run = one(staged, "hidden:tiny-4")
    spec = matrix.specification(run, run.key(source.open_data(run.entry.protocol, None).hash, {}), None, "cpu", 0.0)
    again = store.run_folder(spec["key"])
    again.mkdir(parents=True)
    for name, number in (("update", 3), ("validate", 2), ("update", 4)):
        with monkeypatch.context() as patch:
            patch.setattr(Pretraining, name, dying(getattr(Pretraining, name), number))
            with pytest.raises(Killed):
                job.execute(json.loads(json.dumps(spec)), again)
        assert store.find_network(spec["key"]) is None
    job.execute(json.loads(json.dumps(spec)), again)
    assert again != whole
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert store.read_result(again).history == store.read_result(whole).history


def dying(method: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The method, killed at the beginning of its so-manieth call."""
    left = iter(range(number - 1))

    def called(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return method(*arguments)

    return called


@pytest.mark.parametrize(("protocol", "splits"), [
    ("tiny-bare", ()), ("tiny-4", ("val", "test")), ("tiny-points", ("val", "test")),
])  # fmt: skip
def test_any_images_will_do(staged: Declarations, protocol: str, splits: tuple[str, ...]) -> None:
    """Without labels and test images, with classes, with other targets: the network is all that comes out."""
    folder = store.run_folder(made(staged, f"hidden:{protocol}"))
    result = store.read_result(folder)
    assert result.selections == {}
    measures = {f"{split}_{name}" for split in splits for name in ("error", "psnr")}
    assert result.history[-1].keys() == {"epoch", "loss"} | measures
    net = MAE(size_of("vit_tiny_patch16", "quick", 24), 24)
    load_mae(net.encoder, net.decoder, folder / "model.safetensors", "mae-own")
    saved = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in net.state_dict().items())


def test_labels_change_nothing(staged: Declarations) -> None:
    """The same training images with labels and with numbers to learn give the same network."""
    networks = [
        (store.run_folder(made(staged, f"hidden:{name}")) / "model.safetensors") for name in ("tiny-4", "tiny-points")
    ]
    first, second = (load_file(path) for path in networks)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_users_own_faces_without_labels_will_do(staged: Declarations, tmp_path: Path) -> None:
    root = folders(tmp_path / "faces", {"a": 12, "b/c": 8}, "id: faces\nunlabelled: true\npreprocessing: own-64\n")
    run = one(declare.load(root), "hidden:own/faces")
    key = run.key(source.open_data(run.entry.protocol, root).hash, {})
    folder = store.run_folder(key)
    folder.mkdir(parents=True)
    job.execute(json.loads(json.dumps(matrix.specification(run, key, root, "cpu", 1e9))), folder)
    assert store.read_result(folder).history[-1].keys() == {"epoch", "loss"}


def test_it_can_be_asked_for_itself(staged: Declarations, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [store.run_folder(made(staged, f"hidden:{name}")) for name in ("tiny-bare", "tiny-4")]
    words = ["--experiment", "hidden", "--protocol", "tiny-bare", "tiny-4", "--results", str(tmp_path / "results")]
    assert run_all.main(words) == 0
    out = capsys.readouterr().out
    assert all(f"network: {folder / 'model.safetensors'}" in out for folder in folders)
    assert "test_error" in out
