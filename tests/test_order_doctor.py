"""A wrong class order is found and named, and only where there is one."""

from __future__ import annotations

import csv
import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import run_all
from bench import declare, metrics
from bench.data import order_doctor as doctor
from bench.data.classes import EXPRESSIONS, ORDERS
from bench.data.order_doctor import Result
from bench.data.order_doctor_read import read
from bench.errors import UserError

FERPLUS = ORDERS["ferplus"]
TEST = declare.load().protocols["ferplus-8@majority"].class_counts["test"]
RAF_TEST = declare.load().protocols["raf-db-7"].class_counts["test"]
PAIRS = [
    (base, other)
    for base, other in itertools.permutations(ORDERS, 2)
    if set(ORDERS[base]) == set(ORDERS[other]) and ORDERS[base] != ORDERS[other]
]
matrices = st.integers(2, 5).flatmap(
    lambda n: arrays.arrays(np.int64, (n, n), elements=st.integers(0, 30)).filter(lambda matrix: matrix.sum() > 0)
)


def good(classes: tuple[str, ...], seed: int = 0, share: float = 0.8, images: int = 120) -> np.ndarray:
    """Confusion matrix of a network that is right for about `share` of each class."""
    draw = np.random.default_rng(seed)
    rest = (1 - share) / (len(classes) - 1)
    chances = np.full((len(classes), len(classes)), rest) + np.eye(len(classes)) * (share - rest)
    return np.array([draw.multinomial(images + 7 * i, row) for i, row in enumerate(chances)], dtype=np.int64)


def misnamed(matrix: np.ndarray, base: tuple[str, ...], meant: tuple[str, ...]) -> np.ndarray:
    """Predictions whose numbers meant `meant`, with names of `base`; rows and columns of `matrix` are in `base`."""
    return matrix[:, [base.index(label) for label in meant]]


# ------------------------------------------------------------------------------------------------- the right diagnosis
@pytest.mark.parametrize(("base", "other"), PAIRS)
def test_predictions_in_another_known_order_are_named(base: str, other: str) -> None:
    order = ORDERS[base]
    whole = good(order)
    found = doctor.diagnose(Result(order, misnamed(whole, order, ORDERS[other]), order))
    assert found.verdict == "wrong"
    assert found.known[0].right == np.trace(whole)
    assert f"the predictions are numbered in the order '{other}'" in found.known[0].titles
    assert [order[i] for i in found.known[0].means] == list(ORDERS[other])


@pytest.mark.parametrize(("base", "other"), PAIRS[::3])
def test_labels_in_another_known_order_are_named(base: str, other: str) -> None:
    order = ORDERS[base]
    wrong = misnamed(good(order).T, order, ORDERS[other]).T
    found = doctor.diagnose(Result(order, wrong, order))
    assert found.verdict == "wrong"
    assert f"the labels are numbered in the order '{other}'" in found.known[0].titles
    text = doctor.render(found, "x")
    moved = next((named, meant) for named, meant in zip(order, ORDERS[other], strict=True) if named != meant)
    if found.known[0].titles[0].startswith("the labels"):
        assert "as a label" in text
        assert any(line.split() == [moved[0], "->", moved[1]] for line in text.splitlines())


@given(st.sampled_from(PAIRS), st.integers(0, 10**6), st.floats(0.55, 0.95))
@settings(max_examples=25, deadline=None)
def test_any_good_network_is_put_right(pair: tuple[str, str], seed: int, share: float) -> None:
    order, meant = ORDERS[pair[0]], ORDERS[pair[1]]
    whole = good(order, seed, share)
    assert doctor.diagnose(Result(order, whole, order)).verdict == "right"
    found = doctor.diagnose(Result(order, misnamed(whole, order, meant), order))
    assert found.verdict == "wrong"
    assert found.known[0].means == tuple(order.index(label) for label in meant)


def test_orders_that_are_the_same_on_the_classes_present_are_named_together() -> None:
    seven = ORDERS["affectnet"][:7]  # ckextended and fer2013 differ only in contempt
    found = doctor.diagnose(Result(seven, misnamed(good(seven), seven, ORDERS["fer2013"]), seven))
    assert {f"the predictions are numbered in the order '{name}'" for name in ("fer2013", "ckextended")} <= set(
        found.known[0].titles
    )
    assert found.named == ("affectnet",)


