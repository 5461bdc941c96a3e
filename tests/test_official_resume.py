"""Writing synthetic trees: the same bytes again, going on after a crash, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import helpers_official
import pytest
from filelock import FileLock
from helpers_official import contents

from bench.data.base import is_synthetic
from bench.data.official import LAYOUTS, rafdb, tree, writer
from bench.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers_official.shrink(monkeypatch)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return helpers_official.write_all(tmp_path_factory.mktemp("trees"))


# ---- the same bytes again, whatever happens


def test_bytes_depend_on_the_seed_alone(trees: dict[str, Path], tmp_path: Path) -> None:
    whole = contents(trees["affectnet-b"])
    writer.write("affectnet-b", tmp_path / "two", jobs=2)
    assert contents(tmp_path / "two") == whole
    writer.write("affectnet-b", tmp_path / "seed", seed=1, jobs=1)
    other = contents(tmp_path / "seed")
    pictures_of = [name for name in whole if name.endswith(".jpg")]
    assert sum(whole[name] == other[name] for name in pictures_of) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tree_that_was_cut_short_is_finished(
    layout: str, trees: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writer.open_tree(layout, False, 0)
    kind, done = type(made), []
    whole_block = kind.write

    def breaks(self: tree.Tree, root: Path, block: int) -> None:
        before = set(contents(root))
        whole_block(self, root, block)
        if done:  # the second block's last picture is half written
            path = root / max(set(contents(root)) - before)
            path.write_bytes(path.read_bytes()[:100])
            raise KeyboardInterrupt
        done.append(block)

    monkeypatch.setattr(kind, "write", breaks)
    dest = tmp_path / "tree"
    with pytest.raises(KeyboardInterrupt):
        writer.write(layout, dest, jobs=1)
    assert json.loads((dest / "synthfer.json").read_text())["complete"] is False
    assert is_synthetic(dest)
    with (dest / tree.WORK / "done").open("a") as file:
        file.write("1")  # a line cut short by a crash does not count
    again = []

    def goes_on(self: tree.Tree, root: Path, block: int) -> None:
        again.append(block)
        whole_block(self, root, block)

    monkeypatch.setattr(kind, "write", goes_on)
    written = writer.write(layout, dest, jobs=1)
    assert done == [0]
    assert again == list(range(1, len(made.blocks)))
    assert written.now < written.pictures == made.pictures
    assert contents(dest) == contents(trees[layout])
    assert writer.write(layout, dest, jobs=1).now == 0


def test_a_killed_process_leaves_a_tree_that_can_be_finished(tmp_path: Path) -> None:
    """The real command with two workers, killed without a warning; its workers end too."""
    dest = tmp_path / "tree"
    command = [sys.executable, "run_all.py", "data", "synth", "--layout", "affectnet-b", str(dest), "--jobs", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (dest / "train_set/images/10.jpg").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        workers = children(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not json.loads((dest / "synthfer.json").read_text())["complete"]
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def children(process: int) -> list[str]:
    """Ids of a process's children, where the system tells."""
    try:
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []


# ---- what is refused


@pytest.mark.parametrize("inside", ["holiday.jpg", ".hidden"])
def test_a_folder_of_somebody_else_is_left_alone(inside: str, tmp_path: Path) -> None:
    (tmp_path / inside).write_text("mine")
    with pytest.raises(UserError, match=rf"not empty \(it holds {inside}\)"):
        writer.write("rafdb", tmp_path)
    assert contents(tmp_path) == {inside: hashlib.sha256(b"mine").hexdigest()}


def test_another_tree_a_file_and_a_damaged_marker_are_refused(trees: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"another synthetic tree \(layout rafdb"):
        writer.write("ckplus", trees["rafdb"])
    with pytest.raises(UserError, match="seed 0"):
        writer.write("rafdb", trees["rafdb"], seed=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        writer.write("rafdb", tmp_path / "file")
    (tmp_path / "synthfer.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        writer.write("rafdb", tmp_path)
    with pytest.raises(UserError, match="did you mean rafdb"):
        writer.write("rafbd", tmp_path / "new")


def test_two_writers_of_one_tree_are_refused(tmp_path: Path) -> None:
    (tmp_path / tree.WORK).mkdir()
    with FileLock(tmp_path / tree.WORK / "lock"), pytest.raises(UserError, match="another process is writing"):
        writer.write("rafdb", tmp_path, jobs=1)


def test_a_full_disk_is_said_and_the_tree_can_be_finished(
    trees: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = tree.write_file, []

    def full(path: Path | str, data: bytes) -> None:
        written.append(path)
        if len(written) == 70:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(rafdb, "write_file", full)
    with pytest.raises(UserError, match="the disk is full") as caught:
        writer.write("rafdb", tmp_path, jobs=1)
    assert "goes on" in caught.value.hint
    writer.write("rafdb", tmp_path, jobs=1)
    assert contents(tmp_path) == contents(trees["rafdb"])


def test_too_little_room_is_said_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rafdb.RAFDB, "bytes_each", 10**15)
    with pytest.raises(UserError, match=r"GB are needed"):
        writer.write("rafdb", tmp_path, jobs=1)
    monkeypatch.setattr(rafdb.RAFDB, "bytes_each", 1)
    monkeypatch.setattr(rafdb.RAFDB, "files_each", 10**12)
    with pytest.raises(UserError, match="files are needed"):
        writer.write("rafdb", tmp_path, jobs=1)
    assert not (tmp_path / "Image").exists()


def test_a_worker_that_dies_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_write_block", os._exit)
    with pytest.raises(UserError, match="worker process was killed"):
        writer.write("ckplus", tmp_path, jobs=2)


def test_files_without_links_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "a").write_bytes(b"face")
    tree.link_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"face"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import run_all

    words = ["data", "synth", "--layout", "ckplus", str(tmp_path / "new"), "--jobs", "1", "--seed", "3"]
    assert run_all.main(words) == 0
    said = capsys.readouterr().out
    assert "synthetic pictures in the layout ckplus" in said
    assert f"data verify {tmp_path / 'new'}" in said
    assert run_all.main(words) == 0
    assert "all there before" in capsys.readouterr().out
    assert run_all.main([*words[:-1], "4"]) == 2
    assert "another synthetic tree" in capsys.readouterr().err
