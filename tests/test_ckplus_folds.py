"""CK+ at full size: exact counts of every protocol, and folds that share no person."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from helpers_ckplus import RULES, SEVEN, Content, declared, full_size, protocol, write_ck48, write_official
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.ckplus.adapter import CKPlus
from bench.data.ckplus.files import CLASSES
from bench.data.ckplus.folds import SUBJECTS, at_random, by_subject
from bench.data.source import splits_of


@pytest.fixture(scope="module")
def full() -> Content:
    return full_size()


@pytest.fixture(scope="module")
def full_official(full: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_official(tmp_path_factory.mktemp("full"), full, decode=False)


@pytest.mark.parametrize("name", declared())
def test_counts_at_full_size(full_official: Path, name: str) -> None:
    wanted = declared()[name]
    frame = CKPlus(full_official, wanted).index(wanted)  # counts are checked there
    sizes = Counter(frame["fold"])
    assert sorted(sizes) == list(range(10))
    if name.endswith("-random"):
        assert max(sizes.values()) - min(sizes.values()) <= 1
    tested: Counter[str] = Counter()
    for fold in range(10):
        parts = splits_of(frame, wanted, fold)
        tested.update(frame["name"].iloc[parts["test"]])
        persons = [set(frame["subject"].iloc[rows]) for rows in parts.values()]
        assert name.endswith("-random") or not set.intersection(*persons)
        assert len(parts["train"]) + len(parts["test"]) == len(frame)
    assert set(tested.values()) == {1}
    assert len(tested) == len(frame)


def test_a_subject_has_one_fold_in_all_protocols(full_official: Path, full: Content, tmp_path: Path) -> None:
    folds: dict[str, int] = {}
    copies = [full_official, write_ck48(tmp_path, full, decode=False)]
    for wanted in declared().values():
        for root in copies:
            ds = CKPlus(root, wanted)
            if not wanted.rule.endswith("-random") and ds.blocked(wanted) is None:
                frame = ds.index(wanted)
                for subject, fold in zip(frame["subject"], frame["fold"], strict=True):
                    assert folds.setdefault(subject, fold) == fold
    assert len(folds) == 118


def test_remarks_at_full_size(full_official: Path) -> None:
    remarks = CKPlus(full_official, protocol()).remarks()
    assert "593 sequences, 327 labelled; those without a label are not used" in remarks
    assert any("not quite the 327 published ones" in text for text in remarks)  # this test's labels are drawn


def test_folds_are_the_published_ones() -> None:
    """Some of Emotion-FAN's list (folds from 1 there), and how many subjects each of its folds has."""
    found = by_subject(SUBJECTS, 10)
    published = {"S005": 1, "S501": 1, "S010": 2, "S503": 3, "S133": 4, "S022": 5, "S135": 6, "S895": 7, "S999": 8}
    assert {subject: found[subject] + 1 for subject in published} == published
    assert found["S158"] == 8
    assert found["S160"] == 9
    assert sorted(Counter(found.values()).values()) == [11] * 2 + [12] * 8
    assert len(set(SUBJECTS)) == 118
    assert list(SUBJECTS) == sorted(SUBJECTS)


@given(st.sets(st.sampled_from(SUBJECTS), min_size=1), st.integers(2, 12), st.randoms())
def test_absent_subjects_move_nobody(present: set[str], folds: int, order: random.Random) -> None:
    listed = [*present, *present]
    order.shuffle(listed)
    everybody = by_subject(SUBJECTS, folds)
    assert by_subject(listed, folds) == {subject: everybody[subject] for subject in present}


@given(st.sets(st.from_regex(r"S[0-9]{3}", fullmatch=True), min_size=1), st.integers(2, 12))
def test_unknown_subjects_are_dealt_out_evenly(present: set[str], folds: int) -> None:
    found = by_subject([*present, "S000"], folds)
    sizes = Counter(found.values())
    assert set(found) == present | {"S000"}
    assert max(sizes.values()) - min(sizes[fold] for fold in range(folds)) <= 1


def test_people_not_in_the_release_keep_their_folds_too(tmp_path: Path) -> None:
    """A subject with contempt only is no subject of six classes, and still does not move the others."""
    content: Content = {f"S2{k:02d}/001": (2 if k == 1 else 1, 6) for k in range(6)}
    ds = CKPlus(write_official(tmp_path, content, decode=False), protocol())
    seven, six = (ds.index(protocol("last1", classes)) for classes in (SEVEN, [c for c in SEVEN if c != "contempt"]))
    assert len(six) == len(seven) - 1
    assert six["fold"].tolist() == [f for f, c in zip(seven["fold"], seven["label"], strict=True) if c != "contempt"]


@given(st.sets(st.text(min_size=1), min_size=1, max_size=80), st.integers(2, 12), st.randoms())
def test_random_folds(names: set[str], folds: int, order: random.Random) -> None:
    listed = list(names)
    order.shuffle(listed)
    found = at_random(listed, folds)
    sizes = Counter(found.values())
    assert found == at_random(sorted(names), folds)
    assert set(found) == names
    assert max(sizes.values()) - min(sizes[fold] for fold in range(folds)) <= 1


def test_random_folds_never_change() -> None:
    names = [f"S005_001_{k:08d}.png" for k in range(1, 13)]
    found = at_random(names, 10)
    assert [found[name] for name in names] == [9, 0, 1, 7, 6, 1, 4, 2, 0, 3, 8, 5]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_unlabelled_sequences_and_file_order_change_nothing(seed: int) -> None:
    draw = random.Random(seed)
    places = [f"{subject}/{k:03d}" for subject in draw.sample(SUBJECTS, 3) for k in (1, 2)]
    content: Content = {place: (draw.randint(1, 7), draw.randint(6, 7)) for place in places}
    more = content | {f"{draw.choice(SUBJECTS)}/{k:03d}": (None, 2) for k in (5, 6)}
    with tempfile.TemporaryDirectory() as folder:
        plain = CKPlus(write_official(Path(folder) / "plain", content, decode=False), protocol())
        mixed = CKPlus(write_official(Path(folder) / "mixed", more, decode=False, shuffle=seed), protocol())
        assert plain.names() == mixed.names()
        for rule in RULES:
            wanted = protocol(rule, CLASSES)
            assert plain.index(wanted).equals(mixed.index(wanted))
