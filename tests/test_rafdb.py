"""RAF-DB in every layout gives the same names, labels and split, whatever its folders are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import helpers_rafdb as raf
import numpy as np
import pytest
from helpers_rafdb import COUNTS, LIST, PROTOCOL, numbered, put

from bench import declare
from bench.data import order
from bench.data.base import find_dataset, manifest_hash, why_not_found
from bench.data.classes import ORDERS
from bench.data.rafdb.adapter import RAFDB
from bench.data.rafdb.names import official_name
from bench.errors import UserError

Write = Callable[[Path], Path]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The published counts are those of the small copies, except in tests of the real ones."""
    if "real_counts" not in request.fixturenames:
        known = {**order.published(), "raf-db-7": COUNTS}
        monkeypatch.setattr(order, "published", lambda: known)


@pytest.fixture
def real_counts() -> order.Counts:
    return order.published()["raf-db-7"]


def words(label: str) -> str:
    return raf.WORDS[label]


LAYOUTS: dict[str, tuple[str, str, Write]] = {
    "official": ("official", "raf", raf.write_official),
    "official in basic": ("official", "raf", lambda root: raf.write_official(root / "basic").parent),
    "official in RAF-DB/basic": (
        "official",
        "raf",
        lambda root: raf.write_official(root / "RAF-DB" / "basic").parents[1],
    ),
    "original": ("official", "raf", raf.write_original),
    "nr": ("nr", "raf", raf.write_nr),
    "apvit": ("apvit", "raf", raf.write_apvit),
    "apvit in its own order": ("apvit", "apvit", lambda root: raf.write_apvit(root, "apvit", 0)),
    "scn": ("scn", "raf", raf.write_scn),
    "1 to 7": ("folders", "raf", lambda root: raf.write_folders(root, numbered("raf", 1))),
    "0 to 6": ("folders", "raf", lambda root: raf.write_folders(root, numbered("raf", 0))),
    "AffectNet's order": ("folders", "affectnet", lambda root: raf.write_folders(root, numbered("affectnet", 0))),
    "words": ("folders", "", lambda root: raf.write_folders(root, words)),
    "val_set": ("folders", "raf", lambda root: raf.write_folders(root, numbered("raf", 1), ("train_set", "val_set"))),
    "valid": ("folders", "raf", lambda root: raf.write_folders(root, numbered("raf", 1), ("train", "valid"), ".png")),
    "kaggle": ("folders", "raf", raf.write_kaggle),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_every_layout_gives_the_same_images(tmp_path: Path, case: str) -> None:
    layout, read_in, write = LAYOUTS[case]
    root = write(tmp_path)
    assert RAFDB.detect(root) == layout
    ds = RAFDB(root, PROTOCOL)
    frame = ds.index(PROTOCOL)
    expected = {f"{stem}.jpg": (label, split) for split, stem, label in raf.images()}
    assert dict(zip(frame["name"], zip(frame["label"], frame["split"], strict=True), strict=True)) == expected
    assert ds.listing.order == read_in
    assert (ds.missing(), ds.extra(), ds.listing.bad) == ([], [], [])
    assert all(ds.path(name).is_file() for name in ds.names())


def test_manifests_agree(tmp_path: Path) -> None:
    hashes = set()
    for number, (_, _, write) in enumerate(LAYOUTS.values()):
        root = write(tmp_path / str(number))
        hashes.add(manifest_hash(RAFDB(root, PROTOCOL).index(PROTOCOL)))
    assert len(hashes) == 1


def test_pixels_belong_to_their_names(tmp_path: Path) -> None:
    official = RAFDB(raf.write_official(tmp_path / "a"), PROTOCOL)
    folders = RAFDB(raf.write_folders(tmp_path / "b", numbered("affectnet", 0)), PROTOCOL)
    assert official.names() == folders.names()
    assert official.names()[:2] == ["train_00001.jpg", "train_00002.jpg"]
    for one, other in zip(official.pixels(official.names()), folders.pixels(folders.names()), strict=True):
        assert one.shape == (100, 100, 3)
        np.testing.assert_array_equal(one, other)
    assert official.shape == (100, 100, 3)
    assert len({tuple(image[0, 0]) for image in official.pixels(official.names())}) > 40


def test_renamed_files_keep_their_class_but_not_their_name(tmp_path: Path) -> None:
    ds = RAFDB(raf.write_resemotenet(tmp_path), PROTOCOL)
    frame = ds.index(PROTOCOL)
    assert ds.detect(tmp_path) == "resemotenet"
    assert frame.groupby(["split", "label"]).size().to_dict() == {
        (split, label): n for split, classes in COUNTS.items() for label, n in classes.items()
    }
    assert frame["name"].tolist()[0] == "train/train_0_angry.jpg"
    assert set(ds.label_files()) == {"train_labels.csv", "test_labels.csv"}


def test_the_table_of_renamed_files_must_agree(tmp_path: Path) -> None:
    raf.write_resemotenet(tmp_path)
    file = tmp_path / "train_labels.csv"
    file.write_text(file.read_text().replace("train_0_happy.jpg,0", "train_0_happy.jpg,2") + "train_9_sad.jpg,2\n")
    ds = RAFDB(tmp_path, PROTOCOL)
    kinds = {bad.name: bad for bad in ds.listing.bad}
    assert set(kinds) == {"train/train_0_happy.jpg", "train/train_9_sad.jpg"}
    assert "is sadness, its name says happiness" in kinds["train/train_0_happy.jpg"].message
    assert kinds["train/train_9_sad.jpg"].kind == "missing"


def test_its_own_script_leaves_out_angry(tmp_path: Path) -> None:
    raf.write_resemotenet(tmp_path)  # its mapping has "anger", the folders are called "angry"
    for split in COUNTS:
        file = tmp_path / f"{split}_labels.csv"
        file.write_text("".join(line for line in file.read_text().splitlines(True) if "angry" not in line))
    ds = RAFDB(tmp_path, PROTOCOL)
    assert len(ds.index(PROTOCOL)) == sum(PROTOCOL.counts.values())
    assert "train_labels.csv leaves out 1 of 43 train images" in ds.remarks()


def test_kaggles_tables_are_compared_with_the_folders(tmp_path: Path) -> None:
    raf.write_kaggle(tmp_path)
    file = tmp_path / "train_labels.csv"
    file.write_text(file.read_text().replace("train_00004_aligned.jpg,4", "train_00004_aligned.jpg,5"))
    ds = RAFDB(tmp_path, PROTOCOL)
    with pytest.raises(UserError, match=r"train_labels.csv, row 5: .* is sadness, its folder says happiness"):
        ds.index(PROTOCOL)


def test_a_table_of_something_else_is_not_used(tmp_path: Path) -> None:
    raf.write_kaggle(tmp_path)
    rows = [f"{stem}_aligned.jpg,{k % 3}" for k, (split, stem, _) in enumerate(raf.images()) if split == "test"]
    (tmp_path / "test_labels.csv").write_text("image,label\n" + "\n".join(rows))
    ds = RAFDB(tmp_path, PROTOCOL)
    assert len(ds.index(PROTOCOL)) == 59
    assert any(remark.startswith("test_labels.csv is not used") for remark in ds.remarks())


def test_aligned_is_preferred(tmp_path: Path) -> None:
    raf.write_official(tmp_path)
    raf.write_original(tmp_path)
    ds = RAFDB(tmp_path, PROTOCOL)
    assert ds.path("train_00001.jpg") == tmp_path / "Image/aligned/train_00001_aligned.jpg"
    assert "images are those of Image/aligned; Image/original not used" in ds.remarks()
    assert ds.extra() == []


def unread(root: Path) -> list[str]:
    return [remark for remark in RAFDB(root, PROTOCOL).remarks() if "not read" in remark]


@pytest.mark.parametrize(
    ("base", "other"),
    [("", "basic"), ("basic", "raf-basic"), ("", "RAF-DB/basic"), ("RAF-DB/basic", "RAF-DB/raf_basic"),
     ("RAF-DB/basic", "rafdb/basic")],
)  # fmt: skip
@pytest.mark.parametrize("write", [raf.write_official, raf.write_nr])
def test_a_copy_beside_the_one_in_use_is_told(
    tmp_path: Path, base: str, other: str, write: Callable[[Path], Path]
) -> None:
    write(tmp_path / base)
    assert RAFDB(tmp_path, PROTOCOL).base == tmp_path / base
    assert unread(tmp_path) == []
    write(tmp_path / other)
    assert unread(tmp_path) == [f"another copy of the same layout lies in {tmp_path / other}; it is not read"]


def test_a_link_to_the_copy_in_use_is_no_other(tmp_path: Path) -> None:
    raf.write_official(tmp_path / "basic")
    (tmp_path / "raf-basic").symlink_to(tmp_path / "basic")
    assert unread(tmp_path) == []


@pytest.mark.parametrize("copied", ["aligned/aligned", "aligned (copy)", "Copy of aligned", "original_backup"])
def test_an_image_folder_copied_twice_is_told(tmp_path: Path, copied: str) -> None:
    raf.write_images(raf.write_official(tmp_path) / "Image" / copied)
    assert unread(tmp_path) == [f"Image/{copied} holds images too; they are not read"]
    assert len(RAFDB(tmp_path, PROTOCOL).index(PROTOCOL)) == 59


def test_originals_need_another_preprocessing(tmp_path: Path) -> None:
    ds = RAFDB(raf.write_original(tmp_path), PROTOCOL)
    assert any("preprocessing rafdb-any-100" in remark for remark in ds.remarks())
    with pytest.raises(UserError, match=r"train_00001.jpg is 130x130, not 100x100 as published") as caught:
        next(ds.pixels(["train_00001.jpg"]))
    assert "rafdb-any-100" in caught.value.hint
    ds.preprocessing = "rafdb-any-100"
    assert next(ds.pixels(["train_00001.jpg"])).shape == (100, 100, 3)


def test_images_aligned_again_are_told(tmp_path: Path) -> None:
    ds = RAFDB(raf.write_apvit(tmp_path), PROTOCOL)
    assert any("aligned by others" in remark for remark in ds.remarks())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("train_00001.jpg", "train_00001.jpg"), ("a/b/test_0001_aligned.png", "test_0001.jpg"),
        ("train_00001", "train_00001.jpg"), ("test_0001_aligned", "test_0001.jpg"), ("train_1_angry.jpg", None),
        ("train_0001.jpg", None), ("test_00001.jpg", None), ("train_00001.txt", None), ("fer0000001.png", None),
        ("train_12271.jpg", "train_12271.jpg"), ("train_12272.jpg", None), ("test_0000.jpg", None),
    ],
)  # fmt: skip
def test_official_names(path: str, name: str | None) -> None:
    assert official_name(path) == name


