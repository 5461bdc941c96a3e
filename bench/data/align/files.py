"""What an alignment reads and writes: the files of its source, links followed, and those of the folder it makes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import store
from bench.data.image import SUFFIXES
from bench.data.listing import ALIGNED, entries, is_folder, safe_name
from bench.errors import UserError

SETTINGS, JOURNAL, PICTURE, LOCK = ALIGNED


def is_image(path: str) -> bool:
    """Whether a file is an image by its suffix."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def files_of(source: Path, dest: Path) -> Iterator[str]:
    """Relative paths of all files, a folder's own before those of its folders; hidden and system files are left out.

    Raises:
        UserError: a folder cannot be read, a link leads nowhere, back to a folder it lies in or into `dest`, or a name
            has control characters or is one of the alignment's own.
    """
    yield from _inside(source, "", (os.path.realpath(source),), dest.resolve())


def _inside(source: Path, inside: str, above: tuple[str, ...], dest: Path) -> Iterator[str]:
    folders = []
    for entry in entries(source / inside):
        relative = f"{inside}/{entry.name}" if inside else entry.name
        if not safe_name(entry.name):
            message = f"{source / inside} holds a file whose name has control characters: {entry.name!r}"
            raise UserError(message, "rename it")
        if relative in ALIGNED:
            raise UserError(f"{source / relative} has a name that `data align` writes itself", "rename or move it")
        if entry.is_symlink() and not os.path.exists(entry.path) and not is_image(relative):
            raise UserError(f"{entry.path}: its link leads nowhere", "restore what it stands for, or remove the link")
        if is_folder(entry):
            folders.append(relative)
        elif entry.is_symlink() or entry.is_file():  # an image whose link leads nowhere is reported as unreadable
            yield relative
    for relative in folders:
        real = os.path.realpath(source / relative)
        if real in above:
            raise UserError(f"{source / relative} is a link to {real}, which it lies in", "remove the link")
        if Path(real).is_relative_to(dest):
            raise UserError(f"{source / relative} leads into {dest}", "remove the link, or choose another folder")
        yield from _inside(source, relative, (*above, real), dest)


def stamp(file: Path) -> tuple[str, str]:
    """Size and time of a file as the journal has them; empty where it is not there."""
    try:
        stat = file.stat()
    except OSError:
        return "", ""
    return str(stat.st_size), str(stat.st_mtime_ns)


def copy(source: Path, dest: Path) -> None:
    """Copy a file with its time, whole or not at all."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=dest.parent, prefix=".align.", suffix=".tmp")
    os.close(descriptor)
    try:
        stat = source.stat()
        shutil.copyfile(source, temporary)
        os.chmod(temporary, 0o644)
        os.utime(temporary, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.replace(temporary, dest)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove(dest: Path, path: str) -> None:
    """Remove a file that an alignment wrote, and the folders that this leaves empty. Nothing outside of `dest`."""
    file = dest / path
    if not file.parent.resolve().is_relative_to(dest.resolve()) or not (file.is_file() or file.is_symlink()):
        return
    file.unlink()
    with suppress(OSError):  # not empty
        for parent in file.parents:
            if parent == dest:
                break
            parent.rmdir()


def refuse_under_file(folder: Path) -> None:
    """UserError where a folder cannot be made because it, or what it would lie in, is a file."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        what = "is a file" if there == folder else f"cannot be made: {there} is a file"
        raise UserError(f"{folder} {what}", "choose another folder")


@contextmanager
def locked(dest: Path) -> Iterator[None]:
    """Keep other alignments out of `dest`; they are refused at once."""
    from filelock import FileLock, Timeout

    lock = FileLock(dest / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        message = f"another `data align` is writing {dest}"
        raise UserError(message, "wait for it, stop it, or choose another folder") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def in_words(dest: Path, source: Path | None = None) -> Iterator[None]:
    """What the operating system refuses, as a UserError that names the path."""
    free = f"free space on the disk of {dest} and run the same command: it continues"
    try:
        yield
    except store.DiskFull as error:
        raise UserError(error.message, free) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{dest}: the disk is full", free) from None
        where = str(error.filename or dest)
        if source is not None and Path(where).is_relative_to(source):
            raise UserError(f"{where} cannot be read: {error.strerror}", "check it and its permissions") from None
        exact = f" ({where})" if where != str(dest) else ""
        message = f"{dest} cannot be written: {error.strerror}{exact}"
        raise UserError(message, "check permissions and the disk, or choose another folder") from None
