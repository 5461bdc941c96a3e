"""What a run leaves, and how it is written: whole or not at all.

A run folder `<cache>/runs/<key>/` holds
    result.json                     the typed record below; written last, so its presence means "done"
    predictions-<selection>.parquet name, label, epoch, p_<class>...: the only source of metrics
    manifest.json                   where, when and with what it was made
    model.safetensors               weights after the last epoch; of a stage, its product
    checkpoint-a / checkpoint-b     only while running (bench/checkpoints.py)
    error.txt                       traceback of the last failure
Runs on real data are also kept, without weights, under `<results>/runs/<key>/`.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.declare import SELECTIONS as SELECTIONS
from bench.declare import TRAINED_SELECTIONS as TRAINED_SELECTIONS
from bench.errors import UserError

SCHEMA_VERSION = 1
NETWORK = "model.safetensors"
CHECKPOINT_SLOTS = ("checkpoint-a", "checkpoint-b")


class DiskFull(UserError):
    """A file could not be written for lack of space."""


class Selected(BaseModel):
    """One selection of a run: which epochs, and the file that holds their predictions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: tuple[int, ...]  # 1-based; 0 for weights that were trained elsewhere
    file: str
    sha256: str


class Result(BaseModel):
    """result.json, schema version 1. Times are seconds, memory is MiB, rates are training images per second.

    A stage that does not classify has no selections. Where weights trained elsewhere were evaluated, the recipe's
    training took no part: `seconds` and `images_per_second` are those of the evaluation, the one epoch is 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    run: str
    experiment: str
    method: str
    backbone: str
    pretraining: str
    augmentation: str
    options: dict[str, Any]
    protocol: str
    classes: tuple[str, ...]
    profile: str
    synthetic: bool
    seed: int
    fold: int
    recipe: dict[str, Any]
    selections: dict[str, Selected]
    history: list[dict[str, float]]
    seconds: float
    images_per_second: float
    peak_memory_mb: float
    parameters: int
    trainable_parameters: int
    macs: int
    device: str
    versions: dict[str, str]
    commit: str
    data_hash: str
    finished: str
    preprocessing: str = ""  # "name#hash" of all that was done to the images; manifest.json has the settings
    skipped: int = 0  # images, or rows of label files, left out with --skip-bad
    stages: dict[str, str] = {}  # role -> key of the run whose network filled it
    checkpoint: str = ""  # SHA-256 of the weights that were evaluated in place of training
    network_sha256: str = ""  # of model.safetensors; empty where an earlier version wrote it
    departures: tuple[str, ...] = ()  # why what was trained on is not the published benchmark, in words


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or leave what was there: temp file in the same folder, fsync, os.replace."""
    _replace(path, lambda stream: stream.write(data))


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` for JSON with sorted keys, so that files differ only where contents do."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def write_stream(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_bytes` for content produced by a writer function (parquet, images)."""
    _replace(path, write)


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space, or point FERBENCH_CACHE / --results at another disk; finished runs are kept"
            raise DiskFull(f"{path}: the disk is full", hint) from None
        raise


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file as dicts of text; empty when there is none yet.

    Raises:
        UserError: a row with too few or too many fields, or text that is not UTF-8; names file and row.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows: list[dict[Any, Any]] = list(csv.DictReader(stream))
    except UnicodeDecodeError:
        lines = enumerate(path.read_bytes().splitlines(), start=1)
        number = next(n for n, line in lines if not _is_utf8(line))
        hint = "save it as UTF-8 (a spreadsheet calls that 'CSV UTF-8'), or restore the file"
        raise UserError(f"{path}, line {number}: not UTF-8 text", hint) from None
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UserError(f"{path}, row {number}: not as many fields as the header", "correct or remove the row")
    return rows


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical(value: Any) -> bytes:
    """The one JSON spelling of a value that keys and hashes are made of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def cache_root() -> Path:
    """Caches and checkpoints: FERBENCH_CACHE, else the user's cache folder."""
    configured = os.environ.get("FERBENCH_CACHE")
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ferbench"


def results_folder(base: str | Path, profile: str) -> Path:
    """Where a profile's results go: synthetic ones into a folder of their own, never mixed with real ones."""
    if Path(base).exists() and not Path(base).is_dir():
        raise UserError(f"{base}: the results folder is a file", "give --results a folder")
    return Path(base) / "quick" if profile == "quick" else Path(base)


def results_base(folder: Path, profile: str) -> Path:
    """The folder that `results_folder` was given: for what is the same under every profile."""
    return folder.parent if profile == "quick" else folder


def run_folder(key: str) -> Path:
    """The working folder of a run."""
    return cache_root() / "runs" / key


def find_result(key: str, results: Path) -> Path | None:
    """The folder that holds the finished run `key`: the cache, else the kept reference runs; None when not done."""
    return next((folder for folder in _folders(key, results) if (folder / "result.json").is_file()), None)


def find_network(key: str) -> Path | None:
    """The folder in the cache that holds the finished run `key` with its network; None when either is not there."""
    folder = run_folder(key)
    return folder if all((folder / name).is_file() for name in ("result.json", NETWORK)) else None


def set_aside_damaged(key: str, results: Path, network: bool = False) -> list[str]:
    """Check every file of a finished run against its hash; a damaged copy no longer counts as done.

    Args:
        network: also check the network in the cache, which other runs need; a run without predictions is its network.

    Returns:
        What was found wrong, one message for each damaged copy; empty when all is well.
    """
    wrong = []
    for folder in _folders(key, results):
        if not (folder / "result.json").is_file():
            continue
        try:
            result = read_result(folder, verify=True)
            if folder == run_folder(key) and (network or not result.selections):
                read_network(folder, result)
        except UserError as error:
            wrong.append(error.message)
            os.replace(folder / "result.json", folder / "result.damaged.json")
    return wrong


def read_network(folder: Path, result: Result) -> str:
    """SHA-256 of a finished run's network.

    Raises:
        UserError: it is not what the run wrote; names the file.
    """
    file = folder / NETWORK
    if not file.is_file():
        raise UserError(f"{file}: missing", "run again: it is trained again")
    found = sha256_file(file)
    if found != result.network_sha256:
        raise UserError(f"{file}: damaged (SHA-256 differs from result.json)", "run again: it is trained again")
    return found


def _folders(key: str, results: Path) -> tuple[Path, Path]:
    return run_folder(key), results / "runs" / key


def read_result(folder: Path, verify: bool = False) -> Result:
    """Read a finished run.

    Args:
        folder: a run folder.
        verify: also check the SHA-256 of every predictions file.

    Raises:
        UserError: damaged or incomplete; names the file.
    """
    path = folder / "result.json"
    hint = f"delete {folder} (or pass --force) and run again"
    try:
        result = Result.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{path}: damaged result ({str(error).splitlines()[0]})", hint) from None
    for selected in result.selections.values():
        file = folder / selected.file
        if not file.is_file():
            raise UserError(f"{file}: missing, though result.json names it", hint)
        if verify and sha256_file(file) != selected.sha256:
            raise UserError(f"{file}: damaged (SHA-256 differs from result.json)", hint)
    return result
