"""PF-ViT's figures: what is shown for a face, against plain loops; networks of stages; figures with a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers_figures import CLASSES, PROTOCOL, SCALE, faces, images, is_whole_picture, toy_pixels
from safetensors.torch import save_file
from torch import Tensor, nn

from bench import declare, matrix, plan, registry, store
from bench.errors import UserError
from bench.figure import Faces, Row, Scale
from bench.loop import prepare
from bench.recipe import Override
from commands import figures as commanded
from commands import run as run_command
from methods.mae import figures as masked_faces
from methods.mae.model import MAE, masked_error
from methods.mae.sizes import Size
from methods.mae.vit import Encoder, patchify
from methods.pfvit import figures as poker_faces
from methods.pfvit import gradcam_figure
from methods.pfvit.model import PFViT
from methods.pfvit.options import Options

SIZE = Size(patch=16, dim=32, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2)
PATCHES = 16  # of images of 64 pixels


def pfvit(seed: int = 0, **options: Any) -> PFViT:
    torch.manual_seed(seed)
    return PFViT(SIZE, 64, len(CLASSES), Options(**options)).eval()


def mae(seed: int = 0, **options: Any) -> MAE:
    torch.manual_seed(seed)
    return MAE(SIZE, 64, **options).eval()


def scaled(count: int, *titles: str) -> Faces:
    """Random faces, normalised alike for every network."""
    return replace(faces(count), scales=dict.fromkeys(titles, SCALE))


def picture(normalised: Tensor) -> np.ndarray:
    """One normalised image (3, S, S) as it is to be shown, by hand."""
    return np.stack([np.clip(normalised[c].numpy() * SCALE.std[c] + SCALE.mean[c], 0, 1) for c in range(3)], axis=-1)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Row], str]]:
    """What figures would have drawn: rows and words."""
    kept: list[tuple[list[Row], str]] = []
    for module in (poker_faces, masked_faces, gradcam_figure):
        monkeypatch.setattr(module, "grid", lambda rows, names: rows)
        monkeypatch.setattr(module, "write", lambda rows, faces, path, said: kept.append((rows, said)))
    return kept


# --- what every figure is given --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("colour", "shape"), [("rgb", (9, 9, 3)), ("bgr", (9, 9, 3)), ("bgr", (9, 9))])
def test_pictures_undo_what_the_recipe_did(colour: str, shape: tuple[int, ...]) -> None:
    recipe = declare.installed().recipe("pfvit-paper").values("paper") | {"input_size": 9, "colour": colour}
    stored = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    found = Scale(recipe["mean"], recipe["std"], colour).undone(prepare(stored, recipe))
    expected = (stored if stored.ndim == 4 else stored[..., None].expand(-1, -1, -1, 3)).float() / 255
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert Scale([0.5] * 3, [0.5] * 3, "rgb").undone(torch.tensor([[-9.0, 0, 9]]).view(1, 3, 1, 1)).tolist() == [
        [[[0, 0.5, 1]]]
    ]


def run_on(protocol: declare.Protocol) -> matrix.Run:
    declared = declare.installed()
    recipe = declared.recipe("pfvit-paper").values("paper") | {"input_size": 20}
    entry = declare.Entry(experiment=declared.experiment("pfvit-vit-b"), protocol=protocol)
    return matrix.Run(entry, "quick", 0, 0, recipe, {}, "none", ())


def test_twins_are_the_adapters_of_the_same_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = toy_pixels(tmp_path, monkeypatch)
    asked: list[str] = []

    def twins(names: list[str]) -> list[np.ndarray]:
        asked.extend(names)
        return [255 - stored[int(name.removesuffix(".png")) - 10] for name in names]

    monkeypatch.setattr("bench.data.source.locate", lambda *_, **__: SimpleNamespace(twins=twins))
    found = commanded.faces_of({"Ours": run_on(PROTOCOL)}, None)
    assert not asked, "nothing is rendered before it is asked for"
    some = found.only(np.array([5, 2]), "")
    assert some.twins is not None
    inverted = some.pictures("Ours", some.twins("Ours", np.array([1])))
    torch.testing.assert_close(inverted, 1 - some.pictures("Ours", some.inputs("Ours", np.array([1]))))
    assert asked == ["12.png"]


def test_real_faces_have_no_twins_and_none_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_pixels(tmp_path, monkeypatch)
    real = PROTOCOL.model_copy(update={"dataset": "rafdb", "synthetic": False})
    found = commanded.faces_of({"Ours": run_on(real)}, None)
    assert found.twins is None
    assert found.only(np.array([0]), "").twins is None
    adapters = {name: one.load() for name, one in registry.available("dataset").items()}
    assert {name for name, adapter in adapters.items() if hasattr(adapter, "twins")} == {"synthfer"}


# --- poker faces -----------------------------------------------------------------------------------------------------


def test_a_faces_column_is_what_each_network_makes_of_it(drawn: list[Any]) -> None:
    nets = {"Large": pfvit(), "Masked": pfvit(1, multitask=True, train_mask=0.75, test_mask=0.5)}
    given = scaled(3, *nets)
    poker_faces.draw(nets, given, Path())
    rows, said = drawn[0]
    assert [row.name for row in rows] == [
        "original", "Large: emotion", "Large: poker face", "Masked: emotion", "Masked: poker face",
    ]  # fmt: skip
    assert not any(row.below for row in rows)
    assert "Masked sees 50% of a face's patches." in said
    assert "twin" not in said
    with torch.no_grad():
        batch = given.inputs("Large", np.arange(3))
        parts = nets["Large"].separate(batch)
        made = [batch, *(nets["Large"].generator(tokens) for tokens in (parts.emotion, parts.rest))]
    for row, expected in zip(rows, made):
        for shown, image in zip(row.pictures.numpy(), expected, strict=True):
            np.testing.assert_allclose(shown, picture(image), atol=1e-5)
    seen_whole = pfvit(1, multitask=True, train_mask=0.75).faces(batch)
    assert not torch.allclose(rows[3].pictures, given.pictures("Masked", seen_whole.emotion))


def test_nearness_to_the_twin_counts_the_pixels_that_differ(drawn: list[Any]) -> None:
    given = scaled(2, "Ours")
    plain = given.inputs("Ours", np.arange(2)).clamp(-1, 1)
    twin = plain.clone()
    twin[0, :, 5:9, 5:11] = plain[1, :, 5:9, 5:11]  # of the second face nothing differs

    def twins(title: str, at: np.ndarray) -> Tensor:
        return twin[at]

    net = pfvit()
    poker_faces.draw({"Ours": net}, replace(given, inputs=lambda title, at: plain[at], twins=twins), Path())
    rows, said = drawn[0]
    assert [row.name for row in rows] == ["original", "emotion", "poker face", "neutral twin"]
    assert "pixels where original and twin differ" in said
    with torch.no_grad():
        poker = net.faces(plain).poker
    for row, shown in ((rows[0], plain[0]), (rows[2], poker[0])):
        near = picture(shown)[5:9, 5:11] - picture(twin[0])[5:9, 5:11]
        assert row.below == [f"{10 * np.log10(1 / np.mean(near**2)):.1f} dB", "no difference"]
    assert torch.equal(rows[3].pictures, given.pictures("Ours", twin))


# --- reconstructions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
def test_only_unseen_patches_are_answered(relative: bool) -> None:
    net, batch = mae(normalised_targets=relative), images(2)
    noise = torch.rand(2, PATCHES, generator=torch.Generator().manual_seed(0))
    filled, unseen = masked_faces.filled_in(net, batch, noise)
    assert unseen.sum(1).tolist() == [12, 12]
    with torch.no_grad():
        answers = net(batch, noise)[0].view(2, PATCHES, 16, 16, 3)
    for image in range(2):
        for number in range(PATCHES):
            row, column = (16 * place for place in divmod(number, 4))
            patch = batch[image, :, row : row + 16, column : column + 16]
            expected = patch
            if noise[image, number] > noise[image].sort().values[3]:
                expected = answers[image, number].permute(2, 0, 1)
                expected = expected * (patch.var() + 1e-6).sqrt() + patch.mean() if relative else expected
            torch.testing.assert_close(filled[image, :, row : row + 16, column : column + 16], expected)


def test_a_perfect_answer_to_normalised_targets_gives_the_face_back(monkeypatch: pytest.MonkeyPatch) -> None:
    net, batch = mae(normalised_targets=True), images(2)
    patches = patchify(batch, 16)
    perfect = (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6).sqrt()
    unseen = torch.ones(2, PATCHES, dtype=torch.bool)
    assert masked_error(perfect, batch, unseen, 16, normalised=True).max() < 1e-10
    monkeypatch.setattr(net, "forward", lambda images, noise: (perfect, unseen))
    filled, _ = masked_faces.filled_in(net, batch, torch.rand(2, PATCHES))
    torch.testing.assert_close(filled, batch, rtol=1e-4, atol=1e-5)


def test_all_networks_see_the_same_patches(drawn: list[Any]) -> None:
    nets = {"Pixels": mae(), "Relative": mae(1, normalised_targets=True)}
    given = scaled(3, *nets)
    masked_faces.draw(nets, given, Path())
    rows, said = drawn[0]
    assert [row.name for row in rows] == ["original", "masked", "Pixels", "Relative"]
    assert "75%" in said
    assert "Answers of Relative are" in said
    original, masked = rows[0].pictures, rows[1].pictures
    hidden = (masked == 0.5).all(3)
    assert hidden.float().mean() == 0.75
    assert torch.equal(masked[~hidden], original[~hidden])
    assert not torch.equal(hidden[0], hidden[1])
    for row in rows[2:]:
        torch.testing.assert_close(row.pictures[~hidden], original[~hidden])
        errors = [(row.pictures[i] - original[i])[hidden[i]].square().mean() for i in range(3)]
        assert row.below == [f"{-10 * error.log10():.1f} dB" for error in errors]
    with pytest.raises(UserError, match="Half and Pixels do not see the same patches"):
        masked_faces.draw({"Pixels": mae(), "Half": mae(mask_ratio=0.5)}, scaled(2, "Pixels", "Half"), Path())


# --- attention -------------------------------------------------------------------------------------------------------


class Baseline(nn.Module):
    """An encoder with a classifier on its class token; its gradients are far from the package's 1e-6."""

    def __init__(self, input_size: int = 64) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.encoder = Encoder(SIZE, input_size)
        self.classifier = nn.Linear(SIZE.dim, len(CLASSES))
        nn.init.normal_(self.classifier.weight, std=20)

    def forward(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.encoder(batch)[:, 0])
        return logits


