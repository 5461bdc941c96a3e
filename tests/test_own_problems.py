"""What is wrong with a user's own folder: every problem is named with its file, and says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_own import LIST, SPLIT, folders, image, index, listed, opened

from bench import declare
from bench.data import source
from bench.errors import UserError


def change(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected keys and values"),
        ("title: x\n", "id: Field required"),
        ("id: 'my faces'\n", "'my faces': letters, digits"),
        ("id: x\nlabel: {}\n", "did you mean labels"),
        ("id: x\ncolumns: {images: path}\n", "did you mean image"),
        ("id: x\nclasses: [a]\n", "at least two classes"),
        ("id: x\nclasses: [a, b, a]\n", "'a' is given twice"),
        ("id: x\nclasses: [a, 'b c']\n", "class 'b c'"),
        ("id: x\nclasses: [a, b]\nlabels: {x: c}\n", "'x' is mapped to 'c', which is not in classes"),
        ("id: x\nlabels: {0: a, '0': b}\n", "given twice"),
        ("id: x\nimages: ../other.csv\n", "must lie in the folder"),
        ("id: x\nsplit: {by: subject}\n", "fractions with test > 0"),
        ("id: x\nsplit: {test: 0.7, val: 0.4}\n", "fractions with test > 0"),
        ("id: x\nsplit: {test: 0.2, folds: 5}\n", "either folds, or test and val"),
        ("id: x\nsplit: {folds: 1}\n", "at least 2"),
        ("id: x\nsplit: {by: person, test: 0.2}\n", "'image' or 'subject'"),
        ("id: [\n", "not valid YAML"),
        ("id: x\nid: y\n", "given twice"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, says: str) -> None:
    folders(tmp_path / "mine", SPLIT, text)
    with pytest.raises(UserError) as caught:
        declare.load(tmp_path)
    assert str(tmp_path / "mine" / "ferbench.yaml") in caught.value.message
    assert says in caught.value.message


def unknown_folder(root: Path) -> None:
    shutil.copytree(root / "train" / "happy", root / "train" / "grumpy")


def nested_folder(root: Path) -> None:
    (root / "train" / "happy" / "more").mkdir()


def strange_name(root: Path) -> None:
    (root / "train" / "happy" / "a\nb.png").write_bytes(image(0))


def both_layouts(root: Path) -> None:
    shutil.copytree(root / "train" / "happy", root / "happy")


def twice_a_split(root: Path) -> None:
    shutil.copytree(root / "train", root / "training")


def no_test_folder(root: Path) -> None:
    shutil.rmtree(root / "test")


def no_split_at_all(root: Path) -> None:
    shutil.rmtree(root / "test")
    for place in ("happy", "Sad"):
        (root / "train" / place).rename(root / place)
    (root / "train").rmdir()


def a_split_asked_for(root: Path) -> None:
    (root / "ferbench.yaml").write_text("id: mine\nsplit: {test: 0.2}\n")


def a_class_that_never_occurs(root: Path) -> None:
    (root / "ferbench.yaml").write_text("id: mine\nclasses: [happiness, sadness, fear]\n")


def a_class_without_train_images(root: Path) -> None:
    shutil.rmtree(root / "train" / "Sad")


def one_expression(root: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(root / split / "Sad")


def an_unknown_preprocessing(root: Path) -> None:
    (root / "ferbench.yaml").write_text("id: mine\npreprocessing: own-46\n")


@pytest.mark.parametrize(
    ("spoil", "says", "hint"),
    [
        (unknown_folder, ["train/grumpy", "'grumpy' is no class"], "labels: {grumpy: CLASS}"),
        (nested_folder, ["train/happy/more is a folder in a class folder"], "move its images up"),
        (strange_name, ["control character", "a\\nb.png"], "rename"),
        (both_layouts, ["class folders of its own (happy) beside split folders (test)"], "keep one"),
        (twice_a_split, ["two folders of the train split: train and training"], "keep one"),
        (no_test_folder, ["there is no test image"], "ferbench.yaml"),
        (no_split_at_all, ["neither the data nor ferbench.yaml says"], "split: {by: image, test: 0.2}"),
        (a_split_asked_for, ["asks for a split, but the data has one"], "remove"),
        (a_class_that_never_occurs, ["class 'fear' has no image"], "classes"),
        (a_class_without_train_images, ["class 'sadness' has no train image"], "add images"),
        (one_expression, ["ferbench.yaml: no classes are named", "found: happy"], "labels: {happy: CLASS}"),
        (an_unknown_preprocessing, ["ferbench.yaml: unknown preprocessing 'own-46'"], "own-64"),
    ],
)
def test_a_wrong_folder_is_named(tmp_path: Path, spoil: Callable[[Path], None], says: list[str], hint: str) -> None:
    spoil(folders(tmp_path / "mine", SPLIT))
    with pytest.raises(UserError) as caught:
        source.open_data(declare.load(tmp_path).protocol("own/mine"), tmp_path)
    for part in (str(tmp_path / "mine"), *says):
        assert part in caught.value.message
    assert hint in caught.value.hint


ROWS = ["faces/00.png,happy,test", "faces/01.png,grumpy,test", "faces/02.png,happy,train", "faces/03.png,grumpy,train"]


@pytest.mark.parametrize(
    ("row", "kind", "says"),
    [
        ("faces/99.png,happy,test", "missing", "labels.csv, row 6: {root}/faces/99.png is missing"),
        ("faces/04.png,hapy,test", "label", "labels.csv, row 6: label 'hapy' of 'faces/04.png' is no class"),
        ("faces/04.png,,test", "label", "row 6: label ''"),
        ("faces/04.png,happy,dev set 2", "row", "row 6: 'dev set 2' is no split"),
        ("faces/04.png,happy,", "row", "row 6: there is no split"),
        ("faces/04.png,happy", "row", "row 6: 2 fields, but the header has 3"),
        ("faces/00.png,happy,test", "twice", "row 6: 'faces/00.png' is named before"),
        ("./faces//00.png,grumpy,train", "twice", "row 6: 'faces/00.png' is named before"),
        ("../faces/00.png,happy,test", "name", "lies outside"),
        (",happy,test", "name", "'' is no image name"),
        ('"faces/a\nb.png",happy,test', "name", "is no image name"),
    ],
)
def test_a_wrong_row_is_named_and_can_be_skipped(tmp_path: Path, row: str, kind: str, says: str) -> None:
    text = change(LIST, "split: {by: image, test: 0.25}\n", "")
    root = listed(tmp_path / "mine", text, "image,label,split", [*ROWS, row])
    ds = opened(root)
    assert [bad.kind for bad in ds.listing.bad] == [kind]  # type: ignore[attr-defined]
    with pytest.raises(UserError) as caught:
        ds.index(ds.protocol)
    assert says.format(root=root) in caught.value.message
    assert str(root / "labels.csv") in caught.value.message
    assert caught.value.hint
    assert len(index(root, skip_bad=True)) == 4


@pytest.mark.parametrize(
    ("text", "header", "says"),
    [
        (LIST, "path,label,subject", "no column 'image' for the image; its header is: path, label, subject"),
        (LIST + "columns: {split: fold}\n", "image,label,subject", "no column 'fold' for the split"),
        (LIST, "image,image,label", "names a column twice"),
        (change(LIST, "by: image", "by: subject"), "image,label,person", "the data names no subjects"),
        (change(LIST, "labels.csv", "other.csv"), "image,label,subject", "other.csv is missing"),
    ],
)
def test_a_wrong_list_is_named(tmp_path: Path, text: str, header: str, says: str) -> None:
    root = listed(tmp_path, text, header)
    with pytest.raises(UserError, match=r"labels\.csv|other\.csv|ferbench\.yaml") as caught:
        index(root)
    assert says in caught.value.message


def test_a_restored_image_is_seen(tmp_path: Path) -> None:
    root = listed(tmp_path)
    (root / "faces" / "03.png").unlink()
    before = opened(root).fingerprint()
    (root / "faces" / "03.png").write_bytes(image(3))
    assert opened(root).fingerprint() != before
    assert len(index(root)) == 12
