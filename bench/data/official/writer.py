"""Writing a tree: refuse what is not ours, work through the blocks in several processes, go on after a crash.

The tree's root holds `synthfer.json`, which says what it is and whether it is complete; until it is, `.synthfer/` holds
a lock and the numbers of the finished blocks. A block that was cut short is written again from its start.
"""

from __future__ import annotations

import errno
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.base import MARKER
from bench.data.official.tree import WORK, Tree, write_file
from bench.data.progress import Progress
from bench.data.synthfer.sample import RENDERER_VERSION
from bench.errors import UserError, unknown
from bench.queue import cores

MADE_BY = "ferbench data synth"
WRITER_VERSION = 1  # raised when the files of a layout change for a given seed
TREES = {
    "rafdb": "rafdb:RAFDB",
    "affectnet-a": "affectnet_a:AffectNetA",
    "affectnet-b": "affectnet_b:AffectNetB",
    "ferplus": "ferplus:FERPlusFolders",
    "fer2013-csv": "ferplus:FER2013Csv",
    "ckplus": "ckplus:CKPlus",
}
AGAIN = "run the same command again: it goes on where it stopped"
QUIET_SECONDS, REPORT_SECONDS = 2.0, 10.0


@dataclass(frozen=True)
class Written:
    """What a call did: pictures of the whole tree, pictures of this call, its seconds and processes."""

    pictures: int
    now: int
    seconds: float
    jobs: int


def open_tree(layout: str, like_counts: bool, seed: int) -> Tree:
    """The description of a tree; nothing is written."""
    if layout not in TREES:
        raise unknown("layout", layout, TREES)
    module, _, name = TREES[layout].partition(":")
    tree: Tree = getattr(importlib.import_module(f"bench.data.official.{module}"), name)(like_counts, seed)
    return tree


def write(layout: str, dest: Path, like_counts: bool = False, seed: int = 0, jobs: int = 0) -> Written:
    """Write a synthetic tree, or finish one that was begun.

    Args:
        layout: a key of LAYOUTS.
        dest: a folder that is empty, new, or holds the same tree unfinished.
        like_counts: the published number of images of each class and split, else a small part of them.
        jobs: processes; 0 for one a core.

    Raises:
        UserError: `dest` holds something else, another process writes there, the disk is full or cannot be written.
    """
    tree = open_tree(layout, like_counts, seed)
    made = {
        "made by": MADE_BY, "layout": layout, "renderer": RENDERER_VERSION, "writer": WRITER_VERSION, "seed": seed,
        "like_counts": like_counts,
    }  # fmt: skip
    jobs = jobs or cores()
    begun = time.monotonic()
    with _disk(dest):
        if _claim(dest, made):
            return Written(tree.pictures, 0, 0.0, jobs)
        with _lock(dest):
            now = _fill(tree, dest, made, jobs)
        shutil.rmtree(dest / WORK, ignore_errors=True)
    return Written(tree.pictures, now, time.monotonic() - begun, jobs)


def _claim(dest: Path, made: dict[str, Any]) -> bool:
    """Whether the folder holds this tree complete; anything but this tree, or nothing, is refused."""
    if dest.exists() and not dest.is_dir():
        raise UserError(f"{dest} is a file", "give a new or empty folder")
    there = _marker(dest)
    if there is None:
        inside = [entry.name for entry in os.scandir(dest)] if dest.is_dir() else []
        foreign = sorted(name for name in inside if name != WORK)
        if foreign:
            message = f"{dest} is not empty (it holds {foreign[0]}) and was not made by `data synth`"
            raise UserError(message, "give a new or empty folder; nothing was changed")
        return False
    differs = [key for key, value in made.items() if there.get(key) != value]
    if differs:
        have = ", ".join(f"{key} {there.get(key)}" for key in differs)
        raise UserError(f"{dest} holds another synthetic tree ({have})", "give another folder, or delete that one")
    return bool(there.get("complete"))


