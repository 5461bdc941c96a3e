"""Reading weight files of others: told apart by content, never run, every tensor accounted for.

`kind` looks at the first bytes and the table of contents only and needs no torch; `read_state` reads the tensors;
`load_strict` puts them into a network or says which do not fit.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import shlex
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

Kind = Literal["safetensors", "zip", "pickle", "unknown"]
# Where trainers put the network's tensors beside epoch, optimizer and arguments; the first one present is taken.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net")
PARALLEL = "module."  # what DataParallel and DistributedDataParallel put in front of every name
COUNTERS = "num_batches_tracked"  # of BatchNorm: absent in files older than PyTorch 0.4.1, and nothing reads them
AGAIN = "get it again; `python run_all.py weights show ROLE` says from where"
SHOWN = 4  # names listed for each problem

_HEAD = 1024
_PAGE = (b"<!doctype", b"<html", b"<head", b"<body", b"<script", b"<meta", b"<!--", b"<?xml")
_ARCHIVES = {b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_ATTACKS = {
    "posix", "nt", "os", "sys", "subprocess", "shutil", "socket", "runpy", "importlib", "webbrowser",
    "eval", "exec", "compile", "open", "__import__",
}  # fmt: skip
_NUMBERS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip
_CONVERT = """whoever trusts it can convert it in an environment made for that (this runs its code):
     python -c "import torch, sys; from safetensors.torch import save_file; \
x = torch.load(sys.argv[1], map_location='cpu', weights_only=False); \
x = x.state_dict() if hasattr(x, 'state_dict') else x.get('state_dict', x.get('model', x)); \
save_file({{k: v.clone() for k, v in x.items()}}, sys.argv[2])" {} {}"""


# ---------------------------------------------------------------------------------------------------------- recognising
def kind(path: Path) -> Kind:
    """What a file is by its content; `unknown` when nothing tells.

    Raises:
        UserError: it cannot be read, or is surely no whole weight file: empty, a web page, a Git-LFS pointer, an
            archive, a TorchScript program, cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise UserError(
            f"{path}: no such weights file ({error.strerror})", "give the path of an existing file"
        ) from None
    if not size:
        raise UserError(f"{path}: the file is empty", AGAIN)
    start = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower()  # of UTF-8, or of UTF-16
    if start.startswith(_PAGE):
        raise UserError(
            f"{path}: this is a web page, not weights",
            "large files of Google Drive first show a page that asks for confirmation: open the link in a browser, "
            "press download there, and save the file itself",
        )
    if start.startswith(b"version https://git-lfs"):
        wanted = re.search(rb"size (\d+)", head)
        told = f" of a file of {int(wanted[1]):,} bytes" if wanted else ""
        raise UserError(
            f"{path}: this is a Git-LFS pointer{told}, not the file",
            "run `git lfs pull` in its repository and add that",
        )
    archive = next((name for mark, name in _ARCHIVES.items() if head.startswith(mark)), "")
    if archive or head[257:262] == b"ustar":
        message = f"{path}: this is a {archive or 'tar'} archive"
        raise UserError(
            message, "unpack it and give the weights file in it; if it is one of PyTorch before 0.1.10, convert it"
        )
    if head.startswith(b"PK"):
        return _zip(path)
    if head[8:9] == b"{":
        return _safetensors(path, head, size)
    return "pickle" if head[:1] == b"\x80" and head[1:2] <= b"\x05" else "unknown"


def _convert(path: Path) -> str:
    return _CONVERT.format(shlex.quote(str(path)), shlex.quote(str(path.with_suffix(".safetensors"))))


def _zip(path: Path) -> Kind:
    """PyTorch's own format since 1.6 is a zip with a data.pkl in one folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise UserError(f"{path}: the file is cut off (a zip without its table of contents)", AGAIN) from None
    inside = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in inside:
        raise UserError(f"{path}: this is a TorchScript program, it holds code", _convert(path))
    if "data.pkl" not in inside:
        what = "NumPy arrays" if any(name.endswith(".npy") for name in names) else ", ".join(names[:SHOWN])
        raise UserError(
            f"{path}: this is a zip archive of {what}, not a PyTorch file", "unpack it and give the weights file"
        )
    return "zip"


def _safetensors(path: Path, head: bytes, size: int) -> Kind:
    """Eight bytes of length, a JSON table that says where each tensor ends, the tensors."""
    length = int.from_bytes(head[:8], "little")
    if length > 100_000_000:  # the format's own limit
        return "unknown"
    with path.open("rb") as stream:
        stream.seek(8)
        text = stream.read(length)
    try:
        table = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"]
        whole = size == 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(f"{path}: the file is cut off or damaged (its table of tensors does not fit its size)", AGAIN)
    return "safetensors"


# -------------------------------------------------------------------------------------------------------------- reading
def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, without the wrapping of a trainer and without DataParallel's prefix.

    Epoch numbers, optimizer states, `argparse.Namespace` and NumPy scalars beside the network are read and dropped.

    Raises:
        UserError: no whole weight file (see `kind`), a damaged one as far as its format can tell, a pickle that asks
            for code, no tensors in it, or one that is not finite.
    """
    form = kind(path)
    if form == "unknown":
        raise UserError(f"{path}: neither a safetensors nor a PyTorch file", AGAIN)
    if form == "zip":
        _check_sums(path)
    state = _network(path, _read_safetensors(path) if form == "safetensors" else _read_pickle(path))
    _check_finite(path, state)
    return state


