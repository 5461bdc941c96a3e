"""Subsets of a test split: RAN's lists joined with a copy's own labels, and images without a twin in train or val."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Image, ferplus_protocol, write_csvs, write_official
from test_ran import face, write

from bench import declare, store
from bench.data import ran, twins
from bench.data.base import MARKER
from bench.data.ferplus.adapter import FERPlus
from bench.data.subsets import rule_of
from bench.declare import Declarations, Protocol
from bench.errors import UserError

OCCLUDED, TURNED = ran.FORMS["ferplus", "occlusion"], ran.FORMS["ferplus", "pose30"]
PARENT = ferplus_protocol()


def subset(rule: str, **fields: Any) -> Protocol:
    return ferplus_protocol(rule, subset_of=PARENT.id, **fields)


@cache
def declarations() -> Declarations:
    """The published protocols and small ones."""
    whole = declare.load_from([], [declare.ROOT / "bench" / "data" / "protocols.yaml"])
    folds = ferplus_protocol(folds=5).model_copy(update={"id": "in-folds"})
    return Declarations([], [*whole.protocols.values(), PARENT, folds])


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declare, "load", lambda root=None: declarations())


@pytest.fixture
def made_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of a few made-up lines pass for RAN's."""
    monkeypatch.setattr(ran, "check_published", lambda *given: None)


@pytest.fixture
def root(tmp_path: Path, ferplus_images: list[Image], made_lists: None) -> Path:
    """A data root with twelve faces, of which 9, 10 and 11 (happiness, surprise, sadness) are for testing."""
    write_official(tmp_path / "ferplus", ferplus_images)
    return tmp_path


def opened(root: Path, protocol: Protocol = PARENT) -> FERPlus:
    ds = FERPlus(root / "ferplus", protocol)
    ds.data_root = root
    return ds


def names(root: Path, protocol: Protocol) -> list[str]:
    found: list[str] = opened(root, protocol).index(protocol)["name"].tolist()
    return found


def image(number: int) -> str:
    return f"fer{number:07d}.png"


# --- lists ------------------------------------------------------------------------------------------------------------


def test_a_list_gives_its_images_once_with_the_copys_columns(root: Path) -> None:
    write(root / "lists", OCCLUDED, [face(OCCLUDED, n, n % 8, kind) for n, kind in ((11, 3), (9, 2), (11, 0))])
    wanted = subset("ran-occlusion", counts={"test": 2}, class_counts={"test": {"happiness": 1, "sadness": 1}})
    found = opened(root, wanted).index(wanted)
    assert found["name"].tolist() == [image(9), image(11)]
    assert found["label"].tolist() == ["happiness", "sadness"]
    assert found["split"].tolist() == ["test", "test"]
    assert found["occlusion"].tolist() == [2, 3]
    assert found["votes_happiness"].tolist() == [8, 0]
    assert found.index.tolist() == [0, 1]


def test_a_raw_list_keeps_its_repeats(root: Path) -> None:
    write(root / "lists", TURNED, [face(TURNED, n, n % 8) for n in (11, 9, 11)])
    wanted = subset("ran-raw-pose30", counts={"test": 3})
    assert names(root, wanted) == [image(9), image(11), image(11)]


@pytest.mark.parametrize(
    ("number", "label", "message"),
    [
        (9, 2, r"pose_30_ferplus_list\.txt, row 2: fer0000009\.png is surprise, but happiness in small@majority"),
        (3, 3, r"row 2: fer0000003\.png is not a test image of small@majority"),
        (77, 0, r"row 2: fer0000077\.png is not a test image of small@majority"),
    ],
)
def test_a_list_that_contradicts_the_copy_is_refused(root: Path, number: int, label: int, message: str) -> None:
    write(root, TURNED, [face(TURNED, 10, 2), face(TURNED, number, label)])
    wanted = subset("ran-pose30")
    assert opened(root, wanted).blocked(wanted) is None  # judged without reading labels
    with pytest.raises(UserError, match=message):
        names(root, wanted)


