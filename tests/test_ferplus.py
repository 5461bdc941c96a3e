"""The FERPlus adapter: vote rules, both layouts, exact counts on the real set, and every kind of bad input."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import FOLDERS, Image, ferplus_protocol, png, write_csvs, write_official
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import declare
from bench.data.base import find_dataset, manifest_hash, why_not_found
from bench.data.ferplus.adapter import FERPlus, labels
from bench.declare import Protocol
from bench.errors import UserError

# counts as in Microsoft's rules applied to the published files, computed independently of this package
PUBLISHED = {
    "ferplus-8@majority": (25045, 3191, 3137),
    "ferplus-8@majority-augmented-test": (25045, 3191, 3137),
    "ferplus-8@majority-swapped": (25045, 3137, 3191),
    "ferplus-8@argmax8": (28556, 3579, 3573),
    "ferplus-8@argmax10": (28385, 3555, 3545),
    "ferplus-8@soft": (27947, 3508, 3507),
    "ferplus-8@majority-fer2013new": (25057, 3199, 3153),
    "ferplus-8@argmax8-fer2013new": (28556, 3579, 3573),
    "ferplus-8@argmax10-fer2013new": (28386, 3553, 3546),
    "ferplus-8@soft-fer2013new": (27953, 3505, 3505),
}


def declared() -> dict[str, Protocol]:
    path = declare.ROOT / "bench" / "data" / "protocols.yaml"
    return declare.load_from([], [path]).protocols


# --- vote rules -------------------------------------------------------------------------------------------------------


def slow_majority(row: list[int]) -> int:
    kept = [v if v > 1 else 0 for v in row]
    best = kept.index(max(kept))
    return best if max(kept) * 2 > sum(kept) and best < 8 else -1


def slow_argmax8(row: list[int]) -> int:
    return row[:8].index(max(row[:8])) if any(row[:8]) else -1


def slow_argmax10(row: list[int]) -> int:
    return row.index(max(row)) if any(row) and row.index(max(row)) < 8 else -1


def slow_shares(row: list[int]) -> list[float]:
    """One image at a time, in the steps of the released code."""
    rest = [v if v > 1 else 0 for v in row]
    total, taken, reached, count, emotions_only = sum(rest), [0] * 10, 0, 0, True
    while reached < 0.75 * total and count < 3 and emotions_only:
        level = max(rest)
        for column in range(10):
            if rest[column] != level:
                continue
            taken[column], rest[column] = level, 0
            reached += level
            count += 1
            if column >= 8:
                emotions_only = False
                if sum(taken) > level:
                    taken[column] = 0
                    count -= 1
                break
    if sum(taken) <= 0.5 * total or count > 3 or taken.index(max(taken)) >= 8:
        return [0.0] * 8
    return [v / sum(taken[:8]) for v in taken[:8]]


@st.composite
def ten_votes(draw: st.DrawFn) -> list[int]:
    """Ten raters who look at few candidates, so that ties, unknown and single votes are common."""
    candidates = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    raters = draw(st.lists(st.sampled_from(candidates), min_size=0, max_size=10))
    counts = Counter(raters)
    return [counts[i] for i in range(10)]


@settings(max_examples=60, deadline=None)
@given(st.lists(ten_votes(), min_size=1, max_size=25))
def test_rules_equal_a_slow_reference(rows: list[list[int]]) -> None:
    votes = np.array(rows, dtype=np.int64)
    before = votes.copy()
    assert labels.majority(votes).tolist() == [slow_majority(r) for r in rows]
    assert labels.argmax8(votes).tolist() == [slow_argmax8(r) for r in rows]
    assert labels.argmax10(votes).tolist() == [slow_argmax10(r) for r in rows]
    shares = np.array([slow_shares(r) for r in rows])
    np.testing.assert_allclose(labels.soft_targets(votes), shares, atol=1e-12)
    assert labels.soft(votes).tolist() == [int(s.argmax()) if s.any() else -1 for s in shares]
    assert (votes == before).all()


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ([6, 4, 0, 0, 0, 0, 0, 0, 0, 0], "neutral"),
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], None),  # half is not more than half
        ([5, 1, 1, 1, 1, 1, 0, 0, 0, 0], "neutral"),  # single votes do not count
        ([4, 0, 0, 0, 0, 0, 0, 0, 4, 0], None),  # unknown counts against it
        ([2, 0, 0, 0, 0, 0, 0, 0, 0, 8], None),  # not a face
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None),
    ],
)
def test_majority_rule(row: list[int], label: str | None) -> None:
    number = int(labels.majority(np.array([row]))[0])
    assert (labels.EMOTIONS[number] if number >= 0 else None) == label


# --- reading label files ----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(ten_votes(), min_size=1, max_size=20), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_label_csv_is_read_back(rows: list[list[int]], bom: bool, end: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "label.csv"
        lines = [f'fer{i:07d}.png,"(0, 0, 48, 48)",{",".join(map(str, row))}' for i, row in enumerate(rows)]
        path.write_bytes(("\ufeff" * bom + end.join(lines) + end).encode())
        names, votes = labels.read_label_csv(path)
    assert names == [f"fer{i:07d}.png" for i in range(len(rows))]
    assert votes.tolist() == rows


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.data())
def test_a_wrong_vote_is_named_with_its_row(rows: int, data: st.DataObject) -> None:
    bad_row = data.draw(st.integers(1, rows))
    column = data.draw(st.integers(0, 9))
    wrong = data.draw(st.sampled_from(["-1", "", "x", "2.5", "nan", "1e1"]))
    lines = []
    for row in range(1, rows + 1):
        cells = ["1"] * 10
        if row == bad_row:
            cells[column] = wrong
        lines.append(f'fer{row}.png,"(0, 0, 48, 48)",{",".join(cells)}')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "label.csv"
        path.write_text("\n".join(lines), encoding="utf-8")
        with pytest.raises(UserError, match=f"label.csv, row {bad_row}: .*{labels.COLUMNS[column]}"):
            labels.read_label_csv(path)


def test_first_row_of_a_repeated_name_counts(tmp_path: Path, ferplus_images: list[Image]) -> None:
    split, name, votes, pixels = ferplus_images[0]
    again = (split, name, [0, 0, 0, 0, 0, 10, 0, 0, 0, 0], pixels)
    frame = FERPlus(
        write_official(tmp_path, [*ferplus_images[:3], again, *ferplus_images[3:]]), ferplus_protocol()
    ).index(ferplus_protocol())
    assert frame["name"].is_unique
    assert frame.set_index("name").loc[name, "label"] == labels.EMOTIONS[int(np.argmax(votes))]


# --- the real set -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_labels(ferplus_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both label sources as in a clone of microsoft/FERPlus; of fer2013.csv only the header: labels need no more."""
    root = tmp_path_factory.mktemp("real-labels")
    (root / "fer2013new.csv").write_bytes((ferplus_source / "fer2013new.csv").read_bytes())
    (root / "pixels.csv").write_text("emotion,pixels,Usage\n")
    for folder in FOLDERS.values():
        (root / "data" / folder).mkdir(parents=True)
        source = ferplus_source / f"label_{folder.removeprefix('FER2013')}.csv"
        (root / "data" / folder / "label.csv").write_bytes(source.read_bytes())
    return root


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_counts(real_labels: Path, name: str) -> None:
    wanted = declared()[name]
    assert tuple(wanted.counts[s] for s in FOLDERS) == PUBLISHED[name]
    ds = FERPlus(real_labels, wanted)
    frame = ds.index(wanted)
    assert tuple((frame["split"] == s).sum() for s in FOLDERS) == PUBLISHED[name]
    assert frame["name"].is_unique
    assert set(frame["name"]) <= set(ds.names())


