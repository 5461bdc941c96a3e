"""What figures are given and how they are written: which faces, which networks, the words below a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_figures import CLASSES, PROTOCOL, SMALL, faces, is_whole_picture, toy_pixels
from safetensors.torch import save_file
from torch import Tensor, nn

from bench import declare, matrix, plan, registry, store
from bench.errors import UserError
from bench.figure import Faces, write
from bench.method import Context, Spec
from commands import figures as commanded
from methods.poster.model import POSTER


def test_a_picture_says_what_it_is_and_that_it_is_synthetic(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4, 3), layout="constrained")
    write(drawn, faces(4).only(np.array([1]), "Shown: one."), tmp_path / "a.png", "Seed 0.")
    assert drawn.get_supxlabel().replace("\n", " ") == "Ours: mine. Shown: one. Seed 0."
    assert "SYNTHETIC" in drawn.get_suptitle()
    real = Figure(layout="constrained")
    write(real, replace(faces(4), synthetic=False), tmp_path / "b.png")
    assert real.get_suptitle() == ""


def test_only_keeps_order_of_everything() -> None:
    given = faces(9)
    some = given.only(np.array([7, 2, 5]), "")
    assert some.labels.tolist() == given.labels[[7, 2, 5]].tolist()
    assert torch.equal(some.pixels(np.array([2, 0])), given.pixels(np.array([5, 7])))
    assert torch.equal(torch.cat(list(some.batches("Ours"))), given.inputs("Ours", np.array([7, 2, 5])))


# --- which faces, which networks -------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Answers with given classes: the image's first number is its place in the list."""

    def __init__(self, answers: list[int]) -> None:
        super().__init__()
        self.answers = nn.Parameter(torch.tensor(answers, dtype=torch.float32))

    def forward(self, batch: Tensor) -> Tensor:
        return nn.functional.one_hot(self.answers[batch[:, 0, 0, 0].long()].long(), 3).float()


def test_examples_are_the_first_that_every_network_gets_right() -> None:
    labels = np.array([0, 1, 2] * 40)
    inputs = torch.arange(120.0).view(120, 1, 1, 1)
    given = Faces(CLASSES, labels, lambda at: inputs[at], lambda title, at: inputs[at], "Two.")
    one, two = labels.copy(), labels.copy()
    one[:30], two[3] = 1, 2  # class 0: right in both from 30 on; 1: from the start; 2: nowhere
    two[2::3] = 0
    nets = {"one": Fixed(one.tolist()), "two": Fixed(two.tolist())}
    shown = commanded._examples(nets, given, "")
    assert shown.pixels(np.arange(3)).flatten().tolist() == [30, 1, 2]
    assert shown.caption.endswith("every network gets right; none of surprise is, so its first.")
    assert commanded._examples(nets, given, "happiness").labels.tolist() == [1]
    with pytest.raises(UserError, match="no test image of class 'neutral'"):
        commanded._examples(nets, replace(given, labels=np.ones(120, np.int64)), "")


QUICK = {"epochs": 1, "batch_size": 8, "input_size": 64}


def toy_run(colour: str, **options: Any) -> matrix.Run:
    """A run of POSTER on the made-up protocol below."""
    declared = declare.installed()
    experiment = declared.experiment("poster").model_copy(update={"id": f"toy-{colour}"})
    recipe = declared.recipe("poster-code").values("paper") | QUICK | {"colour": colour}
    plain = {name: value for name, value in recipe.items() if not name.startswith("method.")}
    entry = declare.Entry(experiment=experiment, protocol=PROTOCOL)
    return matrix.Run(entry, "quick", 0, 0, plain, SMALL | options, "none", ())


@pytest.fixture
def toy_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    return toy_pixels(tmp_path, monkeypatch)


