"""Alignment of a tree: what it writes, what stopping it leaves, what changed in the source, and what is refused."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import run_all
from bench import store
from bench.data.align import faces, files, journal
from bench.data.align import sheet as align_sheet
from bench.data.align import tree as align
from bench.data.align.faces import Face, Settings
from bench.errors import UserError

POINTS = faces.template(Settings(size=112))


def face(x: float, y: float, side: float = 20, probability: float = 0.95) -> Face:
    return Face((x, y, side, side), probability, POINTS / 112 * side + np.array([x, y]))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images; the stand-in detector finds as many faces as the image's first pixel says."""

    def detect(image: np.ndarray, settings: Settings) -> list[Face]:
        return [face(10 + 30 * k, 20) for k in range(int(image[0, 0, 0]) // 100)]

    monkeypatch.setattr(faces, "detect", detect)
    source = tmp_path / "raw"
    for number, (suffix, found) in enumerate([("png", 1), ("png", 0), ("png", 2), ("bmp", 1), ("png", 1), ("png", 1)]):
        path = source / "Image" / "original" / f"test_{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((80, 90, 3), 100 * found, np.uint8)).save(path)
    (source / "labels.txt").write_text("test_0.png 1\n")
    return source


def test_tree_keeps_its_layout(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "aligned"
    counts = align.align(tree, dest, Settings(size=48))
    assert counts == {"aligned": 4, "no-face": 1, "several": 1}
    for path in (tree / "Image" / "original").iterdir():
        with Image.open(dest / path.relative_to(tree)) as image:
            assert image.size == (48, 48)
            assert image.format == {"png": "PNG", "bmp": "BMP"}[path.suffix[1:]]
    assert (dest / "labels.txt").read_text() == "test_0.png 1\n"
    about = json.loads((dest / align.SETTINGS).read_text())
    assert about["complete"] is True
    assert about["name"] == "mtcnn-48"
    rows = {row["path"]: row for row in align.rows_of(dest)}
    assert rows["Image/original/test_2.png"]["faces"] == "2"
    assert rows["Image/original/test_1.png"]["status"] == "no-face"
    assert Image.open(io.BytesIO(align_sheet.sheet(tree, dest, list(rows.values())))).width > 400


def test_stopping_loses_nothing(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, dest = tmp_path / "whole", tmp_path / "aligned"
    align.align(tree, whole, Settings(size=32))
    real, seen = align.align_image, []

    def stops(image: np.ndarray, settings: Settings) -> Any:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(1)
        return real(image, settings)

    monkeypatch.setattr(align, "align_image", stops)
    with pytest.raises(KeyboardInterrupt):
        align.align(tree, dest, Settings(size=32))
    assert json.loads((dest / align.SETTINGS).read_text())["complete"] is False
    with (dest / align.JOURNAL).open("a") as file:
        file.write("Image/original/test_4.png,alig")  # a row that a killed process left half written
    monkeypatch.setattr(align, "align_image", real)
    align.align(tree, dest, Settings(size=32))
    for path in sorted(whole.rglob("*.*")):
        if path.name != align.SETTINGS:
            assert path.read_bytes() == (dest / path.relative_to(whole)).read_bytes(), path


def test_changed_and_removed_images_are_done_again(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "aligned"
    align.align(tree, dest, Settings(size=32))
    first = tree / "Image" / "original" / "test_0.png"
    Image.fromarray(np.full((80, 90, 3), 0, np.uint8)).save(first)
    (dest / "Image" / "original" / "test_4.png").unlink()
    assert align.align(tree, dest, Settings(size=32)) == {"aligned": 3, "no-face": 2, "several": 1}
    assert (dest / "Image" / "original" / "test_4.png").is_file()


def test_refusals(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "aligned"
    align.align(tree, dest, Settings(size=32))
    with pytest.raises(UserError, match="other settings"):
        align.align(tree, dest, Settings(size=64))
    with pytest.raises(UserError, match="lies inside"):
        align.align(tree, tree / "out", Settings())
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not made by"):
        align.align(tree, foreign, Settings())
    with pytest.raises(UserError, match=r"test_1\.png: no face"):
        align.align(tree, tmp_path / "strict", Settings(no_face="fail"))
    with pytest.raises(UserError, match=r"test_2\.png: 2 faces"):
        align.align(tree, tmp_path / "strict2", Settings(several="fail"))
    skipped = align.align(tree, tmp_path / "skip", Settings(size=32, no_face="skip", several="skip"))
    assert skipped == {"aligned": 4, "skipped": 2}
    assert not (tmp_path / "skip" / "Image" / "original" / "test_1.png").exists()
    with pytest.raises(UserError, match="no images"):
        align.align(foreign, tmp_path / "none", Settings())


def change(tree: Path, path: str, text: str) -> None:
    """Write a file with a time of its own: two writes may fall into one tick of the file system."""
    before = (tree / path).stat().st_mtime_ns if (tree / path).exists() else 0
    (tree / path).write_text(text)
    os.utime(tree / path, ns=(before + 10**9, before + 10**9))


def test_changed_label_files_are_copied_again(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "aligned"
    align.align(tree, dest, Settings(size=32))
    change(tree, "labels.txt", "test_0.png 2\n")  # of the same size
    align.align(tree, dest, Settings(size=32))
    assert (dest / "labels.txt").read_text() == "test_0.png 2\n"
    assert (dest / "labels.txt").stat().st_mtime_ns == (tree / "labels.txt").stat().st_mtime_ns


def test_what_the_source_lost_is_removed_and_nothing_else(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "aligned"
    (tree / "happy").mkdir()
    (tree / "Image" / "original" / "test_0.png").rename(tree / "happy" / "test_0.png")
    (tree / "old.txt").write_text("test_9.png 1\n")
    align.align(tree, dest, Settings(size=32))
    (dest / "happy" / "notes.txt").write_text("mine")
    (dest / "Image" / "original" / "mine.png").write_text("mine")
    (tree / "sad").mkdir()
    (tree / "happy" / "test_0.png").rename(tree / "sad" / "test_0.png")
    (tree / "old.txt").unlink()
    assert align.align(tree, dest, Settings(size=32)) == {"aligned": 4, "no-face": 1, "several": 1}
    assert (dest / "sad" / "test_0.png").is_file()
    assert [path.name for path in (dest / "happy").iterdir()] == ["notes.txt"]
    assert (dest / "Image" / "original" / "mine.png").is_file()
    assert not (dest / "old.txt").exists()
    (tree / "sad" / "test_0.png").rename(tree / "test_0.png")
    align.align(tree, dest, Settings(size=32))
    assert not (dest / "sad").exists()
    assert [row["path"] for row in align.rows_of(dest)].count("test_0.png") == 1


def test_nothing_outside_is_removed_whatever_the_journal_says(tree: Path, tmp_path: Path) -> None:
    dest, other = tmp_path / "aligned", tmp_path / "other.png"
    align.align(tree, dest, Settings(size=32))
    other.write_text("mine")
    with (dest / align.JOURNAL).open("a") as file:
        file.write(f"../other.png,aligned{',' * 12}\n{other},aligned{',' * 12}\n")
    align.align(tree, dest, Settings(size=32))
    assert other.is_file()


def test_an_image_whose_face_is_gone_leaves_no_old_result(tree: Path, tmp_path: Path) -> None:
    dest, settings = tmp_path / "aligned", Settings(size=32, no_face="skip")
    align.align(tree, dest, settings)
    first = tree / "Image" / "original" / "test_0.png"
    Image.fromarray(np.zeros((81, 90, 3), np.uint8)).save(first)
    assert align.align(tree, dest, settings) == {"aligned": 3, "several": 1, "skipped": 2}
    assert not (dest / first.relative_to(tree)).exists()


def test_a_whole_tree_is_incomplete_while_it_is_redone(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "aligned"
    align.align(tree, dest, Settings(size=32))
    before = {path: path.stat().st_mtime_ns for path in dest.rglob("*") if path.name != files.LOCK}
    align.align(tree, dest, Settings(size=32))
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing to do: nothing is written

    def stops(*args: Path) -> None:
        assert json.loads((dest / align.SETTINGS).read_text())["complete"] is False
        raise KeyboardInterrupt

    change(tree, "labels.txt", "test_0.png 2\n")
    with monkeypatch.context() as patch:
        patch.setattr(align, "copy", stops)
        with pytest.raises(KeyboardInterrupt):
            align.align(tree, dest, Settings(size=32))
    (tree / "labels.txt").unlink()  # begun, stopped, and gone from the source: it was ours
    align.align(tree, dest, Settings(size=32))
    assert not (dest / "labels.txt").exists()
    assert json.loads((dest / align.SETTINGS).read_text())["complete"] is True


def test_linked_folders_are_followed_and_loops_named(tree: Path, tmp_path: Path) -> None:
    (tree / "Image" / "original").rename(tmp_path / "elsewhere")
    (tree / "Image" / "original").symlink_to(tmp_path / "elsewhere")
    (tree / "again").symlink_to(tmp_path / "elsewhere")  # twice is no loop
    dest = tmp_path / "aligned"
    assert sum(align.align(tree, dest, Settings(size=32)).values()) == 12
    assert not (dest / "Image" / "original").is_symlink()
    (tree / "again").unlink()
    for target in (tree, tree / "Image", tree / "Image" / "loop", tmp_path / "nothing", dest, dest / "Image"):
        (tree / "Image" / "loop").symlink_to(target)
        with pytest.raises(UserError, match=r"Image/loop(:| is a link to .*, which it lies in| leads into)"):
            align.align(tree, dest, Settings(size=32))
        (tree / "Image" / "loop").unlink()
    align.align(tree, dest, Settings(size=32))
    assert not (dest / "again").exists()


def test_a_dead_link_to_an_image_is_unreadable(tree: Path, tmp_path: Path) -> None:
    (tree / "Image" / "original" / "dead.png").symlink_to(tmp_path / "nothing.png")
    assert align.align(tree, tmp_path / "aligned", Settings(size=32))["unreadable"] == 1


def test_a_second_process_is_refused_at_once(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "aligned"
    align.align(tree, dest, Settings(size=32))
    with files.locked(dest), pytest.raises(UserError, match=r"another `data align` is writing .*aligned"):
        align.align(tree, dest, Settings(size=32))
    align.align(tree, dest, Settings(size=32))


def test_folders_that_cannot_be_written_are_named(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file"):
        align.align(tree, tmp_path / "file", Settings())
    with pytest.raises(UserError, match=r"file/aligned cannot be made: .*file is a file"):
        align.align(tree, tmp_path / "file" / "aligned", Settings())

    def refuses(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "aligned"))

    monkeypatch.setattr(Path, "mkdir", refuses)
    with pytest.raises(UserError, match="aligned cannot be written: Read-only"):
        align.align(tree, tmp_path / "aligned", Settings())


@pytest.mark.parametrize("what", ["journal", "image", "label file"])
def test_a_full_disk_says_how_to_go_on(what: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            full()
            return 0

    dest, real = tmp_path / "aligned", journal.writer
    with monkeypatch.context() as patch:
        if what == "journal":
            patch.setattr(journal, "writer", lambda stream: real(stream if isinstance(stream, io.StringIO) else Full()))
        elif what == "image":
            patch.setattr(store.os, "fsync", full)
        else:
            patch.setattr(files.shutil, "copyfile", full)
        with pytest.raises(UserError, match="the disk is full") as caught:
            align.align(tree, dest, Settings(size=32))
    assert "it continues" in caught.value.hint
    assert "FERBENCH_CACHE" not in caught.value.hint
    assert align.align(tree, dest, Settings(size=32)) == {"aligned": 4, "no-face": 1, "several": 1}


@pytest.mark.parametrize(
    "option",
    [("--size", "15"), ("--size", "2049"), ("--zoom", "0"), ("--zoom", "nan"), ("--zoom", "3.1"), ("--zoom", "-1"),
     ("--probability", "0"), ("--probability", "1.01"), ("--probability", "nan"), ("--size", "x")],
)  # fmt: skip
def test_options_out_of_range(option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_all.main(["data", "align", str(tmp_path), str(tmp_path / "out"), *option])
    assert f"argument {option[0]}: {'invalid size value' if option[1] == 'x' else option[1]}" in capsys.readouterr().err


def test_only_stays_inside(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for only in ("../x", "Image/../../x", str(tmp_path / "x"), ".."):
        with pytest.raises(UserError, match="lies outside"):
            align.align(tree, tmp_path / "out", Settings(), only)
    (tree / "more").mkdir()
    Image.fromarray(np.full((80, 90, 3), 100, np.uint8)).save(tree / "more" / "a.png")
    assert align.align(tree, tmp_path / "out", Settings(size=32), "Image/") == {
        "aligned": 4,
        "no-face": 1,
        "several": 1,
    }
    assert not (tmp_path / "out" / "more").exists()
    align.align(tree, tmp_path / "out", Settings(size=32), "./Image")


def test_the_sheet_goes_where_it_is_asked_for(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    command = ["data", "align", str(tree), str(tmp_path / "out"), "--size", "32", "--jobs", "1", "--sheet"]
    assert run_all.main([*command, "~/x.png"]) == 0
    assert (tmp_path / "x.png").is_file()
    capsys.readouterr()
    assert run_all.main([*command, str(tmp_path / "x.png" / "y.png")]) != 0
    assert "x.png is a file" in capsys.readouterr().err


def test_an_aligned_tree_can_be_a_source(tree: Path, tmp_path: Path) -> None:
    status = run_all.main(["data", "align", str(tree), str(tmp_path / "one"), "--size", "32", "--jobs", "1"])
    assert status == 0
    assert (tmp_path / "one" / "alignment.png").is_file()
    assert sum(align.align(tmp_path / "one", tmp_path / "two", Settings(size=32)).values()) == 6
    (tree / "alignment.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"alignment\.png has a name that"):
        align.align(tree, tmp_path / "three", Settings(size=32))


def test_unreadable_images_are_named_and_the_rest_goes_on(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "Image" / "original" / "test_0.png").write_bytes(b"")
    status = run_all.main(["data", "align", str(tree), str(tmp_path / "out"), "--size", "32", "--jobs", "1"])
    out = capsys.readouterr().out
    assert status == 1
    assert "1 unreadable" in out
    assert "test_0.png is empty" in out


def test_control_characters_in_a_name(tree: Path, tmp_path: Path) -> None:
    (tree / "Image" / "original" / "a\nb.png").write_bytes(b"x")
    with pytest.raises(UserError, match="control characters"):
        align.align(tree, tmp_path / "out", Settings())