def test_names_without_an_order_are_tried_in_every_pair_of_orders() -> None:
    classes = tuple(sorted(FERPLUS))
    whole = good(classes)
    meant = dict(zip(ORDERS["affectnet"], ORDERS["apvit"], strict=True))
    found = doctor.diagnose(Result(classes, misnamed(whole, classes, tuple(meant[c] for c in classes))))
    assert found.verdict == "wrong"
    assert "predictions numbered in the order 'apvit' were named by 'affectnet'" in found.known[0].titles


def test_an_order_nobody_uses_is_shown_with_a_caution() -> None:
    meant = (*FERPLUS[5:], *FERPLUS[:5])
    assert not doctor.known_readings(Result(FERPLUS, good(FERPLUS), FERPLUS)).get(
        tuple(FERPLUS.index(label) for label in meant)
    )
    found = doctor.diagnose(Result(FERPLUS, misnamed(good(FERPLUS), FERPLUS, meant), FERPLUS))
    assert (found.verdict, found.wrong) == ("unknown order", True)
    text = doctor.render(found, "x")
    assert "no known order explains it" in text
    assert "weak network" in text
    assert f"{FERPLUS[0]:<9} -> {meant[0]}" in text


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_any_order_is_found_with_classes_as_unequal_as_the_benchmark(seed: int) -> None:
    draw = np.random.default_rng(seed)
    shares = 0.3 * draw.dirichlet(np.ones(8), 8) + 0.7 * np.eye(8)
    whole = np.array([draw.multinomial(TEST[label], row) for label, row in zip(FERPLUS, shares, strict=True)])
    meant = tuple(draw.permutation(FERPLUS).tolist())
    found = doctor.diagnose(Result(FERPLUS, misnamed(whole, FERPLUS, meant), FERPLUS))
    assert found.wrong or meant == FERPLUS
    assert [FERPLUS[i] for i in found.best.means] == list(meant)


def test_two_classes_somewhat_confused_are_no_other_order() -> None:
    matrix = good(FERPLUS, share=0.7)
    fear, surprise = FERPLUS.index("fear"), FERPLUS.index("surprise")
    matrix[fear] = 0
    matrix[fear, [fear, surprise]] = 40, 60  # most fear is taken for surprise, as weak networks do
    assert doctor.diagnose(Result(FERPLUS, matrix, FERPLUS)).verdict == "right"


def test_a_class_that_is_taken_for_another_is_no_other_order() -> None:
    matrix = np.diag([800, 800, 300, 40, 200, 10, 60, 10]).astype(np.int64)
    neutral, sadness = FERPLUS.index("neutral"), FERPLUS.index("sadness")
    matrix[neutral, [neutral, sadness]] = 200, 900  # most of neutral; renaming both would win images
    found = doctor.diagnose(Result(FERPLUS, matrix, FERPLUS))
    assert found.best.means[sadness] == neutral
    assert found.best.p < doctor.LEVEL
    assert found.verdict == "right"
    assert "takes for each other" in doctor.render(found, "x")


# ----------------------------------------------------------------------------------------------------- no false alarms
def dealt(counts: dict[str, int], order: tuple[str, ...], draw: np.random.Generator, shares: np.ndarray) -> np.ndarray:
    """Confusion matrix of predictions that know nothing of the images."""
    return np.array([draw.multinomial(counts[label], shares) for label in order], dtype=np.int64)


def test_random_predictions_almost_never_raise_an_alarm() -> None:
    verdicts: Counter[str] = Counter()
    for seed in range(60):
        draw = np.random.default_rng(seed)
        counts, order = (TEST, FERPLUS) if seed % 2 else (RAF_TEST, ORDERS["raf"])
        shares = draw.dirichlet(np.full(len(order), 0.3 if seed % 3 else 30))  # most are far from uniform
        verdicts[doctor.diagnose(Result(order, dealt(counts, order, draw, shares), order)).verdict] += 1
    assert verdicts["wrong"] + verdicts["unknown order"] <= 1, verdicts
    assert verdicts["undecided"] >= 57, verdicts


