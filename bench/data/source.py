"""From a protocol to arrays: which copy on disk, which rows, which pixels, and one hash over all of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
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
        hash: over names, labels, splits, pixels and, where there are some, targets; part of every run's key.
        skipped: image, or file and row -> why it was left out (only where that was asked for).
        preprocessing: name and settings of the profile that made the pixels; empty where they are as published.
        departures: why this copy is not the published one; empty where it is.
        folder: name of the copy's folder, without the path to it; empty where images are made.
        targets: float32 (N, ...) or int64 (N,), for each index row what a stage learns; None where that is the class.
        pixels_sha256: of the bytes of `pixels`.
        votes_hash: over the raters' votes on training images, part of the key of runs that read them; empty where the
            dataset has none.
    """

    index: pd.DataFrame
    pixels: np.ndarray
    rows: np.ndarray
    hash: str
    skipped: dict[str, str] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    departures: tuple[str, ...] = ()
    folder: str = ""
    targets: np.ndarray | None = None
    pixels_sha256: str = ""
    votes_hash: str = ""


def data_root(configured: str | None) -> Path | None:
    """The data root of `--data-root` or FERBENCH_DATA; None when neither is set."""
    value = configured or os.environ.get("FERBENCH_DATA")
    if not value:
        return None
    root = Path(value).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: the data root is not a folder", "correct --data-root or FERBENCH_DATA")
    return root


class Copies:
    """The copies under one data root, each looked for once: a plan asks for every protocol of a dataset."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._folders: dict[type[Dataset], list[Path]] = {}
        self._opened: dict[tuple[str, bool, str], Dataset] = {}

    def open(
        self, protocol: Protocol, skip_bad: bool = False, preprocessing: str = "", synthetic_ok: bool = False
    ) -> Dataset:
        """As `locate`."""
        place = (protocol.id, skip_bad, preprocessing)
        if place not in self._opened:
            self._opened[place] = self._open(protocol, skip_bad, preprocessing, synthetic_ok)
        return self._opened[place]

    def check(self, protocol: Protocol, skip_bad: bool = False, preprocessing: str = "") -> None:
        """Raise what `open` would raise; a synthetic dataset needs nothing but its adapter, which is not imported."""
        if protocol.synthetic:
            _registered(protocol)
        else:
            self.open(protocol, skip_bad, preprocessing)

    def _open(self, protocol: Protocol, skip_bad: bool, preprocessing: str, synthetic_ok: bool) -> Dataset:
        registered = _registered(protocol)
        if protocol.synthetic:
            return registered.load()(None, protocol)  # type: ignore[no-any-return]
        if self.root is None:
            hint = f"set FERBENCH_DATA or --data-root. {protocol.access}".strip()
            raise UserError(f"{protocol.dataset}: no data root", hint)
        from bench.data.base import find_copies, why_not_found

        adapter = registered.load()
        if adapter not in self._folders:
            self._folders[adapter] = find_copies(self.root, adapter)
        stops: list[UserError] = []
        # the first copy that can serve: both releases of AffectNet may lie under one root
        for folder in self._folders[adapter]:
            if adapter.serves(folder, protocol):
                try:
                    return self._copy(adapter, folder, protocol, skip_bad, preprocessing, synthetic_ok)
                except UserError as error:
                    stops.append(error)
        if stops:
            raise stops[0]
        near = " ".join(why_not_found(self.root, adapter))
        near = near or f"Looked for {adapter.looked_for}"
        raise UserError(f"{protocol.dataset}: not found under {self.root}. {near}", _how(protocol))

    def _copy(
        self, adapter: type[Dataset], folder: Path, protocol: Protocol, skip_bad: bool, preprocessing: str,
        synthetic_ok: bool,
    ) -> Dataset:  # fmt: skip
        """One copy, opened for a protocol; UserError where it cannot serve it."""
        opened = adapter(folder, protocol)
        opened.data_root, opened.skip_bad, opened.preprocessing = self.root, skip_bad, preprocessing
        if opened.is_synthetic() and not synthetic_ok:
            message = f"{folder} holds synthetic faces made by `data synth`: they cannot answer for {protocol.dataset}"
            raise UserError(message, "put the real dataset there, or run --profile quick")
        stop = opened.blocked(protocol)
        if stop is not None:
            raise stop
        return opened


def _registered(protocol: Protocol) -> registry.Registered:
    if protocol.dataset not in registry.available("dataset"):
        raise UserError(f"no adapter for dataset '{protocol.dataset}' yet", protocol.access)
    return registry.find("dataset", protocol.dataset)


def _how(protocol: Protocol) -> str:
    return f"{protocol.access} `run_all.py data how-to-get {protocol.dataset}` says more".strip()


def locate(
    protocol: Protocol,
    root: Path | None,
    skip_bad: bool = False,
    preprocessing: str = "",
    synthetic_ok: bool = False,
) -> Dataset:
    """The dataset adapter for a protocol, opened on the copy under the data root.

    Args:
        skip_bad: leave out what cannot be used, and record it.
        preprocessing: a profile of preprocessing.yaml; empty for the dataset's own.
        synthetic_ok: accept a tree made by `data synth` (tests, measurements); a run never does.

    Raises:
        UserError: no adapter, no data root, or no such dataset below it; the hint says how to unblock.
    """
    return Copies(root).open(protocol, skip_bad, preprocessing, synthetic_ok)


def open_data(
    protocol: Protocol,
    root: Path | None,
    skip_bad: bool = False,
    preprocessing: str = "",
    synthetic_ok: bool = False,
) -> Data:
    """Index a protocol and open its decode-once cache, building it where needed. Arguments as `locate`."""
    from bench.data.cache import open_pixels

    dataset = locate(protocol, root, skip_bad, preprocessing, synthetic_ok)
    index = dataset.index(protocol)
    pixels = open_pixels(dataset, store.cache_root())
    unreadable = index["name"].isin(list(pixels.bad))
    skipped = dataset.skipped | {name: pixels.bad[name] for name in index["name"][unreadable]}
    index = index[~unreadable].reset_index(drop=True)
    _refuse_empty(index, protocol, len(skipped))
    targets = dataset.targets(protocol.targets, index["name"].tolist()) if protocol.targets else None
    digest = _hash(index, pixels.sha256, sorted(skipped), targets)
    found = Data(
        index, pixels.array, pixels.rows(index["name"].tolist()), digest, skipped, describe(dataset),
        tuple(dataset.departures()), os.path.basename(os.path.abspath(dataset.root)) if dataset.root else "", targets,
        pixels.sha256, votes_hash(index, protocol),
    )  # fmt: skip
    manifest = {"hash": found.hash, "train": training_counts(index, protocol), "votes": found.votes_hash}
    store.write_json(_manifest_path(protocol, dataset), manifest)
    return found


def describe(dataset: Dataset) -> dict[str, Any]:
    """Name and settings of the preprocessing behind a dataset's pixels; "as published" where there is no choice."""
    profile = getattr(dataset, "profile", None)
    name = profile.id if profile is not None else "as published"
    return {"name": name, "settings": dict(dataset.decode)}