def _marker(dest: Path) -> dict[str, Any] | None:
    """What synthfer.json says; None where there is none."""
    try:
        found = json.loads((dest / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{dest / MARKER} is damaged", f"delete {dest} and write it again")
    return found


def _mark(dest: Path, made: dict[str, Any]) -> None:
    """Write synthfer.json, whole or not at all."""
    partial = dest / WORK / MARKER
    write_file(partial, (json.dumps(made, indent=1) + "\n").encode())
    os.replace(partial, dest / MARKER)


@contextmanager
def _lock(dest: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    (dest / WORK).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(dest / WORK / "lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"another process is writing {dest}", "wait for it, or stop it first") from None


def _fill(tree: Tree, dest: Path, made: dict[str, Any], jobs: int) -> int:
    """Everything that is still to be written; returns the pictures written by this call."""
    _mark(dest, {**made, "complete": False})
    journal = dest / WORK / "done"
    done = _finished(journal, len(tree.blocks))
    todo = [block for block in range(len(tree.blocks)) if block not in done]
    rows = {block: len(tree.blocks[block][1]) for block in todo}
    _check_room(tree, dest, sum(rows.values()))
    if not done:
        tree.begin(dest)
    progress, written = Progress(made["layout"], sum(rows.values()) * tree.pictures_each), 0
    with journal.open("w", encoding="ascii") as file:
        file.write("".join(f"{block}\n" for block in sorted(done)))

        def note(block: int) -> None:
            nonlocal written
            file.write(f"{block}\n")
            file.flush()
            written += rows[block] * tree.pictures_each
            progress.report(written)

        if jobs == 1 or len(todo) < 2:
            for block in todo:
                tree.write(dest, block)
                note(block)
        else:
            _in_processes(tree, dest, todo, min(jobs, len(todo)), note)
    tree.finish(dest)
    _mark(dest, {**made, "complete": True})
    return sum(rows.values()) * tree.pictures_each


def _finished(journal: Path, blocks: int) -> set[int]:
    """Numbers of the blocks that are there; a line that was cut short does not count."""
    if not journal.is_file():
        return set()
    lines = journal.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
    return {int(line) for line in lines if line.isdecimal() and int(line) < blocks}


_here: list[tuple[Tree, Path]] = []  # in a worker process: what it works on


def _in_processes(tree: Tree, dest: Path, todo: list[int], jobs: int, note: Callable[[int], None]) -> None:
    # spawned, not forked: the caller may have threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(tree, dest)) as pool:
        waiting = {pool.submit(_write_block, block): block for block in todo}
        try:
            for future in as_completed(waiting):
                future.result()
                note(waiting[future])
        except BrokenProcessPool:
            raise UserError("a worker process was killed (out of memory?)", f"{AGAIN}; --jobs 1 needs least") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(tree: Tree, dest: Path) -> None:
    """Begin a worker: it leaves Ctrl-C to its parent, and ends when that dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _here.append((tree, dest))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_block(block: int) -> None:
    ((tree, dest),) = _here
    tree.write(dest, block)


def _check_room(tree: Tree, dest: Path, rows: int) -> None:
    """Refuse to begin what the disk cannot hold."""
    room, files = rows * tree.bytes_each, rows * tree.files_each
    free = shutil.disk_usage(dest).free
    if free < room:
        message = f"{dest}: about {room / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free"
        raise UserError(message, "free some space, or choose another disk")
    names = os.statvfs(dest) if hasattr(os, "statvfs") else None
    if names and names.f_files and names.f_favail < files:  # 0 where a file system does not count its files
        message = f"{dest}: {files:,} files are needed, the file system has room for {names.f_favail:,}"
        raise UserError(message, "choose another disk")


@contextmanager
def _disk(dest: Path) -> Iterator[None]:
    """What the operating system refuses, in words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{dest}: the disk is full", f"free some space, then {AGAIN}") from None
        where = error.filename or dest
        raise UserError(f"{where} cannot be written: {error.strerror}", "check permissions and the disk") from None