def test_attention_is_grad_cam_plus_plus() -> None:
    """Eqs. 10, 11 and 19 of Chattopadhay et al., for one image at a time; images of as many pixels as tokens' map."""
    net, batch, labels = Baseline().eval(), images(3), np.array([2, 0, 1])
    found, answers = gradcam_figure.attention_maps(net, batch, labels)
    assert answers == net(batch).argmax(1).tolist()
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    kept: list[Tensor] = []
    handle = net.encoder.blocks[-1].norm1.register_forward_hook(lambda module, inputs, output: kept.append(output))
    for image in range(3):
        score = net(batch[image : image + 1])[0, labels[image]]
        (gradient,) = torch.autograd.grad(score, kept[-1])
        activation, g = kept[-1].detach()[0, 1:].double(), gradient[0, 1:].double()
        alpha = g**2 / (2 * g**2 + activation.sum(0) * g**3)
        weights = (alpha * g.clamp(min=0)).sum(0)
        cells = (activation @ weights).clamp(min=0).view(4, 4)
        assert cells.max() > 0
        large = nn.functional.interpolate(cells[None, None], (64, 64), mode="bilinear")[0, 0]
        np.testing.assert_allclose(found[image].numpy(), (large - large.min()) / (large.max() - large.min()), atol=0.02)
    handle.remove()


