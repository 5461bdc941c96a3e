"""POSTER's figures: relevance against plain loops and built networks, numbers of t-SNE, what is drawn."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_figures import CLASSES, SMALL, faces, images, is_whole_picture
from torch import Tensor

from bench import declare, registry
from bench import weights as weight_roles
from bench.errors import UserError
from bench.figure import BATCH
from commands import figures as commanded
from methods.poster import figures as drawn_points
from methods.poster.attention import recorded
from methods.poster.figures import NEIGHBOURS, embedded, perplexity, separation, tsne
from methods.poster.model import POSTER
from methods.poster.options import Options
from methods.poster.relevance import relevance, rollout, to_image
from methods.poster.relevance_figure import draw as draw_relevance


def poster(**options: Any) -> POSTER:
    torch.manual_seed(3)
    return POSTER(len(CLASSES), Options(**{**SMALL, **options})).eval()


# --- relevance -------------------------------------------------------------------------------------------------------


def test_rollout_is_the_double_loop_over_blocks_and_heads() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = [
        (torch.rand(2, 3, 5, 5, generator=generator), torch.randn(2, 3, 5, 5, generator=generator)) for _ in range(3)
    ]
    for image in range(2):
        expected = np.eye(5)
        for weights, gradient in pairs:
            step = np.zeros((5, 5))
            for i, j, head in itertools.product(range(5), range(5), range(3)):
                step[i, j] += max(0.0, float(weights[image, head, i, j]) * float(gradient[image, head, i, j])) / 3
            before = expected.copy()
            for i, j, k in itertools.product(range(5), range(5), range(5)):
                expected[i, j] += step[i, k] * before[k, j]
        np.testing.assert_allclose(rollout(pairs)[image].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("how", ["channels", "patches"])
def test_redistribution_keeps_each_tokens_sum(how: str) -> None:
    """By a plain loop over numbers: what a token has goes to its own numbers, by positive activation x gradient."""
    generator = torch.Generator().manual_seed(0)
    maps, gradient = torch.randn(2, 2, 8, 6, 6, generator=generator).unbind(0)
    maps[0].view(9, 32)[4] = 0  # in channels mode a token that is nowhere active: shared out evenly
    tokens = torch.rand(2, 9, generator=generator)
    found = to_image(tokens, maps, gradient, how)
    expected = torch.zeros(2, 6, 6)
    for image, token in itertools.product(range(2), range(9)):
        if how == "channels":
            places = [divmod(number, 36) for number in range(32 * token, 32 * token + 32)]
        else:
            row, column = divmod(token, 3)
            cells = [6 * (2 * row + i) + 2 * column + j for i in range(2) for j in range(2)]
            places = [(channel, cell) for channel in range(8) for cell in cells]
        shares = [max(0.0, float((maps * gradient)[image, c, cell // 6, cell % 6])) for c, cell in places]
        total = sum(shares)
        for (_, cell), share in zip(places, shares, strict=True):
            part = share / total if total else 1 / 32
            expected[image, cell // 6, cell % 6] += float(tokens[image, token]) * part
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum((1, 2)), tokens.sum(1))


VARIANTS: dict[str, tuple[dict[str, Any], bool, bool]] = {  # options, has an image map, has a landmark map
    "code": ({}, True, True),
    "affectnet": ({"token_mixing": False}, True, True),
    "paper": ({"tokens": "patches", "token_mixing": False, "query_projection": True, "pre_norm": False}, True, True),
    "baseline": ({"cross_fusion": False, "pyramid": False}, True, True),
    "image": ({"streams": "image", "cross_fusion": False, "pyramid": False}, True, False),
    "landmark": ({"streams": "landmark", "cross_fusion": False, "pyramid": False}, False, True),
    "onet": ({"landmark": "onet"}, True, True),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_maps_have_the_cells_of_the_backbones_and_leave_no_trace(variant: str) -> None:
    options, has_image, has_landmark = VARIANTS[variant]
    net, batch = poster(**options), images(2)
    found = relevance(net, batch)
    assert (found.image is not None, found.landmark is not None) == (has_image, has_landmark)
    for maps, side in ((found.image, 8), (found.landmark, 4)):
        if maps is not None:
            assert maps.shape == (2, side, side)
            assert (maps >= 0).all()
            assert maps.sum() > 0
    assert found.predicted.tolist() == net(batch).argmax(1).tolist()
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    assert all(attention.probe is None for attention in net.attentions().values())
    with torch.no_grad():
        again = relevance(net, batch[1:])
    for maps, one in ((found.image, again.image), (found.landmark, again.landmark)):
        if maps is not None:  # an image's relevance is its own, whatever else is in the batch
            torch.testing.assert_close(maps[1:], one, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("variant", ["code", "baseline"])
def test_maps_are_the_class_tokens_row_of_the_large_level(variant: str) -> None:
    net, batch = poster(**VARIANTS[variant][0]), images(1)
    with recorded(net) as maps:
        best = net(batch).max()
    found = relevance(net, batch)
    for stream, cells in (("image", found.image), ("landmark", found.landmark)):
        large = [w for place, w in maps.items() if place.level == "large" and place.stream in (stream, "all")]
        pairs = list(zip(large, torch.autograd.grad(best, large, retain_graph=True), strict=True))
        assert len(pairs) == 2
        row = rollout(pairs)[0, 0]
        first = 1 if len(row) == 17 or stream == "image" else 18  # behind the class token of the stream
        tokens = row[first : first + 16]
        if stream == "image":
            torch.testing.assert_close(cells.sum(), tokens.sum())
        else:
            torch.testing.assert_close(cells[0], tokens.view(4, 4))


def test_hooks_go_when_the_network_fails() -> None:
    net = poster()
    with pytest.raises(RuntimeError):
        relevance(net, torch.zeros(1, 5, 64, 64))
    assert not any(module._forward_hooks for module in net.modules())
    assert all(attention.probe is None for attention in net.attentions().values())


@pytest.mark.parametrize("how", ["channels", "patches"])
def test_image_relevance_lies_where_all_the_information_is(how: str) -> None:
    """One lit corner, no bias anywhere before the attention: nothing else can carry a class."""
    net = poster(tokens=how, depth=1)
    with torch.no_grad():
        for layer in (net.image_embed, net.blocks[0].encoders["large"].image.attention.key_value):
            layer.bias.zero_()
        batch = torch.zeros(4, 3, 64, 64)
        batch[:, :, :10, 50:] = images(4)[:, :, :10, 50:]
        lit = net.image_map(batch).abs().sum(1) > 1e-7
    assert 0 < lit.float().mean() < 0.3
    found = relevance(net, batch).image
    assert found[lit].sum() > 0
    torch.testing.assert_close(found[lit].sum(), found.sum())


def test_landmark_relevance_lies_in_the_only_cell_with_information(monkeypatch: pytest.MonkeyPatch) -> None:
    net = poster(cross_fusion=False, pyramid=False, depth=1)
    with torch.no_grad():
        net.blocks[0].encoders["large"].attention.query_key_value.bias.zero_()
    cells = torch.zeros(4, 16, 16)
    cells[:, 6] = images(4)[:, 0, 0, :16]
    monkeypatch.setattr(net, "landmark_tokens", lambda _: cells)
    found = relevance(net, images(4)).landmark
    assert found[:, 1, 2].sum() > 0
    torch.testing.assert_close(found[:, 1, 2].sum(), found.sum())


def test_landmarks_behind_the_last_cross_fusion_have_no_relevance() -> None:
    """Without token mixing the last block's landmark half leads nowhere; the released RAF-DB model mixes it in."""
    assert relevance(poster(depth=1, token_mixing=False, pyramid=False), images(2)).landmark.sum() == 0
    assert relevance(poster(depth=1, token_mixing=True, pyramid=False), images(2)).landmark.sum() > 0