@pytest.mark.parametrize("answer", EXPRESSIONS)
def test_a_network_with_one_answer_raises_no_alarm(answer: str) -> None:
    matrix = np.zeros((8, 8), np.int64)
    matrix[:, FERPLUS.index(answer)] = [TEST[label] for label in FERPLUS]
    found = doctor.diagnose(Result(FERPLUS, matrix, FERPLUS))
    assert found.verdict == "undecided"
    # read as the largest class it would be right far more often
    assert found.best.right == max(TEST.values())


def test_a_handful_of_images_decides_nothing() -> None:
    found = doctor.diagnose(Result(FERPLUS, np.eye(8, dtype=np.int64)[:, ::-1].copy(), FERPLUS))
    assert found.verdict == "undecided"


# ---------------------------------------------------------------------------------------------------------- arithmetic
@given(matrices)
@settings(max_examples=150, deadline=None)
def test_best_is_that_of_brute_force(matrix: np.ndarray) -> None:
    n = len(matrix)
    scores = {
        p: (sum(matrix[p[j]][j] for j in range(n)), sum(p[j] == j for j in range(n)))
        for p in itertools.permutations(range(n))
    }
    means = doctor.best_of_all(matrix)
    assert scores[means] == max(scores.values())
    assert doctor.right(matrix, means) == scores[means][0]


def test_best_of_eleven_classes() -> None:
    order = tuple(f"c{i:02}" for i in range(11))
    meant = np.random.default_rng(3).permutation(11)
    whole = good(order)
    means = doctor.best_of_all(whole[:, meant])
    assert means == tuple(meant)


@given(matrices, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_discordant_counts_are_those_of_the_images(matrix: np.ndarray, random: object) -> None:
    n = len(matrix)
    first, second = ([*range(n)] for _ in range(2))
    random.shuffle(first)  # type: ignore[attr-defined]
    random.shuffle(second)  # type: ignore[attr-defined]
    images = [(i, j) for i in range(n) for j in range(n) for _ in range(matrix[i, j])]
    a = [first[j] == i for i, j in images]
    b = [second[j] == i for i, j in images]
    expected = (sum(x and not y for x, y in zip(a, b)), sum(y and not x for x, y in zip(a, b)))
    assert doctor.discordant(matrix, tuple(first), tuple(second)) == expected
    gain = sum(b) - sum(a)
    assert doctor.right(matrix, tuple(second)) - doctor.right(matrix, tuple(first)) == gain


def test_the_test_against_class_sizes_has_the_moments_of_dealing_out_again() -> None:
    matrix = np.array([[9, 3, 1], [2, 8, 4], [0, 5, 7]], dtype=np.int64)
    worth = np.array([[1.0, -1, 0], [0, 2, 0], [1, 0, -1]])
    truth = np.repeat(range(3), matrix.sum(axis=1))
    predicted = np.concatenate([np.repeat(range(3), row) for row in matrix])
    draw = np.random.default_rng(0)
    sums = [worth[truth, draw.permutation(predicted)].sum() for _ in range(20000)]
    z = (worth[truth, predicted].sum() - np.mean(sums)) / np.std(sums)
    assert doctor._by_sizes(matrix, worth) == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)), rel=0.1)


# --------------------------------------------------------------------------------------------------------------- files
def write_table(path: Path, matrix: np.ndarray, labels: tuple[str, ...], predicted: tuple[str, ...], seed: int) -> Path:
    rows = [(labels[i], predicted[j]) for i, j in np.ndindex(*matrix.shape) for _ in range(matrix[i, j])]
    places = np.random.default_rng(seed).permutation(len(rows))
    with path.open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["name", "label", "predicted"])
        out.writerows((f"img{n}", *rows[place]) for n, place in enumerate(places))
    return path


