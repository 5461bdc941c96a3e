"""External weight files: found by role in the cache, identified by their SHA-256."""

from __future__ import annotations

import json
from pathlib import Path

from bench import store
from bench.errors import UserError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def find(role: str) -> Path | None:
    """The local file for a role (`<cache>/weights/<role>.<suffix>`), or None."""
    folder = store.cache_root() / "weights"
    return next((folder / (role + suffix) for suffix in SUFFIXES if (folder / (role + suffix)).is_file()), None)


def require(roles: tuple[str, ...]) -> dict[str, Path]:
    """Local files for every role.

    Raises:
        UserError: one is absent; the hint says where to put it.
    """
    found = {role: find(role) for role in roles}
    for role, path in found.items():
        if path is None:
            raise UserError(
                f"weights '{role}' are not at hand", f"put the file at {store.cache_root()}/weights/{role}.pth"
            )
    return {role: path for role, path in found.items() if path is not None}


def hashes(roles: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of each role's file; part of a run's key. Read once for each size and time of change."""
    return {role: _hash(path) for role, path in require(roles).items()}


def _hash(path: Path) -> str:
    note = path.with_name(path.name + ".sha256.json")
    seen = [path.stat().st_size, path.stat().st_mtime_ns]
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        if noted["file"] == seen:
            return str(noted["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = store.sha256_file(path)
    store.write_json(note, {"file": seen, "sha256": found})
    return found
