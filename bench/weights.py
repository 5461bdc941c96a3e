"""External weight files: what is known of each role (weights.yaml), where its file lies, and whether it is that file.

A file is found by role in `<cache>/weights/`, or inside an installed package that brings it, and identified by its
SHA-256. Nothing here imports torch.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from pydantic import model_validator

from bench import store, weight_files
from bench.errors import UserError
from bench.recipe import Declared
from bench.yaml_files import parse, read_yaml

FILE = Path(__file__).with_name("weights.yaml")
TIMM = "timm-"  # begins the roles of timm's own files
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


def record(role: str) -> Record | None:
    """What is known of a role's file: its record in weights.yaml, else one made for timm's file of a backbone."""
    return records().get(role) or _of_timm(role)


def timm_role(backbone: str) -> str:
    """The role of timm's pretrained file of a backbone, in no weights.yaml: any of timm's names will do."""
    return TIMM + backbone


def _of_timm(role: str) -> Record | None:
    backbone = role.removeprefix(TIMM)
    if backbone == role or not re.fullmatch(r"\w[\w.-]*", backbone):
        return None
    tagged = "." in backbone
    repo = f"timm/{backbone}" if tagged else f"timm/{backbone}.TAG"
    untagged = (
        "The hub wants the TAG of one set of weights, as in resnet18.a1_in1k; `weights fetch` takes timm's default."
    )
    return Record(
        role=role,
        title=f"{backbone}, pretrained, as timm publishes it",
        origin=f"timm (github.com/huggingface/pytorch-image-models): huggingface.co/{repo}",
        get=(f"Download model.safetensors of https://huggingface.co/{repo}", *([] if tagged else [untagged])),
        licence="as the model's card on the hub says: it differs between sets of weights",
        size="as the model's card on the hub says",
        loads_into=f"backbone of any experiment whose method takes timm's networks, with --backbone {backbone}",
        keys="as timm names them; the classifier (head., fc. or classifier.) is left out",
        left_out=("head.", "fc.", "classifier."),
        hub=Hub(repo=repo) if tagged else None,
        fallback="the backbone from random weights",
        reserved=f"--experiment ID --backbone {backbone} starts from it wherever it is here",
    )


# -------------------------------------------------------------------------------------------------------------- finding
def folder() -> Path:
    """Where weight files lie."""
    return store.cache_root() / "weights"


def find(role: str) -> Path | None:
    """The local file for a role: `<cache>/weights/<role>.<suffix>`, else inside an installed package, or None."""
    places = [folder() / (role + suffix) for suffix in SUFFIXES]
    known = record(role)
    if known is not None and known.bundled is not None:
        places += _inside(known.bundled)
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
    known = record(role)
    again = f"see `python run_all.py weights show {role}`"
    if known is None:
        return
    size = path.stat().st_size
    if known.bytes and size != known.bytes:
        raise UserError(f"{path}: {size:,} bytes, but the file of '{role}' has {known.bytes:,}", again)
    if known.sha256 and _hash(path) != known.sha256:
        raise UserError(
            f"{path}: SHA-256 {_hash(path)[:12]}..., but the file of '{role}' has {known.sha256[:12]}...", again
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
    if record(role) is not None:
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
