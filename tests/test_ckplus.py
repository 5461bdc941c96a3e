"""CK+: both layouts give the same, wherever they lie; frames of a sequence, crops at the landmarks."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import png
from helpers_ckplus import (
    BOX,
    EMOTION,
    IMAGES,
    LANDMARKS,
    RULES,
    SMALL,
    declared,
    picture,
    points,
    protocol,
    stem,
    write_ck48,
    write_official,
)

from bench.data.base import find_dataset, manifest_hash
from bench.data.ckplus import adapter as ckplus
from bench.data.ckplus.adapter import CKPlus
from bench.data.ckplus.files import CLASSES
from bench.data.source import locate
from bench.errors import UserError


@pytest.mark.parametrize("rule", RULES)
def test_layouts_agree(tmp_path: Path, rule: str) -> None:
    wanted = protocol(rule)
    frames = [
        CKPlus(write_official(tmp_path / "official"), wanted).index(wanted),
        CKPlus(write_ck48(tmp_path / "ck48"), wanted).index(wanted),
    ]
    columns = ["name", "label", "split", "subject", "sequence", "expression", "position", "fold"]
    assert frames[0][columns].equals(frames[1][columns])
    assert manifest_hash(frames[0]) == manifest_hash(frames[1])
    assert len(frames[0]) == (8 * 3 if rule.startswith("last3") else 8)
    assert set(frames[0]["split"]) == {"test"}


def test_frames_of_a_sequence(tmp_path: Path) -> None:
    ds = CKPlus(write_official(tmp_path), protocol())
    rows = {}
    for rule in ("last3", "last1"):
        frame = ds.index(protocol(rule, CLASSES))
        own = frame[frame["sequence"] == "S010_004"]
        rows[rule] = list(zip(own["name"], own["label"], own["position"], strict=True))
    nine = [(f"S010_004_{k:08d}.png", k) for k in range(1, 10)]
    assert rows["last3"] == [
        (name, "neutral" if k <= 3 else "anger", k - 1 if k <= 3 else k - 10) for name, k in nine if k <= 3 or k >= 7
    ]
    assert rows["last1"] == [("S010_004_00000001.png", "neutral", 0), ("S010_004_00000009.png", "anger", -1)]


def test_a_class_less_takes_its_neutral_frames_along(tmp_path: Path) -> None:
    ds = CKPlus(write_official(tmp_path), protocol())
    without = [name for name in CLASSES if name != "contempt"]
    assert "S502_002" in set(ds.index(protocol("last3", CLASSES))["sequence"])
    assert "S502_002" not in set(ds.index(protocol("last3", without))["sequence"])


def test_published_labels_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = sorted(f"{s.replace('/', '_')},{CLASSES[k]}\n" for s, (k, _) in SMALL.items() if k is not None)
    monkeypatch.setattr(ckplus, "SEQUENCES_SHA256", hashlib.sha256("".join(lines).encode()).hexdigest())
    assert any("are those of the list published" in text for text in CKPlus(write_ck48(tmp_path), protocol()).remarks())


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_the_crop_follows_the_landmarks(tmp_path: Path) -> None:
    """A bright square at the landmarks' box: bright in the middle, dark in the margin, wherever the face is."""
    root = write_official(tmp_path)
    boxes = {6: (100.0, 50.0, 200.0, 200.0), 7: (400.0, 250.0, 200.0, 200.0), 8: (300.0, 100.0, 100.0, 100.0)}
    for frame, box in boxes.items():
        x, y, width, height = map(int, box)
        image = np.full((490, 640), 10, np.uint8)
        image[y : y + height, x : x + width] = 250
        (root / IMAGES / "S005/001" / f"{stem('S005/001', frame)}.png").write_bytes(png(image))
        (root / LANDMARKS / "S005/001" / f"{stem('S005/001', frame)}_landmarks.txt").write_text(points(box))
    ds = CKPlus(root, protocol())
    found = list(ds.pixels([f"{stem('S005/001', frame)}.png" for frame in boxes]))
    margin = round(96 * 0.1 / 1.2)
    for image in found:
        assert image.shape == (96, 96, 3)
        assert (image[margin + 1 : -margin - 1, margin + 1 : -margin - 1] == 250).all()
        assert (image[: margin - 1] == 10).all()
        assert (image[:, 1 - margin :] == 10).all()
    assert (found[0] == found[1]).all()


