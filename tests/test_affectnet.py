"""AffectNet in every layout: both releases, what public code makes of them, and which protocol each serves."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import png
from helpers_affectnet import (
    ALL,
    HEADER,
    LANDMARKS,
    LISTS,
    PICTURES,
    SEVEN,
    TEST,
    TRAIN,
    Face,
    faces,
    manifest,
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
    write_qcs,
)

from bench import declare
from bench.data.affectnet.adapter import AffectNet
from bench.data.affectnet.layouts import CLASSES
from bench.data.affectnet.release_2017 import Release2017
from bench.data.base import manifest_hash, why_not_found
from bench.data.classes import ORDERS
from bench.declare import Protocol
from bench.errors import UserError


@pytest.fixture(autouse=True)
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    publish_small_counts(monkeypatch)


@pytest.mark.parametrize("headers", [(True, False), (True, True), (False, False), (False, True)])
def test_release_of_2017_is_read_with_and_without_headers(tmp_path: Path, headers: tuple[bool, bool]) -> None:
    copy = opened(write_2017(tmp_path, faces(), headers))
    frame = copy.index(ALL)
    assert copy.format.name == "release-2017"
    assert copy.release == "2017"
    expected = {(face.hexed, CLASSES[face.label], face.split) for face in faces()}
    assert set(zip(frame["name"], frame["label"], frame["split"], strict=True)) == expected
    assert frame[["box_x", "box_y", "box_width", "box_height"]].drop_duplicates().to_numpy().tolist() == [
        [10, 5, 20, 30]
    ]
    assert copy.missing() == copy.extra() == []
    assert set(copy.label_files()) == {f"{LISTS}/training.csv", f"{LISTS}/validation.csv"}


def test_layouts_of_one_release_give_one_manifest(tmp_path: Path) -> None:
    first = manifest(write_2017(tmp_path / "csv", faces()))
    assert manifest(write_folders(tmp_path / "dan", faces())) == first
    assert manifest(write_folders(tmp_path / "names", faces(), CLASSES.__getitem__, test="valid")) == first
    assert manifest(write_qcs(tmp_path / "qcs", faces())) == first
    second = manifest(write_2021(tmp_path / "npy", faces()))
    assert manifest(write_2021(tmp_path / "npy2", faces(), "valid_set")) == second
    assert manifest(write_poster(tmp_path / "poster", faces())) == second
    assert manifest(write_dan(tmp_path / "table", faces())) == second
    assert manifest(write_folders(tmp_path / "tree", faces(), name_of=whole)) == second
    assert manifest(write_folders(tmp_path / "v2", faces(), CLASSES.__getitem__, whole, "test")) == second
    assert first != second


def test_folders_numbered_from_one_or_by_another_order_are_told_by_their_counts(tmp_path: Path) -> None:
    first = manifest(write_2017(tmp_path / "csv", faces()))
    assert manifest(write_folders(tmp_path / "one", faces(), lambda label: str(label + 1))) == first
    order = ORDERS["alphabetical-8"]
    alphabetical = write_folders(tmp_path / "alpha", faces(), lambda label: str(order.index(CLASSES[label])))
    assert manifest(alphabetical) == first
    assert "class numbers are in the order 'alphabetical-8'" in opened(alphabetical).remarks()


def test_counts_that_fit_no_order_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, faces(train=(3,) * 8))
    with pytest.raises(UserError, match=r"fit no known order|fit several orders"):
        opened(tmp_path).index(ALL)


def test_whole_number_names_are_affectnet_only_where_the_counts_are(tmp_path: Path) -> None:
    write_folders(tmp_path, faces(train=(9,) * 8), name_of=whole)
    assert AffectNet.detect(tmp_path) is None
    assert "more or fewer" in " ".join(why_not_found(tmp_path, AffectNet))


def test_a_split_cut_off_train_is_put_back(tmp_path: Path) -> None:
    write_folders(tmp_path, faces(), test="test")
    expected = manifest(tmp_path)
    for label in (0, 1):
        folder = tmp_path / "val" / str(label)
        folder.mkdir(parents=True)
        first = sorted((tmp_path / "train" / str(label)).iterdir())[0]
        first.rename(folder / first.name)
    copy = opened(tmp_path)
    assert manifest_hash(copy.index(ALL)) == expected
    assert any("2 images of a split 'val'" in remark for remark in copy.remarks())


def test_seven_classes_are_the_same_index_without_contempt(tmp_path: Path) -> None:
    for root in (write_2017(tmp_path / "a", faces()), write_2021(tmp_path / "b", faces())):
        copy = opened(root)
        eight, seven = copy.index(ALL), copy.index(SEVEN)
        kept = eight[eight["label"] != "contempt"].reset_index(drop=True)
        assert seven.equals(kept)
        assert len(eight) - len(seven) == TRAIN[7] + TEST[7]


def test_unlabelled_faces_are_the_training_split_under_one_label(tmp_path: Path) -> None:
    protocol = Protocol(id="faces", dataset="affectnet", rule="unlabelled", counts={"train": sum(TRAIN)})
    frame = opened(write_2021(tmp_path, faces()), protocol).index(protocol)
    assert set(frame["label"]) == {"unlabelled"}
    assert set(frame["split"]) == {"train"}


def test_split_folders_nested_in_themselves_are_found(tmp_path: Path) -> None:
    plain = manifest(write_2021(tmp_path / "plain", faces()))
    write_2021(tmp_path / "nested", faces())
    (tmp_path / "nested" / "val_set").rename(tmp_path / "inner")
    (tmp_path / "nested" / "val_set").mkdir()
    (tmp_path / "inner").rename(tmp_path / "nested" / "val_set" / "val_set")
    assert manifest(tmp_path / "nested") == plain


def test_lists_in_the_root_and_pictures_in_a_nested_folder(tmp_path: Path) -> None:
    plain = manifest(write_2017(tmp_path / "plain", faces()))
    root = write_2017(tmp_path / "other", faces())
    for name in ("training.csv", "validation.csv"):
        (root / LISTS / name).rename(root / name)
    (root / LISTS).rmdir()
    (root / "Manually_Annotated").mkdir()
    (root / PICTURES).rename(root / "Manually_Annotated" / PICTURES)
    assert manifest(root) == plain


def test_lists_beside_npy_files_are_not_a_second_layout(tmp_path: Path) -> None:
    write_dan(write_poster(write_2021(tmp_path, faces(), "valid_set"), faces()), [])
    assert opened(tmp_path).format.name == "release-2021"


def test_a_table_of_the_images_in_class_folders_is_not_a_second_layout(tmp_path: Path) -> None:
    write_folders(tmp_path, faces())
    expected = manifest(tmp_path)
    lines = [f"{'val' if f.split == 'test' else f.split},{f.label}/{f.hexed}.jpg,{f.label}" for f in faces()]
    rows = [line.replace(",", f",./{line.partition(',')[0]}/", 1) for line in lines]
    save(tmp_path / "affectnet.csv", "\n".join(["phase,img_path,label", *rows]).encode())
    assert opened(tmp_path).format.name == "phase-table"
    assert manifest(tmp_path) == expected


def test_of_two_pairs_of_lists_that_with_contempt_is_read(tmp_path: Path) -> None:
    write_poster(write_poster(tmp_path, [face for face in faces() if face.label < 7], classes=7), faces())
    copy = opened(tmp_path)
    assert copy.benchmark == "affectnet-8@3999"
    assert len(copy.index(ALL)) == len(faces())


def test_folders_of_labels_that_are_no_expression_are_no_classes(tmp_path: Path) -> None:
    extra = [Face("train", 100 + label, label) for label in (8, 9, 10)]
    eight = opened(write_folders(tmp_path / "8", [*faces(), *extra]))
    seven = opened(write_folders(tmp_path / "7", [face for face in faces() if face.label < 7] + extra))
    assert (eight.classes, seven.classes) == (8, 7)
    assert len(eight.index(ALL)) == len(faces())
    assert len(seven.index(SEVEN)) == len(faces()) - TRAIN[7] - TEST[7]
    assert any("3 rows are labelled with no expression" in remark for remark in eight.remarks())


def test_pixels_are_the_box_of_the_picture(tmp_path: Path) -> None:
    write_2017(tmp_path, faces())
    picture = np.zeros((40, 60, 3), dtype=np.uint8)
    picture[5:35, 10:30] = 200  # the box of every row
    face = faces()[0]
    save(tmp_path / PICTURES / face.folder / f"{face.hexed}.jpg", png(picture))
    copy = opened(tmp_path)
    assert copy.shape == (224, 224, 3)
    assert (next(iter(copy.pixels([face.hexed]))) == 200).all()


def blocked(copy: AffectNet, protocol: str) -> str:
    found = copy.blocked(declare.load().protocol(protocol))
    return str(found) if found is not None else ""


def test_each_release_serves_its_own_protocol_and_names_it_for_the_other(tmp_path: Path) -> None:
    a, b = opened(write_2017(tmp_path / "a", faces())), opened(write_2021(tmp_path / "b", faces()))
    assert (a.benchmark, b.benchmark) == ("affectnet-8@4000", "affectnet-8@3999")
    assert blocked(a, "affectnet-8@4000") == blocked(b, "affectnet-8@3999") == ""
    for copy in (a, b):
        assert blocked(copy, "affectnet-7") == blocked(copy, "affectnet-faces@287651") == ""
        assert "use affectnet-faces@287651" in blocked(copy, "affectnet-faces@269316")
    told = blocked(a, "affectnet-8@3999")
    assert "release of 2021" in told
    assert "that of 2017 (names of 56 hex digits)" in told
    assert "use affectnet-8@4000" in told
    assert "use affectnet-8@3999" in blocked(b, "affectnet-8@4000")
    assert "needs AffectNet's release of 2017" in blocked(b, "affectnet-pose30")
    assert "needs AffectNet's release of 2017" in blocked(b, "affectnet-pose45@ran-raw")
    assert "needs AffectNet's release of 2017" not in blocked(a, "affectnet-pose30")
    assert "use affectnet-8@3999" in blocked(b, "affectnet-8@4000-leak-free")


def test_seven_classes_cannot_serve_eight(tmp_path: Path) -> None:
    some = [face for face in faces() if face.label < 7]
    for root in (
        write_folders(tmp_path / "tree", some),
        write_folders(tmp_path / "names", some, CLASSES.__getitem__),
        write_poster(tmp_path / "lists", some, classes=7),
        write_dan(tmp_path / "table", some),
    ):
        copy = opened(root)
        own = "affectnet-8@4000" if copy.release == "2017" else "affectnet-8@3999"
        assert copy.benchmark == "affectnet-7"
        assert "needs 8 classes" in blocked(copy, own)
        assert "use affectnet-7" in blocked(copy, own)
        assert "needs 8 classes" in blocked(copy, "affectnet-faces@287651")
        assert len(copy.index(SEVEN)) == len(some)


def test_contempt_tells_the_release_where_names_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.data.affectnet.adapter.RELEASE_OF_CONTEMPT", {2: "2017", 1: "2021"})
    for contempt, release in ((2, "2017"), (1, "2021")):
        root = tmp_path / release
        for split, folder, numbers in (("train", "train_set", TRAIN), ("test", "valid_set", (*TEST[:7], contempt))):
            lines = []
            for label, images in enumerate(numbers):
                for k in range(images):
                    save(root / folder / "images" / f"face-{label}-{k}.jpg")
                    lines.append(f"face-{label}-{k}.jpg {label}")
            name = "train" if split == "train" else "valid"
            save(root / folder / f"{name}_annotations_8class.txt", "\n".join(lines).encode())
        copy = opened(root)
        assert copy.release == release
        assert "have other names" in blocked(copy, "affectnet-occlusion")


def test_an_unknown_rule_is_refused(tmp_path: Path) -> None:
    protocol = Protocol(id="p", dataset="affectnet", classes=CLASSES, rule="manuel")
    with pytest.raises(UserError, match="unknown AffectNet label rule 'manuel'"):
        opened(write_2021(tmp_path, faces())).index(protocol)


def test_landmarks_are_not_held_in_memory(tmp_path: Path) -> None:
    face = faces()[0]
    long = row(face).replace(LANDMARKS, "1.25;" * 4_000)
    lines = [long.replace(face.hexed, hashlib.sha224(b"%d" % k).hexdigest()) for k in range(1_500)]
    save(tmp_path / LISTS / "training.csv", "\n".join([HEADER, *lines]).encode())
    save(tmp_path / LISTS / "validation.csv", (row(face) + "\n").encode())
    save(tmp_path / PICTURES / face.folder / f"{face.hexed}.jpg")
    size = (tmp_path / LISTS / "training.csv").stat().st_size
    layout = Release2017()
    layout.read(tmp_path)  # imports
    tracemalloc.start()
    listing = layout.read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(listing.bad) == 1_500  # no picture
    assert peak < size / 4


def test_state_sees_labels_and_pictures_come_and_go(tmp_path: Path) -> None:
    a, b = write_2017(tmp_path / "a", faces()), write_2021(tmp_path / "b", faces())
    tree, poster = write_folders(tmp_path / "c", faces()), write_poster(tmp_path / "d", faces())
    added = [
        (a, a / PICTURES / "2" / "new.jpg"), (a, a / LISTS / "training.csv"),
        (b, b / "val_set" / "annotations" / "99_exp.npy"), (b, b / "train_set" / "images" / "99.jpg"),
        (tree, tree / "val" / "3" / "new.jpg"), (poster, poster / "train_set" / "images" / "99.jpg"),
    ]  # fmt: skip
    for root, path in added:
        before = opened(root).fingerprint()
        save(path, path.read_bytes() + b"\n" if path.exists() else b"")
        assert opened(root).fingerprint() != before, path
