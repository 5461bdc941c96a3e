"""Opening a Hugging Face dataset, local or on the hub, and finding its columns by their features."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import store
from bench.data.classes import ORDERS
from bench.data.hub.exporting import RECORD
from bench.errors import UserError, unknown

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
LABELS = ("label", "labels", "emotion", "expression", "class", "category", "target")
NAMES = ("name", "file_name", "filename", "image_name", "image_id", "path", "file", "id")
WITHOUT_NETWORK = (
    "where there is a network, `hf download --repo-type dataset {0} --local-dir DIR` fetches it; "
    "then give DIR instead of {0}"
)


@dataclass(frozen=True)
class Opened:
    """A dataset that is ready to be read row by row, images as bytes.

    Attributes:
        splits: name in the source -> rows (image: {bytes, path}).
        features: column -> its `datasets` feature.
        about: where it came from, for source.json.
        record: what `data export` wrote beside it; empty for other datasets.
    """

    splits: Mapping[str, Iterable[dict[str, Any]]]
    features: Mapping[str, Any]
    about: dict[str, Any]
    record: dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """Which columns mean what.

    Attributes:
        names: class of each label number; empty where labels are words.
        others: further columns of plain values, kept in the list.
    """

    image: str
    label: str
    names: tuple[str, ...]
    name: str
    others: tuple[str, ...]


def open_source(where: str, config: str | None = None, revision: str | None = None) -> Opened:
    """Open a folder of a dataset repository, a folder of `save_to_disk`, or `owner/name` on the hub.

    Nothing is copied: rows are streamed. Local folders are read without network and leave nothing in the user's caches.

    Raises:
        UserError: there is nothing to read, it has several configurations, or the hub cannot be reached.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        splits = _load_saved(path) if saved else _load(str(path), where, config, None, offline=True)
        about = {"source": where, "kind": "saved to disk" if saved else "local folder", "config": config or ""}
        return _opened(splits, about, _record(path / RECORD))
    if path.exists() or not REPOSITORY.fullmatch(where):
        raise UserError(f"{where} is neither a folder nor owner/name on the hub", "give the folder of a dataset")
    if path.parent.is_dir():
        hint = f"if it is on the hub, call from a folder that holds no '{path.parent}'"
        raise UserError(f"{where} is not there, though {path.parent}/ is a folder", hint)
    splits = _load(where, where, config, revision, offline=False)
    about = {"source": where, "kind": "hub", "config": config or "", "revision": _revision(where, revision)}
    return _opened(splits, about, _hub_record(where, revision))


def find_columns(features: Mapping[str, Any], image: str = "", label: str = "", classes: Sequence[str] = ()) -> Columns:
    """Image and label columns by their features; the arguments decide where there are several.

    Args:
        classes: names of the numbers 0, 1, ... of a label column without names, or the name of one known order.

    Raises:
        UserError: there is none, or several; lists the columns.
    """
    kinds = {name: _kind(feature) for name, feature in features.items()}
    image = _one("image", "--image", image, [name for name, kind in kinds.items() if kind == "Image"], kinds)
    named = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    plain = [name for name in features if name.lower() in LABELS and kinds[name].startswith(("string", "int", "uint"))]
    label = _one("label", "--label", label, named or plain, kinds)
    if kinds[label] == "ClassLabel":
        names = tuple(features[label].names)
    elif kinds[label].startswith(("string", "large_string")):
        names = ()
    else:
        names = _numbered(label, classes)
    name = next((word for word in NAMES if kinds.get(word, "").startswith("string")), "")
    others = [c for c, kind in kinds.items() if c not in (image, label, name) and kind[0].islower() and kind != "list"]
    return Columns(image, label, names, name, tuple(others))


def _numbered(label: str, classes: Sequence[str]) -> tuple[str, ...]:
    if len(classes) == 1 and classes[0] in ORDERS:
        return ORDERS[classes[0]]
    if len(classes) == 1:
        raise unknown("class order", classes[0], ORDERS)
    if not classes:
        message = f"column '{label}' holds numbers without names"
        raise UserError(message, f"give --classes NAME NAME ... from number 0 on, or one of {', '.join(ORDERS)}")
    return tuple(classes)