def test_only_the_official_rule(tmp_path: Path) -> None:
    ds = RAFDB(raf.write_official(tmp_path), PROTOCOL)
    problem = ds.blocked(PROTOCOL.model_copy(update={"rule": "offical"}))
    assert problem is not None
    assert "did you mean official" in problem.hint
    assert ds.blocked(PROTOCOL) is None


def test_declared_protocols_know_the_adapter() -> None:
    protocols = [p for p in declare.load().protocols.values() if p.dataset == "rafdb" and not p.subset_of]
    assert [(p.id, p.rule) for p in protocols] == [(RAFDB.benchmark, "official")]


# Which trees are RAF-DB, at full size: file names say nothing, counts decide.


def write_counts(root: Path, counts: order.Counts, name: Callable[[str], str], stem: str = "face{}.jpg") -> Path:
    for split, classes in counts.items():
        for label, images in classes.items():
            folder = root / split / name(label)
            folder.mkdir(parents=True)
            for k in range(images):
                (folder / stem.format(k)).touch()
    return root


def test_full_size_folders_without_names(tmp_path: Path, real_counts: order.Counts) -> None:
    root = write_counts(tmp_path / "full", real_counts, numbered("affectnet", 0))
    protocol = declare.load().protocols["raf-db-7"]
    assert RAFDB.detect(root) == "folders"
    ds = RAFDB(root, protocol)
    assert len(ds.index(protocol)) == 15_339
    assert ds.listing.order == "affectnet"
    assert ds.names()[0].startswith("train/0/face")
    # three images are lost: still RAF-DB, still that order, no benchmark
    for k in range(3):
        (root / "train" / "1" / f"face{k}.jpg").unlink()
    ds = RAFDB(root, protocol)
    assert any("3 images off those of raf-db-7 in order affectnet from 0" in remark for remark in ds.remarks())
    with pytest.raises(UserError, match=r"train/happiness: expected 4,772, found 4,769"):
        ds.index(protocol)


