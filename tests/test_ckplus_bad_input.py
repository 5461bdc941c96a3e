"""Whatever is wrong with a copy of CK+ is refused, naming the file."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_ckplus import (
    EMOTION,
    IMAGES,
    LANDMARKS,
    RULES,
    SMALL,
    declared,
    points,
    protocol,
    stem,
    write_ck48,
    write_official,
)
from hypothesis import given
from hypothesis import strategies as st

from bench.data.ckplus.adapter import CKPlus
from bench.data.ckplus.files import CLASSES, box_of, emotion_of
from bench.data.ferplus.adapter import FERPlus
from bench.data.source import locate
from bench.errors import UserError

# --- texts ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 7), st.sampled_from(["   {:.7e}\n", "{}", "{:.1f}\r\n", "+{}\n\n", "  {:E}  "]))
def test_emotion_files(number: int, form: str) -> None:
    assert emotion_of(form.format(float(number) if "." in form or "E" in form else number)) == CLASSES[number]


@given(st.one_of(st.integers(), st.floats(), st.floats(-1, 8), st.text(), st.text("0123456789+-.eE_ ")))
def test_other_emotions_are_refused(value: object) -> None:
    text = str(value)
    try:
        number = float(text)
    except ValueError:
        number = -1
    if "_" not in text and number in range(8):
        assert emotion_of(text) == CLASSES[int(number)]
    else:
        with pytest.raises(ValueError, match="is not a whole number from 0 to 7"):
            emotion_of(text)


@pytest.mark.parametrize("text", ["", " \n", "9", "-1", "3.5", "nan", "inf", "1_0", "0_3", "3 4", "three", "1e400"])
def test_refused_emotions(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number from 0 to 7"):
        emotion_of(text)


coordinates = st.floats(-50, 700, allow_nan=False, width=32)


@given(
    st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=9),
    st.sampled_from(["\n", "\r\n"]),
    st.randoms(use_true_random=False),
)
def test_landmark_boxes(drawn: list[tuple[float, float]], end: str, order: random.Random) -> None:
    drawn = (drawn * 68)[:68]
    order.shuffle(drawn)
    text = end.join(f"   {x:.7e}   {y:.7e}" for x, y in drawn) + end
    read = [(float(f"{x:.7e}"), float(f"{y:.7e}")) for x, y in drawn]
    (left, right), (top, bottom) = ((min(side), max(side)) for side in zip(*read, strict=True))
    if left == right or top == bottom:
        with pytest.raises(ValueError, match="span no area"):
            box_of(text)
    else:
        assert box_of(text) == (left, top, right - left, bottom - top)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 lines, not 68"),
        (points().replace("\n", " ", 1), "has 67 lines, not 68"),
        (points() + "1 2\n", "has 69 lines, not 68"),
        (points().replace("1.0", "nan ", 1), "has 68 lines, not 68 of two numbers"),
        (points().replace("1.0000000e+01", "nan", 1), "not a finite number"),
        (points().replace("1.0000000e+01", "x", 1), "not a finite number"),
        (points().replace("1.0000000e+01", "1_0", 1), "not a finite number"),
        (points((5, 5, 0, 9)), "span no area"),
        (points().replace("1.0000000e+01", "-1.7e308").replace("3.0000000e+01", "1.7e308"), "span no area"),
    ],
)
def test_refused_landmarks(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box_of(text)


# --- what is refused --------------------------------------------------------------------------------------------------

Mutate = Callable[[Path], object]
LABEL = f"{EMOTION}/S005/001/S005_001_00000008_emotion.txt"
POINTS = f"{LANDMARKS}/S005/001/S005_001_00000008_landmarks.txt"
FRAME = f"{IMAGES}/S005/001/S005_001_00000008.png"


def write(path: str, data: bytes) -> Mutate:
    return lambda root: (root / path).write_bytes(data)


def remove_frames(root: Path) -> None:
    shutil.rmtree(root / IMAGES / "S005/001")


def loop(path: str) -> Mutate:
    def mutate(root: Path) -> None:
        (root / path).rename(root / "elsewhere")
        (root / path).symlink_to(root / path)

    return mutate


def leave(frames: int) -> Mutate:
    """Only the last frames of a sequence."""

    def mutate(root: Path) -> None:
        for path in sorted((root / IMAGES / "S005/001").iterdir())[:-frames]:
            path.unlink()

    return mutate


@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (write(LABEL, b"   9.0000000e+00\n"), r"S005_001_00000008_emotion.txt: '9\S*' is not a whole number from 0 to"),
        (write(LABEL, b""), r"S005_001_00000008_emotion.txt: '' is not a whole number"),
        (write(LABEL, b"\xff\xfe3"), r"S005_001_00000008_emotion.txt: it is not text"),
        (
            write(f"{EMOTION}/S005/001/S005_001_00000007_emotion.txt", b"3"),
            r"S005/001 holds two emotion files, 'S005_001_00000007_emotion.txt' and 'S005_001_00000008_emotion.txt'",
        ),
        (
            lambda root: (root / LABEL).rename(root / LABEL.replace("S005_001", "S005_003")),
            r"S005/001 holds 'S005_003_00000008_emotion.txt', which is of another sequence",
        ),
        (remove_frames, r"S005/001/S005_001_00000008.png is missing; the emotion file of S005_001 is named after it"),
        (loop(f"{IMAGES}/S005/001"), r"S005/001/S005_001_00000008.png is missing; the emotion file"),
        (loop(f"{IMAGES}/S005"), r"S005/001/S005_001_00000008.png is missing; the emotion file"),
        (lambda root: (root / FRAME).unlink(), r"S005_001_00000008.png is missing; the emotion file of S005_001"),
        (leave(2), r"S005/001 holds 2 frames, fewer than 3"),
        (lambda root: (root / POINTS).unlink(), r"S005_001_00000008_landmarks.txt is missing: where the face is"),
        (write(POINTS, b"1 2\n"), r"S005_001_00000008_landmarks.txt: it has 1 lines, not 68"),
        (write(POINTS, b"\xff"), r"S005_001_00000008_landmarks.txt: it is not text"),
        (loop(POINTS), r"S005_001_00000008_landmarks.txt cannot be read: Too many levels"),
        (loop(LABEL), r"S005_001_00000008_emotion.txt: Too many levels of symbolic links"),
        (
            write(FRAME.replace(".png", ".jpg"), b""),
            r"S005_001_00000008.png is there twice, also as .*S005_001_00000008.jpg",
        ),
        (write(f"{IMAGES}/S005/001/S006_001_00000001.png", b""), r"S006_001_00000001.png is of another sequence"),
        (write(f"{IMAGES}/S005/001/S005\n001.png", b""), r"holds 'S005\\n001.png', a name with a control character"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, mutate: Mutate, message: str) -> None:
    root = write_official(tmp_path)
    mutate(root)
    with pytest.raises(UserError, match=message) as caught:
        CKPlus(root, protocol()).index(protocol())
    assert "--skip-bad" in caught.value.hint


@pytest.mark.parametrize(
    ("mutate", "lost", "entry"),
    [
        (write(LABEL, b"9"), 6, "S005_001"),
        (remove_frames, 6, "S005_001_00000008.png"),
        (lambda root: (root / POINTS).unlink(), 1, "S005_001_00000008.png"),
    ],
)
@pytest.mark.parametrize("rule", ["last3", "last3-random"])
def test_skip_bad_goes_on_without_it(tmp_path: Path, mutate: Mutate, lost: int, entry: str, rule: str) -> None:
    root = write_official(tmp_path)
    wanted = protocol(rule, CLASSES, counts={"test": 48})
    whole = CKPlus(root, wanted).index(wanted)
    mutate(root)
    ds = CKPlus(root, wanted)
    ds.skip_bad = True
    frame = ds.index(wanted)
    assert len(frame) == len(whole) - lost
    assert list(ds.skipped) == [entry]
    if rule == "last3":  # others stay in their folds
        fold = dict(zip(whole["name"], whole["fold"], strict=True))
        assert [fold[name] for name in frame["name"]] == frame["fold"].tolist()
    fewer = write_official(tmp_path / "fewer", {place: v for place, v in SMALL.items() if place != "S999/001"})
    (fewer / LABEL).write_bytes(b"9")
    ds = CKPlus(fewer, wanted)
    ds.skip_bad = True
    with pytest.raises(UserError, match="test: expected 48, found 36"):  # more is lacking than was skipped
        ds.index(wanted)


def test_missing_frames_are_listed(tmp_path: Path) -> None:
    root = write_official(tmp_path)
    remove_frames(root)
    (root / LANDMARKS / "S010/002" / f"{stem('S010/002', 7)}_landmarks.txt").unlink()
    assert CKPlus(root, protocol()).missing() == ["S005_001_00000008.png", "S010_002_00000007.png"]


def test_odd_files_among_the_frames_are_extra(tmp_path: Path) -> None:
    root = write_official(tmp_path)
    (root / IMAGES / "S005/001" / "peak.png").write_bytes(b"")
    (root / IMAGES / "S005/001" / "readme.txt").write_bytes(b"")
    assert CKPlus(root, protocol()).extra() == [f"{IMAGES}/S005/001/peak.png"]


@pytest.mark.parametrize(
    ("frames", "refused"), [(6, []), (5, ["last3"]), (4, ["last3"]), (3, ["last3", "last1"]), (2, None)]
)
def test_no_frame_is_neutral_and_peak(tmp_path: Path, frames: int, refused: list[str] | None) -> None:
    ds = CKPlus(write_official(tmp_path, SMALL | {"S005/001": (3, frames)}), protocol())
    if refused is None:
        with pytest.raises(UserError, match="S005/001 holds 2 frames, fewer than 3"):
            ds.index(protocol())
        return
    assert len(ds.index(protocol("last3"))) == 24  # 7 classes need the last three only
    for rule in ("last3", "last1"):
        if rule in refused:
            with pytest.raises(
                UserError, match=r"S005_001 \(1 in all\) have fewer than \d frames before the last three"
            ):
                ds.index(protocol(rule, CLASSES))
        else:
            frame = ds.index(protocol(rule, CLASSES))
            assert frame["name"].is_unique
            assert (frame["label"] == "neutral").sum() == len(frame) / 2


@pytest.mark.parametrize("frame", [1, 2, 3, 6, 7])
def test_a_frame_near_an_end_is_not_replaced_by_its_neighbour(tmp_path: Path, frame: int) -> None:
    """Its landmarks prove that it was published."""
    root = write_official(tmp_path)
    wanted = protocol("last3", CLASSES, counts={"test": 48})
    whole = CKPlus(root, wanted).index(wanted)
    gone = f"{stem('S005/001', frame)}.png"
    (root / IMAGES / "S005/001" / gone).unlink()
    with pytest.raises(UserError, match=rf"{gone} is missing; .*Landmarks/S005/001 has the landmarks of that frame"):
        CKPlus(root, wanted).index(wanted)
    assert CKPlus(root, wanted).missing() == [gone]
    ds = CKPlus(root, wanted)
    ds.skip_bad = True
    assert ds.index(wanted).equals(whole[whole["name"] != gone].reset_index(drop=True))


def test_frames_that_no_protocol_takes_may_be_missing(tmp_path: Path) -> None:
    root = write_official(tmp_path)
    wanted = protocol("last3", CLASSES)
    whole = CKPlus(root, wanted).index(wanted)
    (root / IMAGES / "S005/001" / f"{stem('S005/001', 4)}.png").unlink()
    (root / LANDMARKS / "S005/001" / f"{stem('S005/001', 9)}_landmarks.txt").touch()  # after the peak: proves nothing
    ds = CKPlus(root, wanted)
    assert ds.index(wanted).equals(whole)
    assert any("in 1 labelled sequences, the first is S005_001" in text for text in ds.remarks())


def test_gaps_are_told(tmp_path: Path) -> None:
    root = write_official(tmp_path)
    assert not any("do not run from 1" in text for text in CKPlus(root, protocol()).remarks())
    (root / IMAGES / "S005/001" / f"{stem('S005/001', 7)}.png").unlink()
    (root / LANDMARKS / "S005/001" / f"{stem('S005/001', 7)}_landmarks.txt").unlink()
    (root / IMAGES / "S010/002" / f"{stem('S010/002', 8)}.png").write_bytes(b"")
    (root / LANDMARKS / "S010/002" / f"{stem('S010/002', 8)}_landmarks.txt").write_text(points())
    assert any("in 2 labelled sequences, the first is S005_001" in text for text in CKPlus(root, protocol()).remarks())


def test_unknown_rules(tmp_path: Path) -> None:
    ds = CKPlus(write_official(tmp_path), protocol())
    with pytest.raises(UserError, match="unknown CK\\+ rule 'last4'") as caught:
        ds.index(protocol("last4"))
    assert "last3" in caught.value.hint


# --- CK+48 and ckextended ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_ck48_has_no_neutral_frames(tmp_path: Path, rule: str) -> None:
    wanted = protocol(rule, CLASSES)
    ds = CKPlus(write_ck48(tmp_path), wanted)
    with pytest.raises(UserError, match=r"needs neutral frames, and .* \(CK\+48\) has the last three"):
        ds.index(wanted)
    assert ds.blocked(protocol(rule)) is None


@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (lambda root: (root / "fear/S011_003_00000005.png").unlink(), r"2 of the last three frames of S011_003"),
        (
            lambda root: (root / "fear/S011_003_00000005.png").rename(root / "happy/S011_003_00000005.png"),
            r"S011_003 is in the folders of fear and happiness",
        ),
        (lambda root: (root / "fear/S011_003_00000005.bmp").write_bytes(b""), r"S011_003_00000005.png is there twice"),
        (lambda root: (root / "fear/S0\t.png").write_bytes(b""), r"holds 'S0\\t.png', a name with a control"),
    ],
)
def test_bad_ck48(tmp_path: Path, mutate: Mutate, message: str) -> None:
    root = write_ck48(tmp_path)
    mutate(root)
    ds = CKPlus(root, protocol())
    with pytest.raises(UserError, match=message):
        ds.index(protocol())
    ds = CKPlus(root, protocol())
    ds.skip_bad = True
    assert "S011_003" not in set(ds.index(protocol())["sequence"]) or "twice" in message or "control" in message


def test_ck48_folder_names(tmp_path: Path) -> None:
    """Other words for the classes, and one class in two folders, which are read as one."""
    root = write_ck48(tmp_path)
    before = CKPlus(root, protocol()).index(protocol())
    (root / "happy").rename(root / "Happiness")
    (root / "angry").mkdir()
    for path in list((root / "anger").glob("S999*")):
        path.rename(root / "angry" / path.name)
    (root / "neutral").mkdir()
    (root / "neutral" / f"{stem('S005/001', 1)}.png").write_bytes(b"")
    ds = CKPlus(root, protocol())
    assert ds.index(protocol()).equals(before)
    assert any("folder of neutral faces is not read" in text for text in ds.remarks())


def write_table(path: Path, rows: int) -> Path:
    path.write_text("emotion,pixels,Usage\n" + "6,1 2 3,Training\n" * rows)
    return path


def test_ckextended_is_refused_for_every_protocol(tmp_path: Path) -> None:
    write_table(tmp_path / "ckextended.csv", 920)
    assert CKPlus.detect(tmp_path) is None
    for wanted in declared().values():
        with pytest.raises(UserError, match=r"ckextended\.csv: 920 faces without subject ids"):
            locate(wanted, tmp_path)


@pytest.mark.parametrize("rows", [0, 12, 919, 921])
def test_other_tables_are_not_ckextended(tmp_path: Path, rows: int) -> None:
    write_table(tmp_path / "fer2013.csv", rows)
    assert CKPlus.near_miss(tmp_path) == ""
    assert "pixels without FERPlus votes" in FERPlus.near_miss(tmp_path)