def _check_sums(path: Path) -> None:
    """Compare every part of a zip with its CRC, which PyTorch's reader does not; 0.05 s for 120 MB."""
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(part.CRC for part in archive.infolist()):
                return  # torch.serialization.set_crc32_options(False) writes zeros
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, OSError) as error:  # RuntimeError: encrypted
        damaged = str(error)
    if damaged:
        raise UserError(f"{path}: the file is damaged (its CRC does not fit {damaged})", AGAIN)


def _check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    import torch

    for name, value in state.items():
        if value.is_meta or value.layout is not torch.strided:
            raise UserError(f"{path}: tensor '{name}' holds no plain numbers (it is sparse or without data)", AGAIN)
        if value.is_floating_point() and value.dtype.itemsize > 1 and not value.isfinite().all():
            message = f"{path}: tensor '{name}' holds NaN or infinity: a damaged file, or training that diverged"
            raise UserError(message, AGAIN)


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file that can be read: {error}", AGAIN) from None
    return tensors


def _read_pickle(path: Path) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from None
    except Exception as error:  # whatever a damaged or hostile file provokes in the reader
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: the file is cut off or damaged ({problem[:160]})", AGAIN) from None


def _refusal(path: Path, said: str) -> UserError:
    """What PyTorch's restricted reader would not do, in words."""
    wanted = re.search(r"GLOBAL (\S+)", said)
    if wanted and wanted[1].partition(".")[0] in _ATTACKS:
        message = f"{path}: reading it would call '{wanted[1]}', which no weights need; nothing of it was run"
        return UserError(message, "do not open it with other tools: delete it, and tell those you have it from")
    if wanted:
        return UserError(f"{path}: reading it would call '{wanted[1]}', code that is not run here", _convert(path))
    problem = re.search(r"WeightsUnpickler error:\s*(.+)", said)
    told = problem[1].strip() if problem else "not PyTorch's pickle"
    return UserError(f"{path}: cannot be read without running code ({told})", _convert(path))


def _harmless() -> list[Any]:
    """What common trainers save beside tensors, on top of what PyTorch allows; each only holds plain values.

    argparse.Namespace (the training arguments), and NumPy scalars (a best accuracy) with the dtypes they name.
    """
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    numbers = [type(np.dtype(code)) for code in _NUMBERS]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")  # NumPy 2, NumPy 1
    return [argparse.Namespace, np.dtype, *numbers, *((scalar, name) for name in names)]


def _network(path: Path, content: Any) -> dict[str, Tensor]:
    """The network's tensors inside what a file holds."""
    from torch import Tensor

    while isinstance(content, Mapping):
        wrapper = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    named = content if isinstance(content, Mapping) else {}
    state = {name: value for name, value in named.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        holds = ", ".join(map(str, list(named)[:SHOWN])) or f"a {type(content).__name__}"
        raise UserError(
            f"{path}: holds no tensors by name (it holds {holds})", "give a file with a network's state_dict"
        )
    while all(name.startswith(PARALLEL) for name in state):
        state = {name.removeprefix(PARALLEL): value for name, value in state.items()}
    return state


# -------------------------------------------------------------------------------------------------------------- loading
def load_strict(net: nn.Module, state: Mapping[str, Tensor], what: str, ignore: Sequence[str] = ()) -> int:
    """Load every tensor of `state`, or nothing at all.

    Args:
        what: the file and its role, for the message.
        ignore: beginnings of names that are neither loaded nor missed, e.g. "fc." for another classifier.

    Returns:
        How many tensors were loaded. BatchNorm's batch counters are not missed when the file has none.

    Raises:
        UserError: tensors that are missing, left over or of another shape; lists the first of each with the counts.
    """
    skipped = tuple(ignore)
    own = {name: value for name, value in net.state_dict().items() if not name.startswith(skipped)}
    given = {name: value for name, value in state.items() if not name.startswith(skipped)}
    matched = own.keys() & given.keys()
    problems = {
        "missing": [name for name in own if name not in given and not name.endswith(COUNTERS)],
        "left over": [name for name in given if name not in own],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own if name in matched and given[name].shape != own[name].shape
        ],
    }  # fmt: skip
    if not matched:
        names = f"it has {_first(given) or 'nothing'}, the network {_first(own)}"
        raise UserError(f"{what}: no tensor has a name of the network; {names}", "this is another network's file")
    if any(problems.values()):
        told = "; ".join(f"{len(names)} {problem}: {_first(names)}" for problem, names in problems.items() if names)
        raise UserError(
            f"{what}: does not fit the network, {len(own)} tensors. {told}",
            "give the file of this very network and size",
        )
    net.load_state_dict({name: given[name] for name in matched}, strict=False)
    return len(matched)


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")