def test_real_benchmark_class_table(ferplus_official: Path) -> None:
    wanted = declared()["ferplus-8@majority"]
    frame = FERPlus(find_dataset(ferplus_official, FERPlus), wanted).index(wanted)
    table = {s: [int(((frame.split == s) & (frame.label == c)).sum()) for c in wanted.classes] for s in FOLDERS}
    assert table == {
        "train": [8733, 7284, 3136, 3022, 2098, 116, 536, 120],
        "val": [1180, 862, 411, 348, 289, 25, 60, 16],
        "test": [1083, 892, 394, 382, 269, 16, 86, 15],
    }
    assert int(frame[[f"votes_{c}" for c in labels.EMOTIONS]].to_numpy().max()) == 10
    assert manifest_hash(frame.sample(frac=1, random_state=0)) == FERPlus.known_manifests[wanted.id]


def test_exchanged_splits_change_nothing_else(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path, ferplus_images)
    plain = FERPlus(root, ferplus_protocol()).index(ferplus_protocol())
    wanted = ferplus_protocol("majority/exchanged", counts={"train": 6, "val": 3, "test": 3})
    exchanged = FERPlus(root, wanted).index(wanted)
    others = {"train": "train", "val": "test", "test": "val"}
    assert exchanged["split"].tolist() == [others[split] for split in plain["split"]]
    assert exchanged.drop(columns="split").equals(plain.drop(columns="split"))
    misspelt = ferplus_protocol("majority/exchange")
    with pytest.raises(UserError, match="unknown FERPlus label rule") as error:
        FERPlus(root, misspelt).index(misspelt)
    assert "majority/exchanged" in error.value.hint


def test_real_soft_shares(real_labels: Path) -> None:
    wanted = declared()["ferplus-8@soft"]
    frame = FERPlus(real_labels, wanted).index(wanted)
    shares = frame[[f"soft_{c}" for c in labels.EMOTIONS]].to_numpy()
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert (np.array(labels.EMOTIONS)[shares.argmax(1)] == frame["label"]).all()


