"""Whatever is wrong with a copy of RAF-DB is refused by name; with --skip-bad it is left out and recorded."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import helpers_rafdb as raf
import pytest
from helpers_rafdb import COUNTS, LIST, PROTOCOL, numbered, put
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import order
from bench.data.rafdb.adapter import RAFDB
from bench.errors import UserError

Change = Callable[[Path], object]
ALIGNED = "Image/aligned"
LABELS = {f"{stem}.jpg": label for _, stem, label in raf.images()}


@pytest.fixture(autouse=True, scope="module")
def small() -> object:
    """The published counts are those of the small copies."""
    with pytest.MonkeyPatch.context() as patch:
        known = {**order.published(), "raf-db-7": COUNTS}
        patch.setattr(order, "published", lambda: known)
        patch.setattr(order, "NEAR", 0.1)  # one image is 2 % of these
        yield


def edit(path: str, old: str, new: str) -> Change:
    return lambda root: (root / path).write_text((root / path).read_text().replace(old, new, 1), newline="")


def append(path: str, text: str) -> Change:
    return lambda root: (root / path).write_text((root / path).read_text() + text)


def move(old: str, new: str) -> Change:
    def moved(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return moved


def copy(old: str, new: str) -> Change:
    return lambda root: put(root / new, (root / old).read_bytes())


def remove(path: str) -> Change:
    return lambda root: (root / path).unlink()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (remove(f"{ALIGNED}/test_0003_aligned.jpg"), "missing", r"test_0003.jpg is missing: .*label.txt, row 46 names"),
        (edit(LIST, "train_00002.jpg 2", "train_00002.jpg 9"), "label", r"row 2: label '9' of train_00002.jpg is not"),
        (edit(LIST, "train_00002.jpg 2", "train_00002.jpg 0"), "label", r"row 2: label '0' of train_00002.jpg is not"),
        (edit(LIST, "train_00002.jpg 2", "train_00002.jpg x"), "label", r"row 2: label 'x' of 'train_00002.jpg' is"),
        (edit(LIST, "train_00002.jpg 2", "train_00002.jpg"), "row", r"row 2: 'train_00002.jpg' is not a name and"),
        (edit(LIST, "train_00002.jpg 2", "train_2.jpg 2"), "row", r"row 2: 'train_2.jpg' is no image name of RAF-DB"),
        (edit(LIST, "train_00002", "train_\x0b0002"), "name", r"row 2: 'train_\\x0b0002.jpg' is no image name"),
        (append(LIST, "\ntrain_00001.jpg 1"), "twice", r"row 60: train_00001.jpg is listed again, as in row 1"),
        (append(LIST, "\ntrain_00001.jpg 3"), "twice", r"is train surprise in .*row 1 and train disgust in .*row 60"),
        (
            copy(f"{ALIGNED}/train_00002_aligned.jpg", f"{ALIGNED}/train_00001.jpg"),
            "twice",
            r"aligned/train_00001.jpg and Image/aligned/train_00001_aligned.jpg are both train_00001.jpg",
        ),
    ],
)  # fmt: skip
def test_bad_rows_of_the_official_list(tmp_path: Path, change: Change, kind: str, message: str) -> None:
    root = raf.write_official(tmp_path)
    change(root)
    ds = RAFDB(root, PROTOCOL)
    assert kind in {bad.kind for bad in ds.listing.bad}
    with pytest.raises(UserError, match=message) as caught:
        ds.index(PROTOCOL)
    assert "--skip-bad" in caught.value.hint
    ds.skip_bad = True
    frame = ds.index(PROTOCOL)
    assert len(ds.skipped) == len(ds.listing.bad)
    assert len(frame) >= 58
    assert all(LABELS[name] == label for name, label in zip(frame["name"], frame["label"], strict=True))


HAPPY = "train/4/train_00004_aligned.jpg"


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (copy(HAPPY, "train/5/train_00004_aligned.jpg"), "twice", r"train_00004.jpg is there twice: .*/4/.* and .*/5/"),
        (copy(HAPPY, "train/4/train_00004.jpg"), "twice", r"train_00004.jpg is there twice: "),
        (move(HAPPY, "test/4/train_00004_aligned.jpg"), "row", r"test/4/train_00004.*: an image of the train split"),
        (copy(HAPPY, "train/8/train_00099_aligned.jpg"), "label", r"'8' is no class of RAF-DB"),
        (copy(HAPPY, "train/4/new\nline.jpg"), "name", r"a control character in its name: 'new\\nline.jpg'"),
    ],
)
def test_bad_files_of_class_folders(tmp_path: Path, change: Change, kind: str, message: str) -> None:
    root = raf.write_folders(tmp_path, numbered("raf", 1))
    change(root)
    ds = RAFDB(root, PROTOCOL)
    assert [bad.kind for bad in ds.listing.bad] == [kind]
    with pytest.raises(UserError, match=message):
        ds.index(PROTOCOL)
    frame = ds.listing.frame
    assert all(LABELS[name] == label for name, label in zip(frame["name"], frame["label"], strict=True))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda root: raf.write_folders(root, raf.WORDS.__getitem__),
            r"two layouts of rafdb: 'official' in .* 'folders'",
        ),
        (raf.write_nr, r"two layouts of rafdb: 'official' in .* 'nr' in "),
        (lambda root: raf.write_kaggle(root), r"two layouts of rafdb: 'official' in .* 'folders' in "),
    ],
)
def test_mixed_layouts(tmp_path: Path, write: Change, message: str) -> None:
    raf.write_official(tmp_path)
    write(tmp_path)
    with pytest.raises(UserError, match=message):
        RAFDB(tmp_path, PROTOCOL)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda root: raf.write_folders(root, numbered("raf", 1), ("train_set", "test")), r"two folders of the train"),
        (lambda root: raf.write_folders(root, raf.WORDS.__getitem__), r"mixes numbered and named class folders"),
        (lambda root: os.symlink("4", root / "train" / "9"), r"nearest, raf from 1, is 12 images from raf-db-7"),
        (lambda root: os.symlink("9", root / "train" / "9"), r"train/9 cannot be read: its link leads nowhere"),
    ],
)  # fmt: skip
def test_class_folders_that_contradict_each_other(tmp_path: Path, write: Change, message: str) -> None:
    raf.write_folders(tmp_path, numbered("raf", 1))
    write(tmp_path)
    with pytest.raises(UserError, match=message):
        RAFDB(tmp_path, PROTOCOL).names()


def test_a_copied_folder_is_told(tmp_path: Path) -> None:
    raf.write_folders(tmp_path, numbered("raf", 1))
    put(tmp_path / "train" / "4 - Copy" / "train_00004_aligned.jpg", b"x")
    put(tmp_path / "train (1)" / "4" / "train_00004_aligned.jpg", b"x")
    ds = RAFDB(tmp_path, PROTOCOL)
    assert len(ds.index(PROTOCOL)) == 59
    assert "not read, no images of a class: 'train (1)', 'train/4 - Copy'" in ds.remarks()


def test_images_no_list_names(tmp_path: Path) -> None:
    raf.write_official(tmp_path)
    put(tmp_path / ALIGNED / "test_0099_aligned.jpg", b"x")
    put(tmp_path / ALIGNED / "two\nlines.jpg", b"x")
    put(tmp_path / ALIGNED / "Thumbs.db", b"x")
    ds = RAFDB(tmp_path, PROTOCOL)
    assert ds.extra() == [repr(f"{ALIGNED}/two\nlines.jpg"), f"{ALIGNED}/test_0099_aligned.jpg"]
    assert len(ds.index(PROTOCOL)) == 59


@pytest.mark.parametrize("number", ["01", "03"])
def test_noisy_labels_do_not_pass(tmp_path: Path, number: str) -> None:
    raf.write_official(tmp_path)
    noisy = raf.official_list(split="train").replace("train_00001.jpg 1", "train_00001.jpg 4")
    put(tmp_path / "EmoLabel" / f"noise{number}.txt", noisy)
    ds = RAFDB(tmp_path, PROTOCOL)
    assert len(ds.index(PROTOCOL)) == 59
    assert f"noise{number}.txt: labels changed on purpose (EAC, SCN), not read" in ds.remarks()
    put(tmp_path / LIST, noisy)
    with pytest.raises(UserError, match=r"names 43 train images and no test image, .* labels with noise") as caught:
        RAFDB(tmp_path, PROTOCOL).index(PROTOCOL)
    assert "put the official list_patition_label.txt" in caught.value.hint
    put(tmp_path / LIST, raf.official_list(split="train"))
    with pytest.raises(UserError, match=r"names 43 train images and no test image\n"):
        RAFDB(tmp_path, PROTOCOL).index(PROTOCOL)


def test_a_list_per_split_needs_both(tmp_path: Path) -> None:
    raf.write_scn(tmp_path)
    (tmp_path / "test.txt").unlink()
    with pytest.raises(UserError, match=r"train.txt is there, but no list of the test images"):
        RAFDB(tmp_path, PROTOCOL).index(PROTOCOL)


def test_lists_in_no_known_order(tmp_path: Path) -> None:
    raf.write_apvit(tmp_path)
    turned = str.maketrans("1234567", "7654321")
    for split in COUNTS:
        file = tmp_path / "EmoLabel" / f"{split}.txt"
        lines = [line.split() for line in file.read_text().splitlines()]
        file.write_text("".join(f"{name} {label.translate(turned)}\n" for name, label in lines))
    with pytest.raises(UserError, match=r"EmoLabel/test.txt: the counts per class fit no known order"):
        RAFDB(tmp_path, PROTOCOL).index(PROTOCOL)


def test_a_bad_label_in_a_list_per_split(tmp_path: Path) -> None:
    raf.write_apvit(tmp_path)
    edit("EmoLabel/train.txt", "train_00003_aligned.jpg 3", "train_00003_aligned.jpg 9")(tmp_path)
    put(tmp_path / "EmoLabel/test.txt", raf.official_list("{stem}_aligned.jpg", split="test") + "\ntrain_00001.jpg 1")
    kinds = {bad.name: bad.kind for bad in RAFDB(tmp_path, PROTOCOL).listing.bad}
    assert kinds == {"train_00003.jpg": "label", "train_00001.jpg": "row"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: [path.unlink() for path in (root / ALIGNED).iterdir()], r"label list is there, but no images in"),
        (move(ALIGNED, "Image/faces"), r"label list is there, but no images in Image/aligned"),
        (
            lambda root: ((root / ALIGNED).rename(root / "elsewhere"), os.symlink("aligned", root / ALIGNED)),
            r"Image/aligned is a link that leads nowhere",
        ),
        (lambda root: put(root / LIST, ""), r"does not start with a line such as 'train_00001.jpg 5'"),
    ],
)
def test_incomplete_copies_say_what_they_lack(tmp_path: Path, change: Change, message: str) -> None:
    change(raf.write_official(tmp_path))
    assert RAFDB.detect(tmp_path) is None
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(RAFDB.near_miss(tmp_path))


def saved(mode: str, suffix: str = "PNG") -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new(mode, (100, 100)).save(stream, suffix)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (saved("RGBA"), r"has four channels \(RGBA\), not 8-bit grey or RGB"),
        (saved("I;16"), r"has 16 bits or more a channel"),
        (saved("CMYK", "JPEG"), r"has four printing inks \(CMYK\)"),
        (b"", r"is empty \(0 bytes\)"),
        (raf.picture("train_00005")[:300], r"is not a readable image"),
        (raf.picture("train_00005", 48), r"is 48x48, not 100x100 as published"),
    ],
)
def test_images_that_cannot_be_used_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    root = raf.write_official(tmp_path)
    put(root / ALIGNED / "train_00005_aligned.jpg", data)
    ds = RAFDB(root, PROTOCOL)
    with pytest.raises(UserError, match=rf"aligned/train_00005_aligned.jpg {message}"):
        list(ds.pixels(ds.names()))
    found = list(ds.decoded(ds.names()))
    assert [name for name, one in zip(ds.names(), found, strict=True) if isinstance(one, UserError)] == [
        "train_00005.jpg"
    ]


def test_an_image_that_is_a_loop_of_links(tmp_path: Path) -> None:
    root = raf.write_official(tmp_path)
    path = root / ALIGNED / "train_00005_aligned.jpg"
    path.unlink()
    os.symlink(path.name, path)
    ds = RAFDB(root, PROTOCOL)
    with pytest.raises(UserError, match=r"train_00005_aligned.jpg cannot be read"):
        ds.read("train_00005.jpg")


@settings(max_examples=25, deadline=None)
@given(
    lost=st.sets(st.sampled_from(sorted(LABELS)), max_size=10),
    turned=st.randoms(use_true_random=False),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
    separator=st.sampled_from([" ", "\t", ",", "  "]),
)
def test_labels_never_shift(
    tmp_path_factory: pytest.TempPathFactory, lost: set[str], turned: object, end: str, mark: bool, separator: str
) -> None:
    root = tmp_path_factory.mktemp("copy")
    lines = raf.official_list().replace(" ", separator).split("\n")
    turned.shuffle(lines)  # type: ignore[attr-defined]
    put(root / LIST, (b"\xef\xbb\xbf" if mark else b"") + end.join(lines).encode())
    for name in LABELS:
        if name not in lost:
            put(root / ALIGNED / f"{name[:-4]}_aligned.jpg", b"x")
    ds = RAFDB(root, PROTOCOL)
    assert set(ds.missing()) == lost
    ds.skip_bad = True
    frame = ds.index(PROTOCOL)
    assert dict(zip(frame["name"], frame["label"], strict=True)) == {n: c for n, c in LABELS.items() if n not in lost}
    assert set(ds.skipped) == lost


def test_the_cache_notices_changes(tmp_path: Path) -> None:
    for number, write in enumerate([raf.write_official, raf.write_kaggle, raf.write_resemotenet, raf.write_scn]):
        root = write(tmp_path / str(number))
        ds = RAFDB(root, PROTOCOL)
        before = ds.fingerprint()
        assert RAFDB(root, PROTOCOL).fingerprint() == before
        ds.path(ds.names()[0]).unlink()
        assert RAFDB(root, PROTOCOL).fingerprint() != before