def write_parquet(path: Path, matrix: np.ndarray, classes: tuple[str, ...], epochs: int = 1) -> Path:
    import pandas as pd

    pairs = [(i, j) for i, j in np.ndindex(*matrix.shape) for _ in range(matrix[i, j])]
    frames = []
    for epoch in range(epochs):
        last = epoch == epochs - 1
        probabilities = np.eye(len(classes), dtype=np.float32)[[j if last else 0 for _, j in pairs]]
        frame = pd.DataFrame({"name": [str(n) for n in range(len(pairs))], "label": [classes[i] for i, _ in pairs]})
        frame["epoch"] = epoch
        frames.append(pd.concat([frame, pd.DataFrame(probabilities, columns=[f"p_{c}" for c in classes])], axis=1))
    pd.concat(frames).to_parquet(path)
    return path


def test_every_form_of_a_result_gives_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrix = misnamed(good(FERPLUS, images=30), FERPLUS, ORDERS["alphabetical-8"])
    digits = tuple(str(i) for i in range(8))
    ours = tmp_path / "matrix.csv"
    ours.write_text(metrics.confusion_csv(FERPLUS, matrix))
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(",".join(map(str, row)) for row in matrix.tolist()))
    shuffled = list(reversed(range(8)))
    top = tmp_path / "top.csv"
    lines = [["", *(FERPLUS[j] for j in shuffled)]]
    lines += [[FERPLUS[i], *(str(matrix[i, j]) for j in shuffled)] for i in range(8)]
    top.write_text("\n".join(map(",".join, lines)))
    words = tuple({"happiness": "Happy", "anger": "angry"}.get(label, label.upper()) for label in FERPLUS)
    forms = [
        ([str(write_parquet(tmp_path / "p.parquet", matrix, FERPLUS, epochs=2))]),
        ([str(ours)]),
        ([str(top)]),
        ([str(bare), "--order", "ferplus"]),
        ([str(bare), "--classes", ",".join(FERPLUS)]),
        ([str(write_table(tmp_path / "words.csv", matrix, words, words, 1)), "--order", "ferplus"]),
        ([str(write_table(tmp_path / "zero.csv", matrix, digits, digits, 2)), "--order", "ferplus"]),
        ([str(write_table(tmp_path / "one.csv", matrix, tuple(str(i + 1) for i in range(8)), digits, 3)),
          "--classes", ",".join(FERPLUS)]),
        ([str(write_table(tmp_path / "mixed.csv", matrix, words, tuple(f"{i}.0" for i in range(8)), 4)),
          "--order", "ferplus"]),
    ]  # fmt: skip
    answers = set()
    for words_of_command in forms:
        assert run_all.main(["data", "order-doctor", *words_of_command]) == 1
        text = capsys.readouterr().out
        answers.add(text[text.index("as given") :])
    assert len(answers) == 1, answers
    (text,) = answers
    assert f"as given: {100 * np.trace(matrix) / matrix.sum():.1f} % of {matrix.sum():,}" in text
    assert "if the predictions are numbered in the order 'alphabetical-8': " in text
    assert "(p < 0.0001)" in text
    assert "neutral   -> anger" in text
    assert "the class order is wrong: the predictions are numbered in the order 'alphabetical-8'" in text


