"""Copies in a tree that `data align` made: all datasets see that they are, wherever the tree's root lies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import helpers_ckplus
import helpers_own
import helpers_rafdb
import pytest
from conftest import Image, ferplus_protocol, write_csvs
from conftest import write_official as write_ferplus

from bench.data.base import Dataset, find_alignment
from bench.data.ckplus.adapter import CKPlus
from bench.data.class_folders import count, look, read_tree
from bench.data.ferplus.adapter import FERPlus
from bench.data.listing import ALIGNED, ALIGNMENT
from bench.data.rafdb.adapter import RAFDB
from bench.data.verify import examine
from bench.declare import Protocol
from bench.errors import UserError

ABOUT = {"name": "mtcnn-48", "settings": {"size": 48}, "detector": "d", "detector_sha256": "0", "template": "t"}
FERPLUS_DECODE = {"mode": "L", "size": [48, 48]}  # part of the cache's identity and of published hashes: never changes
Where = Callable[[Path], Path]
PLACES: dict[str, Where] = {
    "the copy": lambda copy: copy,
    "the folder around it": lambda copy: copy.parent,
    "the data root": lambda copy: copy.parent.parent,
}


def mark(folder: Path, complete: bool = True) -> None:
    """The files that an alignment leaves at its root."""
    for name in ALIGNED:
        (folder / name).write_bytes(b"")
    (folder / ALIGNMENT).write_text(json.dumps(ABOUT | {"complete": complete}))


def open_in(root: Path, kind: type[Dataset], protocol: Protocol, data_root: Path) -> Dataset:
    ds = kind(root, protocol)
    ds.data_root = data_root
    return ds


@pytest.fixture(params=["ferplus", "rafdb", "ckplus"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, ferplus_images: list[Image]
) -> tuple[Path, Callable[[], Dataset]]:
    """A copy two folders below the data root, and how it is opened."""
    root = tmp_path / "sets" / "my copy"
    root.mkdir(parents=True)
    kind: type[Dataset]
    if request.param == "ferplus":
        kind, protocol = FERPlus, ferplus_protocol()
        write_ferplus(root, ferplus_images)
    elif request.param == "rafdb":
        kind, protocol = RAFDB, helpers_rafdb.PROTOCOL
        helpers_rafdb.write_official(root)
    else:
        kind, protocol = CKPlus, helpers_ckplus.protocol()
        helpers_ckplus.write_official(root)
    return root, lambda: open_in(root, kind, protocol, tmp_path)


@pytest.mark.parametrize("place", PLACES)
def test_an_alignment_is_seen_from_its_root_down(opened: tuple[Path, Callable[[], Dataset]], place: str) -> None:
    root, again = opened
    before = again()
    plain, names = dict(before.decode), before.names()
    assert before.alignment is None
    assert not any("aligned here" in text for text in before.remarks() + before.departures())
    mark(PLACES[place](root))
    ds = again()
    assert ds.blocked(ds.protocol) is None
    assert dict(ds.decode) == plain | {"alignment": ABOUT}
    assert any("mtcnn-48" in text for text in ds.remarks())
    assert any("mtcnn-48" in text for text in ds.departures())
    assert ds.names() == names
    assert ds.extra() == []


@pytest.mark.parametrize("place", PLACES)
def test_half_of_an_alignment_is_refused(opened: tuple[Path, Callable[[], Dataset]], place: str) -> None:
    root, again = opened
    mark(PLACES[place](root), complete=False)
    ds = again()
    stop = ds.blocked(ds.protocol)
    assert stop is not None
    assert stop.message == f"{PLACES[place](root)} is aligned in part"
    with pytest.raises(UserError, match="in part"):
        ds.index(ds.protocol)
    report = examine(again(), [ds.protocol], near=False)
    assert any("in part" in text for text in report.problems)
    assert not report.benchmark
    (PLACES[place](root) / ALIGNMENT).write_text("[1")
    stop = again().blocked(ds.protocol)
    assert stop is not None
    assert "is damaged" in stop.message


def test_the_nearest_alignment_counts(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    assert find_alignment([tmp_path / "inner", tmp_path]) is None
    mark(tmp_path)
    assert find_alignment([tmp_path / "inner", tmp_path]) == tmp_path / ALIGNMENT
    mark(tmp_path / "inner")
    assert find_alignment([tmp_path / "inner", tmp_path]) == tmp_path / "inner" / ALIGNMENT


def test_ferplus_as_published_has_the_settings_it_always_had(tmp_path: Path, ferplus_images: list[Image]) -> None:
    ds = FERPlus(write_ferplus(tmp_path, ferplus_images), ferplus_protocol())
    assert ds.decode == FERPLUS_DECODE
    assert list(ds.decode) == list(FERPLUS_DECODE)


def test_pixels_in_a_table_are_not_aligned(tmp_path: Path, ferplus_images: list[Image]) -> None:
    mark(tmp_path)
    ds = FERPlus(write_csvs(tmp_path, ferplus_images), ferplus_protocol("majority/fer2013new"))
    assert ds.blocked(ds.protocol) is None
    assert ds.decode == FERPLUS_DECODE


def test_ckplus_needs_no_landmarks_wherever_the_alignment_lies(tmp_path: Path) -> None:
    root = helpers_ckplus.write_official(tmp_path / "sets" / "CK+")
    shutil.rmtree(root / helpers_ckplus.LANDMARKS)
    mark(tmp_path)
    ds = open_in(root, CKPlus, helpers_ckplus.protocol(), tmp_path)
    assert ds.index(ds.protocol)["box_x"].isna().all()


def test_the_contact_sheet_is_no_image_of_a_set(tmp_path: Path, ferplus_images: list[Image]) -> None:
    raf = helpers_rafdb.write_folders(tmp_path / "raf", helpers_rafdb.WORDS.__getitem__)
    names = RAFDB(raf, helpers_rafdb.PROTOCOL).names()
    shape = look(raf)
    assert shape is not None
    counts = count(raf, shape)
    mark(raf / "train" / "happy")  # `data align` of one class folder
    assert RAFDB(raf, helpers_rafdb.PROTOCOL).names() == names
    assert count(raf, shape) == counts
    assert not any("alignment" in path for path in read_tree(raf).ignored)
    fer = write_ferplus(tmp_path / "fer", ferplus_images)
    mark(fer / "FER2013Train")
    assert FERPlus(fer, ferplus_protocol()).extra() == []
    own = helpers_own.folders(tmp_path / "own", helpers_own.SPLIT)
    before = len(helpers_own.index(own))
    mark(own / "train" / "happy")
    mark(own)
    assert len(helpers_own.index(own)) == before
    assert helpers_own.opened(own).extra() == []


def test_a_file_that_is_only_named_like_the_sheet_is_an_image(tmp_path: Path) -> None:
    own = helpers_own.folders(tmp_path, helpers_own.SPLIT)
    before = len(helpers_own.index(own))
    (own / "train" / "happy" / "alignment.png").write_bytes(helpers_own.image(99))
    assert len(helpers_own.index(own)) == before + 1
