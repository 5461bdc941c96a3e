"""F-PDLS, PDLS and their priors: Eq. 2 and 3 by hand, what they are in their limits, and the priors by class name."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from test_ferplus import declared
from test_ferplus import real_labels as real_labels
from torch import Tensor
from torch.nn import functional as F

from bench.data.classes import ORDERS
from bench.data.ferplus import labels
from bench.data.ferplus.adapter import FERPlus
from bench.data.ferplus.prior_votes import released_prior_votes
from bench.errors import UserError
from methods.nresizer import ferplus_prior, prior
from methods.nresizer.losses import prior_weighted

PRIOR = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]], dtype=torch.float64)
UNIFORM = torch.full((3, 3), 1 / 3, dtype=torch.float64)


def drawn(images: int = 12, classes: int = 3, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits (B, K) float64 and labels (B,)."""
    generator = torch.Generator().manual_seed(images)
    logits = spread * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (images,), generator=generator)


# --- Eq. 2 and 3 by hand ----------------------------------------------------------------------------------------------
# An image of class 1 with softmax .5, .3, .2 and one of class 0 with softmax .25, .25, .5; alpha .6:
# .6 [c = k] + .4 d_k is .08, .88, .04 for the first and .92, .04, .04 for the second.
SOFTMAX = [[log(0.5), log(0.3), log(0.2)], [log(0.25), log(0.25), log(0.5)]]
# The same labels and weights with sigmoids .5, .75, .25 and .75, .25, .5: the logit of .75 is log 3, of .25 -log 3.
SIGMOID = [[0.0, log(3), -log(3)], [log(3), -log(3), 0.0]]


def test_pdls_is_eq_3() -> None:
    first = -(0.08 * log(0.5) + 0.88 * log(0.3) + 0.04 * log(0.2))
    second = -(0.92 * log(0.25) + 0.04 * log(0.25) + 0.04 * log(0.5))
    found = prior_weighted(torch.tensor(SOFTMAX) + 7, torch.tensor([1, 0]), PRIOR, 0.6, 0.0)
    assert found.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_f_pdls_is_eq_2_with_each_classs_own_probability() -> None:
    first = -(0.25 * 0.08 * log(0.5) + 0.49 * 0.88 * log(0.3) + 0.64 * 0.04 * log(0.2))
    second = -(0.5625 * 0.92 * log(0.25) + 0.5625 * 0.04 * log(0.25) + 0.25 * 0.04 * log(0.5))
    found = prior_weighted(torch.tensor(SOFTMAX) - 7, torch.tensor([1, 0]), PRIOR, 0.6, 2.0)
    assert found.item() == pytest.approx((first + second) / 2, abs=1e-6)


@pytest.mark.parametrize("gamma", [0, 1, 2])
def test_the_same_with_sigmoids(gamma: int) -> None:
    first = -(
        0.5**gamma * 0.08 * log(0.5) + 0.25**gamma * 0.88 * log(0.75) + 0.75**gamma * 0.04 * log(0.25)
    )  # fmt: skip
    second = -(
        0.25**gamma * 0.92 * log(0.75) + 0.75**gamma * 0.04 * log(0.25) + 0.5**gamma * 0.04 * log(0.5)
    )  # fmt: skip
    found = prior_weighted(torch.tensor(SIGMOID), torch.tensor([1, 0]), PRIOR, 0.6, gamma, "sigmoid")
    assert found.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_the_class_is_the_label_also_where_its_prior_peaks_elsewhere() -> None:
    """The released code would take class 1, where the row has its largest entry."""
    astray = PRIOR.clone()
    astray[0] = torch.tensor([0.2, 0.7, 0.1])
    first = -(0.68 * log(0.5) + 0.28 * log(0.3) + 0.04 * log(0.2))  # .6 [c = 0] + .4 (.2, .7, .1)
    found = prior_weighted(torch.tensor(SOFTMAX[:1]), torch.tensor([0]), astray, 0.6, 0.0)
    assert found.item() == pytest.approx(first, abs=1e-6)


def test_an_unknown_probability_is_named() -> None:
    with pytest.raises(UserError, match="unknown probability 'sofmax'") as error:
        prior_weighted(torch.zeros(1, 3), torch.tensor([0]), PRIOR, 0.6, 0.0, "sofmax")
    assert "softmax" in error.value.hint


# --- limits -----------------------------------------------------------------------------------------------------------
def test_alpha_one_without_focus_is_cross_entropy() -> None:
    logits, targets = drawn(64)
    torch.testing.assert_close(prior_weighted(logits, targets, PRIOR, 1, 0), F.cross_entropy(logits, targets))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_a_uniform_prior_without_focus_is_label_smoothing(alpha: float) -> None:
    logits, targets = drawn(64)
    smoothed = F.cross_entropy(logits, targets, label_smoothing=1 - alpha)
    torch.testing.assert_close(prior_weighted(logits, targets, UNIFORM, alpha, 0.0), smoothed)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_alpha_one_is_focal_loss(gamma: float) -> None:
    logits, targets = drawn(64)
    log_p = -F.cross_entropy(logits, targets, reduction="none")
    focal = (-((1 - log_p.exp()) ** gamma) * log_p).mean()
    torch.testing.assert_close(prior_weighted(logits, targets, PRIOR, 1.0, gamma), focal)