def test_colour_frames_are_taken(tmp_path: Path) -> None:
    root = write_official(tmp_path)
    grey = picture("S005/001", 8)
    path = root / IMAGES / "S005/001" / f"{stem('S005/001', 8)}.png"
    before = next(CKPlus(root, protocol()).pixels([path.name]))
    path.write_bytes(png(np.repeat(grey[:, :, None], 3, axis=2)))
    assert (next(CKPlus(root, protocol()).pixels([path.name])) == before).all()
    small = CKPlus(root, protocol())
    small.preprocessing = "ckplus-face-48"
    assert next(small.pixels([path.name])).shape == (48, 48)


def test_ck48_keeps_its_pixels_with_its_own_preprocessing(tmp_path: Path) -> None:
    ds = CKPlus(write_ck48(tmp_path), protocol())
    assert any("enlarged to 96x96" in text for text in ds.remarks())
    ds.preprocessing = "ckplus-face-48"
    assert not any("enlarged" in text for text in ds.remarks())
    name = f"{stem('S005/001', 8)}.png"
    assert (next(ds.pixels([name])) == picture("S005/001", 8, (48, 48))).all()


@pytest.mark.parametrize(("data", "message"), [(b"", "is empty"), (b"GIF89a", "not a readable image")])
def test_bad_pictures_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    root = write_official(tmp_path)
    path = root / IMAGES / "S010/002" / f"{stem('S010/002', 7)}.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"{path.name}.*{message}"):
        list(CKPlus(root, protocol()).pixels([path.name]))


def test_a_box_outside_the_frame_is_named(tmp_path: Path) -> None:
    root = write_official(tmp_path)
    path = root / LANDMARKS / "S010/002" / f"{stem('S010/002', 7)}_landmarks.txt"
    path.write_text(points((500, 400, 100, 100)))
    with pytest.raises(UserError, match=r"S010_002_00000007\.png: its face box .* lies outside the image"):
        list(CKPlus(root, protocol()).pixels(["S010_002_00000007.png"]))


# --- where copies lie -------------------------------------------------------------------------------------------------

Move = tuple[str, str]


@pytest.mark.parametrize(
    "moves",
    [
        [],
        [(IMAGES, f"extended-cohn-kanade-images/{IMAGES}"), (EMOTION, "Emotion_labels/Emotion")],
        [(LANDMARKS, "Landmarks_/Landmarks")],
        [(part, f"CK+/{part}") for part in (IMAGES, EMOTION, LANDMARKS)],
        [(IMAGES, "pictures"), (EMOTION, "labels"), (LANDMARKS, "points")],
    ],
)
def test_nestings(tmp_path: Path, moves: list[Move]) -> None:
    wanted = protocol("last3", CLASSES)
    before = CKPlus(write_official(tmp_path / "plain"), wanted).index(wanted)
    root = write_official(tmp_path / "data" / "mine")
    for old, new in moves:
        (root / old).rename(root / "moving")
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / "moving").rename(root / new)
    (root / ".DS_Store").write_bytes(b"\0")
    found = find_dataset(tmp_path / "data", CKPlus)
    assert found is not None
    ds = CKPlus(found, wanted)
    assert ds.index(wanted).equals(before)
    assert all(path.exists() for path in ds.format.state(ds.base))


def test_labels_beside_their_frames(tmp_path: Path) -> None:
    """All files of a sequence in one folder."""
    wanted = protocol("last3", CLASSES)
    before = CKPlus(write_official(tmp_path / "plain"), wanted).index(wanted)
    root = write_official(tmp_path / "merged", SMALL | {"S003/001": (None, 4), "S003/002": (None, 4)})
    for part in (EMOTION, LANDMARKS):
        for path in (root / part).rglob("*.txt"):
            path.rename(root / IMAGES / path.relative_to(root / part))
        (root / part).rename(tmp_path / part)
    assert CKPlus(root, wanted).index(wanted).equals(before)


def test_hidden_and_system_files_are_ignored(tmp_path: Path) -> None:
    root = write_official(tmp_path)
    before = CKPlus(root, protocol()).index(protocol())
    for part in (IMAGES, EMOTION, LANDMARKS):
        for folder in (root / part, root / part / "S005", root / part / "S005/001"):
            (folder / ".DS_Store").write_bytes(b"\0")
            (folder / f"._{stem('S005/001', 8)}_emotion.txt").write_bytes(b"\0\5")
            (folder / f"._{stem('S005/001', 8)}.png").write_bytes(b"\0\5")
    ds = CKPlus(root, protocol())
    assert ds.index(protocol()).equals(before)
    assert ds.extra() == []


def test_copies_in_a_data_root(tmp_path: Path) -> None:
    """One is found from outside, several are each found as themselves: the official layout first, then by name."""
    write_ck48(tmp_path / "A48")
    assert CKPlus(tmp_path, protocol()).format.name == "ck+48"
    official = write_official(tmp_path / "CK+")
    assert find_dataset(tmp_path, CKPlus) == official
    write_official(tmp_path / "CK+ again")
    assert find_dataset(tmp_path, CKPlus) == official