def test_benchmark_needs_label_csv(ferplus_source: Path, tmp_path: Path) -> None:
    """fer2013new.csv alone serves its own protocols and refuses the benchmark, saying why and what to get."""
    (tmp_path / "fer2013new.csv").write_bytes((ferplus_source / "fer2013new.csv").read_bytes())
    (tmp_path / "pixels.csv").write_text("emotion,pixels,Usage\n")
    protocols = declared()
    ds = FERPlus(tmp_path, protocols["ferplus-8@majority"])
    assert ds.layout == "csv"
    assert len(ds.names()) == 35710
    assert len(ds.index(protocols["ferplus-8@majority-fer2013new"])) == 31409
    with pytest.raises(UserError, match=r"needs the votes of label\.csv.*1,602 images") as error:
        ds.index(protocols["ferplus-8@majority"])
    assert "ferplus-8@majority-fer2013new" in error.value.hint


# --- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["emotion,pixels,Usage", "emotion, Usage, pixels", "pixels,Usage,emotion"])
def test_csv_rows_are_joined_by_order(tmp_path: Path, ferplus_images: list[Image], header: str) -> None:
    split, _, _, other = ferplus_images[1]
    nameless: Image = (split, "", [0] * 9 + [10], 255 - other)
    repeated: Image = (split, ferplus_images[0][1], [0] * 9 + [10], np.zeros_like(other))
    rows = [ferplus_images[0], nameless, *ferplus_images[1:4], repeated, *ferplus_images[4:]]
    wanted = ferplus_protocol(
        "majority/fer2013new", counts={"train": 6, "val": 3, "test": 2}
    )  # one image has contempt twice
    ds = FERPlus(write_csvs(tmp_path, rows, header), ferplus_protocol())
    assert ds.layout == "csv"
    assert ds.names() == [image[1] for image in ferplus_images]
    assert len(ds.index(ferplus_protocol("majority/fer2013new"))) == 12
    for (_, _, _, pixels), found in zip(ferplus_images, ds.pixels(ds.names()), strict=True):
        assert (pixels == found).all()
    back = ds.names()[::-1]
    assert (next(ds.pixels(back)) == ferplus_images[-1][3]).all()
    with pytest.raises(UserError, match="test: expected 2, found 3"):
        ds.index(wanted)


def test_folders_give_the_written_pixels(tmp_path: Path, ferplus_images: list[Image]) -> None:
    ds = FERPlus(write_official(tmp_path, ferplus_images), ferplus_protocol())
    assert ds.layout == "folders"
    assert ds.splits() == [image[0] for image in ferplus_images]
    for image, found in zip(ferplus_images, ds.pixels([i[1] for i in ferplus_images]), strict=True):
        assert found.dtype == np.uint8
        assert (image[3] == found).all()


def test_copies_are_found_by_content(tmp_path: Path, ferplus_images: list[Image]) -> None:
    assert find_dataset(tmp_path, FERPlus) is None
    for decoy in ("FER2013Train", "ferplus"):
        (tmp_path / decoy).mkdir()
        (tmp_path / decoy / "label.csv").write_text("name,label\na.png,3\n")
    assert find_dataset(tmp_path, FERPlus) is None
    write_csvs(tmp_path / "anything", ferplus_images)
    assert find_dataset(tmp_path, FERPlus) == tmp_path / "anything"
    write_official(tmp_path / "zzz" / "data", ferplus_images)  # a later name, but it can serve the benchmark
    assert find_dataset(tmp_path, FERPlus) == tmp_path / "zzz"
    assert find_dataset(tmp_path / "zzz", FERPlus) == tmp_path / "zzz"
    with pytest.raises(UserError, match="not a folder"):
        find_dataset(tmp_path / "nowhere", FERPlus)


def test_votes_in_a_file_called_fer2013_csv(tmp_path: Path, ferplus_images: list[Image]) -> None:
    write_csvs(tmp_path, ferplus_images)
    (tmp_path / "fer2013new.csv").rename(tmp_path / "fer2013.csv")
    assert FERPlus.detect(tmp_path) is None
    (reason,) = why_not_found(tmp_path, FERPlus)
    assert "fer2013.csv is really fer2013new.csv" in reason
    with pytest.raises(UserError, match=r"is really fer2013new\.csv"):
        FERPlus(tmp_path, ferplus_protocol())


def test_incomplete_copies_say_what_to_add(tmp_path: Path, ferplus_images: list[Image]) -> None:
    write_csvs(tmp_path / "a", ferplus_images)
    (tmp_path / "a" / "fer2013new.csv").unlink()
    write_official(tmp_path / "b", [])
    write_official(tmp_path / "b", ferplus_images)
    for picture in (tmp_path / "b").rglob("*.png"):
        picture.unlink()
    pixels_only, labels_only = why_not_found(tmp_path, FERPlus)
    assert "add fer2013new.csv" in pixels_only
    assert "no folder holds PNG files" in labels_only


def test_fingerprint_follows_labels_and_files(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path, ferplus_images)
    first = FERPlus(root, ferplus_protocol()).fingerprint()
    assert FERPlus(root, ferplus_protocol()).fingerprint() == first
    (root / "FER2013Train" / "extra.png").write_bytes(png(ferplus_images[0][3]))
    second = FERPlus(root, ferplus_protocol()).fingerprint()
    with (root / "FER2013Test" / "label.csv").open("a") as file:
        file.write("\n")
    assert len({first, second, FERPlus(root, ferplus_protocol()).fingerprint()}) == 3
