"""A folder that appears whole or not at all."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UserError


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A hidden folder beside `place` to fill; it becomes `place` at the end, and is removed when anything fails.

    Args:
        place: a folder that does not exist yet, or is empty.

    Raises:
        UserError: `place` holds something, or the disk is full or not writable.
    """
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{place} exists and is not empty", "choose another folder, or remove it")
    partial = place.parent / f".{place.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
        partial.mkdir(parents=True)
        yield partial
        if place.exists():
            place.rmdir()
        partial.rename(place)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{place}: the disk is full", "free some space; nothing half-written was kept") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise UserError(f"{place} cannot be written: {error.strerror}", "choose another folder") from None
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
