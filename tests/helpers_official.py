"""Small synthetic trees in official layouts, for the tests that need them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bench.data.official import LAYOUTS, affectnet_a, affectnet_b, ckplus, ferplus, rafdb, writer


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Trees of a few dozen pictures, in several blocks."""
    for module in (rafdb, ferplus):
        patch.setattr(module, "SMALL", 0.002)
    for module in (affectnet_a, affectnet_b):
        patch.setattr(module, "SMALL", {"train": 0.0002, "test": 0.004})
    patch.setattr(ckplus, "SMALL", 0.01)
    for module in (rafdb, ferplus, affectnet_a, affectnet_b):
        patch.setattr(module, "BLOCK", 24)
    patch.setattr(ckplus, "BLOCK", 3)


def write_all(base: Path) -> dict[str, Path]:
    """One small tree of each layout."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        for layout in LAYOUTS:
            writer.write(layout, base / layout, jobs=1)
    return {layout: base / layout for layout in LAYOUTS}


def contents(root: Path) -> dict[str, str]:
    """Hash of every file."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