def known_manifest(
    protocol: Protocol, copies: Copies, skip_bad: bool = False, preprocessing: str = ""
) -> dict[str, Any] | None:
    """Hash, training-set sizes and hash of the votes of a protocol read before from this copy; None when it has to be
    read first. `votes` is not there where an earlier version read it.
    """
    path = _manifest_path(protocol, copies.open(protocol, skip_bad, preprocessing))
    if not path.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return manifest


def splits_of(
    index: pd.DataFrame, protocol: Protocol, fold: int, train_splits: Sequence[str] = ("train",)
) -> dict[str, np.ndarray]:
    """Row numbers of train, test and, where there is one, val; with folds, `fold` is the test part.

    Args:
        train_splits: of a recipe; with val among them its images are training images, and there is no val.
    """
    import numpy as np

    if protocol.folds:
        held_out = (index["fold"] == fold).to_numpy()
        return {"train": np.flatnonzero(~held_out), "test": np.flatnonzero(held_out)}
    split = index["split"].to_numpy()
    if "val" in train_splits:
        split = np.where(split == "val", "train", split)
    found = {name: np.flatnonzero(split == name) for name in ("train", "val", "test")}
    return {name: rows for name, rows in found.items() if len(rows)}


def training_counts(index: pd.DataFrame, protocol: Protocol) -> list[int]:
    """Training images of each fold (one number where the split is fixed); the plan's time estimate uses it."""
    return [len(splits_of(index, protocol, fold).get("train", ())) for fold in range(max(1, protocol.folds))]


def _refuse_empty(index: pd.DataFrame, protocol: Protocol, skipped: int) -> None:
    """UserError where nothing is left to train or to test on, before anything is trained."""
    needed = ("train", "test") if protocol.classes else ("train",)
    for fold in range(max(1, protocol.folds)):
        there = splits_of(index, protocol, fold)
        for split in needed:
            if not len(there.get(split, ())):
                where = f"fold {fold + 1}" if protocol.folds else protocol.id
                message = f"{where} has no {split} image" + (f" left ({skipped:,} were skipped)" if skipped else "")
                raise UserError(message, "restore the images; `data verify` lists what is wrong")


def _hash(
    index: pd.DataFrame, pixels_sha256: str, skipped: Sequence[str] = (), targets: np.ndarray | None = None
) -> str:
    columns = [column for column in ("name", "label", "split", "fold") if column in index]
    lines = sorted("\t".join(map(str, row)) for row in index[columns].itertuples(index=False))
    # a run that skipped something is another run than one on a copy that has no such rows
    digest = hashlib.sha256("\n".join([*lines, pixels_sha256, *skipped]).encode())
    if targets is not None:  # in the order of names, as the lines are; protocols without targets keep their hashes
        digest.update(targets[index["name"].argsort(kind="stable").to_numpy()].tobytes())
    return digest.hexdigest()[:16]


def votes_hash(index: pd.DataFrame, protocol: Protocol) -> str:
    """16 hex digits over the votes that training images got for the protocol's classes, by image name.

    Empty where the dataset has no votes, or none for one of the classes. With folds every image is a training image.
    """
    columns = [f"votes_{name}" for name in protocol.classes]
    if not columns or any(column not in index for column in columns):
        return ""
    training = index if protocol.folds else index[index["split"] == "train"]
    training = training.sort_values("name")
    digest = hashlib.sha256("\n".join([*columns, *training["name"]]).encode())
    digest.update(training[columns].to_numpy("<f8").tobytes())
    return digest.hexdigest()[:16]


def _manifest_path(protocol: Protocol, dataset: Dataset) -> Path:
    # the adapter's version and the protocol's own declaration decide what an index holds; notes and the like do not
    version = registry.find("dataset", protocol.dataset).version
    unread = {"title", "notes", "access", "variants", "stand_in", "test_transform"}
    unread |= set() if protocol.targets else {"targets"}
    declared = protocol.model_dump(exclude=unread)
    text = store.canonical([declared, version, dataset.fingerprint(), dataset.skip_bad, dict(dataset.decode)])
    name = f"{protocol.id.replace('/', '_')}-{hashlib.sha256(text).hexdigest()[:12]}.json"
    return store.cache_root() / "manifests" / name
