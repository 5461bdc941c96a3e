"""A user's own faces without labels: what is read, into which part, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from helpers_own import folders, image, index, listed, opened

import run_all
from bench import declare
from bench.data import source
from bench.data.own.file import UNLABELLED
from bench.errors import UserError

TEXT = "id: faces\nunlabelled: true\npreprocessing: own-64\n"


def test_every_image_of_any_folder_is_for_training(tmp_path: Path) -> None:
    root = folders(tmp_path, {"2019": 2, "2020/march": 3, "happy": 1}, TEXT)
    (root / "loose.png").write_bytes(image(90))
    ds = opened(root)
    frame = ds.index(ds.protocol)
    assert (ds.protocol.classes, ds.protocol.variants, ds.protocol.folds) == ((), {}, 0)
    assert Counter(zip(frame["split"], frame["label"], strict=True)) == {("train", UNLABELLED): 7}
    assert {"loose.png", "2020/march/002.png", "happy/005.png"} <= set(frame["name"])
    assert next(iter(ds.pixels(["loose.png"]))).shape == (64, 64, 3)


def test_split_folders_are_the_parts_and_all_else_is_for_training(tmp_path: Path) -> None:
    frame = index(folders(tmp_path, {"Training/a/b": 2, "val": 1, "test/happy": 3, "other": 1, "other/test": 1}, TEXT))
    assert Counter(frame["split"]) == {"train": 4, "val": 1, "test": 3}
    assert set(frame["label"]) == {UNLABELLED}


def test_parts_can_be_dealt_out(tmp_path: Path) -> None:
    frame = index(folders(tmp_path, {"a": 10, "b": 10}, TEXT + "split: {by: image, test: 0.2, val: 0.1}\n"))
    assert Counter(frame["split"]) == {"train": 14, "val": 2, "test": 4}


def test_a_list_needs_no_column_for_labels(tmp_path: Path) -> None:
    rows = ["faces/00.png", "faces/03.png"]
    assert (
        index(listed(tmp_path / "a", TEXT + "images: labels.csv\n", "image", rows))["split"].tolist() == ["train"] * 2
    )
    labelled = index(listed(tmp_path / "b", TEXT + "images: labels.csv\n"))
    assert Counter(labelled["label"]) == {UNLABELLED: 12}, "labels that are there are not read"


def test_other_files_are_extra(tmp_path: Path) -> None:
    root = folders(tmp_path, {"a": 1}, TEXT)
    (root / "a" / "notes.txt").write_text("x")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.png").write_bytes(image(1))
    ds = opened(root)
    assert ds.names() == ["a/000.png"]
    assert ds.extra() == ["a/notes.txt"]


def test_an_image_that_comes_is_noticed(tmp_path: Path) -> None:
    root = folders(tmp_path, {"a/b": 2}, TEXT)
    before = opened(root).fingerprint()
    assert opened(root).fingerprint() == before
    (root / "a" / "b" / "new.png").write_bytes(image(7))
    assert opened(root).fingerprint() != before


def test_it_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folders(tmp_path, {"a": 3, "b/c": 3}, TEXT)
    assert run_all.main(["data", "verify", str(root)]) == 0
    assert "own/faces" in capsys.readouterr().out
    (root / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run_all.main(["data", "verify", str(root)]) == 1
    assert "a/broken.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("classes: [happy, sad]\n", "unlabelled: true has neither classes nor labels"),
        ("labels: {happy: happiness}\n", "at least two classes are needed|has neither classes nor labels"),
        ("split: {folds: 3}\n", "unlabelled: true has no folds"),
        ("columns: {label: emotion}\nimages: labels.csv\n", "no column 'emotion' for the label"),
    ],
)
def test_what_contradicts_itself_is_named(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        index(listed(tmp_path, TEXT + more))


def test_an_empty_folder_and_a_split_given_twice_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    folders(empty, {}, TEXT)
    with pytest.raises(UserError, match="empty holds no images"):
        source.open_data(declare.load(empty).protocol("own/faces"), empty)
    twice = folders(tmp_path / "twice", {"train": 2, "test": 2}, TEXT + "split: {by: image, test: 0.2}\n")
    with pytest.raises(UserError, match="asks for a split, but the data has one"):
        index(twice)
