"""External weight files: what is known of each role (weights.yaml), where its file lies, and whether it is that file.

A file is found by role in `<cache>/weights/`, or inside an installed package that brings it, and identified by its
SHA-256. Nothing here imports torch.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from pydantic import model_validator

from bench import store, weight_files
from bench.errors import UserError
from bench.recipe import Declared
from bench.yaml_files import parse, read_yaml

FILE = Path(__file__).with_name("weights.yaml")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class Hub(Declared):
    """A file on the Hugging Face hub."""

    repo: str
    file: str = "model.safetensors"
    revision: str = "main"


class Bundled(Declared):
    """A file inside an installed package; found without importing it."""

    package: str
    file: str


class Record(Declared):
    """What is known of one external file; the fields are explained at the top of weights.yaml.

    Attributes:
        bytes, sha256, tensors: of exactly one file; zero or empty where it is not known, or where several will do.
        counters: of those tensors, BatchNorm's batch counters, which an old file may lack.
        classes: of a whole classifier, in the order of its outputs.
        dataset: what that classifier was trained on.
    """

    role: str
    title: str
    origin: str
    get: tuple[str, ...]
    licence: str
    size: str
    bytes: int = 0
    sha256: str = ""
    loads_into: str
    keys: str
    left_out: tuple[str, ...] = ()
    tensors: int = 0
    counters: int = 0
    has: dict[str, tuple[int, ...]] = {}  # noqa: RUF012  # pydantic copies it
    classes: tuple[str, ...] = ()
    dataset: str = ""
    hub: Hub | None = None
    bundled: Bundled | None = None
    fallback: str = ""
    reserved: str = ""


class _File(Declared):
    weights: tuple[Record, ...]

    @model_validator(mode="after")
    def _once(self) -> _File:
        roles = [record.role for record in self.weights]
        twice = sorted({role for role in roles if roles.count(role) > 1})
        if twice:
            raise ValueError(f"role '{twice[0]}' is given twice")
        return self


@lru_cache(maxsize=1)
def records() -> dict[str, Record]:
    """Role -> what is known of its file, in the order of weights.yaml."""
    found: _File = parse(_File, read_yaml(FILE), FILE)
    return {record.role: record for record in found.weights}


# -------------------------------------------------------------------------------------------------------------- finding
def folder() -> Path:
    """Where weight files lie."""
    return store.cache_root() / "weights"


def find(role: str) -> Path | None:
    """The local file for a role: `<cache>/weights/<role>.<suffix>`, else inside an installed package, or None."""
    places = [folder() / (role + suffix) for suffix in SUFFIXES]
    record = records().get(role)
    if record is not None and record.bundled is not None:
        places += _inside(record.bundled)
    return next((place for place in places if place.is_file()), None)


def _inside(bundled: Bundled) -> list[Path]:
    spec = importlib.util.find_spec(bundled.package)
    return [Path(place) / bundled.file for place in (spec.submodule_search_locations or ())] if spec is not None else []


def check(role: str, path: Path) -> None:
    """Whether a file can be what a role asks for, as far as can be told without reading its tensors.

    Raises:
        UserError: no whole weight file (see `weight_files.kind`), or another size or SHA-256 than the role's.
    """
    weight_files.kind(path)
    record = records().get(role)
    again = f"see `python run_all.py weights show {role}`"
    if record is None:
        return
    size = path.stat().st_size
    if record.bytes and size != record.bytes:
        raise UserError(f"{path}: {size:,} bytes, but the file of '{role}' has {record.bytes:,}", again)
    if record.sha256 and _hash(path) != record.sha256:
        raise UserError(
            f"{path}: SHA-256 {_hash(path)[:12]}..., but the file of '{role}' has {record.sha256[:12]}...", again
        )


def require(roles: Collection[str]) -> dict[str, Path]:
    """Local files for every role, each checked as far as its record allows.

    Raises:
        UserError: one is absent or not the file it should be; the hint names the command that says how to get it.
    """
    found = {}
    for role in roles:
        path = find(role)
        if path is None:
            raise UserError(f"weights '{role}' are not at hand", _way(role))
        check(role, path)
        found[role] = path
    return found


def _way(role: str) -> str:
    if role in records():
        return f"python run_all.py weights show {role}"
    return f"put the file at {folder()}/{role}.pth"


def hashes(roles: Collection[str]) -> dict[str, str]:
    """SHA-256 of each role's file; part of a run's key. Read once for each size and time of change."""
    return {role: _hash(path) for role, path in require(roles).items()}


def _hash(path: Path) -> str:
    note = folder() / (path.name + ".sha256.json")  # in the cache even for a file inside a package
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