def _one(what: str, option: str, asked: str, found: Sequence[str], kinds: Mapping[str, str]) -> str:
    if asked:
        if asked not in kinds:
            raise unknown("column", asked, kinds)
        return asked
    if len(found) == 1:
        return found[0]
    columns = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    several = f"several {what} columns: {', '.join(found)}" if found else f"no {what} column"
    raise UserError(f"{several}; the columns are {columns}", f"name one with {option}")


def _kind(feature: Any) -> str:
    """Image, ClassLabel, a dtype such as int64, or `list` for anything nested."""
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else kind if kind in ("Image", "ClassLabel") else "list"


# ------------------------------------------------------------------------------------------------------------ opening
@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _library(offline: bool) -> Any:
    """The `datasets` library, which reads its settings when it is first imported; torch would cost it 400 MB."""
    more = {"HF_HUB_OFFLINE": "1"} if offline else {}
    with _environment(HF_HUB_DISABLE_TELEMETRY="1", USE_TORCH="NO", USE_TF="NO", USE_JAX="NO", **more):
        import datasets
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    return datasets


def _load(path: str, where: str, config: str | None, revision: str | None, offline: bool) -> Any:
    library = _library(offline)
    cache = str(store.cache_root() / "huggingface")
    try:
        return library.load_dataset(path, config, revision=revision, streaming=True, cache_dir=cache)
    except Exception as error:  # the library raises whatever its builders and the network do
        raise _explained(where, error, offline) from None


def _load_saved(path: Path) -> Any:
    library = _library(offline=True)
    try:
        return library.load_from_disk(str(path))
    except Exception as error:  # as above
        raise UserError(
            f"{path}: {_first_line(error)}", "it was not written whole by save_to_disk; save it again"
        ) from None


def _explained(where: str, error: Exception, offline: bool) -> UserError:
    text = _first_line(error)
    if isinstance(error, ValueError) and "onfig" in text:
        return UserError(f"{where}: {text}", "name one with --config")
    if offline:
        return UserError(f"{where}: {text}", "expected parquet files, or folders of images")
    if isinstance(error, ConnectionError) or "reach" in text or "connection" in text.lower():
        return UserError(f"{where} cannot be fetched: {text}", WITHOUT_NETWORK.format(where))
    hint = "check its name; for a gated one accept its terms on the hub and log in with `hf auth login`"
    return UserError(f"{where}: {text}", f"{hint}. Else {WITHOUT_NETWORK.format(where)}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0]} {lines[1].strip() if len(lines) > 1 else ''}".strip() if lines else type(error).__name__


def _opened(splits: Any, about: dict[str, Any], record: dict[str, Any]) -> Opened:
    """Images as stored bytes, whatever kind of dataset it is."""
    library = _library(offline=True)
    found = dict(splits) if isinstance(splits, dict) else {str(splits.split or "train"): splits}
    features = dict(next(iter(found.values())).features or {})
    images = [name for name, feature in features.items() if _kind(feature) == "Image"]
    for split, rows in found.items():
        for name in images:
            rows = rows.cast_column(name, library.Image(decode=False))
        found[split] = rows
    about["features"] = {name: repr(feature) for name, feature in features.items()}
    about["datasets"] = library.__version__
    return Opened(found, features, about, record)


def _record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) and "manifest_sha256" in found else {}
    except ValueError:
        raise UserError(f"{path} is damaged", "export the protocol again, or remove the file") from None


def _hub_record(where: str, revision: str | None) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    try:
        return _record(Path(hf_hub_download(where, RECORD, repo_type="dataset", revision=revision)))
    except UserError:
        raise
    except Exception:  # no such file: a dataset that others made
        return {}


def _revision(where: str, revision: str | None) -> str:
    """The commit that is read; what was asked for, where the hub does not say."""
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(where, revision=revision).sha)
    except Exception:  # it has been opened: this is only for the record
        return revision or ""