def test_attention_is_drawn_over_every_face(drawn: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    nets = {"MAE-ViT": Baseline().eval(), "PF-ViT": pfvit()}
    gradcam_figure.draw(nets, scaled(3, *nets), Path())
    rows, said = drawn[0]
    assert [row.name for row in rows] == ["original", *nets]
    assert all(row.pictures.shape == (3, 64, 64, 3) for row in rows)
    assert all(row.pictures.min() >= 0 and row.pictures.max() <= 1 for row in rows)
    assert set(rows[1].below) <= set(CLASSES)
    assert "Grad-CAM++" in said
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(UserError, match="needs the package grad-cam") as told:
        gradcam_figure.draw(nets, scaled(3, *nets), Path())
    assert "ferbench[figures]" in told.value.hint


# --- pictures, stages, tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "made"), [(poker_faces.draw, pfvit), (masked_faces.draw, mae), (gradcam_figure.draw, pfvit)]
)
def test_pictures_are_written(draw: Callable[..., None], made: Callable[[], nn.Module], tmp_path: Path) -> None:
    given = scaled(2, "Ours")
    if draw is poker_faces.draw:
        given = replace(given, twins=given.inputs)
    draw({"Ours": made()}, given, tmp_path / "faces.png")
    assert is_whole_picture(tmp_path / "faces.png")


TOY = declare.Figure(
    id="toy-masked", title="Toy", where="Fig. 1", draw="reconstructions", experiments={"ViT-T": "stage:toy-mae"},
    fallback={"ViT-T, ours": "stage:toy-mae"}, drawn_with=("fervt-table11",), protocol="toy-3", faces="each-class",
)  # fmt: skip


