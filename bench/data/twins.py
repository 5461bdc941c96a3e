"""Test images with a pixel-identical copy among the training or validation images of the same copy of a dataset.

FERPlus holds 1,840 surplus pictures; 267 of its 3,137 test images can be learnt by heart. The comparison is exact and
made on decoded pixels, so that two files with the same picture count as one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from bench import store
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.base import Dataset


def leaked(ds: Dataset) -> frozenset[str]:
    """Names of test images that have an identical copy in train or val, of any label.

    All images of the copy are compared, not only a protocol's. The answer is kept in the cache folder: the second call
    reads a small file and opens no pixels.

    Raises:
        UserError: the dataset has no fixed split, or an image cannot be read.
    """
    path = _kept_at(ds)
    try:
        return frozenset(json.loads(path.read_text(encoding="utf-8"))["leaked"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not made yet, or damaged: made again
    found = find(ds)
    store.write_json(path, {"leaked": sorted(found)})
    return found


def find(ds: Dataset) -> frozenset[str]:
    """`leaked`, compared now."""
    from bench.data.cache import open_pixels

    splits = ds.splits()
    if not splits:
        raise UserError(f"{ds.protocol.dataset} has no fixed split: no image is in test alone", "use its own protocols")
    pixels = open_pixels(ds, store.cache_root())
    rows = [row for row, name in enumerate(pixels.names) if name not in pixels.bad]
    learnt = {pixels.digests[row].tobytes() for row in rows if splits[row] != "test"}
    return frozenset(
        pixels.names[row] for row in rows if splits[row] == "test" and pixels.digests[row].tobytes() in learnt
    )


def _kept_at(ds: Dataset) -> Path:
    """Where the answer lies: another copy, other labels or other decoding have another file."""
    identity = store.canonical([ds.fingerprint(), dict(ds.decode), ds.skip_bad])
    return store.cache_root() / "twins" / f"{ds.storage}-{hashlib.sha256(identity).hexdigest()[:12]}.json"
