"""`data verify`: the facts of the real set, and what it says about copies that are not the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Image, ferplus_protocol, png, write_csvs, write_official

import run_all
from bench import declare
from bench.data import verify
from bench.data.ferplus import FERPlus
from bench.data.verify import Report
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
    assert (report.missing, report.problems) == ([], [])
    benchmark = report.protocols[0]
    assert (benchmark.id, benchmark.counts) == ("ferplus-8@majority", {"train": 25045, "val": 3191, "test": 3137})
    assert (benchmark.leaked_test, benchmark.leaked_test_within) == (267, 254)
    assert not any(served.problem for served in report.protocols)
    text = verify.render(report)
    assert "267 of 3,137 test images have an identical copy in train or val" in text
    assert "fer0033120.png" in text
    assert "benchmark: yes" in text


@pytest.mark.usefixtures("as_benchmark")
def test_a_whole_small_copy_in_a_data_root(
    tmp_path: Path, ferplus_images: list[Image], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_official(tmp_path / "some name", ferplus_images)
    protocol = ferplus_protocol()
    monkeypatch.setattr(declare, "load", lambda: declare.Declarations([], [protocol]))
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
    assert [name in text for name, text in zip(("fer0000000", "fer0000001"), report.problems)] == [True, True]
    assert report.sizes == {"48x48 grey": 9, "100x100 colour": 1}
    assert report.problems[2] == "images that are not 48x48 grey: 1 of 100x100 colour"
    assert not report.benchmark


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
    assert "small@majority: cannot be served" in verify.render(report)


def test_broken_labels_end_in_a_report(tmp_path: Path, ferplus_images: list[Image]) -> None:
    root = write_official(tmp_path, ferplus_images)
    with (root / "FER2013Valid" / "label.csv").open("a") as file:
        file.write("fer9.png,3\n")
    report = check(root)
    assert not report.benchmark
    assert "label.csv, row 4: expected 12 columns" in verify.render(report)


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