@pytest.mark.parametrize("mark", ["synthfer.json", "alignment.json"])
@pytest.mark.parametrize("write_copy", [write_official, write_ck48])
def test_a_marked_copy_is_found_as_itself(tmp_path: Path, mark: str, write_copy: Callable[[Path], Path]) -> None:
    root = write_copy(tmp_path / "copy")
    assert find_dataset(tmp_path, CKPlus) == tmp_path
    (root / mark).write_text("{}")
    assert find_dataset(tmp_path, CKPlus) == root


def test_two_layouts_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_ck48(write_official(tmp_path) / "CK+48")
    with pytest.raises(UserError, match=r"holds two layouts of ckplus: 'official' in .* and 'ck\+48' in .*CK\+48"):
        CKPlus(tmp_path, protocol())


def test_two_folders_of_frames_are_refused(tmp_path: Path) -> None:
    root = write_official(tmp_path / "one")
    write_official(tmp_path / "two")
    (tmp_path / "two" / IMAGES).rename(root / f"{IMAGES} (1)")
    with pytest.raises(UserError, match=r"holds two folders of CK\+ with images: .*images and .*images \(1\)"):
        CKPlus(root, protocol()).index(protocol())


def test_folders_of_other_datasets_are_not_taken(tmp_path: Path) -> None:
    for name in ("anger", "happy", "neutral"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train_00001.jpg").write_bytes(b"")
    assert CKPlus.detect(tmp_path) is None
    assert CKPlus.near_miss(tmp_path) == ""


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        (EMOTION, r"cohn-kanade-images holds sequences of CK\+ without labels; add the folder Emotion"),
        (IMAGES, r"Emotion holds labels of CK\+ without frames; add the folder cohn-kanade-images"),
    ],
)
def test_incomplete_copies_say_what_to_add(tmp_path: Path, absent: str, message: str) -> None:
    shutil.rmtree(write_official(tmp_path / "CK+") / absent)
    assert find_dataset(tmp_path, CKPlus) is None
    with pytest.raises(UserError, match=message):
        locate(declared()["ckplus-7@last3"], tmp_path)


def test_landmarks_are_needed_unless_faces_are_cropped(tmp_path: Path) -> None:
    root = write_official(tmp_path)
    (root / "alignment.json").write_text('{"complete": true}')
    frame = CKPlus(root, protocol()).index(protocol())
    assert frame["box_x"].isna().all()  # landmarks of the whole frames would be wrong
    (root / "alignment.json").unlink()
    assert CKPlus(root, protocol()).index(protocol())["box_width"].tolist() == [BOX[2]] * 24
    shutil.rmtree(root / LANDMARKS)
    with pytest.raises(UserError, match="has no landmarks") as caught:
        CKPlus(root, protocol()).index(protocol())
    assert "Landmarks.zip" in caught.value.hint


def test_the_fingerprint_follows_labels_and_folders(tmp_path: Path) -> None:
    ds = CKPlus(write_official(tmp_path), protocol())
    seen = [ds.fingerprint(), ds.fingerprint()]
    path = tmp_path / EMOTION / "S005/001" / f"{stem('S005/001', 8)}_emotion.txt"
    path.write_text(path.read_text().replace("3", "4"))
    os.utime(path, ns=(1, 1))
    seen.append(ds.fingerprint())
    (tmp_path / IMAGES / "S005" / "009").mkdir()
    seen.append(ds.fingerprint())
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


@pytest.mark.parametrize(
    "part", [f"{IMAGES}/S005/001/*_00000007.png", f"{LANDMARKS}/S005/001/*_00000007_landmarks.txt"]
)
def test_the_fingerprint_follows_frames_and_landmarks_of_labelled_sequences(tmp_path: Path, part: str) -> None:
    """A copy that was read while a file was away is known as another one when the file is back."""
    root = write_official(tmp_path / "copy")
    ds = CKPlus(root, protocol())
    (path,) = root.glob(part)
    seen = [ds.fingerprint()]
    path.rename(tmp_path / "aside")
    seen.append(ds.fingerprint())
    (tmp_path / "aside").rename(path)
    seen.append(ds.fingerprint())
    (tmp_path / "aside").write_bytes(path.read_bytes())
    (tmp_path / "aside").replace(path)  # another file of this name
    seen.append(ds.fingerprint())
    assert len(set(seen)) == 4
    (root / IMAGES / "S005/002" / "note.txt").touch()  # of a sequence without a label
    assert ds.fingerprint() == seen[-1]