def toy_declarations(figure: declare.Figure = TOY) -> declare.Declarations:
    """A stage that masks faces of 24 pixels, and a figure of its network on other faces."""
    found = copy(declare.installed())
    recipe, experiment = found.recipe("mae-code"), found.experiment("mae-vit-t")
    quick = Override(why="toy", fields={"epochs": 1, "input_size": 24}, options={"scale_down": "quick"})
    found.recipes = found.recipes | {"toy": recipe.model_copy(update={"id": "toy", "profiles": {"quick": quick}})}
    changed = {"id": "toy-mae", "recipe": "toy", "options": {}}
    found.experiments = found.experiments | {"toy-mae": experiment.model_copy(update=changed)}
    found.stages = found.stages | {"toy-mae": "toy-mae:affectnet-faces@287651"}
    found.protocols = found.protocols | {"toy-3": PROTOCOL}
    found.figures = {"toy-masked": figure}
    return found


def test_a_stages_network_is_shown_other_faces_and_only_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_pixels(tmp_path, monkeypatch)
    declared = toy_declarations()
    (run,) = commanded.figure_runs(declared, [TOY], "quick", 0)
    assert run.entry.id == "toy-mae:synth-faces-unlabelled"
    key = "0123456789abcdef"
    monkeypatch.setattr(plan, "plan", lambda *_: [plan.Planned(run, "cached", key)])
    asked = (declared, commanded.unasked(declared, [declared.table("fervt-table11")]), "quick", tmp_path / "results")
    place = (None, 0, {}, "cpu")
    commanded.draw_figures(*asked, *place, if_ready=True)
    assert capsys.readouterr().out == ""

    made = registry.find("method", "mae").load()
    network = made(*built(run)).net
    store.run_folder(key).mkdir(parents=True)
    save_file(network.state_dict(), store.run_folder(key) / store.NETWORK)
    (store.run_folder(key) / "result.json").write_text("{}")
    captions: list[str] = []
    written = masked_faces.write
    monkeypatch.setattr(masked_faces, "write", lambda *all: captions.append(all[1].caption) or written(*all))
    commanded.draw_figures(*asked, *place, if_ready=True)
    path = tmp_path / "results" / "figures" / "toy-masked-synthetic.png"
    assert capsys.readouterr().out == f"toy-masked: {path}\n"
    assert is_whole_picture(path)
    for words in ("ViT-T: toy-mae:synth-faces-unlabelled.", "toy-3, 33 test images", "the first test image of each"):
        assert words in captions[0]


def built(run: matrix.Run) -> tuple[Any, Any, Any]:
    """What a method is built from."""
    from bench.method import Context, Spec

    context = Context((), 24, 1, torch.device("cpu"))
    return Spec("toy-mae", run.entry.experiment.backbone, "none", run.options), run.recipe, context


def test_a_stage_without_its_data_gives_way_to_the_fallback(tmp_path: Path) -> None:
    declared = toy_declarations()
    other = TOY.model_copy(update={"fallback": {"Other": "pfvit-vit-b"}})
    assert list(commanded.chosen(declared, other, "quick").experiments) == ["ViT-T"]
    assert list(commanded.chosen(declared, other, "paper", tmp_path).experiments) == ["Other"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"experiments": {"ViT-T": "stage:toy-mea"}}, "unknown stage 'toy-mea'"),
        ({"fallback": {"ViT-T": "stage:toy-mea"}}, "unknown stage 'toy-mea'"),
        ({"drawn_with": ("fervt-table111",)}, "unknown table 'fervt-table111'"),
    ],
)
def test_misspelt_names_are_refused(wrong: dict[str, Any], told: str) -> None:
    toy_declarations()._check()
    with pytest.raises(UserError, match=told):
        toy_declarations(TOY.model_copy(update=wrong))._check()


def test_a_table_draws_what_comes_with_it_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = toy_declarations()
    for name, found in (
        ("wanted_runs", []), ("carry_out", ([], False)), ("print_unanswered", 0), ("print_plan", None),
    ):  # fmt: skip
        monkeypatch.setattr(run_command, name, lambda *_, found=found, **__: found)
    monkeypatch.setattr(declare, "load", lambda root: declared)
    monkeypatch.setattr(run_command.render, "draw", lambda *_, **__: None)
    drawn: list[tuple[list[str], bool]] = []
    monkeypatch.setattr(
        run_command, "draw_figures",
        lambda declared, figures, *_, if_ready=False: drawn.append(([f.id for f in figures], if_ready)),
    )  # fmt: skip
    parser = argparse.ArgumentParser()
    run_command.configure(parser)
    for table in ("fervt-table11", "fervt-table9"):
        run_command.main(parser.parse_args(["--table", table, "--profile", "quick"]))
    assert drawn == [(["toy-masked"], True), ([], True)]