# --- t-SNE -----------------------------------------------------------------------------------------------------------


def clusters(apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of twenty vectors in ten dimensions, their centres `apart` standard deviations from the origin."""
    labels = np.repeat(np.arange(3), 20)
    return np.random.default_rng(0).normal(size=(60, 10)) + apart * np.eye(10)[labels], labels


def test_separation_is_its_definition() -> None:
    vectors, labels = clusters(1.5)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    scores, hits = [], []
    for i in range(60):
        others = [j for j in range(60) if j != i]
        own = np.mean([distances[i, j] for j in others if labels[j] == labels[i]])
        other = min(distances[i, labels == label].mean() for label in range(3) if label != labels[i])
        scores.append((other - own) / max(own, other))
        near = sorted(others, key=lambda j: distances[i, j])[:NEIGHBOURS]
        votes = [sum(labels[j] == label for j in near) for label in range(3)]
        hits.append(votes.index(max(votes)) == labels[i])
    found = separation(vectors, labels)
    assert found.silhouette == pytest.approx(np.mean(scores), abs=1e-6)
    assert found.neighbours == pytest.approx(np.mean(hits))
    assert 0.5 < found.neighbours < 1


def test_distant_clusters_stay_together_on_the_page() -> None:
    vectors, labels = clusters(30)
    assert separation(vectors, labels).neighbours == 1
    points = embedded(vectors)
    assert separation(points, labels).silhouette > 0.8
    np.testing.assert_array_equal(points, embedded(vectors))
    assert (perplexity(len(vectors)), perplexity(3000)) == (19, 30)


def test_tsne_of_two_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nets = {"Baseline": poster(cross_fusion=False, pyramid=False), "Ours": poster()}
    given = faces(70)
    asked: list[tuple[str, int]] = []

    def inputs(title: str, at: np.ndarray) -> Tensor:
        asked.append((title, len(at)))
        return given.inputs(title, at)

    tsne(nets, replace(given, inputs=inputs), tmp_path / "figures" / "points.png")
    assert asked == [("Baseline", BATCH), ("Baseline", 70 - BATCH), ("Ours", BATCH), ("Ours", 70 - BATCH)]
    assert is_whole_picture(tmp_path / "figures" / "points.png")

    monkeypatch.setattr(drawn_points, "POINTS", 30)
    labelled: list[np.ndarray] = []
    monkeypatch.setattr(drawn_points, "separation", lambda v, labels: labelled.append(labels) or separation(v, labels))
    for name in ("first", "second"):
        tsne({"Ours": poster()}, given, tmp_path / f"{name}.png")
    assert [len(labels) for labels in labelled] == [30, 30]
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()

    with pytest.raises(UserError, match="12 images"):
        tsne(nets, faces(12), tmp_path / "few.png")
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UserError, match="scikit-learn"):
        tsne(nets, given, tmp_path / "none.png")


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 20), (24, 24, 3)])
def test_relevance_is_drawn_for_grey_and_colour(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nets = {"Ours": poster(tokens="patches"), "Landmarks": poster(streams="landmark", cross_fusion=False)}
    draw_relevance(nets, faces(3, shape), tmp_path / "maps.png")
    assert is_whole_picture(tmp_path / "maps.png")


def test_declared_figures_have_networks_and_faces() -> None:
    declared = declare.installed()
    five, seven = declared.figures["poster-figure5"], declared.figures["poster-figure7"]
    assert (five.protocol, five.faces, list(five.experiments.values())) == (
        "raf-db-7", "all-test", ["poster-baseline", "poster"],
    )  # fmt: skip
    assert (seven.protocol, seven.faces, list(seven.experiments.values())) == (
        "affectnet-8@3999", "each-class", ["poster-affectnet"],
    )  # fmt: skip
    for figure in (five, seven):
        assert figure.draw in registry.available("figure")
        assert commanded.figure_runs(declared, [figure], "quick", 0)
        with pytest.raises(UserError, match="either 'expression' or 'faces'"):
            checked(figure.model_copy(update={"expression": "anger"}))
        with pytest.raises(UserError, match="either 'expression' or 'faces'"):
            checked(figure.model_copy(update={"faces": ""}))
        with pytest.raises(UserError, match=r"unknown class.*'angry'"):
            checked(figure.model_copy(update={"faces": "", "expression": "angry"}))


@pytest.mark.parametrize("name", ["poster-figure5", "poster-figure7"])
def test_a_figure_whose_files_are_missing_is_drawn_from_scratch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare.installed()
    figure = declared.figures[name]

    def used(profile: declare.ProfileName) -> list[str]:
        drawn = commanded.chosen(declared, figure, profile).experiments
        runs = commanded.figure_runs(declared, [figure], profile, 0)
        assert [run.entry.experiment.id for run in runs] == list(drawn.values())
        assert all("from scratch" in title for title in drawn) == (drawn != figure.experiments)
        return list(drawn.values())

    own, scratch = list(figure.experiments.values()), list(figure.fallback.values())
    assert all("-scratch" in experiment for experiment in scratch)
    monkeypatch.setattr(weight_roles, "require", lambda roles: {})
    assert (used("paper"), used("short"), used("quick")) == (own, scratch, own)
    monkeypatch.undo()
    monkeypatch.setattr(weight_roles, "find", lambda role: None)
    assert (used("paper"), used("quick")) == (scratch, own)
    with pytest.raises(UserError, match="unknown experiment 'poster-scrath'"):
        checked(figure.model_copy(update={"fallback": {"Ours, from scratch": "poster-scrath"}}))


def checked(figure: declare.Figure) -> None:
    """Check the installed declarations with one figure in place of all."""
    declared = declare.Declarations([], [])
    declared.__dict__.update(declare.installed().__dict__, figures={figure.id: figure})
    declared._check()
