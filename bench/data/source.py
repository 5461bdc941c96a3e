"""From a protocol to arrays: which copy on disk, which rows, which pixels, and one hash over all of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry, store
from bench.declare import Protocol
from bench.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from bench.data.base import Dataset


@dataclass(frozen=True)
class Data:
    """One protocol's data, ready to train on.

    Attributes:
        index: name, label, split, ... with a fresh RangeIndex.
        pixels: uint8 memory map of the whole dataset, (N, H, W) or (N, H, W, 3).
        rows: position of each index row in `pixels`.
        hash: over names, labels, splits and pixels; part of every run's key.
    """

    index: pd.DataFrame
    pixels: np.ndarray
    rows: np.ndarray
    hash: str


def data_root(configured: str | None) -> Path | None:
    """The data root of `--data-root` or FERBENCH_DATA; None when neither is set."""
    value = configured or os.environ.get("FERBENCH_DATA")
    if not value:
        return None
    root = Path(value).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: the data root is not a folder", "correct --data-root or FERBENCH_DATA")
    return root


def locate(protocol: Protocol, root: Path | None) -> Dataset:
    """The dataset adapter for a protocol, opened on the copy under the data root.

    Raises:
        UserError: no adapter, no data root, or no such dataset below it; the hint says how to unblock.
    """
    return _opener(protocol, root)()


def check(protocol: Protocol, root: Path | None) -> None:
    """Raise what `locate` would raise, without opening the dataset (a synthetic one needs nothing but its adapter)."""
    _opener(protocol, root)


def _opener(protocol: Protocol, root: Path | None) -> Callable[[], Dataset]:
    if protocol.dataset not in registry.available("dataset"):
        raise UserError(f"no adapter for dataset '{protocol.dataset}' yet", protocol.access)
    registered = registry.find("dataset", protocol.dataset)
    if protocol.synthetic:
        return lambda: registered.load()(None, protocol)  # type: ignore[no-any-return]
    if root is None:
        raise UserError(
            f"{protocol.dataset}: no data root", f"set FERBENCH_DATA or --data-root. {protocol.access}".strip()
        )
    from bench.data.base import find_dataset, why_not_found

    adapter = registered.load()
    found = find_dataset(root, adapter)
    if found is None:
        raise UserError(
            f"{protocol.dataset}: not found under {root}. {why_not_found(root, adapter)}".strip(), protocol.access
        )
    opened: Dataset = adapter(found, protocol)
    stop = opened.blocked(protocol)
    if stop is not None:
        raise stop
    return lambda: opened


def open_data(protocol: Protocol, root: Path | None) -> Data:
    """Index a protocol and open its decode-once cache, building it where needed."""
    from bench.data.cache import open_pixels

    dataset = locate(protocol, root)
    index = dataset.index(protocol).reset_index(drop=True)
    pixels = open_pixels(dataset, store.cache_root())
    found = Data(index, pixels.array, pixels.rows(index["name"].tolist()), _hash(index, pixels.sha256))
    store.write_json(_manifest_path(protocol, dataset), {"hash": found.hash, "train": training_counts(index, protocol)})
    return found


def known_manifest(protocol: Protocol, root: Path | None) -> dict[str, Any] | None:
    """Hash and training-set sizes of a protocol read before from this copy; None when it has to be read first."""
    path = _manifest_path(protocol, locate(protocol, root))
    if not path.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return manifest


def splits_of(index: pd.DataFrame, protocol: Protocol, fold: int) -> dict[str, np.ndarray]:
    """Row numbers of train, test and, where there is one, val; with folds, `fold` is the test part."""
    import numpy as np

    if protocol.folds:
        held_out = (index["fold"] == fold).to_numpy()
        return {"train": np.flatnonzero(~held_out), "test": np.flatnonzero(held_out)}
    split = index["split"].to_numpy()
    found = {name: np.flatnonzero(split == name) for name in ("train", "val", "test")}
    return {name: rows for name, rows in found.items() if len(rows)}


def training_counts(index: pd.DataFrame, protocol: Protocol) -> list[int]:
    """Training images of each fold (one number where the split is fixed); the plan's time estimate uses it."""
    return [len(splits_of(index, protocol, fold).get("train", ())) for fold in range(max(1, protocol.folds))]


def _hash(index: pd.DataFrame, pixels_sha256: str) -> str:
    columns = [column for column in ("name", "label", "split", "fold") if column in index]
    lines = sorted("\t".join(map(str, row)) for row in index[columns].itertuples(index=False))
    return hashlib.sha256("\n".join([*lines, pixels_sha256]).encode()).hexdigest()[:16]


def _manifest_path(protocol: Protocol, dataset: Dataset) -> Path:
    # the adapter's version and the protocol's own declaration decide what an index holds
    version = registry.find("dataset", protocol.dataset).version
    text = store.canonical([protocol.model_dump(), version, dataset.fingerprint()])
    name = f"{protocol.id.replace('/', '_')}-{hashlib.sha256(text).hexdigest()[:12]}.json"
    return store.cache_root() / "manifests" / name
