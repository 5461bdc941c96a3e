"""Figure 2 of the Neural Resizer: what is compared, how it is displayed, what is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_figures import faces, is_whole_picture
from torch.nn import functional as F

from bench import registry
from bench.errors import UserError
from methods.nresizer import figures as drawn
from methods.nresizer.figures import SHOWN, displayed, draw, outputs
from methods.nresizer.model import NeuralResizer
from methods.nresizer.options import Options


def network(seed: int = 0, **options: Any) -> NeuralResizer:
    """A small network whose STN does more than nothing; images of 64 pixels."""
    torch.manual_seed(seed)
    net = NeuralResizer(3, "test_resnet", 64, Options(resizer_channels=4, head_hidden=0, **options)).eval()
    if options.get("stn", True):
        torch.nn.init.normal_(net.stn.fc_loc[2].weight, std=0.01)
    return net


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_difference_is_the_resizers_alone(images: torch.Tensor) -> None:
    net = network()
    found = outputs(net, images, "Ours")
    with torch.no_grad():
        torch.testing.assert_close(found.trained, net.resized(images))
        view = net.stn(images)
        assert not torch.allclose(view, images, atol=1e-3)
        torch.testing.assert_close(found.bilinear, F.interpolate(view, scale_factor=0.584, mode="bilinear"))
        assert found.bilinear.shape == (4, 3, 37, 37)
        apart = (found.trained - found.bilinear).abs()
        torch.testing.assert_close(found.difference, apart.sum(1) / 3)
        assert found.difference.max() > 0.01
        net.res.conv4.weight.zero_()  # now it adds its bias, whatever the STN does
        net.res.conv4.bias.fill_(0.25)
        torch.testing.assert_close(outputs(net, images, "Ours").difference, torch.full((4, 37, 37), 0.25))


def test_a_network_without_stn_is_drawn_too(images: torch.Tensor) -> None:
    net = network(stn=False)
    torch.testing.assert_close(
        outputs(net, images, "Ours").bilinear, F.interpolate(images, scale_factor=0.584, mode="bilinear")
    )


def test_display_undoes_any_normalisation_and_clips_the_rest() -> None:
    pixels = torch.rand(2, 1, 9, 9).expand(2, 3, 9, 9)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    normalised = (pixels - mean) / std
    shown = displayed(normalised, normalised)
    low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(shown, ((pixels - low) / (high - low)).permute(0, 2, 3, 1))
    brighter = displayed(normalised + (high - low) / std / 2, normalised)
    torch.testing.assert_close(brighter, (shown + 0.5).clamp(max=1))
    assert torch.equal(displayed(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)), torch.zeros(1, 4, 4, 3))


def test_a_network_without_a_learnable_resizer_is_refused(tmp_path: Path) -> None:
    for down in ("bilinear", "none"):
        with pytest.raises(UserError, match="Mine: has no learnable resizer"):
            draw({"Mine": network(down=down)}, faces(2), tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 9, 30])
def test_first_all_three_then_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    figures: list[Any] = []
    read: list[np.ndarray] = []
    monkeypatch.setattr(drawn, "write", lambda figure, faces, path, said: figures.append((figure, said)))
    given = faces(count)
    inputs = given.inputs

    def watched(title: str, at: np.ndarray) -> torch.Tensor:
        read.append(at)
        return inputs(title, at)

    draw({"Ours": network(), "Other": network(1)}, replace(given, inputs=watched), tmp_path / "figure.png")
    figure, said = figures[0]
    shown = min(count, SHOWN)
    assert [at.tolist() for at in read] == [list(range(shown))] * 2
    panels = [axis for axis in figure.axes if axis.images]
    assert len(panels) == 2 * (3 + shown - 1)
    one = panels[: len(panels) // 2]
    assert [axis.get_title() for axis in one[:3]] == ["neutral: bilinear", "Ours", "difference"]
    assert [axis.get_title() for axis in one[3:6]] == ["happiness", "surprise", "neutral"][: shown - 1]
    expected = outputs(network(), given.inputs("Ours", np.arange(shown)), "Ours")
    order = [one[2], *one[3:]]
    for axis, values in zip(order, expected.difference, strict=True):
        np.testing.assert_allclose(axis.images[0].get_array(), values.numpy(), rtol=1e-4, atol=1e-6)
        assert axis.images[0].get_clim()[1] == pytest.approx(float(values.max()), rel=1e-4)
        assert axis.texts[0].get_text() == f"up to {float(values.max()):.3g}"
    np.testing.assert_allclose(
        one[1].images[0].get_array(), displayed(expected.trained, expected.bilinear)[0].numpy(), rtol=1e-4, atol=1e-5
    )
    assert "no antialiasing" in said


def test_the_picture_is_written(tmp_path: Path) -> None:
    registered = registry.find("figure", "resizer-output").load()
    registered({"Ours": network()}, faces(4, (20, 20)), tmp_path / "figure.png")
    assert is_whole_picture(tmp_path / "figure.png")
