"""Folder-per-class trees and label lists are read as they are written; a bad row changes no other row."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.class_folders import count, head, look, number, read_csv, read_list, read_tree, split_of
from bench.errors import UserError


def tree(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("train", "train"), ("Training", "train"), ("train_set", "train"), ("val", "val"), ("valid_set", "val"),
        ("Validation", "val"), ("PublicTest", "val"), ("test", "test"), ("testing", "test"), ("PrivateTest", "test"),
        ("trainer", None), ("", None), ("images", None),
    ],
)  # fmt: skip
def test_split_words(word: str, split: str | None) -> None:
    assert split_of(word) == split


@pytest.mark.parametrize(
    ("token", "value"), [("3", 3), ("03", 3), ("-1", None), ("3.0", None), ("³", None), ("", None)]
)
def test_numbers(token: str, value: int | None) -> None:
    assert number(token) == value


@pytest.mark.parametrize(
    ("files", "splits", "tokens"),
    [
        (["train/1/a.jpg", "train/2/b.jpg", "test/1/c.jpg"], ("test", "train"), {"1", "2"}),
        (["train_set/happy/a.png", "val_set/val_set/sad/b.png"], ("train", "val"), {"happy", "sad"}),
        (["Happy/a.png", "SAD/b.png"], ("",), {"Happy", "SAD"}),
        (["train/0/a.jpg", "validation/0/a.jpg", "test/0/a.jpg", "notes/x.txt"], ("test", "train", "val"), {"0"}),
    ],
)
def test_trees_are_found(tmp_path: Path, files: list[str], splits: tuple[str, ...], tokens: set[str]) -> None:
    shape = look(tree(tmp_path, *files))
    assert shape is not None
    assert (set(shape.splits), set(shape.tokens), shape.problem) == (set(splits), tokens, "")
    items = read_tree(tmp_path).items
    assert sorted(item.path for item in items) == sorted(file for file in files if not file.endswith(".txt"))
    found = count(tmp_path, shape)
    assert sum(sum(classes.values()) for classes in found.values()) == len(items)


@pytest.mark.parametrize(
    "files",
    [
        ["train/a.jpg"],
        ["train/1/a.txt"],
        ["train/other/a.jpg"],
        ["1/1000.jpg", "500/a.jpg"],  # AffectNet's numbered folders
        ["S005/001/S005_001_00000011.png"],
        ["FER2013Train/label.csv", "FER2013Train/fer0000000.png"],
    ],
)
def test_other_trees_are_not(tmp_path: Path, files: list[str]) -> None:
    assert look(tree(tmp_path, *files)) is None
    with pytest.raises(UserError, match="holds no class folders"):
        read_tree(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/1/a.jpg", "train/happy/a.jpg"], r"mixes numbered and named class folders: train/1 and train/happy"),
        (["train/1/a.jpg", "test/sad/a.jpg"], r"mixes numbered and named class folders: train/1 and test/sad"),
        (["train/1/a.jpg", "training/1/a.jpg"], r"two folders of the train split: train and training"),
        (["train/1/a.jpg", "1/a.jpg"], r"class folders of its own \(1\) beside those in train"),
        (["train/happy/a.jpg", "train/Happiness/a.jpg"], r"two folders of one class: train/Happiness and train/happy"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    shape = look(tree(tmp_path, *files))
    assert shape is not None
    assert shape.problem
    with pytest.raises(UserError, match=message):
        read_tree(tmp_path)


def test_what_is_not_read_is_told(tmp_path: Path) -> None:
    tree(tmp_path, "train/1/a.jpg", "train/1/deeper/b.jpg", "train/1/notes.txt", "train/1 - Copy/a.jpg", "copy/1/a.jpg")
    tree(tmp_path, "train/1/two\nlines.jpg", "train/1/.hidden.jpg", "test/a.jpg")
    found = read_tree(tmp_path)
    assert [item.path for item in found.items] == ["train/1/a.jpg"]
    assert set(found.ignored) == {"copy", "train/1 - Copy", "train/1/deeper", "train/1/notes.txt"}
    assert [bad.kind for bad in found.bad] == ["name"]
    assert "\n" not in found.bad[0].message
    shape = look(tmp_path)
    assert shape is not None
    assert shape.bare == ("test",)


def test_a_loop_of_links_is_no_empty_class(tmp_path: Path) -> None:
    tree(tmp_path, "train/1/a.jpg")
    os.symlink("2", tmp_path / "train" / "2")
    with pytest.raises(UserError, match=r"train/2 cannot be read: its link leads nowhere"):
        read_tree(tmp_path)


def test_a_link_to_its_parent_ends(tmp_path: Path) -> None:
    tree(tmp_path, "train/1/a.jpg")
    os.symlink(tmp_path, tmp_path / "train" / "1" / "up")
    os.symlink(tmp_path, tmp_path / "loop")
    found = read_tree(tmp_path)
    assert [item.path for item in found.items] == ["train/1/a.jpg"]
    assert set(found.ignored) == {"loop", "train/1/up"}


def test_counting_stops(tmp_path: Path) -> None:
    tree(tmp_path, *(f"train/1/{k}.jpg" for k in range(30)), "train/2/a.jpg")
    shape = look(tmp_path)
    assert shape is not None
    assert count(tmp_path, shape, limit=10) == {"train": {"1": 10, "2": 1}}


NAMES = st.lists(
    st.from_regex(r"[a-z][a-z0-9_/]{0,8}( [a-z0-9_]{1,4})?\.(jpg|png)", fullmatch=True), unique=True, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(
    names=NAMES,
    data=st.data(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.booleans(),
    last=st.booleans(),
)
def test_lists_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject, end: str, mark: bool, last: bool
) -> None:
    rows = [(name, data.draw(st.sampled_from(["0", "7", "happy", "Anger"]))) for name in names]
    lines: list[str] = []
    expected: list[tuple[str, str]] = []
    for name, label in rows:
        separator = data.draw(st.sampled_from([" ", "\t", ",", ", ", "   ", ";"]))
        junk = data.draw(st.sampled_from(["", "", "  ", "lonely", "x.jpg what", "y.jpg -1", "bad\x0bname.jpg 3"]))
        lines += [f"{name}{separator}{label}", *([junk] if junk else [])]
        expected.append((name, label))
    text = end.join(lines) + (end if last else "")
    file = tmp_path_factory.mktemp("list") / "list.txt"
    file.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
    found = read_list(file, "train")
    assert [(item.path, item.token) for item in found.items] == expected
    assert all(lines[item.row - 1].startswith(item.path) for item in found.items)
    assert len(found.bad) == sum(line in ("lonely", "x.jpg what", "y.jpg -1", "bad\x0bname.jpg 3") for line in lines)
    assert all("list.txt, row " in bad.message and "\x0b" not in bad.message for bad in found.bad)


@settings(max_examples=60, deadline=None)
@given(names=NAMES, separator=st.sampled_from([",", ";", "\t"]), header=st.booleans(), data=st.data())
def test_tables_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], separator: str, header: bool, data: st.DataObject
) -> None:
    lines = [separator.join(["image", "label"])] if header else []
    expected = []
    for name in names:
        label = data.draw(st.sampled_from(["1", "Sad"]))
        quoted = data.draw(st.booleans())
        lines.append(separator.join([f'"{name}"' if quoted else name, label]))
        expected.append((name, label))
        lines += data.draw(st.sampled_from([[], [""], ['"open' + separator + "3"], [f"a.jpg{separator}furious"]]))
    file = tmp_path_factory.mktemp("table") / "t.csv"
    file.write_text("\n".join(lines))
    found = read_csv(file)
    assert [(item.path, item.token) for item in found.items] == expected
    wrong = sum(line.startswith(('"open', "a.jpg")) and line.endswith(("3", "furious")) for line in lines)
    assert len(found.bad) == wrong


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("a.jpg,3\nb.jpg,4\n", {}, [("a.jpg", "", "3"), ("b.jpg", "", "4")]),
        ("label,image\n3,a.jpg\n", {}, [("a.jpg", "", "3")]),
        (
            "phase,img_path,label\ntrain,x\\a.jpg,3\nval,./b.jpg,4\n", {},
            [("x/a.jpg", "train", "3"), ("b.jpg", "val", "4")],
        ),
        (
            "id,face,mood,set\n1,a.jpg,happy,test\n", {"name": "face", "label": "mood", "split": "set"},
            [("a.jpg", "test", "happy")],
        ),
        ("happy,9,a.jpg\n", {"name": 2, "label": 0}, [("a.jpg", "", "happy")]),
    ],
)  # fmt: skip
def test_columns(
    tmp_path: Path, text: str, columns: dict[str, str | int], expected: list[tuple[str, str, str]]
) -> None:
    (tmp_path / "t.csv").write_text(text)
    found = read_csv(tmp_path / "t.csv", **columns)
    assert [(item.path, item.split, item.token) for item in found.items] == expected
    assert not found.bad


def test_unusable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,label\n")
    with pytest.raises(UserError, match=r"t.csv has no column 'mood'"):
        read_csv(tmp_path / "t.csv", label="mood")
    with pytest.raises(UserError, match=r"absent.txt cannot be read"):
        read_list(tmp_path / "absent.txt")
    (tmp_path / "u.txt").write_bytes("a 1\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"u.txt is not a text file in UTF-8"):
        read_list(tmp_path / "u.txt")
    (tmp_path / "s.csv").write_text("name,label,split\na.jpg,1,somewhere\n")
    assert [bad.kind for bad in read_csv(tmp_path / "s.csv").bad] == ["row"]


def test_head_reads_little(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("\n\na 1\r\n" + "b 2\n" * 100_000)
    assert head(tmp_path / "long.txt", 2) == ["a 1", "b 2"]
    (tmp_path / "one.txt").write_text("a 1")
    assert head(tmp_path / "one.txt") == ["a 1"]
    (tmp_path / "image.jpg").write_bytes(b"\xff\xd8\x00\x01")
    assert head(tmp_path / "image.jpg") == []
    assert head(tmp_path) == []
