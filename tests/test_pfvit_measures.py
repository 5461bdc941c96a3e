"""What is measured of poker faces, by hand: the twin itself, the face itself, and what lies between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.figure import Faces, Scale
from bench.measures import Judge
from methods.pfvit import measures
from methods.pfvit.model import Faces as Generated
from methods.pfvit.model import Separated

CLASSES = ("happiness", "neutral")
SCALE = Scale((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bgr")


def random(count: int, seed: int, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# -------------------------------------------------------------------------------------------------------------- pixels
def test_the_twin_has_no_error_and_the_face_has_its_own() -> None:
    face, twin = random(3, 1), random(3, 2)
    shown = {"input": face, "twin": twin, "poker": twin, "rebuilt": face}
    best = measures.pixel_measures(shown)
    assert best["error_poker"].tolist() == [0, 0, 0]
    assert best["psnr_poker"].tolist() == best["psnr_rebuilt"].tolist() == [100, 100, 100]
    assert torch.allclose(best["ssim_poker"], torch.ones(3))
    assert best["nearer"].tolist() == [1, 1, 1]
    nothing = measures.pixel_measures({**shown, "poker": face})
    for name in ("error", "psnr", "ssim"):
        assert torch.equal(nothing[f"{name}_poker"], nothing[f"{name}_input"]), name
    assert (nothing["error_poker"] / nothing["error_input"]).tolist() == [1, 1, 1]
    assert nothing["nearer"].tolist() == [0, 0, 0]


def test_only_pixels_that_visibly_differ_count() -> None:
    twin = torch.full((2, 3, 12, 12), 0.5)
    face, poker = twin.clone(), twin + 0.3
    face[0, 1, 2, 3] += 0.2  # one channel of one pixel
    face[0, :, 0, 0] += 0.007  # below 2 of 255
    face[1, :, 0, 0] += 0.007
    poker[0, :, 2, 3] = torch.tensor([0.6, 0.5, 0.5])
    found = measures.pixel_measures({"input": face, "twin": twin, "poker": poker, "rebuilt": face})
    assert found["error_input"][0].item() == pytest.approx(0.2**2 / 3)
    assert found["error_poker"][0].item() == pytest.approx(0.1**2 / 3)
    assert found["nearer"][0] == 1
    assert all(found[name][1].isnan() for name in ("error_input", "error_poker", "nearer"))


def test_psnr_by_hand() -> None:
    a = torch.zeros(2, 3, 12, 12)
    assert measures.psnr(a, a + torch.tensor([0.1, 0.01])[:, None, None, None]).tolist() == pytest.approx([20, 40])


def test_ssim_is_the_formula_written_out() -> None:
    a, b = random(2, 3, 14), (random(2, 3, 14) + 0.5 * random(2, 4, 14)).clamp(0, 1)
    found = measures.ssim(a, b)
    for i in range(2):
        assert found[i].item() == pytest.approx(plain_ssim(a[i].double().numpy(), b[i].double().numpy()), abs=1e-5)
    assert (found < 0.99).all()


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Pictures (C, H, W): every window of 11 x 11 by itself."""
    places = np.arange(-5, 6)
    weights = np.exp(-(places[:, None] ** 2 + places[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for x, y in zip(a, b, strict=True):
        for top in range(x.shape[0] - 10):
            for left in range(x.shape[1] - 10):
                p, q = (image[top : top + 11, left : left + 11] for image in (x, y))
                mp, mq = (weights * p).sum(), (weights * q).sum()
                vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                both = (weights * (p - mp) * (q - mq)).sum()
                c1, c2 = 0.01**2, 0.03**2
                values.append((2 * mp * mq + c1) * (2 * both + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


# ------------------------------------------------------------------------------------------------------------ identity
def test_another_person_is_the_next_one_round_the_end() -> None:
    persons = np.array([5, 5, 7, 5, 8, 5])
    found = measures.next_of_another(persons)
    assert found.tolist() == [2, 2, 3, 4, 5, 2]
    with pytest.raises(UserError, match="one person"):
        measures.next_of_another(np.array([1, 1]))


# ------------------------------------------------------------------------------------------------------ the whole thing
class Stub(nn.Module):
    """Makes of a face what it is told: its twin as poker face, say."""

    def __init__(self, poker: dict[bytes, Tensor]) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))
        self.poker = poker

    def faces(self, images: Tensor) -> Generated:
        return Generated(images, -images, torch.stack([self.poker[image.numpy().tobytes()] for image in images]))

    def separate(self, images: Tensor) -> Separated:
        emotion = torch.tensor([[1.0, 0.0], [3.0, 0.0]]).expand(len(images), 2, 2)
        rest = torch.tensor([[0.0, 2.0], [-1.0, 1.0]]).expand(len(images), 2, 2)
        return Separated(emotion + rest, emotion, rest)


class Means(nn.Module):
    """Features: the mean of each channel, less a half."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) - 0.5


class Red(Means):
    """Sees happiness where the first channel is above a half."""

    def forward(self, images: Tensor) -> Tensor:
        red = images[:, 0].mean(dim=(1, 2)) - 0.5
        return torch.stack([red, -red], dim=1)


def twins_and_faces(count: int = 6) -> tuple[Faces, Tensor, Tensor]:
    """Red faces are happy, every third one is neutral and its own twin; twins are not red. Normalised as BGR."""
    twin = random(count, 5) * torch.tensor([0.4, 1, 1])[:, None, None]
    face = twin.clone()
    labels = np.where(np.arange(count) % 3 == 2, 1, 0)
    face[labels == 0, 0] += 0.55
    mean, std = (torch.tensor(values)[:, None, None] for values in (SCALE.mean, SCALE.std))
    face, twin = ((images.flip(1) - mean) / std for images in (face, twin))
    given = Faces(
        CLASSES, labels, lambda at: face[at], lambda title, at: face[at], scales={"A": SCALE},
        twins=lambda title, at: twin[at], persons=np.arange(count) // 2,
    )  # fmt: skip
    return given, face, twin


@pytest.mark.parametrize("batch", [64, 4])
def test_a_perfect_network_and_an_idle_one(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(measures, "BATCH", batch)
    given, face, twin = twins_and_faces()
    judges = {"identity": Judge(Means(), lambda images: images), "expression": Judge(Red(), lambda images: images)}
    names = [image.numpy().tobytes() for image in face]
    with torch.inference_mode():
        best = measures.pokerface(Stub(dict(zip(names, twin, strict=True))), given, "A", judges)
        idle = measures.pokerface(Stub(dict(zip(names, face, strict=True))), given, "A", judges)
    happy = given.labels == 0
    assert all(values.shape == (6,) and values.dtype == np.float64 for values in best.values())
    assert best["psnr_poker"].tolist() == [100] * 6
    assert np.abs(best["identity_poker"]).max() < 1e-6
    assert (best["identity_other"] > 1e-5).all()
    assert best["expression_input"].tolist() == [1] * 6
    assert best["expression_poker"][happy].max() == 0
    assert best["neutral_poker"].tolist() == best["neutral_twin"].tolist() == [1] * 6
    assert best["neutral_input"].tolist() == (~happy).tolist()
    assert np.isnan(best["error_poker"]).tolist() == (~happy).tolist()
    assert (idle["error_poker"] == idle["error_input"])[happy].all()
    for name in ("identity", "expression", "neutral", "psnr", "ssim"):
        assert idle[f"{name}_poker"] == pytest.approx(idle[f"{name}_input"]), name
    assert best["cosine_tokens"] == pytest.approx([0.5 / 2**0.5] * 6)  # orthogonal, and at 135 degrees


def test_the_true_colours_are_judged() -> None:
    """Networks see BGR, normalised; judges see RGB pictures in [0, 1]."""
    given, face, _ = twins_and_faces()
    seen = []
    spy = Judge(Means(), lambda images: seen.append(images) or images)
    stub = Stub(dict(zip([image.numpy().tobytes() for image in face], face, strict=True)))
    with torch.inference_mode():
        measures.pokerface(stub, given, "A", {"identity": Judge(Means(), lambda images: images), "expression": spy})
    shown = seen[0]
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert shown[0, 0].mean() > 0.5 > shown[2, 0].mean()


def test_faces_without_twins_are_refused() -> None:
    given, _, _ = twins_and_faces()
    for lacking in ({"twins": None}, {"persons": None}, {"classes": ("happiness", "anger")}):
        with pytest.raises(UserError, match="neutral twins"):
            measures.pokerface(Stub({}), replace(given, **lacking), "A", {})
