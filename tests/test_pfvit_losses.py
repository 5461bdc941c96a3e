"""PF-ViT's losses against Eqs. 5 to 8 written out, and the constraint's cosines."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from methods.pfvit import losses

LABELS = torch.tensor([2, 1, 0])  # of three classes, of which 1 is neutral
NEUTRAL = 1


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def entropy(answers: list[float], targets: list[int]) -> float:
    """Binary cross-entropies of one image's outputs, added up."""
    return -sum(
        target * math.log(sigmoid(answer)) + (1 - target) * math.log(1 - sigmoid(answer))
        for answer, target in zip(answers, targets)
    )


@pytest.fixture
def answers() -> Tensor:
    """Logits of nine faces: three real, three rebuilt, three poker faces."""
    return 2 * torch.randn(9, 4, generator=torch.Generator().manual_seed(0))


REAL = [[0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1]]
REBUILT = [[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
POKER = [[0, 1, 0, 0]] * 3


def called_real(targets: list[list[int]]) -> list[list[int]]:
    return [[*target[:3], 1] for target in targets]


def test_targets_of_equation_8() -> None:
    assert losses.wanted(LABELS, 3, real=True).tolist() == REAL
    assert losses.wanted(LABELS, 3, real=False).tolist() == REBUILT
    assert losses.wanted(torch.full_like(LABELS, NEUTRAL), 3, real=False).tolist() == POKER


def test_discriminator_minimises_equation_7(answers: Tensor) -> None:
    expected = sum(entropy(row, target) for row, target in zip(answers.tolist(), REAL + REBUILT + POKER)) / 9
    assert float(losses.discriminator(answers, LABELS, NEUTRAL, "all-faces")) == pytest.approx(expected, rel=1e-5)


def test_emotions_from_real_faces_alone(answers: Tensor) -> None:
    """Of generated faces only the last output is asked: whether they are real."""
    of_real = sum(entropy(row, target) for row, target in zip(answers.tolist(), REAL))
    of_generated = sum(entropy(row[-1:], [0]) for row in answers[3:].tolist())
    found = losses.discriminator(answers, LABELS, NEUTRAL, "real-faces")
    assert float(found) == pytest.approx((of_real + of_generated) / 9, rel=1e-5)


def test_looking_for_what_remains(answers: Tensor) -> None:
    """A poker face is called what its input is."""
    expected = sum(entropy(row, target) for row, target in zip(answers.tolist(), REAL + REBUILT + REBUILT)) / 9
    assert float(losses.discriminator(answers, LABELS, NEUTRAL, "remains")) == pytest.approx(expected, rel=1e-5)


def test_the_others_minimise_it_with_generated_faces_called_real(answers: Tensor) -> None:
    generated = answers[3:]
    targets = called_real(REBUILT + POKER)
    expected = sum(entropy(row, target) for row, target in zip(generated.tolist(), targets)) / 6
    found = losses.adversarial(generated, LABELS, NEUTRAL, "swapped-target")
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_literal_is_minus_the_discriminators_loss(answers: Tensor) -> None:
    """Of generated faces: what it says of real ones has no gradient to E, S and G."""
    generated = answers[3:].requires_grad_()
    literal = losses.adversarial(generated, LABELS, NEUTRAL, "literal")
    expected = sum(entropy(row, target) for row, target in zip(generated.tolist(), REBUILT + POKER)) / 6
    assert float(literal.detach()) == pytest.approx(-expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(literal, generated)
    whole = losses.discriminator(torch.cat([answers[:3], generated]), LABELS, NEUTRAL, "all-faces")
    (of_discriminator,) = torch.autograd.grad(whole, generated)
    torch.testing.assert_close(gradient / 9, -of_discriminator / 6)  # means over six and over nine images


def test_emotion_of_equation_5() -> None:
    logits = torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, 0.0], [0.3, 0.2, 0.1]])
    expected = sum(
        math.log(sum(math.exp(value) for value in row)) - row[label]
        for row, label in zip(logits.tolist(), LABELS.tolist())
    )
    assert float(losses.emotion(logits, LABELS)) == pytest.approx(expected / 3)
    assert float(losses.emotion(logits, LABELS, 0.3)) > expected / 3


def test_reconstruction_of_equation_6() -> None:
    """Three images of twelve numbers; only the second is neutral, and the mean is over all three."""
    images = torch.zeros(3, 3, 2, 2)
    rebuilt = images + torch.tensor([1.0, 2.0, 3.0])[:, None, None, None]
    poker = images + torch.tensor([7.0, 4.0, 9.0])[:, None, None, None]
    assert float(losses.reconstruction(rebuilt, images, "squared")) == pytest.approx((1 + 4 + 9) / 3)
    assert float(losses.reconstruction(rebuilt, images, "norm")) == pytest.approx((1 + 2 + 3) / 3)
    for kind, expected in (("squared", 16 / 3), ("norm", 4 / 3)):
        found = losses.neutral_reconstruction(poker, images, LABELS, NEUTRAL, kind)
        assert float(found) == pytest.approx(expected)
    others = torch.tensor([2, 0, 0])
    assert float(losses.neutral_reconstruction(poker, images, others, NEUTRAL, "squared")) == 0


def test_a_norm_has_a_finite_slope_at_zero() -> None:
    rebuilt = torch.zeros(1, 3, 2, 2, requires_grad=True)
    losses.reconstruction(rebuilt, torch.zeros(1, 3, 2, 2), "norm").backward()
    assert rebuilt.grad is not None
    assert rebuilt.grad.isfinite().all()


def test_norm_is_taken_of_each_image() -> None:
    images, rebuilt = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    rebuilt[0, 0] = 3.0  # a third of its numbers: mean square 3
    assert float(losses.reconstruction(rebuilt, images, "norm")) == pytest.approx(math.sqrt(3) / 2)
    assert float(losses.reconstruction(rebuilt, images, "squared")) == pytest.approx(1.5)


def test_orthogonality_and_sameness() -> None:
    first = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    second = torch.tensor([[[0.0, 5.0], [-3.0, 0.0], [0.0, 4.0], [1.0, 0.0]]])
    cosines = [0.0, -1.0, 1.0, math.sqrt(0.5)]
    squared, absolute = (losses.orthogonality(first, second, f"{kind}-cosine") for kind in ("squared", "absolute"))
    assert float(squared) == pytest.approx(sum(cosine**2 for cosine in cosines) / 4)
    assert float(absolute) == pytest.approx(sum(abs(cosine) for cosine in cosines) / 4)
    assert float(losses.sameness(first, second)) == pytest.approx(sum(1 - cosine for cosine in cosines) / 4)


def test_losses_are_in_full_precision() -> None:
    """Half-precision inputs give float32 that is that of the same numbers in float32."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(6, 4, generator=generator).bfloat16()
    images = torch.randn(2, 3, 4, 4, generator=generator).bfloat16()
    for found, expected in (
        (losses.adversarial(half, LABELS, 1, "literal"), losses.adversarial(half.float(), LABELS, 1, "literal")),
        (losses.orthogonality(half, -half, "squared-cosine"), torch.tensor(1.0)),
        (losses.distance(images, images + 1, "norm"), losses.distance(images.float(), (images + 1).float(), "norm")),
        (losses.emotion(half[:3], LABELS), losses.emotion(half[:3].float(), LABELS)),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)
