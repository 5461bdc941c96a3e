"""Whatever is wrong with a FERPlus copy is refused, naming the file and row, split or class."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Image, ferplus_protocol, png, write_csvs, write_official
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import declare
from bench.data.base import check_counts
from bench.data.ferplus.adapter import FERPlus
from bench.data.ferplus.files import read_png
from bench.errors import UserError

Mutate = Callable[[Path], object]
TRAIN, TEST = "FER2013Train", "FER2013Test"


def replace(path: str, old: str, new: str) -> Mutate:
    return lambda root: (root / path).write_text((root / path).read_text().replace(old, new, 1))


def remove_folder(root: Path) -> None:
    for file in (root / "FER2013Valid").iterdir():
        file.unlink()
    (root / "FER2013Valid").rmdir()


def empty_folder(root: Path) -> None:
    for file in (root / "FER2013Valid").glob("*.png"):
        file.unlink()


def cut(root: Path) -> None:
    path = root / "FER2013Test" / "fer0000010.png"
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (remove_folder, r"FER2013Valid is missing: there is no val split"),
        (lambda root: (root / "FER2013Valid" / "label.csv").unlink(), r"FER2013Valid/label.csv is missing"),
        (empty_folder, r"FER2013Valid holds no images; its labels name 3"),
        (lambda root: (root / TEST / "fer0000010.png").unlink(), r"FER2013Test/fer0000010.png is missing;"),
        (replace(f"{TEST}/label.csv", ",2,0\n", ",2\n"), r"Test/label.csv, row 1: expected 12 columns .* found 11"),
        (replace(f"{TRAIN}/label.csv", "fer0000002.png", ""), r"Train/label.csv, row 3: '' is not an image name"),
        (replace(f"{TRAIN}/label.csv", "fer0000002", "../x"), r"row 3: '../x.png' is not an image name"),
        (replace(f"{TRAIN}/label.csv", ",8", ",-8"), r"Train/label.csv, row 1: '-8' is not a number of votes"),
        (replace(f"{TRAIN}/label.csv", ",8", ",eight"), r"row 1: 'eight' is not a number of votes"),
        (
            replace(f"{TEST}/label.csv", "0000010", "0000000"),
            r"'fer0000000.png' is in .* of train and of test",
        ),
        (lambda root: (root / TRAIN / "label.csv").write_bytes(b"\xff\xfe\x00"), r"label.csv is not a text table"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, ferplus_images: list[Image], mutate: Mutate, message: str) -> None:
    root = write_official(tmp_path, ferplus_images)
    mutate(root)
    with pytest.raises(UserError, match=message):
        FERPlus(root, ferplus_protocol()).index(ferplus_protocol())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda data: data[:-40], "not a readable PNG: truncated"),
        (lambda data: data[:-12], "not a readable PNG: truncated"),
        (lambda data: b"", "not a readable PNG: empty file"),
        (lambda data: b"GIF89a" + data, "not a readable PNG: no PNG signature"),
        (lambda data: png(np.zeros((48, 64), np.uint8)), "is 64x48, not 48x48 grey"),
        (lambda data: png(np.zeros((48, 48, 3), np.uint8)), "is 48x48 colour, not 48x48 grey"),
    ],
)
def test_bad_pictures_are_named(
    tmp_path: Path, ferplus_images: list[Image], content: Callable[[bytes], bytes], message: str
) -> None:
    root = write_official(tmp_path, ferplus_images)
    path = root / "FER2013Test" / "fer0000010.png"
    path.write_bytes(content(path.read_bytes()))
    ds = FERPlus(root, ferplus_protocol())
    with pytest.raises(UserError, match=rf"FER2013Test/fer0000010.png.*{message}"):
        list(ds.pixels(ds.names()))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_flipped_bit_passes(data: st.DataObject) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (48, 48), dtype=np.uint8)
    whole = bytearray(png(pixels))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.png"
        path.write_bytes(whole)
        with pytest.raises(UserError, match=r"one\.png is not a readable PNG"):
            read_png(path)


@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (
            replace("fer2013.csv", "PublicTest", "Training"),
            r"fer2013.csv, row 8: Usage is 'Training', the vote file has",
        ),
        (replace("fer2013new.csv", "PublicTest", "Public"), r"fer2013new.csv, row 8: Usage 'Public' is not one of"),
        (replace("fer2013new.csv", "neutral", "calm"), r"fer2013new.csv, row 1: the header is not"),
        (lambda root: append(root / "fer2013.csv", "0,1 2 3,PrivateTest\n"), r"has 13 rows, the vote file 12"),
        (replace("fer2013.csv", ",Training", " 7,Training"), r"fer2013.csv, row 2: expected 2304 pixels, found 2305"),
        (
            replace("fer2013.csv", ",Training", "9999,Training"),
            r"fer2013.csv, row 2: a pixel is not a number from 0 to 255",
        ),
        (replace("fer2013.csv", ",Training", ",Training,1"), r"fer2013.csv, row 2: expected 3 columns, found 4"),
    ],
)
def test_bad_csvs_are_named(tmp_path: Path, ferplus_images: list[Image], mutate: Mutate, message: str) -> None:
    root = write_csvs(tmp_path, ferplus_images)
    mutate(root)

    def read_all() -> None:
        ds = FERPlus(root, ferplus_protocol())
        ds.index(ferplus_protocol("majority/fer2013new"))
        list(ds.pixels(ds.names()))

    with pytest.raises(UserError, match=message):
        read_all()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_counts_that_differ_are_named(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path, ferplus_images)
    exact = ferplus_protocol(
        counts={"train": 6, "val": 3, "test": 3}, class_counts={"test": {"happiness": 1, "surprise": 1}}
    )
    assert len(FERPlus(root, exact).index(exact)) == 12
    wrong = ferplus_protocol(counts={"train": 6, "val": 3, "test": 4}, class_counts={"test": {"happiness": 2}})
    with pytest.raises(UserError, match="test: expected 4, found 3; test/happiness: expected 2, found 1"):
        FERPlus(root, wrong).index(wrong)
    lacking = ferplus_protocol(counts={"train": 6, "test": 3})
    with pytest.raises(UserError, match="val: expected none, found 3"):
        FERPlus(root, lacking).index(lacking)


def test_swapped_test_split_is_refused(ferplus_official: Path, tmp_path: Path) -> None:
    """A list in the wild calls the official test split PublicTest; the counts tell."""
    wanted = declare.load_from([], [declare.ROOT / "bench" / "data" / "protocols.yaml"]).protocols["ferplus-8@majority"]
    frame = FERPlus(ferplus_official, wanted).index(wanted)
    frame["split"] = frame["split"].map({"train": "train", "val": "test", "test": "val"})
    with pytest.raises(UserError, match="val: expected 3,191, found 3,137"):
        check_counts(frame, wanted, "swapped")


def test_unknown_rule_names_the_nearest(tmp_path: Path, ferplus_images: list[Image]) -> None:
    ds = FERPlus(write_official(tmp_path, ferplus_images), ferplus_protocol())
    with pytest.raises(UserError, match="unknown FERPlus label rule 'majorty'") as error:
        ds.index(ferplus_protocol("majorty"))
    assert "majority" in error.value.hint
    with pytest.raises(UserError, match=r"needs fer2013new\.csv"):
        ds.index(ferplus_protocol("soft/fer2013new"))


# --- skip_bad ---------------------------------------------------------------------------------------------------------


def skipping(root: Path) -> FERPlus:
    ds = FERPlus(root, ferplus_protocol())
    ds.skip_bad = True
    return ds


COUNTS = {"train": 6, "val": 3, "test": 3}


def test_what_is_bad_is_left_out_and_recorded(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path, ferplus_images)
    (root / TEST / "fer0000010.png").unlink()
    (root / TEST / "fer0000011.png").write_bytes(b"")
    replace(f"{TRAIN}/label.csv", ",8", ",eight")(root)
    replace(f"{TRAIN}/label.csv", "fer0000002.png", "")(root)
    replace("FER2013Valid/label.csv", ",2,0\n", ",2\n")(root)
    ds = skipping(root)
    frame = ds.index(ferplus_protocol(counts=COUNTS))
    assert frame["name"].tolist() == [f"fer{n:07d}.png" for n in (1, 3, 4, 5, 7, 8, 9, 11)]
    train = f"{root / TRAIN / 'label.csv'}, row"
    assert ds.skipped == {
        f"{TRAIN}/label.csv, row 1": f"{train} 1: 'eight' is not a number of votes (column neutral)",
        f"{TRAIN}/label.csv, row 3": f"{train} 3: '' is not an image name",
        "FER2013Valid/label.csv, row 1": f"{root / 'FER2013Valid' / 'label.csv'}, row 1: "
        "expected 12 columns (name, box, 10 votes), found 11",
        "fer0000010.png": f"{root / TEST / 'fer0000010.png'} is missing",
    }
    found = dict(zip(frame["name"], ds.decoded(frame["name"].tolist()), strict=True))
    bad = [name for name, image in found.items() if isinstance(image, UserError)]
    assert bad == ["fer0000011.png"]  # found when it is decoded
    assert "fer0000011.png is not a readable PNG: empty file" in str(found["fer0000011.png"])
    assert (found["fer0000009.png"] == ferplus_images[9][3]).all()
    with pytest.raises(UserError, match=r"fer0000010\.png is missing"):
        list(ds.pixels(ds.names()))


def test_more_lacking_than_was_left_out_is_still_an_error(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path, ferplus_images)
    (root / TEST / "fer0000010.png").unlink()
    with pytest.raises(UserError, match="test: expected 4, found 2"):
        skipping(root).index(ferplus_protocol(counts={**COUNTS, "test": 4}))


def test_an_intact_copy_gives_the_same_with_skip_bad(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path, ferplus_images)
    plain, ds = FERPlus(root, ferplus_protocol()), skipping(root)
    assert ds.index(ferplus_protocol(counts=COUNTS)).equals(plain.index(ferplus_protocol(counts=COUNTS)))
    assert ds.skipped == {}
    assert (ds.names(), ds.storage, ds.fingerprint()) == (plain.names(), plain.storage, plain.fingerprint())


@pytest.mark.parametrize("mutate", [remove_folder, empty_folder])
def test_a_missing_split_is_never_skipped(tmp_path: Path, ferplus_images: list[Image], mutate: Mutate) -> None:
    root = write_official(tmp_path, ferplus_images)
    mutate(root)
    with pytest.raises(UserError, match=r"is missing: there is no val split|holds no images"):
        skipping(root).index(ferplus_protocol())


def test_rows_joined_by_order_stay_joined(tmp_path: Path, ferplus_images: list[Image]) -> None:
    """A row of fer2013new.csv with wrong votes loses its image, and no other image moves."""
    root = write_csvs(tmp_path, ferplus_images)
    replace("fer2013new.csv", ",8", ",x")(root)
    replace("fer2013.csv", ",Training", " 7,Training")(root)
    ds = skipping(root)
    frame = ds.index(ferplus_protocol("majority/fer2013new"))
    assert frame["name"].tolist() == [image[1] for image in ferplus_images[1:]]
    assert list(ds.skipped) == [f"{root.name}/fer2013new.csv, row 2"]
    for image, found in zip(ferplus_images[1:], ds.decoded(frame["name"].tolist()), strict=True):
        assert (image[3] == found).all()
    short = write_csvs(tmp_path / "short", ferplus_images)
    replace("fer2013new.csv", ",2,0\n", ",2\n")(short)
    with pytest.raises(UserError, match=r"fer2013new\.csv, row 2: expected 12 columns"):
        skipping(short).index(ferplus_protocol("majority/fer2013new"))