def test_a_right_order_and_an_open_question_exit_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.csv"
    path.write_text(metrics.confusion_csv(FERPLUS, good(FERPLUS)))
    assert run_all.main(["data", "order-doctor", str(path)]) == 0
    assert capsys.readouterr().out.endswith("the class order is right\n")
    path.write_text(metrics.confusion_csv(FERPLUS, np.ones((8, 8))))
    assert run_all.main(["data", "order-doctor", str(path)]) == 0
    assert "undecided: " in capsys.readouterr().out


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_the_order_of_rows_does_not_matter(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("rows")
    matrix = good(FERPLUS, images=10)
    first, second = (
        doctor.diagnose(read(write_table(folder / f"{s}.csv", matrix, FERPLUS, FERPLUS, s), "ferplus"))
        for s in (0, seed)
    )
    assert doctor.render(first, "x") == doctor.render(second, "x")


def test_numbers_of_the_seven_classes_of_a_longer_order(tmp_path: Path) -> None:
    seven = ORDERS["affectnet"][:7]
    digits = tuple(str(i) for i in range(7))
    path = write_table(tmp_path / "a.csv", misnamed(good(seven), seven, ORDERS["raf"]), digits, digits, 0)
    found = doctor.diagnose(read(path, "affectnet"))
    assert found.result.classes == seven
    assert "the predictions are numbered in the order 'raf'" in found.known[0].titles


def test_classes_of_a_user_have_no_known_order_but_a_best_one(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("truth,bored,keen,lost\nbored,1,60,2\nkeen,3,2,70\nlost,50,1,0\n")
    found = doctor.diagnose(read(path))
    assert (found.known, found.verdict) == ((), "unknown order")
    assert "no known order has these classes" in doctor.render(found, "x")


BAD = {
    "numbers without an order": ("label,predicted\n0,1\n", {}, "classes are numbers", "--order"),
    "a number too many": ("label,predicted\n0,1\n9,1\n", {"order": "raf"}, "row 3: class 9", "--order"),
    "0 or 1": ("label,predicted\n1,2\n2,3\n", {"order": "raf"}, "may start at 0 or at 1", "--classes"),
    "an unknown word": ("label,predicted\nhapy,fear\n", {"order": "raf"}, "row 2: unknown class 'hapy'", "happiness"),
    "an empty cell": ("label,predicted\nfear,\n", {}, "row 2: no predicted", "leave the row out"),
    "a short row": ("name,label,predicted\na,fear\n", {}, "row 2: 2 cells, not 3", "correct"),
    "a repeat": ("name,label,predicted\na,fear,fear\na,fear,anger\n", {}, "row 3: image a is already in row 2", "once"),
    "not square": ("1,2\n3,4\n5,6\n", {"order": "raf"}, "row 1: 2 counts, but there are 3 rows", "square"),
    "no names": ("1,2\n3,4\n", {}, "the rows have no names", "--order"),
    "too few names": ("1,2\n3,4\n", {"classes": ["a", "b", "c"]}, "2 rows, but 3 classes", "--order"),
    "shares": ("t,fear,anger\nfear,0.9,0.1\nanger,0.2,0.8\n", {}, "row 2: '0.9' is no count", "predictions file"),
    "a negative count": ("1,-2\n3,4\n", {"classes": ["a", "b"]}, "row 1: '-2' is no count", "counts"),
    "rows unlike columns": ("t,fear,anger\nfear,9,1\nsad,2,8\n", {}, "rows are fear, sadness", "once in both"),
    "another order": ("t,fear,anger\nfear,9,1\nanger,2,8\n", {"order": "raf"}, "its classes are fear", "--order"),
    "an unknown order": ("1,2\n3,4\n", {"order": "rav"}, "unknown class order 'rav'", "raf"),
    "both": ("1,2\n3,4\n", {"order": "raf", "classes": ["a"]}, "--order and --classes", "one"),
    "a class twice": ("1,2\n3,4\n", {"classes": ["sad", "sadness"]}, "names a class twice", "once"),
    "empty": ("", {}, "is empty", "square csv"),
    "no comma": ("label predicted\n", {}, "no comma", "square csv"),
    "no images": ("t,fear,anger\nfear,0,0\nanger,0,0\n", {}, "2 classes, 0 images", "at least one image"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_by_file_and_row(case: str, tmp_path: Path) -> None:
    text, options, message, hint = BAD[case]
    path = tmp_path / "result.csv"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        doctor.diagnose(read(path, **options))
    assert message in raised.value.message
    assert hint in raised.value.hint


def test_a_missing_file_and_a_damaged_one(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)
    damaged = tmp_path / "bad.csv"
    damaged.write_bytes(b"\xff\xfe\x00label")
    with pytest.raises(UserError, match=r"bad\.csv cannot be read"):
        read(damaged)
    with pytest.raises(UserError, match="says its classes itself"):
        read(write_parquet(tmp_path / "p.parquet", good(FERPLUS), FERPLUS), "raf")


def test_odd_names_are_printed_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text('truth,"a, b",{c}\n"a, b",50,3\n{c},2,60\n')
    text = doctor.render(doctor.diagnose(read(path)), str(path))
    assert "a, b, {c}" in text
