"""Class numbers are read in the order whose counts are the published ones, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import declare
from bench.data import order
from bench.data.classes import EXPRESSIONS, ORDERS
from bench.errors import UserError

RAF = {"raf-db-7": order.published()["raf-db-7"]}
SEVEN = [name for name, classes in ORDERS.items() if set(RAF["raf-db-7"]["train"]) <= set(classes)]
Numbered = dict[str, dict[str, int]]


def numbered(counts: order.Counts, name: str, first: int = 0) -> Numbered:
    """Published counts as a copy in an order would have them."""
    places = {label: str(place + first) for place, label in enumerate(ORDERS[name])}
    return {split: {places[label]: n for label, n in classes.items()} for split, classes in counts.items()}


def labels(fit: order.Fit, histogram: order.Histogram) -> dict[str, dict[str | None, int]]:
    return {split: {fit.label(token): n for token, n in tokens.items()} for split, tokens in histogram.items()}


def test_published_counts_are_those_of_the_protocols() -> None:
    assert [RAF["raf-db-7"]["train"][label] for label in ORDERS["raf"]] == [1290, 281, 717, 4772, 1982, 705, 2524]
    protocols = declare.load().protocols
    assert {"raf-db-7", "affectnet-7", "affectnet-8@4000", "ckplus-7@last3"} <= set(order.published())
    assert not any(protocols[name].synthetic or protocols[name].subset_of for name in order.published())


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", SEVEN)
def test_every_order_is_told_from_the_others(name: str, first: int) -> None:
    histogram = numbered(RAF["raf-db-7"], name, first)
    fit = order.detect(histogram, RAF)
    assert fit.distance == 0
    assert fit.remark == ""
    assert labels(fit, histogram) == RAF["raf-db-7"]


@pytest.mark.parametrize("name", ["raf", "affectnet"])
def test_a_few_images_more_or_fewer(name: str) -> None:
    histogram = numbered(RAF["raf-db-7"], name)
    histogram["train"]["3"] -= 40
    histogram["test"]["0"] += 3
    fit = order.detect(histogram, RAF)
    assert (fit.order, fit.first, fit.distance) == (name, 0, 43)
    assert "43 images off those of raf-db-7" in fit.remark
    assert f"the next order would be {fit.next_best:,} off" in fit.remark
    assert fit.next_best > 2_000


def test_another_order_is_refused() -> None:
    counts = RAF["raf-db-7"]
    turned = {split: {str(k): n for k, n in enumerate(reversed(classes.values()))} for split, classes in counts.items()}
    with pytest.raises(UserError, match=r"here: the counts per class fit no known order \(the nearest") as caught:
        order.detect(turned, RAF, "here")
    assert "label map" in caught.value.hint


@pytest.mark.parametrize(
    "histogram", [{"test": {str(k): 500 for k in range(8)}}, {"test": {str(k): 0 for k in range(8)}}]
)
def test_balanced_and_empty_sets_fit_several(histogram: Numbered) -> None:
    known = {"affectnet-8@4000": {"test": dict.fromkeys(EXPRESSIONS, 500)}}
    with pytest.raises(UserError, match=r"fit several orders alike: .*affectnet from 0.*ferplus from 0") as caught:
        order.detect(histogram, known)
    assert "label map" in caught.value.hint


def test_nothing_to_read() -> None:
    with pytest.raises(UserError, match="there are no classes"):
        order.detect({}, RAF)
    assert order.closest({}) is None


def test_words_need_no_order() -> None:
    histogram = {
        "train": {
            "Happy": 4772,
            "angry": 705,
            "suprise": 1290,
            "sad": 1982,
            "Fear": 281,
            "disgust": 717,
            "neutral": 2524,
        }
    }
    fit = order.detect(histogram, RAF)
    assert (fit.order, fit.distance, fit.absent) == ("", 0, ("test",))
    assert fit.label("Happy") == "happiness"
    assert fit.label("glad") is None


@pytest.mark.parametrize("name", SEVEN)
@pytest.mark.parametrize("split", ["test", "val"])
def test_raf_db_is_known_by_its_counts(name: str, split: str) -> None:
    histogram = numbered(RAF["raf-db-7"], name)
    histogram[split] = histogram.pop("test")
    assert order.which_dataset(histogram) == "rafdb"
    histogram["train"]["0"] += 400  # 2.6 % of the images
    assert order.which_dataset(histogram) == ""


def test_a_validation_part_cut_off_train() -> None:
    histogram = numbered(RAF["raf-db-7"], "raf")
    histogram["val"] = {token: n // 5 for token, n in histogram["train"].items()}
    histogram["train"] = {token: n - n // 5 for token, n in histogram["train"].items()}
    fit = order.detect(histogram, RAF)
    assert (fit.order, fit.distance) == ("raf", 0)


def test_a_tree_without_splits_is_compared_with_the_whole() -> None:
    counts = RAF["raf-db-7"]
    whole = {"": {label: n + counts["test"][label] for label, n in counts["train"].items()}}
    assert order.which_dataset(whole) == "rafdb"


@pytest.mark.parametrize("name", ["affectnet-7", "affectnet-8@4000", "ckplus-7@last3", "ferplus-8@majority"])
def test_other_sets_are_not_taken_for_raf_db(name: str) -> None:
    counts = order.published()[name]
    assert order.which_dataset(counts) == declare.load().protocols[name].dataset
    fit = order.closest(counts, RAF)
    assert fit is not None
    assert not fit.near


def test_own_folders_are_nobodys() -> None:
    assert order.which_dataset({"train": {"happy": 60, "sad": 40}, "test": {"happy": 10, "sad": 9}}) == ""
    assert order.which_dataset({"test": dict.fromkeys(EXPRESSIONS, 500)}) == ""
    assert order.which_dataset({"": {"apple": 4}}) == ""


KNOWN = [[ORDERS["raf"].index(c) for c in ORDERS[name][:7]] for name in SEVEN if "contempt" not in ORDERS[name][:7]]


@settings(max_examples=100, deadline=None)
@given(
    places=st.one_of(st.permutations(range(7)), st.sampled_from(KNOWN)),
    lost=st.integers(0, 100),
    where=st.integers(0, 6),
)
def test_no_order_is_taken_that_another_one_beats(places: list[int], lost: int, where: int) -> None:
    counts = RAF["raf-db-7"]
    histogram = {
        split: {str(number): list(classes.values())[place] for number, place in enumerate(places)}
        for split, classes in counts.items()
    }
    histogram["train"][str(where)] -= lost

    def distance(name: str, first: int) -> int:
        named = labels(order.Fit("", name, first, 0, 0), histogram)
        return sum(
            abs(named[split].get(label, 0) - classes.get(label, 0))
            for split, classes in counts.items()
            for label in {*named[split], *classes}
        )

    try:
        fit = order.detect(histogram, RAF)
    except UserError:
        assert places not in KNOWN
        return
    assert fit.distance == distance(fit.order, fit.first) <= 0.02 * 15_339
    assert all(fit.distance <= distance(name, first) for name in SEVEN for first in (0, 1))