def test_counts_are_checked(root: Path) -> None:
    write(root, TURNED, [face(TURNED, 10, 2)])
    with pytest.raises(UserError, match=r"pose_30_ferplus_list\.txt does not give .* expected 2, found 1"):
        names(root, subset("ran-pose30", counts={"test": 2}))


def test_a_list_that_is_not_rans_is_for_synthetic_copies(tmp_path: Path, ferplus_images: list[Image]) -> None:
    write_official(tmp_path / "ferplus", ferplus_images)
    write(tmp_path / "ferplus" / "lists", TURNED, [face(TURNED, 10, 2)])
    wanted = subset("ran-pose30")
    stop = opened(tmp_path, wanted).blocked(wanted)
    assert stop is not None
    assert "pose_30_ferplus_list.txt is not RAN's published list" in stop.message
    (tmp_path / "ferplus" / MARKER).touch()
    write(tmp_path / "lists", TURNED, [face(TURNED, 11, 3)])  # for a real copy that lies beside it
    assert names(tmp_path, wanted) == [image(10)]


def test_without_the_list_a_subset_is_blocked(root: Path) -> None:
    wanted = subset("ran-pose30")
    stop = opened(root, wanted).blocked(wanted)
    assert stop is not None
    assert "pose_30_ferplus_list.txt is not under" in stop.message
    with pytest.raises(UserError, match="is not under"):
        names(root, wanted)


def test_lists_inside_the_copy_are_found(root: Path) -> None:
    write(root / "ferplus" / "FERplus_dir", TURNED, [face(TURNED, 10, 2)])
    assert names(root, subset("ran-pose30")) == [image(10)]
    alone = FERPlus(root / "ferplus", PARENT)  # opened without a data root
    assert len(alone.index(subset("ran-pose30"))) == 1


def test_a_copy_that_cannot_serve_the_parent_cannot_serve_its_subsets(
    tmp_path: Path, ferplus_images: list[Image]
) -> None:
    write_csvs(tmp_path / "ferplus", ferplus_images)
    write(tmp_path, TURNED, [face(TURNED, 10, 2)])
    wanted = subset("ran-pose30")
    stop = opened(tmp_path, wanted).blocked(wanted)
    assert stop is not None
    assert "needs the votes of label.csv" in stop.message


def test_images_left_out_on_purpose_may_be_lacking(root: Path) -> None:
    write(root, TURNED, [face(TURNED, n, n % 8) for n in (9, 10, 11)])
    (root / "ferplus" / "FER2013Test" / image(10)).unlink()
    wanted = subset("ran-pose30", counts={"test": 3})
    with pytest.raises(UserError, match=r"fer0000010\.png is missing"):
        names(root, wanted)
    ds = opened(root, wanted)
    ds.skip_bad = True
    assert ds.index(wanted)["name"].tolist() == [image(9), image(11)]
    assert list(ds.skipped) == [image(10)]


@pytest.mark.parametrize(
    "rule", ["", "ran-", "ran-pose60", "ran-raw", "leakfree", "leak-free+ran-pose30", "+leak-free"]
)
def test_an_unknown_rule_is_named(rule: str) -> None:
    with pytest.raises(UserError, match="unknown rule of subset") as error:
        rule_of(subset(rule))
    assert any(known in error.value.hint for known in ("ran-pose30", "ran-raw-pose30", "leak-free"))


# --- twins ------------------------------------------------------------------------------------------------------------


def with_twins(images: Sequence[Image], *pairs: tuple[int, int]) -> list[Image]:
    """The images, the second of each pair with the pixels of the first."""
    changed = list(images)
    for first, second in pairs:
        changed[second] = (*changed[second][:3], changed[first][3])
    return changed


@pytest.fixture
def leaky(tmp_path: Path, ferplus_images: list[Image], made_lists: None) -> Path:
    """Test image 9 is also in train under another label, 10 also in val; 0 and 1 are twins within train."""
    write_official(tmp_path / "ferplus", with_twins(ferplus_images, (9, 4), (10, 7), (0, 1)))
    return tmp_path


