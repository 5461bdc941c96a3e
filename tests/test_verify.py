"""`data verify`: the facts of the real sets, and what it says about copies that are not the benchmark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import helpers_ckplus
import helpers_own
import helpers_rafdb
import numpy as np
import pytest
from conftest import Image, ferplus_protocol, png, write_csvs, write_official

import run_all
from bench import declare
from bench.data import order, verify
from bench.data.base import MARKER, Dataset
from bench.data.ckplus.adapter import CKPlus
from bench.data.ferplus.adapter import FERPlus
from bench.data.own.adapter import Own
from bench.data.rafdb.adapter import RAFDB
from bench.data.verify import Report
from bench.data.verify_text import render
from bench.declare import Protocol
from bench.errors import UserError


def check(root: Path, *rules: str) -> Report:
    protocols = [ferplus_protocol(rule) for rule in rules or ("majority",)]
    (report,) = verify.verify(root, {"ferplus": FERPlus}, protocols)
    return report


@pytest.fixture
def as_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small copies' protocol counts as the benchmark, with no published pixels to compare."""
    monkeypatch.setattr(FERPlus, "benchmark", "small@majority")
    monkeypatch.setattr(FERPlus, "known_pixels", "")


def test_real_set(ferplus_official: Path) -> None:
    protocols = declare.load().protocols.values()
    (report,) = verify.verify(ferplus_official, {"ferplus": FERPlus}, protocols)
    assert report.benchmark, report.why
    assert report.layout == "folders"
    assert [file.published_as for file in report.label_files] == [file.path for file in report.label_files]
    assert (report.duplicates.images, report.duplicates.distinct, report.duplicates.groups) == (35710, 33870, 1513)
    assert report.duplicates.surplus == {"train": 1224, "val": 26, "test": 17}
    assert report.duplicates.across == {"train+val": 269, "train+test": 278, "val+test": 43}
    assert report.sizes == {"48x48 grey": 35710}
    assert (report.missing, report.problems, report.unusable) == ([], [], {})
    assert report.counts == "exact, as published"
    benchmark = report.protocols[0]
    assert (benchmark.id, benchmark.counts) == ("ferplus-8@majority", {"train": 25045, "val": 3191, "test": 3137})
    assert (benchmark.leaked_test, benchmark.leaked_test_within) == (267, 254)
    assert benchmark.leak_free == 2870
    assert not any(served.problem for served in report.protocols)
    assert all(served.exact for served in report.protocols)
    assert report.near is not None
    assert 1600 < len(report.near.pairs) < 1760
    assert report.near.false_share < 0.03
    assert benchmark.near_test is not None
    assert 320 < benchmark.near_test < 355
    text = render(report)
    assert "267 of 3,137 test images have an identical copy in train or val" in text
    assert "fer0033120.png" in text
    assert "benchmark: yes" in text


