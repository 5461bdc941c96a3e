"""What all datasets of image files share: order, bad rows, the listing cache, threads, aligned trees."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from conftest import png

from bench.data import listing_cache
from bench.data.base import manifest_hash
from bench.data.listed import ListedDataset, in_threads
from bench.data.listing import Bad, Layout, Listing, entries
from bench.declare import Protocol
from bench.errors import UserError

CLASSES = ("happiness", "anger")
PROTOCOL = Protocol(id="p", dataset="rafdb", classes=CLASSES, rule="official")


class Flat(Layout):
    """Lines `name label split` in rows.txt; labels are class names."""

    name = "flat"
    file: ClassVar[str] = "rows.txt"

    def find(self, root: Path) -> Path | None:
        return root if (root / self.file).is_file() else None

    def read(self, base: Path) -> Listing:
        rows, bad = [], []
        for number, line in enumerate((base / self.file).read_text().splitlines(), 1):
            name, label, split = line.split()
            if not (base / name).exists():
                bad.append(Bad(name, "missing", f"{base / name} is missing (row {number})", "restore it"))
            else:
                rows.append((name, label, split, name))
        return Listing(pd.DataFrame(rows, columns=["name", "label", "split", "path"]), bad)

    def state(self, base: Path) -> list[Path]:
        return [base / self.file]


class Other(Flat):
    name = "other"
    file = "other.txt"


class Small(ListedDataset):
    formats: ClassVar[tuple[Layout, ...]] = (Flat(), Other())
    layouts: ClassVar[tuple[str, ...]] = ("flat", "other")
    looked_for = "rows.txt"
    default_preprocessing = "rafdb-any-100"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    root = tmp_path / "copy"
    root.mkdir()
    rng = np.random.default_rng(0)
    rows = ["c.png happiness train", "a.png anger test", "b.png anger train", "d.png happiness test"]
    for row in rows:
        (root / row.split()[0]).write_bytes(png(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)))
    (root / "rows.txt").write_text("\n".join(rows))
    return root


def test_rows_come_by_split_and_name_whatever_the_file_says(copy: Path) -> None:
    small = Small(copy, PROTOCOL)
    assert small.names() == ["b.png", "c.png", "a.png", "d.png"]
    first = small.index(PROTOCOL)
    lines = (copy / "rows.txt").read_text().splitlines()
    (copy / "rows.txt").write_text("\n".join(reversed(lines)))
    second = Small(copy, PROTOCOL).index(PROTOCOL)
    assert manifest_hash(first) == manifest_hash(second)
    pd.testing.assert_frame_equal(first, second)


def test_pixels_have_the_profile_s_shape_in_the_order_asked(copy: Path) -> None:
    small = Small(copy, PROTOCOL)
    two = list(small.pixels(["d.png", "b.png"]))
    assert [one.shape for one in two] == [(100, 100, 3)] * 2
    np.testing.assert_array_equal(two[1], next(iter(small.pixels(["b.png"]))))


def test_missing_rows_stop_or_are_skipped_and_recorded(copy: Path) -> None:
    (copy / "a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png is missing") as caught:
        Small(copy, PROTOCOL).index(PROTOCOL)
    assert "--skip-bad" in caught.value.hint
    counted = PROTOCOL.model_copy(update={"counts": {"train": 2, "test": 2}})
    small = Small(copy, counted)
    small.skip_bad = True
    assert len(small.index(counted)) == 3
    assert list(small.skipped) == ["a.png"]
    assert small.missing() == ["a.png"]
    # as many as were skipped may be lacking, not more
    more = counted.model_copy(update={"counts": {"train": 3, "test": 2}})
    with pytest.raises(UserError, match="does not give protocol"):
        small.index(more)


def test_two_layouts_in_one_folder_are_an_error(copy: Path) -> None:
    (copy / "other.txt").write_text("a.png anger test")
    with pytest.raises(UserError, match=r"two layouts of rafdb: 'flat' .* and 'other'"):
        Small(copy, PROTOCOL)


def test_bad_images_are_yielded_as_errors_and_raised_by_pixels(copy: Path) -> None:
    (copy / "b.png").write_bytes(b"")
    small = Small(copy, PROTOCOL)
    found = list(small.decoded(small.names()))
    assert [isinstance(one, UserError) for one in found] == [True, False, False, False]
    with pytest.raises(UserError, match=r"b\.png is empty"):
        list(small.pixels(small.names()))


def test_listing_cache_gives_the_same_and_survives_damage(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_cache, "KEEP_FROM", 1)
    (copy / "d.png").unlink()
    first = Small(copy, PROTOCOL).listing
    reads: list[int] = []
    real = Flat.read
    monkeypatch.setattr(Flat, "read", lambda self, base: reads.append(1) or real(self, base))
    again = Small(copy, PROTOCOL).listing
    assert not reads
    pd.testing.assert_frame_equal(first.frame, again.frame)
    assert (first.bad, first.label_files) == (again.bad, again.label_files)
    (kept,) = (Path(os.environ["FERBENCH_CACHE"]) / "listings").glob("*.parquet")
    kept.write_bytes(kept.read_bytes()[:-20])
    pd.testing.assert_frame_equal(first.frame, Small(copy, PROTOCOL).listing.frame)
    assert reads
    (copy / "rows.txt").write_text("c.png anger train")
    assert Small(copy, PROTOCOL).names() == ["c.png"]


def test_threads_keep_the_order() -> None:
    names = [str(k) for k in range(500)]
    found = list(in_threads(lambda name: np.full(1, int(name) % 251, np.uint8), names, 3))
    assert [int(one[0]) for one in found if isinstance(one, np.ndarray)] == [k % 251 for k in range(500)]


def test_an_aligned_tree_says_so_and_half_of_one_is_refused(copy: Path) -> None:
    plain = Small(copy, PROTOCOL).decode
    about = {"name": "mtcnn-100", "settings": {"size": 100}, "detector": "d", "detector_sha256": "0", "template": "t"}
    (copy / "alignment.json").write_text(json.dumps(about | {"complete": False}))
    blocked = Small(copy, PROTOCOL).blocked(PROTOCOL)
    assert blocked is not None
    assert "in part" in blocked.message
    (copy / "alignment.json").write_text(json.dumps(about | {"complete": True}))
    aligned = Small(copy, PROTOCOL)
    assert aligned.blocked(PROTOCOL) is None
    assert aligned.decode != plain
    assert any("mtcnn-100" in remark for remark in aligned.remarks())


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="loop cannot be read"):
        entries(tmp_path / "loop")
