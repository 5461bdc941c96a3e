"""Subsets of a protocol's test images: RAN's lists of occluded and turned faces, and images without a twin in train.

A subset is scored by filtering a run's predictions; nothing is trained again. Rules: `ran-occlusion`, `ran-pose30`,
`ran-pose45` (each image once), `ran-raw-...` (as often as it is listed), `leak-free`, and `ran-...+leak-free`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import declare
from bench.data import ran, twins
from bench.data.base import check_counts, is_synthetic
from bench.declare import Protocol
from bench.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from bench.data.base import Dataset

_RULE = re.compile(r"ran-(?P<raw>raw-)?(?P<list>\w+)(?P<leak>\+leak-free)?|leak-free")


@dataclass(frozen=True)
class Rule:
    """What a subset keeps: images of a list ('' for all), as often as listed or once, and only those without a twin."""

    list: str
    raw: bool
    leak_free: bool


def subset_blocked(ds: Dataset, protocol: Protocol) -> UserError | None:
    """Why this copy cannot give the subset, judged without reading labels or images; None when it can.

    Besides the reasons of the parent protocol: its list is not there or is damaged, or the images are tested in folds.
    """
    parent = declare.load(ds.data_root).protocol(protocol.subset_of)
    stop = ds.blocked(parent)
    if stop is not None:
        return stop
    try:
        rule = rule_of(protocol)
        if rule.leak_free and parent.folds:
            message = f"protocol {protocol.id}: leak-free is not defined for folds, where each image is tested once"
            raise UserError(message, "report folds by subject instead, where the dataset names subjects")
        if rule.list:
            _list(ds, protocol, rule)
    except UserError as error:
        return error
    return None


def subset_index(ds: Dataset, protocol: Protocol) -> pd.DataFrame:
    """Rows of the parent protocol's test split that belong to the subset.

    Returns:
        The parent's columns in the parent's order, and `occlusion` (the list's number of the type) where a list has it.
        Under `ran-raw-...` an image that is listed twice has two rows.

    Raises:
        UserError: the list names an image that is not in the parent's test split, or gives it another label; or the
            counts are not the protocol's.
    """
    frame = ds.index(declare.load(ds.data_root).protocol(protocol.subset_of))
    test = frame[frame["split"] == "test"].reset_index(drop=True)
    rule, source, lacking = rule_of(protocol), str(ds.root), len(ds.skipped)
    if rule.list:
        path, listed = _list(ds, protocol, rule)
        test, source = _chosen(test, path, listed if rule.raw else ran.cleaned(listed), ds, protocol), str(path)
    if rule.leak_free:
        test = test[~test["name"].isin(list(twins.leaked(ds)))].reset_index(drop=True)
        lacking += len(ds.unstable_images)  # other pictures under these names may have other twins
    check_counts(test, protocol, source, skipped=lacking)
    return test


def rule_of(protocol: Protocol) -> Rule:
    """A subset's rule, taken apart."""
    match = _RULE.fullmatch(protocol.rule)
    lists = [name for dataset, name in ran.FORMS if dataset == protocol.dataset]
    if match is None or match["list"] not in (None, *lists):
        known = [*(f"ran-{name}" for name in lists), *(f"ran-raw-{name}" for name in lists), "leak-free"]
        raise unknown(f"rule of subset {protocol.id}", protocol.rule, known)
    return Rule(match["list"] or "", bool(match["raw"]), match["list"] is None or bool(match["leak"]))


def _list(ds: Dataset, protocol: Protocol, rule: Rule) -> tuple[Path, list[ran.Listed]]:
    """RAN's list from the data root, beside the copy, or in it; a synthetic tree has a list of its own inside."""
    synthetic = [place for place in ds.places() if is_synthetic(place)]
    places = synthetic or [place for place in (ds.data_root, ds.root) if place is not None]
    return ran.read(protocol.dataset, rule.list, places, published=not synthetic)


def _chosen(test: pd.DataFrame, path: Path, listed: list[ran.Listed], ds: Dataset, protocol: Protocol) -> pd.DataFrame:
    """The listed rows of `test`; every name must be there with the listed label."""
    row_of = {name: row for row, name in enumerate(test["name"])}
    labels = test["label"].tolist()
    rows: list[tuple[int, ran.Listed]] = []
    for one in listed:
        row = row_of.get(one.name)
        if row is None:
            if ds.skipped:
                continue  # perhaps among the images left out on purpose; the counts below allow for no more of them
            message = f"{path}, row {one.row}: {one.name} is not a test image of {protocol.subset_of}"
            raise UserError(message, ran.RESTORE)
        if labels[row] != one.label:
            message = f"{path}, row {one.row}: {one.name} is {one.label}, but {labels[row]} in {protocol.subset_of}"
            raise UserError(message, f"{ran.RESTORE}, or use the labels of {protocol.subset_of}")
        rows.append((row, one))
    rows.sort(key=lambda place: place[0])
    chosen = test.iloc[[row for row, _ in rows]].reset_index(drop=True)
    if any(one.occlusion is not None for _, one in rows):
        chosen["occlusion"] = [one.occlusion for _, one in rows]
    return chosen
