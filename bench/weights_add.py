"""Taking a weight file into the cache: read safely, held against the role's record, copied whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench import store, weight_files, weights
from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Added:
    """What was taken.

    Attributes:
        held: tensors in the file.
        used: those that the role's network loads.
        absent: batch counters of BatchNorm that an old file lacks, as it may.
        new: whether anything was copied; a file that is there already is not.
        repo: of the hub, where it comes from there.
    """

    path: Path
    sha256: str
    held: int
    used: int
    absent: int
    new: bool
    repo: str = ""


def add(role: str, file: Path, replace: bool = False) -> Added:
    """Copy a file to where runs look for a role's weights.

    Args:
        role: of a record, or one that an experiment of an outside package names.
        replace: put it in place of another file of the role.

    Raises:
        UserError: it cannot be read safely, is another role's file, or another file is there; DiskFull.
    """
    state = weight_files.read_state(file)
    used, absent = verify(role, file, state)
    sha256 = store.sha256_file(file)
    before = [path for path in _places(role) if path.is_file()]
    if before and store.sha256_file(before[0]) == sha256:
        _remove(before[1:])
        return Added(before[0], sha256, len(state), used, absent, new=False)
    if before and not replace:
        raise UserError(f"{before[0]} is another file of '{role}'", "give --replace to put this one in its place")
    safe = weight_files.kind(file) == "safetensors"
    path = weights.folder() / (role + (".safetensors" if safe else ".pth"))
    if before:  # the old one takes the new one's name first: killed at any point, one file of the role is there
        _remove(before[1:])
        os.replace(before[0], path)
    with file.open("rb") as source:
        store.write_stream(path, lambda target: shutil.copyfileobj(source, target, 1 << 20))
    if weights.hashes((role,))[role] != sha256:
        raise UserError(f"{path}: the copy differs from {file}", "the file changed meanwhile, or a disk is failing")
    return Added(path, sha256, len(state), used, absent, new=True)


def _places(role: str) -> list[Path]:
    return [weights.folder() / (role + suffix) for suffix in weights.SUFFIXES]


def _remove(leftovers: Iterable[Path]) -> None:
    for path in leftovers:
        path.unlink()


def verify(role: str, file: Path, state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Hold a file and its tensors against the role's record.

    Returns:
        How many tensors its network loads, and how many batch counters of BatchNorm are absent, as in old files.

    Raises:
        UserError: it is another file; the hint names the role that it fits.
    """
    record = weights.record(role)
    if record is None:
        return len(state), 0
    lacking = [name for name, shape in record.has.items() if name not in state or state[name].shape != shape]
    if lacking:
        name = lacking[0]
        found = f"has shape {tuple(state[name].shape)}" if name in state else f"is not in it ({next(iter(state))} is)"
        wanted = f"'{name}' of shape {record.has[name]}"
        raise UserError(f"{file}: not the file of '{role}': {wanted} {found}", _whose(state))
    used, loads, absent = _counted(record, state)
    if record.tensors and used != loads:
        without = " without batch counters" if absent else ""
        raise UserError(f"{file}: {used} tensors for '{role}', which loads {loads}{without}", _whose(state))
    weights.check(role, file)
    return used, absent


def _counted(record: weights.Record, state: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Tensors that are loaded, those that should be, and the batch counters that are absent: all of them, or none."""
    used = [name for name in state if not name.startswith(record.left_out)]
    absent = 0 if any(name.endswith(weight_files.COUNTERS) for name in used) else record.counters
    return len(used), record.tensors - absent, absent


def _whose(state: Mapping[str, Tensor]) -> str:
    fits = [record.role for record in weights.records().values() if record.has and _fits(record, state)]
    return f"it looks like {' or '.join(fits)}" if fits else "no record of the registry fits it"


def _fits(record: weights.Record, state: Mapping[str, Tensor]) -> bool:
    used, wanted, _ = _counted(record, state)
    named = all(name in state and state[name].shape == shape for name, shape in record.has.items())
    return named and (not record.tensors or used == wanted)


# -------------------------------------------------------------------------------------------------------------- the hub
def fetch(role: str, offline: bool = False, replace: bool = False) -> Added:
    """Get a role's file from the Hugging Face hub, or from its local cache alone, and `add` it.

    HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to huggingface_hub.

    Raises:
        UserError: the hub does not have it, cannot be reached, or the local cache lacks it; the hint is the other way.
    """
    record = weights.record(role)
    by_hand = f"get it by hand: `python run_all.py weights show {role}`"
    hub = _default_of_timm(role) if role.startswith(weights.TIMM) else None
    hub = record.hub if record is not None and record.hub is not None else hub
    if hub is None:
        raise UserError(f"'{role}' is not on the hub", by_hand)
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    from huggingface_hub import hf_hub_download

    try:
        file = hf_hub_download(hub.repo, hub.file, revision=hub.revision, local_files_only=offline)
    except Exception as error:  # of the network, a proxy, the hub, a disk: the reader of the message decides
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        where = "not in the local cache of the hub" if offline else "not to be had from the hub"
        raise UserError(f"{hub.repo}/{hub.file} is {where}: {said[:200]}", by_hand) from None
    return dataclasses.replace(add(role, Path(file), replace), repo=hub.repo)


def _default_of_timm(role: str) -> weights.Hub | None:
    """Where timm itself takes the weights of a backbone from; None for a name with a tag, which says it.

    Raises:
        UserError: timm has no such network, or no weights for it.
    """
    backbone = role.removeprefix(weights.TIMM)
    if "." in backbone:
        return None
    import timm

    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.hf_hub_id:
        published = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
        raise unknown("pretrained network of timm", backbone, published)
    return weights.Hub(repo=config.hf_hub_id)