@pytest.mark.usefixtures("as_benchmark")
def test_a_whole_small_copy_in_a_data_root(
    tmp_path: Path, ferplus_images: list[Image], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_official(tmp_path / "some name", ferplus_images)
    protocol = ferplus_protocol()
    monkeypatch.setattr(declare, "load", lambda root: declare.Declarations([], [protocol]))
    assert run_all.main(["data", "verify", str(tmp_path), "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["benchmark"] is True
    assert report["root"] == str(tmp_path / "some name")
    assert report["protocols"][0]["counts"] == {"train": 6, "val": 3, "test": 3}
    assert report["protocols"][0]["class_counts"]["val"]["fear"] == 1
    assert run_all.main(["data", "verify", str(tmp_path)]) == 0
    assert "benchmark: yes (small@majority" in capsys.readouterr().out


@pytest.mark.usefixtures("as_benchmark")
def test_missing_and_extra_files(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path, ferplus_images)
    (root / "FER2013Test" / "fer0000011.png").rename(root / "FER2013Test" / "copy of fer0000011.png")
    report = check(root)
    assert report.missing == ["fer0000011.png"]
    assert report.extra == ["FER2013Test/copy of fer0000011.png"]
    assert not report.benchmark
    assert "fer0000011.png is missing" in report.why
    assert report.duplicates.images == 11  # the others were still read


@pytest.mark.usefixtures("as_benchmark")
def test_bad_pictures_are_all_listed(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path, ferplus_images)
    for name in ("fer0000000.png", "fer0000001.png"):
        (root / "FER2013Train" / name).write_bytes(b"")
    (root / "FER2013Train" / "fer0000002.png").write_bytes(png(np.zeros((100, 100, 3), np.uint8)))
    report = check(root)
    assert list(report.unusable) == ["fer0000000.png", "fer0000001.png"]
    assert all(name in text for name, text in report.unusable.items())
    assert report.sizes == {"48x48 grey": 9, "100x100 colour": 1}
    assert report.problems == ["images that are not 48x48 grey: 1 of 100x100 colour"]
    assert not report.benchmark
    assert "fer0000001.png" in render(report)


@pytest.mark.usefixtures("as_benchmark")
def test_identical_images_within_and_across_splits(tmp_path: Path, ferplus_images: list[Image]) -> None:
    images = [*ferplus_images]
    for copy, original in ((1, 0), (7, 0), (10, 8), (11, 3)):
        split, name, votes, _ = images[copy]
        images[copy] = (split, name, votes, images[original][3])
    unlabelled = (*images[3][:2], [5, 5, 0, 0, 0, 0, 0, 0, 0, 0], images[3][3])  # no majority: not in the protocol
    images[3] = unlabelled
    report = check(write_official(tmp_path, images))
    d = report.duplicates
    assert (d.images, d.distinct, d.groups) == (12, 8, 3)
    assert d.surplus == {"train": 1, "val": 0, "test": 0}
    assert d.across == {"train+val": 1, "train+test": 1, "val+test": 1}
    (served,) = report.protocols
    assert (served.leaked_test, served.leaked_test_within) == (2, 1)
    # with validation images in the place of test images, copies among the others count: 7 is 0, and 8 is 10
    (served,) = check(tmp_path, "majority/exchanged").protocols
    assert (served.leaked_test, served.leaked_test_within, served.leak_free) == (2, 2, 1)


@pytest.mark.usefixtures("as_benchmark")
def test_other_labels_are_not_the_benchmark(
    tmp_path: Path, ferplus_images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = check(write_official(tmp_path / "a", ferplus_images))
    monkeypatch.setattr(FERPlus, "known_manifests", {"small@majority": good.protocols[0].manifest_sha256})
    assert check(tmp_path / "a").benchmark
    swapped = [*ferplus_images]
    swapped[0] = (*swapped[0][:2], swapped[1][2], swapped[0][3])
    swapped[1] = (*swapped[1][:2], ferplus_images[0][2], swapped[1][3])
    report = check(write_official(tmp_path / "b", swapped))  # the same counts, two labels exchanged
    assert report.protocols[0].class_counts == good.protocols[0].class_counts
    assert not report.benchmark
    assert "manifest hash differs" in report.why
    monkeypatch.setattr(FERPlus, "known_pixels", good.pixels_sha256)
    changed = [*ferplus_images]
    changed[5] = (*changed[5][:3], changed[5][3] // 2)
    assert "the pixels are not those" in check(write_official(tmp_path / "c", changed)).why
    assert check(tmp_path / "a").benchmark


@pytest.mark.usefixtures("as_benchmark")
def test_csv_layout_cannot_be_the_benchmark(tmp_path: Path, ferplus_images: list[Image]) -> None:
    report = check(write_csvs(tmp_path, ferplus_images), "majority", "majority/fer2013new")
    assert not report.benchmark
    assert "needs the votes of label.csv" in report.why
    assert [served.counts for served in report.protocols] == [{}, {"train": 6, "val": 3, "test": 3}]
    assert "small@majority: cannot be served" in render(report)


def test_broken_labels_end_in_a_report(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path, ferplus_images)
    with (root / "FER2013Valid" / "label.csv").open("a") as file:
        file.write("fer9.png,3\n")
    report = check(root)
    assert not report.benchmark
    assert "label.csv, row 4: expected 12 columns" in render(report)


def test_a_folder_without_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "FER2013Train").mkdir()
    assert run_all.main(["data", "verify", str(tmp_path)]) == 2
    text = capsys.readouterr().err
    assert "holds no dataset known here" in text
    assert "FER2013Train, FER2013Valid, FER2013Test with a label.csv" in text
    assert run_all.main(["data", "verify", str(tmp_path / "nowhere")]) == 2


def test_incomplete_copies_are_explained(tmp_path: Path, ferplus_images: list[Image]) -> None:
    write_csvs(tmp_path, ferplus_images)
    (tmp_path / "fer2013.csv").unlink()
    with pytest.raises(UserError, match=r"incomplete: .*fer2013new.csv holds votes without pixels"):
        check(tmp_path)


# ------------------------------------------------------------------------------------------------- layouts of all kinds
@pytest.fixture
def small_raf(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAF-DB's published counts are those of the small copies."""
    known = {**order.published(), "raf-db-7": helpers_rafdb.COUNTS}
    monkeypatch.setattr(order, "published", lambda: known)


def check_one(
    root: Path, adapter: type[Dataset], protocols: Sequence[Protocol], near: bool = True, skip_bad: bool = False
) -> Report:
    (report,) = verify.verify(root, {protocols[0].dataset: adapter}, protocols, near, skip_bad)
    return report


def check_raf(root: Path, skip_bad: bool = False) -> Report:
    return check_one(root, RAFDB, [helpers_rafdb.PROTOCOL], skip_bad=skip_bad)


def test_a_copy_without_published_hashes(tmp_path: Path) -> None:
    report = check_raf(helpers_rafdb.write_official(tmp_path))
    assert (report.layout, report.order, report.counts) == ("official", "raf", "exact, as published")
    assert report.benchmark, report.why
    assert "names' pattern and size as published; the images cannot be compared: no published hash" in report.why
    assert report.protocols[0].leak_free == 16
    text = render(report)
    assert "class order: 'raf'" in text
    assert "raf-db-7: train 43, test 16, as published" in text


@pytest.mark.usefixtures("small_raf")
def test_layouts_agree_in_what_they_hold(tmp_path: Path) -> None:
    one = check_raf(helpers_rafdb.write_official(tmp_path / "a"))
    other = check_raf(helpers_rafdb.write_folders(tmp_path / "b", helpers_rafdb.numbered("affectnet", 0)))
    assert other.order == "affectnet"
    assert other.protocols[0].manifest_sha256 == one.protocols[0].manifest_sha256
    assert other.benchmark, other.why


@pytest.mark.usefixtures("small_raf")
def test_another_size_is_a_realigned_copy(tmp_path: Path) -> None:
    report = check_raf(helpers_rafdb.write_apvit(tmp_path))
    assert report.counts == "exact, as published"
    assert not report.benchmark
    assert report.why == "a re-aligned or re-distributed copy: images that are not 100x100: 59 of 112x112 colour"


@pytest.mark.usefixtures("small_raf")
def test_other_names_are_not_the_benchmark(tmp_path: Path) -> None:
    report = check_raf(helpers_rafdb.write_resemotenet(tmp_path))
    assert report.counts == "exact, as published"
    assert report.unofficial_names == 59
    assert "59 images do not have official names" in report.why


def without_one(root: Path) -> Path:
    """An official copy without one image of fear, the name with it."""
    helpers_rafdb.write_official(root)
    listed = (root / helpers_rafdb.LIST).read_text().splitlines()
    gone = next(line for line in listed if line.endswith(" 2"))
    (root / helpers_rafdb.LIST).write_text("\n".join(line for line in listed if line != gone))
    (root / "Image" / "aligned" / gone.replace(".jpg 2", "_aligned.jpg")).unlink()
    return root


def test_counts_that_differ_are_shown_beside_the_published_ones(tmp_path: Path) -> None:
    report = check_raf(without_one(tmp_path))
    assert report.protocols[0].exact is False
    assert report.counts == "not those published, in raf-db-7"
    assert report.why == "the counts of raf-db-7 are not those published"
    lines = render(report).splitlines()
    (start,) = [k for k, line in enumerate(lines) if "NOT as published" in line]
    assert lines[start + 2].split() == ["train", "8", "1", "6", "12", "5", "1", "9", "42"]
    assert lines[start + 3].split() == ["published", "8", "2", "6", "12", "5", "1", "9", "43"]
    assert lines[start + 4].split() == ["difference", "-1", "-1"]
    assert lines[start + 5].split()[0] == "test"
    assert lines[start + 6].split()[0] != "published"  # the test split agrees


def test_unusable_images_do_not_hide_the_rest(tmp_path: Path) -> None:
    root = helpers_rafdb.write_official(tmp_path)
    (root / "Image" / "aligned" / "train_00001_aligned.jpg").unlink()
    (root / "Image" / "aligned" / "train_00002_aligned.jpg").write_bytes(b"no picture")
    report = check_raf(root)
    assert report.missing == ["train_00001.jpg"]
    assert list(report.unusable) == ["train_00001.jpg", "train_00002.jpg"]
    assert report.protocols[0].counts == {"train": 42, "test": 16}
    assert "train_00001.jpg is missing" in report.why
    assert "with --skip-bad it leaves out 2" in render(report)
    skipped = check_raf(root, skip_bad=True)
    assert skipped.protocols[0].counts == {"train": 41, "test": 16}
    assert not skipped.benchmark


def test_skip_bad_is_never_the_benchmark(tmp_path: Path) -> None:
    report = check_raf(helpers_rafdb.write_official(tmp_path), skip_bad=True)
    assert (report.benchmark, report.counts) == (False, "exact, as published")


def test_two_layouts_in_one_folder_are_a_finding(tmp_path: Path) -> None:
    helpers_rafdb.write_nr(helpers_rafdb.write_official(tmp_path))
    report = check_raf(tmp_path)
    assert "two layouts of rafdb" in report.why
    assert not report.sound
    assert "benchmark: no" in render(report)


def test_every_copy_under_a_data_root_is_examined(tmp_path: Path) -> None:
    helpers_rafdb.write_official(tmp_path / "b")
    without_one(tmp_path / "a")
    reports = verify.verify(tmp_path, {"rafdb": RAFDB}, [helpers_rafdb.PROTOCOL])
    assert [report.benchmark for report in reports] == [False, True]
    assert reports[0].copies == [str(tmp_path / "a"), str(tmp_path / "b")]
    text = render(reports[1])
    assert "2 copies of rafdb here; a run takes the first that can serve it" in text
    assert f"{tmp_path / 'b'}  (this one)" in text


def test_synthetic_copies_are_never_the_benchmark(tmp_path: Path) -> None:
    (helpers_rafdb.write_official(tmp_path) / MARKER).write_text("{}")
    report = check_raf(tmp_path)
    assert (report.synthetic, report.benchmark) == (True, False)
    text = render(report)
    assert text.splitlines()[1].startswith("SYNTHETIC")
    assert "counts: exact, benchmark-sized" in text
    assert "benchmark: no (synthetic faces made by data synth)" in text


def test_files_that_nobody_names_are_listed_and_change_nothing(tmp_path: Path) -> None:
    helpers_rafdb.write_official(tmp_path)
    (tmp_path / "Image" / "aligned" / "mine.jpg").write_bytes(helpers_rafdb.picture("mine"))
    report = check_raf(tmp_path)
    assert report.extra == ["Image/aligned/mine.jpg"]  # no run reads them
    assert "no label" not in report.why


def test_copies_within_a_split_are_named(tmp_path: Path) -> None:
    root = helpers_own.folders(tmp_path, helpers_own.SPLIT)
    shutil.copytree(root / "train" / "happy", root / "train" / "Sad", dirs_exist_ok=True)
    report = check_own(root)
    assert report.duplicates.surplus["train"] == report.duplicates.groups == 4
    assert report.duplicates.members[0] == ["train/Sad/000.png", "train/happy/000.png"]
    assert "train/Sad/000.png (train) = train/happy/000.png (train)" in render(report)


def check_own(root: Path) -> Report:
    (protocol,) = [one for one in declare.load(root).protocols.values() if one.dataset == "own" and not one.subset_of]
    return check_one(root, Own, [protocol])


def test_own_data_is_sound_without_a_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = helpers_own.folders(tmp_path / "mine", helpers_own.SPLIT)
    report = check_own(root)
    assert (report.sound, report.benchmark) == (True, False)
    assert report.protocols[0].class_counts == {
        "train": {"happiness": 4, "sadness": 3},
        "test": {"happiness": 2, "sadness": 2},
    }
    assert run_all.main(["data", "verify", str(tmp_path)]) == 0
    assert "benchmark: no (your own data: no published benchmark)" in capsys.readouterr().out
    (root / "test" / "happy" / "bad.png").write_bytes(b"")
    assert run_all.main(["data", "verify", str(root), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert [Path(name).name for name in found["unusable"]] == ["bad.png"]


def test_folds_are_compared_with_each_other(tmp_path: Path) -> None:
    content: helpers_ckplus.Content = {f"{subject}/001": (1, 6) for subject in helpers_ckplus.SUBJECTS[:12]}
    root = helpers_ckplus.write_official(tmp_path, content)
    first, second = (f"{helpers_ckplus.SUBJECTS[k]}/001" for k in (0, 5))
    frame = root / helpers_ckplus.IMAGES / second / f"{helpers_ckplus.stem(second, 6)}.png"
    shutil.copy(root / helpers_ckplus.IMAGES / first / f"{helpers_ckplus.stem(first, 6)}.png", frame)
    folds = [helpers_ckplus.protocol(rule, ("anger",)) for rule in ("last3", "last3-random")]
    report = check_one(root, CKPlus, folds)
    by_subject = report.protocols[0]
    assert (by_subject.folds, by_subject.counts, by_subject.leaked_test) == (10, {"test": 36}, 2)
    assert by_subject.leak_free is None
    assert "2 of 36 images have an identical copy in another fold" in render(report)


def test_near_duplicates_can_be_left_out(tmp_path: Path) -> None:
    report = check_one(helpers_rafdb.write_official(tmp_path), RAFDB, [helpers_rafdb.PROTOCOL], near=False)
    assert (report.near, report.protocols[0].near_test) == (None, None)
    assert "near duplicates: not looked for" in render(report)


def test_near_duplicates_of_test_images_are_counted(tmp_path: Path, ferplus_images: list[Image]) -> None:
    images: list[Image] = [
        (split, name, votes, np.kron(pixels[:12, :12], np.ones((4, 4), np.uint8)))  # coarse enough to be scaled
        for split, name, votes, pixels in ferplus_images
    ]
    images[9] = (*images[9][:3], images[0][3] // 2 + 60)  # darker and of less contrast
    images[10] = (*images[10][:3], images[1][3])
    report = check(write_official(tmp_path, images))
    (served,) = report.protocols
    assert (served.leaked_test, served.near_test, served.leak_free) == (1, 1, 2)
    assert report.near is not None
    assert [pair[:2] for pair in report.near.pairs] == [(images[9][1], images[0][1])]
    assert report.near.across == {"train+test": 1}
    assert "1 others a near copy" in render(report)


def test_every_field_goes_into_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    helpers_rafdb.write_official(tmp_path)
    assert run_all.main(["data", "verify", str(tmp_path), "--json", "--no-near"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert isinstance(found, Mapping)
    assert set(found) == set(Report.__dataclass_fields__)
    assert found["protocols"][0]["published"] == {"train": 12271, "test": 3068}
