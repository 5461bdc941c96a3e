"""Metrics against scikit-learn, and the refusals of predictions files."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from bench import metrics
from bench.errors import UserError

CLASSES = ("neutral", "happiness", "fear")


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    classes = draw(st.integers(2, 8))
    ids = st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60)
    pairs = np.array(draw(ids))
    return pairs[:, 0], pairs[:, 1], classes


@given(answers())
def test_everything_agrees_with_scikit_learn(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    truth, predicted, classes = case
    matrix = metrics.confusion(truth, predicted, classes)
    present = np.unique(truth)
    np.testing.assert_array_equal(matrix, oracle.confusion_matrix(truth, predicted, labels=range(classes)))
    assert metrics.accuracy(matrix) == pytest.approx(oracle.accuracy_score(truth, predicted))
    recalls = oracle.recall_score(truth, predicted, labels=present, average=None)
    np.testing.assert_allclose(metrics.class_accuracy(matrix)[present], recalls)
    assert np.isnan(np.delete(metrics.class_accuracy(matrix), present)).all()
    assert metrics.mean_class_accuracy(matrix) == pytest.approx(recalls.mean())
    f1 = oracle.f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
    assert metrics.macro_f1(matrix) == pytest.approx(f1)
    np.testing.assert_allclose(metrics.prediction_shares(matrix)[present].sum(axis=1), 1.0)


def test_confusion_refuses_what_it_cannot_count() -> None:
    with pytest.raises(ValueError, match="equally long"):
        metrics.confusion(np.array([0, 1]), np.array([0]), 2)
    for bad in (-1, 2):
        with pytest.raises(ValueError, match=r"0\.\.1"):
            metrics.confusion(np.array([0, bad]), np.array([0, 0]), 2)


def test_metrics_by_claim_name_pool_folds() -> None:
    folds = [np.array([[8, 2, 0], [0, 5, 0], [1, 3, 0]]), np.array([[9, 1, 0], [5, 0, 0], [0, 2, 4]])]
    pooled = folds[0] + folds[1]
    value = lambda metric: metrics.metric_value(metric, CLASSES, *folds)  # noqa: E731
    assert value("accuracy") == 26 / 40
    assert value("mean_class_accuracy") == pytest.approx((17 / 20 + 5 / 10 + 4 / 10) / 3)
    assert value("class_accuracy[fear]") == 0.4
    assert value("prediction_share[fear>happiness]") == 0.5
    assert value("macro_f1") == pytest.approx(metrics.macro_f1(pooled))
    assert metrics.metric_parts("prediction_share[fear>happiness]", CLASSES, pooled) == ((5.0, 10.0),)


def test_a_class_without_images_has_no_value() -> None:
    matrix = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert math.isnan(metrics.metric_value("class_accuracy[fear]", CLASSES, matrix))
    assert metrics.metric_value("mean_class_accuracy", CLASSES, matrix) == pytest.approx((0.75 + 1) / 2)


@pytest.mark.parametrize(
    ("metric", "hint"),
    [
        ("acuracy", "accuracy"),
        ("class_accuracy", r"class_accuracy\[fear\]"),
        ("accuracy[fear]", "wrong brackets"),
        ("prediction_share[fear]", "wrong brackets"),
        ("class_accuracy[feer]", "fear"),
    ],
)
def test_unknown_metrics_are_named_with_a_near_match(metric: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        metrics.metric_value(metric, CLASSES, np.eye(3))


def predictions(label: list[str], chosen: list[str], epoch: int = 5) -> pd.DataFrame:
    frame = pd.DataFrame({"name": [f"im{i}" for i in range(len(label))], "label": label, "epoch": np.int32(epoch)})
    for name in CLASSES:
        frame[f"p_{name}"] = np.array([0.8 if c == name else 0.1 for c in chosen], dtype=np.float32)
    return frame


def test_a_predictions_file_is_scored(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "predictions-last.parquet"
    predictions(["fear", "fear", "neutral", "happiness"], ["fear", "happiness", "neutral", "happiness"]).to_parquet(
        path
    )
    scores = metrics.from_predictions(path)
    assert scores.classes == CLASSES
    assert [e.epoch for e in scores.epochs] == [5]
    assert scores.row() == {
        "n": 4, "correct": 3, "accuracy": 0.75, "mean_class_accuracy": 0.833333, "macro_f1": 0.777778,
    }  # fmt: skip
    assert scores.class_rows()[2] == {"class": "fear", "n": 2, "correct": 1, "accuracy": 0.5}
    assert math.isnan(scores.sd("accuracy"))
    assert metrics.correctness(path) == {"im0": True, "im1": False, "im2": True, "im3": True}


def test_means_of_batch_accuracies() -> None:
    """3,137 images are 49 batches of 64 and one of a single image: 2,801 right answers are 89.50 or 87.53."""
    right = [True] * 2800 + [False] * 336
    first = metrics.batch_mean([*right, True], 64)
    assert first.value == pytest.approx((2800 / 64 + 1) / 50)
    assert f"{100 * first.value:.2f}" == "89.50"
    other = metrics.batch_mean([True, *right], 64)
    assert other.value == pytest.approx(2801 / 64 / 50)
    for mean in (first, other):
        assert (mean.least, mean.most) == (pytest.approx(2801 / 64 / 50), pytest.approx((2800 / 64 + 1) / 50))
        assert mean.last == 1


def test_batches_that_fit_have_the_plain_accuracy() -> None:
    found = metrics.batch_mean([True, False, True, True], 2)
    assert (found.value, found.least, found.most, found.last) == (0.75, 0.75, 0.75, 2)
    few = metrics.batch_mean([False, True, True], 64)  # one batch
    assert (few.value, few.least, few.most) == (pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3))
    # 2 of 5 right, the last of batches of 3 holds two: (0 + 2/2) / 2 at best, (2/3 + 0) / 2 at worst
    assert metrics.batch_mean([True, False, False, False, True], 3) == metrics.BatchMean(
        pytest.approx((1 / 3 + 1 / 2) / 2), pytest.approx(1 / 3), pytest.approx(1 / 2), 2
    )
    # 4 of 5 right: the last batch cannot have none right
    assert metrics.batch_mean([True, True, True, True, False], 3).least == pytest.approx((1 + 1 / 2) / 2)
    with pytest.raises(ValueError, match="0 images"):
        metrics.batch_mean([], 64)


def test_several_epochs_are_averaged_and_do_not_enlarge_the_test_set() -> None:
    labels = ["fear", "fear", "neutral", "neutral"]
    frames = [
        predictions(labels, ["fear", chosen, "neutral", "neutral"], e) for e, chosen in ((8, "fear"), (9, "neutral"))
    ]
    scores = metrics.from_predictions(pd.concat(frames))
    assert scores.n == 4
    assert scores.correct == 3.5
    assert scores.mean("accuracy") == 0.875
    assert scores.sd("accuracy") == pytest.approx(np.std([1.0, 0.75], ddof=1))
    assert scores.matrix.sum() == 4
    assert "fear,0.5,0,1.5" in metrics.confusion_csv(scores.classes, scores.matrix)


def spoiled(change: str) -> pd.DataFrame:
    frame = predictions(["fear", "neutral"], ["fear", "neutral"])
    if change == "nan":
        frame.loc[1, "p_fear"] = np.nan
    elif change == "label":
        frame.loc[1, "label"] = "joy"
    elif change == "twice":
        frame.loc[1, "name"] = "im0"
    elif change == "column":
        frame = frame.drop(columns="label")
    elif change == "empty":
        frame = frame[:0]
    elif change == "epochs":
        frame = pd.concat([frame, predictions(["fear"], ["fear"], 6)])
    return frame


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("nan", "1 of 2 predictions are not finite, the first for image im1"),
        ("label", "label 'joy' of image im1"),
        ("twice", "image im0 appears twice"),
        ("column", "no column label"),
        ("empty", "no predictions"),
        ("epochs", "epoch 5: 2, epoch 6: 1"),
    ],
)
def test_bad_predictions_are_refused_by_file(change: str, says: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "predictions-last.parquet"
    spoiled(change).to_parquet(path)
    with pytest.raises(UserError, match=says) as error:
        metrics.from_predictions(path)
    assert str(path) in error.value.message


def test_a_damaged_file_is_refused_by_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "predictions-last.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match=r"predictions-last\.parquet: not a readable"):
        metrics.from_predictions(path)
