"""Which copy serves a protocol: several under one root, synthetic ones, unknown preprocessing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from conftest import Image, ferplus_protocol, write_csvs, write_official

from bench.data import source
from bench.data.base import check_counts
from bench.declare import Protocol
from bench.errors import UserError


def test_the_first_copy_that_can_serve_is_used(tmp_path: Path, ferplus_images: list[Image]) -> None:
    write_csvs(tmp_path / "a", ferplus_images)  # has the votes of fer2013new.csv only
    write_official(tmp_path / "b", ferplus_images)
    copies = source.Copies(tmp_path)
    assert copies.open(ferplus_protocol("majority")).root == tmp_path / "b"
    assert copies.open(ferplus_protocol("majority/fer2013new")).root == tmp_path / "a"


def test_the_reason_of_the_preferred_copy_is_told(tmp_path: Path, ferplus_images: list[Image]) -> None:
    write_csvs(tmp_path / "a", ferplus_images)
    with pytest.raises(UserError, match=r"needs the votes of label\.csv"):
        source.locate(ferplus_protocol("majority"), tmp_path)


@pytest.mark.parametrize("place", ["", "data"])
def test_synthetic_copies_never_answer_for_the_real_set(
    tmp_path: Path, ferplus_images: list[Image], place: str
) -> None:
    write_official(tmp_path / "set" / place, ferplus_images)
    (tmp_path / "set" / place / "synthfer.json").write_text("{}")
    with pytest.raises(UserError, match="synthetic faces"):
        source.locate(ferplus_protocol(), tmp_path)
    assert len(source.open_data(ferplus_protocol(), tmp_path, synthetic_ok=True).index) == 12


def test_a_real_copy_goes_before_a_synthetic_one(tmp_path: Path, ferplus_images: list[Image]) -> None:
    for name in ("a", "b"):
        write_official(tmp_path / name, ferplus_images)
    (tmp_path / "a" / "synthfer.json").write_text("{}")
    assert source.locate(ferplus_protocol(), tmp_path).root == tmp_path / "b"


def test_skipped_images_are_told_and_change_the_hash(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path / "set", ferplus_images)
    whole = source.open_data(ferplus_protocol(), tmp_path)
    assert (whole.skipped, whole.preprocessing["name"]) == ({}, "as published")
    name = ferplus_images[0][1]
    (root / "FER2013Train" / name).unlink()
    (root / "FER2013Train" / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"{name} is "):
        source.open_data(ferplus_protocol(), tmp_path)
    rest = source.open_data(ferplus_protocol(), tmp_path, skip_bad=True)
    assert list(rest.skipped) == [name]
    assert name not in set(rest.index["name"])
    assert len(rest.index) == len(rest.rows) == 11
    assert rest.hash != whole.hash
    with pytest.raises(UserError, match=name):  # a cache with a hole in it does not serve a strict run
        source.open_data(ferplus_protocol(), tmp_path)


def test_skipping_excuses_only_what_was_skipped() -> None:
    rows = [("train", "anger")] * 4 + [("train", "fear")] * 4 + [("test", "anger")] * 2
    frame = pd.DataFrame([(f"{k}", *row) for k, row in enumerate(rows)], columns=["name", "split", "label"])
    wanted = Protocol(
        id="p", dataset="ferplus", classes=("anger", "fear"), counts={"train": 8, "test": 3},
        class_counts={"train": {"anger": 4, "fear": 4}, "test": {"anger": 2, "fear": 1}},
    )  # fmt: skip
    check_counts(frame, wanted, "x", skipped=1)
    with pytest.raises(UserError, match="test: expected 3, found 2"):
        check_counts(frame, wanted, "x")
    relabelled = frame.assign(label=["fear", *frame["label"][1:]])  # one skipped, and another label changed
    with pytest.raises(UserError, match="train/fear: expected 4, found 5"):
        check_counts(relabelled, wanted, "x", skipped=1)
    moved = frame.assign(split=["test", "test", *frame["split"][2:]])
    with pytest.raises(UserError, match="train: expected 8, found 6"):
        check_counts(moved, wanted, "x", skipped=1)
    with pytest.raises(UserError, match="train: expected 8, found 7"):
        check_counts(frame.iloc[1:], wanted, "x", skipped=1)


def test_an_empty_test_split_is_told_before_training(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path / "set", ferplus_images)
    for split, name, _, _ in ferplus_images:
        if split == "test":
            (root / "FER2013Test" / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"no test image left \(3 were skipped\)"):
        source.open_data(ferplus_protocol(), tmp_path, skip_bad=True)


def test_a_skipped_row_makes_another_hash_than_a_copy_without_it() -> None:
    frame = pd.DataFrame({"name": ["a"], "label": ["anger"], "split": ["train"]})
    assert source._hash(frame, "pixels") != source._hash(frame, "pixels", ["b"])


def test_what_was_looked_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Looked for FER2013Train"):
        source.locate(ferplus_protocol(), tmp_path)