def test_real_ferplus_labels_alpha_one_without_focus_is_cross_entropy_in_every_batch(real_labels: Path) -> None:
    """One epoch of the benchmark's 25,045 training labels in batches of 64, under the prior of the released code."""
    protocol = declared()["ferplus-8@majority"]
    index = FERPlus(real_labels, protocol).index(protocol)
    names = index.loc[index["split"] == "train", "label"]
    generator = torch.Generator().manual_seed(0)
    targets = torch.tensor(names.map(protocol.classes.index).tolist())
    targets = targets[torch.randperm(len(targets), generator=generator)]
    logits = 4 * torch.randn(len(targets), 8, generator=generator)
    weights = torch.from_numpy(prior.for_classes(protocol.classes))
    batches = list(zip(logits.split(64), targets.split(64), strict=True))
    assert len(batches) == 392
    found = torch.stack([prior_weighted(z, y, weights, alpha=1.0, gamma=0.0) for z, y in batches])
    wanted = torch.stack([F.cross_entropy(z, y) for z, y in batches])
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


# --- gradients --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("probability", ["softmax", "sigmoid"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradients_are_those_of_the_numbers(gamma: float, probability: str) -> None:
    logits, targets = drawn(5)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: prior_weighted(z, targets, PRIOR, 0.8, gamma, probability), logits)


@pytest.mark.parametrize("probability", ["softmax", "sigmoid"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_extreme_logits_have_finite_losses_and_gradients(gamma: float, probability: str, kind: torch.dtype) -> None:
    logits = torch.tensor(
        [[1e4, -1e4, -1e4], [-1e4, 1e4, -1e4], [1e4, 1e4, 1e4], [0, 30, -30]], dtype=kind, requires_grad=True
    )
    loss = prior_weighted(logits, torch.tensor([0, 0, 1, 1]), PRIOR, 0.8, gamma, probability)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert gradient[1].abs().max() > 0  # wrong and sure of it: this image must still teach


# --- priors -----------------------------------------------------------------------------------------------------------
def test_class_means_weigh_every_image_alike() -> None:
    counts = np.array([[8.0, 2, 0], [1, 1, 0], [0, 0, 0], [0, 9, 0], [3, 3, 4]])
    found = prior.class_means(counts, np.array([0, 0, 0, 1, 2]), 3)
    # class 0: (.8, .2, 0) and (.5, .5, 0); its image without votes counts for nothing
    np.testing.assert_allclose(found, [[0.65, 0.35, 0], [0, 1, 0], [0.3, 0.3, 0.4]], atol=1e-12)


def test_a_class_without_votes_has_no_prior() -> None:
    with pytest.raises(UserError, match="no training image of class 1") as error:
        prior.class_means(np.ones((2, 3)), np.array([0, 2]), 3)
    assert "uniform" in error.value.hint


def test_the_stored_prior_is_that_of_the_released_code(ferplus_source: Path) -> None:
    counts, classes = released_prior_votes(labels.read_fer2013new(ferplus_source / "fer2013new.csv"))
    assert ferplus_prior.CLASSES == labels.EMOTIONS
    assert np.bincount(classes).tolist() == list(ferplus_prior.IMAGES)
    assert list(ferplus_prior.IMAGES) == [9030, 7335, 3173, 3047, 2054, 107, 510, 115]
    stored = np.array(ferplus_prior.MEANS)
    np.testing.assert_allclose(stored, prior.class_means(counts, classes, 8), rtol=0, atol=1e-9)


def test_the_stored_prior_has_the_published_diagonal() -> None:
    stored = np.array(ferplus_prior.MEANS)
    known = [0.777, 0.918, 0.787, 0.748, 0.741, 0.621, 0.659, 0.678]
    np.testing.assert_allclose(np.diag(stored), known, atol=5.01e-4)
    np.testing.assert_allclose(stored.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(prior.for_classes(ferplus_prior.CLASSES), stored, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", ["raf", "affectnet", "ckplus", "ckplus-7", "fer2013"])
def test_other_classes_take_their_entries_by_name(order: str) -> None:
    classes = ORDERS[order]
    by_name = {
        (row, column): share
        for row, shares in zip(ferplus_prior.CLASSES, ferplus_prior.MEANS, strict=True)
        for column, share in zip(ferplus_prior.CLASSES, shares, strict=True)
    }
    found = prior.for_classes(classes)
    for i, row in enumerate(classes):
        whole = sum(by_name[row, column] for column in classes)
        for j, column in enumerate(classes):
            assert found[i, j] == pytest.approx(by_name[row, column] / whole, abs=1e-12), (row, column)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)


def test_raf_dbs_anger_is_not_ferplus_row_five() -> None:
    """RAF-DB numbers anger 5, which is disgust in FERPlus: the released loss would take that row."""
    found = prior.for_classes(ORDERS["raf"])[5]
    assert found.argmax() == 5
    assert found[5] == pytest.approx(0.7405513439 / (1 - 0.0089888487), abs=1e-9)  # contempt's share goes to the others


def test_a_class_ferplus_does_not_have_is_named() -> None:
    with pytest.raises(UserError, match="FERPlus has no class pain") as error:
        prior.for_classes(["neutral", "pain"])
    assert "train-votes" in error.value.hint