SEVEN = dict.fromkeys(ORDERS["raf"], 9)
OTHERS = {
    "own": {"train": SEVEN, "test": SEVEN},
    "FERPlus": {
        split: {c: n // 50 for c, n in order.published()["ferplus-8@majority"][split].items()} for split in COUNTS
    },
    "AffectNet": {"train": {c: n // 500 for c, n in order.published()["affectnet-7"]["train"].items()}, "val": SEVEN},
    "CK+": {"": {c: n // 9 for c, n in order.published()["ckplus-7@last3"]["test"].items()}},
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", [str, numbered("alphabetical-8", 0)])
def test_other_folders_are_not_raf_db(tmp_path: Path, other: str, name: Callable[[str], str]) -> None:
    assert RAFDB.detect(write_counts(tmp_path, OTHERS[other], name)) is None
    assert why_not_found(tmp_path, RAFDB) == []


@pytest.mark.parametrize("stem", ["fer{:07d}.png", "S010_004_{:08d}.png", "{:056x}.jpg"])
def test_numbered_folders_of_others_are_not_raf_db(tmp_path: Path, real_counts: order.Counts, stem: str) -> None:
    small = {split: {label: n // 50 + 1 for label, n in classes.items()} for split, classes in real_counts.items()}
    assert RAFDB.detect(write_counts(tmp_path, small, numbered("raf", 1), stem)) is None


def test_a_copy_that_lost_many_images_is_named(tmp_path: Path) -> None:
    counts = {split: {label: n - n // 5 for label, n in classes.items()} for split, classes in COUNTS.items()}
    root = write_counts(tmp_path, counts, words)
    assert find_dataset(root, RAFDB) is None
    assert "class folders whose counts are near RAF-DB's, but 6 images" in why_not_found(root, RAFDB)[0]


def test_the_real_ferplus_is_not_raf_db(ferplus_official: Path) -> None:
    assert RAFDB.detect(ferplus_official) is None
    assert RAFDB.near_miss(ferplus_official) == ""


def test_a_wrong_list_is_no_copy(tmp_path: Path) -> None:
    raf.write_official(tmp_path)
    put(tmp_path / LIST, "fer0000001.png 3\n")
    assert RAFDB.detect(tmp_path) is None
    assert "does not start with a line such as 'train_00001.jpg 5'" in RAFDB.near_miss(tmp_path)