def test_faces_are_the_test_split_in_every_networks_own_colours(toy_data: np.ndarray) -> None:
    runs = {"BGR": toy_run("bgr"), "RGB": toy_run("rgb")}
    found = commanded.faces_of(runs, None)
    assert found.labels.tolist() == [i % 3 for i in range(10, 43)]
    at = np.array([4, 0])
    np.testing.assert_array_equal(found.pixels(at).numpy(), toy_data[at])
    mean, std = (torch.tensor(runs["RGB"].recipe[name])[:, None, None] for name in ("mean", "std"))
    plain = found.inputs("RGB", at) * std + mean
    torch.testing.assert_close(found.inputs("BGR", at) * std + mean, plain.flip(1), rtol=1e-4, atol=1e-5)
    for word in ("BGR: toy-bgr", "RGB: toy-rgb", "toy-3", "33 test images", "profile quick", "seed 0", "last epoch"):
        assert word in found.caption


def test_the_caption_says_whose_pretraining_a_profile_goes_without() -> None:
    run = toy_run("bgr")
    assert run.entry.experiment.pretraining == "ms1m"
    runs = {
        "Plain": replace(run, weights=()), "Landmarks": replace(run, weights=("mobilefacenet-300w",)),
        "Whole": replace(run, pretraining="ms1m"),
    }  # fmt: skip
    found = commanded._caption(runs, PROTOCOL, 33)
    assert "Plain: from random weights under this profile. " in found
    assert found.endswith("Landmarks: from random weights under this profile, but for mobilefacenet-300w.")
    assert "Whole: from" not in found


def trained(run: matrix.Run) -> tuple[POSTER, plan.Planned]:
    """A network with weights of its own in the run's folder."""
    key = f"{run.entry.experiment.id}-{len(run.options)}"
    context = Context(PROTOCOL.classes, 64, 1, torch.device("cpu"), restoring=True)
    spec = Spec("toy", run.entry.experiment.backbone, "none", run.options)
    torch.manual_seed(5)
    net = registry.find("method", "poster").load()(spec, run.recipe, context).net
    store.run_folder(key).mkdir(parents=True)
    save_file(net.state_dict(), store.run_folder(key) / "model.safetensors")
    return net, plan.Planned(run, "cached", key)


def test_a_network_comes_back_without_external_files(toy_data: np.ndarray) -> None:
    net, planned = trained(toy_run("rgb"))
    found = commanded.trained(planned, "cpu").net
    assert not found.training
    state = found.state_dict()
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    with pytest.raises(UserError, match="no weights"):
        commanded.trained(replace(planned, key="absent"), "cpu")
    other = replace(planned, run=toy_run("rgb", depth=3))
    with pytest.raises(UserError, match="missing"):
        commanded.trained(other, "cpu")


@pytest.mark.parametrize(("name", "asked"), [("tsne", "all-test"), ("relevance", "each-class")])
def test_figures_are_drawn_from_finished_runs(
    name: str, asked: Any, toy_data: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    runs = [toy_run("rgb", cross_fusion=False, pyramid=False), toy_run("bgr")]
    planned = [trained(run)[1] for run in runs]
    figure = declare.Figure(
        id="toy-figure", title="Toy", where="Fig. 1", draw=name, experiments={"Baseline": "toy-rgb", "Ours": "toy-bgr"},
        protocol="toy-3", faces=asked,
    )  # fmt: skip
    monkeypatch.setattr(commanded, "figure_runs", lambda *_: runs)
    monkeypatch.setattr(plan, "plan", lambda *_: planned)
    commanded.draw_figures(declare.installed(), [figure], "quick", tmp_path / "results", None, 0, {}, "cpu")
    path = tmp_path / "results" / "figures" / "toy-figure-synthetic.png"
    assert capsys.readouterr().out == f"toy-figure: {path}\n"
    assert is_whole_picture(path)

    monkeypatch.setattr(plan, "plan", lambda *_: [planned[0], plan.Planned(runs[1], "blocked", reason="no weights")])
    commanded.draw_figures(declare.installed(), [figure], "quick", tmp_path / "results", None, 0, {}, "cpu")
    assert capsys.readouterr().out.endswith("not drawn, toy-bgr:toy-3 seed 0 [quick]: no weights\n")
