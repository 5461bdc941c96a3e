"""What is wrong with a copy of AffectNet, and sets that only carry its name."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_affectnet import (
    ALL,
    LISTS,
    PICTURES,
    TEST,
    TRAIN,
    Face,
    faces,
    npy,
    opened,
    publish_small_counts,
    row,
    save,
    whole,
    write_2017,
    write_2021,
    write_dan,
    write_folders,
    write_poster,
)

from bench import declare
from bench.data.affectnet.adapter import AffectNet
from bench.data.affectnet.release_2017 import columns_of
from bench.data.base import find_dataset, why_not_found
from bench.errors import UserError


@pytest.fixture(autouse=True)
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    publish_small_counts(monkeypatch)


def test_labels_that_are_no_expression_are_counted_and_left_out(tmp_path: Path) -> None:
    extra = [Face("train", 100 + k, 8 + k % 3) for k in range(5)]
    copy = opened(write_2017(tmp_path, [*faces(), *extra]))
    assert len(copy.index(ALL)) == sum(TRAIN) + sum(TEST)
    assert copy.extra() == []
    assert any("5 rows are labelled with no expression" in remark for remark in copy.remarks())


def test_a_label_out_of_range_names_file_and_row(tmp_path: Path) -> None:
    write_2017(tmp_path, faces())
    path = tmp_path / LISTS / "training.csv"
    lines = path.read_text().splitlines()
    lines[3] = row(faces()[2], label=11)
    path.write_text("\n".join(lines))
    copy = opened(tmp_path)
    with pytest.raises(UserError, match=r"training\.csv row 4: label '11' is not one of 0 neutral, 1 happiness"):
        copy.index(ALL)
    copy.skip_bad = True
    assert len(copy.index(ALL)) == sum(TRAIN) + sum(TEST) - 1
    assert list(copy.skipped) == [faces()[2].hexed]
    assert copy.extra() == []


def test_a_picture_listed_twice(tmp_path: Path) -> None:
    some = faces()
    write_2017(tmp_path, some)
    path = tmp_path / LISTS / "training.csv"
    whole_file = path.read_text()
    path.write_text(whole_file + row(some[0]) + "\n")
    copy = opened(tmp_path)
    (bad,) = copy.listing.bad
    assert bad.kind == "twice"
    assert "training.csv row 2 and" in bad.message
    assert f"row {sum(TRAIN) + 2}" in bad.message
    assert len(copy.names()) == len(some)
    path.write_text(whole_file + row(some[0], label=3) + "\n")
    (bad,) = opened(tmp_path).listing.bad
    assert "neutral" in bad.message
    assert "surprise" in bad.message
    assert some[0].hexed not in opened(tmp_path).names()
    path.write_text(whole_file + row(some[-1]) + "\n")  # in both lists
    (bad,) = opened(tmp_path).listing.bad
    assert "validation.csv row" in bad.message


def test_missing_converted_and_extra_pictures(tmp_path: Path) -> None:
    some = faces()
    write_2017(tmp_path, some)
    place = tmp_path / PICTURES
    (place / some[0].folder / f"{some[0].hexed}.jpg").rename(place / some[0].folder / f"{some[0].hexed.upper()}.PNG")
    (place / some[1].folder / f"{some[1].hexed}.jpg").unlink()
    save(place / "9" / "unknown.jpg")
    copy = opened(tmp_path)
    assert copy.missing() == [some[1].hexed]
    assert copy.path(some[0].hexed).name == f"{some[0].hexed.upper()}.PNG"
    assert copy.extra() == [f"{PICTURES}/9/unknown.jpg"]
    with pytest.raises(UserError, match=r"is missing; .*training\.csv row 3 names it"):
        copy.index(ALL)


@pytest.mark.parametrize("damage", ["", "x,1,2", "no/hash.jpg,1,1,1,1,l,0,0,0", "\x00", ',"', "é" * 40])
def test_a_bad_row_shifts_no_other(tmp_path: Path, damage: str) -> None:
    write_2017(tmp_path, faces())
    expected = opened(tmp_path).listing.frame
    path = tmp_path / LISTS / "training.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], damage, *lines[5:]]))
    copy = opened(tmp_path)
    assert copy.listing.frame.equals(expected)
    assert [bad.name for bad in copy.listing.bad] == ([f"{LISTS}/training.csv row 6"] if damage else [])


@pytest.mark.parametrize("box", ["10,5,0,30", "10,5,nan,30", "10,,20,30", "a,b,c,d", "1e9,5,20,30"])
def test_an_impossible_face_box_is_a_bad_row(tmp_path: Path, box: str) -> None:
    write_2017(tmp_path, faces())
    path = tmp_path / LISTS / "validation.csv"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(first.replace("10,5,20,30", box) + "\n" + rest)
    (bad,) = opened(tmp_path).listing.bad
    assert bad.kind == "row"
    assert "validation.csv row 1" in bad.message


def test_other_tables_called_training_csv_are_not_ours(tmp_path: Path) -> None:
    write_2017(tmp_path, faces())
    (tmp_path / LISTS / "training.csv").write_text("left_eye_center_x,left_eye_center_y,Image\n66.0,39.0,238 236\n")
    assert AffectNet.detect(tmp_path) is None
    with pytest.raises(UserError, match="no column 'expression'"):
        columns_of(b"subDirectory_filePath,face_x\n", "training.csv")
    with pytest.raises(UserError, match="3 columns and no header; expected 9"):
        columns_of(b"1/ab.jpg,3,0.5\n", "training.csv")


def test_lists_with_few_columns_have_no_boxes(tmp_path: Path) -> None:
    write_2017(tmp_path, faces())
    for name in ("training.csv", "validation.csv"):
        path = tmp_path / LISTS / name
        cells = [line.split(",") for line in path.read_text().splitlines() if not line.startswith("sub")]
        lines = ["expression,subDirectory_filePath", *(f"{c[6]}.0,{c[0]}" for c in cells)]
        path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    copy = opened(tmp_path)
    assert "box_x" not in copy.index(ALL)
    assert any("no face boxes" in remark for remark in copy.remarks())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (npy("3")[:-2], "no readable npy"),
        (b"\x93NUMPY broken", "no readable npy"),
        (npy([1, 2]), "not a single value"),
        (npy("happy"), "no whole number"),
        (npy(1.5), "no whole number"),
        (npy({"a": 1}, allow_pickle=True), "no readable npy"),
    ],
)
def test_an_unreadable_npy_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    write_2021(tmp_path, faces())
    path = tmp_path / "train_set" / "annotations" / "9_exp.npy"
    path.write_bytes(data)
    copy = opened(tmp_path)
    (bad,) = copy.listing.bad
    assert (bad.name, bad.kind) == ("train/9", "unreadable")
    assert str(path) in bad.message
    assert said in bad.message
    assert len(copy.names()) == len(faces()) - 1


def test_missing_and_odd_files_of_the_release_of_2021(tmp_path: Path) -> None:
    write_2021(tmp_path, faces())
    (tmp_path / "train_set" / "annotations" / "9_exp.npy").unlink()
    (tmp_path / "val_set" / "images" / "7.jpg").unlink()
    save(tmp_path / "train_set" / "annotations" / "10_exp.npy", npy(12))
    save(tmp_path / "train_set" / "annotations" / "11_exp.npy", npy(9))
    save(tmp_path / "train_set" / "images" / "notes.txt")
    save(tmp_path / "train_set" / "images" / "6.png")
    copy = opened(tmp_path)
    kinds = {bad.name: bad.kind for bad in copy.listing.bad}
    assert kinds == {"train/9": "label", "test/7": "missing", "train/10": "label", "train/6": "twice"}
    assert copy.extra() == ["train_set/images/notes.txt"]
    assert any("1 rows are labelled with no expression" in remark for remark in copy.remarks())
    (absent,) = [bad for bad in copy.listing.bad if bad.name == "train/9"]
    assert "train_set/annotations/9_exp.npy is missing" in absent.message


def test_two_test_splits_are_refused_and_a_link_to_one_is_not(tmp_path: Path) -> None:
    write_2021(tmp_path / "a", faces())
    shutil.copytree(tmp_path / "a" / "val_set", tmp_path / "a" / "valid_set")
    with pytest.raises(UserError, match="has the test split twice"):
        opened(tmp_path / "a").index(ALL)
    write_2021(tmp_path / "b", faces())
    (tmp_path / "b" / "valid_set").symlink_to("val_set")
    assert len(opened(tmp_path / "b").index(ALL)) == len(faces())


def test_both_releases_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_2021(write_2017(tmp_path, faces()), faces())
    with pytest.raises(UserError, match=r"two layouts of affectnet: 'release-2017' .* 'release-2021'"):
        AffectNet(tmp_path, ALL)


def test_a_tree_mixed_from_both_releases_is_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, faces(), name_of=lambda face: face.hexed if face.split == "train" else whole(face))
    copy = opened(tmp_path)
    with pytest.raises(UserError, match="mixes AffectNet's releases of 2017 and 2021"):
        copy.index(ALL)
    assert copy.blocked(declare.load().protocol("affectnet-8@4000")) is not None


def test_a_list_names_an_absent_image_and_a_class_out_of_range(tmp_path: Path) -> None:
    write_poster(tmp_path, faces())
    path = tmp_path / "train_set" / "train_annotations_8class.txt"
    path.write_text(path.read_text() + "\n999.jpg 1\n6.jpg 42\n998.jpg\n")
    kinds = Counter(bad.kind for bad in opened(tmp_path).listing.bad)
    assert kinds == {"missing": 1, "label": 1, "row": 1}


def test_incomplete_copies_are_told_what_they_lack(tmp_path: Path) -> None:
    write_2017(tmp_path / "a", faces())
    (tmp_path / "a" / LISTS / "validation.csv").unlink()
    write_2021(tmp_path / "b", faces())
    shutil.rmtree(tmp_path / "b" / "val_set")
    write_poster(tmp_path / "c", faces())
    shutil.rmtree(tmp_path / "c" / "valid_set" / "images")
    write_folders(tmp_path / "d", [face for face in faces() if face.split == "train"])
    write_dan(tmp_path / "e", faces())
    shutil.rmtree(tmp_path / "e" / "train_set")
    shutil.rmtree(tmp_path / "e" / "val_set")
    assert find_dataset(tmp_path, AffectNet) is None
    told = "\n".join(why_not_found(tmp_path, AffectNet))
    for words in (
        "but not validation.csv in Manually_Annotated_file_lists/",
        "but not val_set/images with val_set/annotations/<number>_exp.npy",
        "lists of AffectNet but no images in",
        "but only train: train/<class> and test/<class> are both needed",
        "lists images of AffectNet that are not there",
    ):
        assert words in told


def write_relabelled(root: Path) -> Path:
    save(root / "labels.csv", b",pth,label,relFCs\n0,anger/image0000006.jpg,surprise,0.87\n")
    return root


def write_derived(root: Path) -> Path:
    for word in ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise"):
        save(root / "train" / word / "image0000006.jpg")
        save(root / "test" / word / "ffhq_12.png")
    return root


def write_boxes(root: Path) -> Path:
    save(root / "data.yaml", b"nc: 8\nnames: ['Anger', 'Contempt', 'Disgust', 'Fear', 'Happy', 'Neutral', 'Sad']\n")
    save(root / "train" / "labels" / "1.txt", b"0 0.5 0.5 1 1")
    save(root / "train" / "images" / "1.jpg")
    return root


def write_derived_lists(root: Path) -> Path:
    for folder, name in (("train_set", "train"), ("valid_set", "valid")):
        save(root / folder / f"{name}_annotations_7class.txt", b"happy_ffhq_4112.png 1\nsad_image0000007.jpg 2\n")
        save(root / folder / "images" / "happy_ffhq_4112.png")
    return root


@pytest.mark.parametrize("write", [write_relabelled, write_derived, write_boxes, write_derived_lists])
def test_sets_that_only_carry_the_name_are_refused_with_the_reason(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    write(tmp_path)
    assert AffectNet.detect(tmp_path) is None
    told = " ".join(why_not_found(tmp_path, AffectNet))
    assert "not AffectNet" in told
    assert "as data of your own" in told


def test_affectnet_hq_is_known_by_its_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.data.affectnet.others.HQ_IMAGES", 14)
    monkeypatch.setattr("bench.data.affectnet.others.TRAINING_DATA_IMAGES", 16)
    for word in ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise"):
        for k in range(2):
            save(tmp_path / word / f"{word}{k}.jpg")
    assert "is AffectNet-HQ (14 images of 7 classes" in " ".join(why_not_found(tmp_path, AffectNet))
    save(tmp_path / "anger" / "one-more.jpg")
    assert AffectNet.near_miss(tmp_path) == ""