def test_leak_free_leaves_out_twins_in_train_and_val(leaky: Path) -> None:
    assert twins.leaked(opened(leaky)) == {image(9), image(10)}
    assert names(leaky, subset("leak-free", counts={"test": 1})) == [image(11)]
    write(leaky, TURNED, [face(TURNED, n, n % 8) for n in (10, 11)])
    assert names(leaky, subset("ran-pose30+leak-free")) == [image(11)]


def test_twins_within_test_stay(tmp_path: Path, ferplus_images: list[Image]) -> None:
    write_official(tmp_path / "ferplus", with_twins(ferplus_images, (9, 10)))
    assert len(names(tmp_path, subset("leak-free"))) == 3


def test_twins_are_looked_for_among_all_images_of_the_copy(tmp_path: Path, ferplus_images: list[Image]) -> None:
    images = with_twins(ferplus_images, (9, 4))
    images[4] = (images[4][0], images[4][1], [1] * 10, images[4][3])  # no majority: not in the protocol
    write_official(tmp_path / "ferplus", images)
    assert len(opened(tmp_path).index(PARENT)) == 11
    assert names(tmp_path, subset("leak-free")) == [image(10), image(11)]


def test_the_answer_is_kept_until_the_copy_changes(
    leaky: Path, ferplus_images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    find = twins.find
    monkeypatch.setattr(twins, "find", lambda ds: looked.append(1) or find(ds))
    for _ in range(3):
        assert len(twins.leaked(opened(leaky))) == 2
    assert len(looked) == 1
    (kept,) = (path for path in (store.cache_root() / "twins").iterdir() if path.name.startswith(opened(leaky).storage))
    kept.write_text("[1, 2")
    assert len(twins.leaked(opened(leaky))) == 2
    assert len(looked) == 2
    with (leaky / "ferplus" / "FER2013Train" / "label.csv").open("a") as file:
        file.write("\n")
    assert len(twins.leaked(opened(leaky))) == 2
    assert len(looked) == 3


def test_unreadable_images_are_no_twins_of_each_other(leaky: Path) -> None:
    for path in (f"FER2013Train/{image(2)}", f"FER2013Test/{image(11)}"):
        (leaky / "ferplus" / path).write_bytes(b"")
    ds = opened(leaky)
    ds.skip_bad = True
    assert twins.leaked(ds) == {image(9), image(10)}


def test_leak_free_means_nothing_in_folds(root: Path) -> None:
    wanted = ferplus_protocol("leak-free", subset_of="in-folds")
    stop = opened(root, wanted).blocked(wanted)
    assert stop is not None
    assert "leak-free is not defined for folds" in stop.message


# --- the real set -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "images"), [("ferplus-occlusion", 605), ("ferplus-pose30", 1170), ("ferplus-pose45", 633)]
)
def test_real_lists(ferplus_official: Path, ran_lists: Path, name: str, images: int) -> None:
    wanted = declare.load().protocol(name)
    ds = FERPlus(ferplus_official, wanted)
    ds.data_root = ran_lists
    found = ds.index(wanted)
    assert len(found) == images
    whole = ds.index(declare.load().protocol("ferplus-8@majority"))
    assert set(found["name"]) <= set(whole["name"][whole["split"] == "test"])


@pytest.mark.slow
def test_real_leaks(ferplus_official: Path, ran_lists: Path) -> None:
    images = {
        "ferplus-8@majority": 2870, "ferplus-occlusion": 528, "ferplus-pose30": 1081, "ferplus-pose45": 596,
        "ferplus-8@argmax8": 3259, "ferplus-8@argmax10": 3233, "ferplus-8@soft": 3198,
        "ferplus-8@majority-fer2013new": 2869, "ferplus-8@argmax8-fer2013new": 3259,
        "ferplus-8@argmax10-fer2013new": 3233, "ferplus-8@soft-fer2013new": 3198,
    }  # fmt: skip
    for name, left in images.items():
        wanted = declare.load().protocol(f"{name}-leak-free")
        ds = FERPlus(ferplus_official, wanted)
        ds.data_root = ran_lists
        assert len(ds.index(wanted)) == left
    assert np.isin(list(twins.leaked(ds)), ds.names()).all()
