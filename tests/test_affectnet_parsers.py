"""AffectNet's lists and npy files, whatever is in them."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_affectnet import HEADER, LISTS, PICTURES, Face, npy, row, save
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.affectnet import release_2021 as affectnet_npy
from bench.data.affectnet.layouts import CLASSES, DROPPED, label_number
from bench.data.affectnet.release_2017 import COLUMNS, Release2017, columns_of
from bench.data.affectnet.release_2021 import parse_label, read_labels


@given(st.integers(0, 10**6))
def test_a_whole_number_is_read_however_it_is_written(value: int) -> None:
    for text in (f"{value}", f" {value} ", f'"{value}"', f"{value}.0", f"{value}.", f"'{value}.000'"):
        assert label_number(text) == value


@given(st.text(max_size=8).filter(lambda text: not text.strip(" \t\n\r\"'").rstrip("0").rstrip(".").isdigit()))
def test_other_texts_are_no_number(text: str) -> None:
    assert label_number(text) is None or text.strip(" \"'").startswith("0")


@given(
    st.integers(0, 10), st.sampled_from(["<U1", "<U2", "S2", "<i4", "<i8", "u1", "<f4", "<f8", ">f8"]), st.booleans()
)
def test_npy_labels_of_any_kind_are_read(value: int, kind: str, scalar: bool) -> None:
    kind = "<U2" if kind == "<U1" and value > 9 else kind
    array = np.array(value).astype(kind)
    assert parse_label(npy(array if scalar else array.reshape(1))) == value


@given(st.binary(max_size=200))
def test_any_bytes_give_a_number_or_a_value_error(data: bytes) -> None:
    for tail in (data, npy(3)[:-8] + data, b"\x93NUMPY\x01\x00" + data):
        with suppress(ValueError):
            assert isinstance(parse_label(tail), int)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([*range(12), "x", b"", 2.5]), min_size=1, max_size=12))
def test_npy_labels_come_in_the_order_of_their_names(values: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for number, value in enumerate(values):
            save(Path(name) / f"{number}_exp.npy", value if isinstance(value, bytes) else npy(value))
        found = list(read_labels(Path(name), [str(number) for number in range(len(values))]))
    for value, label in zip(values, found, strict=True):
        assert label == value if isinstance(value, int) else isinstance(label, str)


ROWS = st.lists(
    st.one_of(
        st.integers(0, 10),
        st.integers(11, 99),
        st.sampled_from(["", "None", "nan", "-1", "1.5", "1e3"]),
        st.just("broken"),
    ),
    min_size=1,
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.sampled_from(["{}", "{}.0", '"{}"', " {}"]), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_every_good_row_of_a_list_keeps_its_own_label(rows: list[Any], form: str, end: str, header: bool) -> None:
    some = [Face("train", number, 0) for number in range(len(rows))]
    lines = [HEADER] if header else [row(Face("train", 99, 0))]
    for face, label in zip(some, rows, strict=True):
        lines.append("broken,row" if label == "broken" else row(face, label=form.format(label)))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        save(root / LISTS / "training.csv", end.join(lines).encode())
        save(root / LISTS / "validation.csv", row(Face("test", 0, 0)).encode())
        for face in (*some, Face("train", 99, 0), Face("test", 0, 0)):
            save(root / PICTURES / face.folder / f"{face.hexed}.jpg", b"")
        listing = Release2017().read(root)
    labels = dict(zip(listing.frame["name"], listing.frame["label"], strict=True))
    good = [(face, label) for face, label in zip(some, rows, strict=True) if label in range(len(CLASSES))]
    assert {face.hexed: labels.get(face.hexed) for face, _ in good} == {f.hexed: CLASSES[n] for f, n in good}
    dropped = sum(label in DROPPED for label in rows)
    assert len(listing.bad) == len(rows) - len(good) - dropped


@given(st.permutations(COLUMNS))
def test_columns_with_a_header_may_come_in_any_order(names: list[str]) -> None:
    columns = columns_of(",".join(names).encode(), "list")
    assert columns.header
    assert (names[columns.path], names[columns.label]) == (COLUMNS[0], "expression")
    assert [names[k] for k in columns.box] == ["face_x", "face_y", "face_width", "face_height"]


def test_files_are_read_in_batches_by_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affectnet_npy, "BATCH", 3)
    for number in range(20):
        save(tmp_path / f"{number}_exp.npy", npy(number % 8))
    assert list(read_labels(tmp_path, [str(n) for n in range(20)])) == [n % 8 for n in range(20)]
