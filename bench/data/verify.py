"""What a copy of a dataset is: layout, counts, missing and extra files, duplicates, and whether it is the benchmark.

Everything is looked at, every image is decoded, and problems are collected rather than raised. A report is drawn by
bench/data/verify_text.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.base import SPLITS, Dataset, find_copies, manifest_hash, why_not_found
from bench.data.verify_images import Duplicates, NearDuplicates, duplicates, near_duplicates, read_all
from bench.declare import Protocol
from bench.errors import UserError
from bench.store import sha256_file

if TYPE_CHECKING:
    import pandas as pd

    from bench.data.verify_images import Images

SYNTHETIC = "synthetic faces made by data synth"


@dataclass
class LabelFile:
    """A label file and the published file it equals (empty where it equals none)."""

    path: str
    sha256: str
    published_as: str
    comparable: bool  # whether hashes of this dataset's published files are known


@dataclass
class Served:
    """One protocol on this copy: what it gives, or why it cannot."""

    id: str
    rule: str
    classes: tuple[str, ...] = ()
    folds: int = 0
    problem: str = ""
    available: bool = True  # False where the copy lacks the files for it, which is no defect of the copy
    counts: dict[str, int] = field(default_factory=dict)
    class_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)  # counts as published; empty where none are
    published_class_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    exact: bool | None = None  # whether the counts are those published; None where none are
    manifest_sha256: str = ""
    leaked_test: int | None = None  # test images with an identical copy in train or val (another fold), of any image
    leaked_test_within: int | None = None  # the same, counting only images of this protocol
    near_test: int | None = None  # further test images with a nearly identical copy there
    leak_free: int | None = None  # test images without an identical copy; None where there are folds


@dataclass
class Report:
    """Result of `verify`; `benchmark` is the verdict, `why` its reason."""

    dataset: str
    root: str
    layout: str
    benchmark: bool = False
    why: str = ""
    counts: str = ""  # whether they are as published, in words
    sound: bool = False  # the benchmark, or a user's own data without a problem
    synthetic: bool = False
    own: bool = False
    copies: list[str] = field(default_factory=list)  # where there are several: all, in the order runs try them
    protocol: str = ""  # the benchmark protocol of this copy
    order: str = ""  # class order of numeric labels
    label_files: list[LabelFile] = field(default_factory=list)
    protocols: list[Served] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)  # image, or file and row -> why; --skip-bad leaves it out
    skip_bad: bool = False  # whether the protocols' counts are without unreadable images
    unofficial_names: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    duplicates: Duplicates = field(default_factory=Duplicates)
    near: NearDuplicates | None = None
    pixels_sha256: str = ""
    remarks: list[str] = field(default_factory=list)


def verify(
    path: Path,
    classes: Mapping[str, type[Dataset]],
    protocols: Iterable[Protocol],
    near: bool = True,
    skip_bad: bool = False,
) -> list[Report]:
    """A report for every copy of every dataset found at `path`, which is a copy or a data root with copies in it.

    Args:
        classes: dataset name -> adapter.
        protocols: all declared protocols.
        near: look for near duplicates too.
        skip_bad: count as a run with --skip-bad does, without unreadable images.

    Raises:
        UserError: `path` is not a folder or holds no known dataset; the message lists what was looked for.
    """
    real: dict[str, list[Protocol]] = {}
    for protocol in protocols:
        if protocol.dataset in classes and not protocol.synthetic and not protocol.subset_of:
            real.setdefault(protocol.dataset, []).append(protocol)
    reports = []
    for name, declared in real.items():
        adapter = classes[name]
        copies = find_copies(path, adapter)
        for root in copies:
            served = [protocol for protocol in declared if adapter.serves(root, protocol)]
            if served:
                report = _report(adapter, root, path, served, near, skip_bad)
                report.copies = [str(copy) for copy in copies] if len(copies) > 1 and not report.own else []
                reports.append(report)
    if not reports:
        lacking = [text for adapter in classes.values() for text in why_not_found(path, adapter)]
        looked = [f"{name}: {adapter.looked_for}" for name, adapter in classes.items() if adapter.layouts]
        raise UserError(
            f"{path} holds no dataset known here" + "".join(f"\n  incomplete: {text}" for text in lacking),
            "looked in it and one folder deep for\n     " + "\n     ".join(looked),
        )
    return reports


def _report(
    adapter: type[Dataset], root: Path, path: Path, protocols: Sequence[Protocol], near: bool, skip_bad: bool
) -> Report:
    """`examine`, or what keeps the copy from being opened (two layouts in one folder)."""
    try:
        ds = adapter(root, protocols[0])
    except UserError as error:
        report = Report(protocols[0].dataset, str(root), "", own=adapter.own_data)
        report.problems.append(error.message)
        report.why = error.message
        report.counts = "not known"
        return report
    ds.data_root = path
    return examine(ds, protocols, near, skip_bad)


def examine(ds: Dataset, protocols: Sequence[Protocol], near: bool = True, skip_bad: bool = False) -> Report:
    """Everything about one copy. Decodes every image once (FERPlus: 5 s, and 4 s for near duplicates)."""
    assert ds.root is not None  # embedded datasets are not verified
    report = Report(ds.protocol.dataset, str(ds.root), ds.detect(ds.root) or "", skip_bad=skip_bad, own=ds.own_data)
    report.synthetic = ds.is_synthetic()
    ds.skip_bad = True  # so that one bad row hides nothing else; all of them are in the report
    indexes: dict[str, pd.DataFrame] = {}
    try:
        report.protocol = ds.benchmark
        names, splits = ds.names(), ds.splits()
        report.missing, report.extra, report.remarks = ds.missing(), ds.extra(), ds.remarks()
        report.order = getattr(getattr(ds, "listing", None), "order", "")
        report.unofficial_names = ds.unofficial_names()
        _hash_label_files(ds, report)
        for protocol in protocols:
            frame = _serve(ds, protocol, report)
            if frame is not None:
                indexes[protocol.id] = frame
    except UserError as error:
        report.problems.append(error.message)
    else:
        absent = set(report.missing)
        images = read_all(ds, [name for name in names if name not in absent], thumbnails=near)
        split_of = dict(zip(names, splits, strict=True)) if splits else dict.fromkeys(names, "")
        report.unusable = dict(ds.skipped) | images.unreadable
        _look_at(ds, images, split_of, indexes, report)
        for served in report.protocols:
            if served.id in indexes:
                _count(served, indexes[served.id], images.unreadable if skip_bad else {})
    _judge(ds, report)
    return report


def _hash_label_files(ds: Dataset, report: Report) -> None:
    for name, file in ds.label_files().items():
        try:
            digest = sha256_file(file)
        except OSError as error:
            report.problems.append(f"{file} cannot be read: {error.strerror}")
            continue
        report.label_files.append(LabelFile(name, digest, ds.known_files.get(digest, ""), bool(ds.known_files)))


def _serve(ds: Dataset, protocol: Protocol, report: Report) -> pd.DataFrame | None:
    """The protocol's index whatever its counts; None, and the reason in the report, where there is none."""
    served = Served(protocol.id, protocol.rule, protocol.classes, protocol.folds)
    served.published, served.published_class_counts = dict(protocol.counts), dict(protocol.class_counts)
    report.protocols.append(served)
    blocked = ds.blocked(protocol)
    if blocked:
        served.problem, served.available = blocked.message, False
        return None
    try:
        return ds.index(protocol.model_copy(update={"counts": {}, "class_counts": {}}))
    except UserError as error:
        served.problem = error.message
        return None


def _count(served: Served, frame: pd.DataFrame, unreadable: Mapping[str, str]) -> None:
    """Counts and manifest of a protocol, compared with those published."""
    frame = frame[~frame["name"].isin(list(unreadable))] if unreadable else frame
    splits = frame["split"].tolist()
    per_split = Counter(splits)
    counted = Counter(zip(splits, frame["label"].tolist(), strict=True))
    served.counts = {split: per_split[split] for split in SPLITS if per_split[split]}
    served.class_counts = {split: {label: counted[split, label] for label in served.classes} for split in served.counts}
    served.manifest_sha256 = manifest_hash(frame)
    if served.published:
        wanted = served.published_class_counts
        served.exact = served.counts == served.published and all(
            served.class_counts.get(split) == dict(classes) for split, classes in wanted.items()
        )


def _look_at(
    ds: Dataset, images: Images, split_of: Mapping[str, str], indexes: Mapping[str, pd.DataFrame], report: Report
) -> None:
    """Sizes and duplicates of the whole copy, and what of them concerns each protocol's test images."""
    report.sizes, report.pixels_sha256 = images.sizes, images.sha256(ds.unstable_images)
    group = images.twin_groups()
    report.duplicates = duplicates(images, group, split_of)
    if images.thumbnails is not None and any(split_of.values()):
        report.near = near_duplicates(images, group, split_of)
    group_of = dict(zip(images.names, group.tolist(), strict=True))
    for served in report.protocols:
        frame = indexes.get(served.id)
        if frame is None:
            continue
        if not served.folds:
            _count_leaks(served, frame, group_of, split_of, report.near)
            continue
        fold_of = dict(zip(frame["name"].tolist(), frame["fold"].tolist(), strict=True))
        near = near_duplicates(images, group, fold_of) if images.thumbnails is not None else None
        _count_leaks_between_folds(served, fold_of, group_of, near)
        if report.near is None or served.id == report.protocol:
            report.near = near


def _count_leaks(
    served: Served, frame: pd.DataFrame, group_of: Mapping[str, int], split_of: Mapping[str, str],
    near: NearDuplicates | None,
) -> None:  # fmt: skip
    test = [name for name in frame["name"][frame["split"] == "test"].tolist() if name in group_of]
    if not test:
        return
    tested = {split_of[name] for name in test}  # test, but for a protocol that exchanges splits
    anywhere = {group for name, group in group_of.items() if split_of[name] not in tested}
    within = {group_of.get(name) for name in frame["name"][frame["split"] != "test"].tolist()} - {None}
    leaked = {name for name in test if group_of[name] in anywhere}
    served.leaked_test = len(leaked)
    served.leaked_test_within = sum(group_of[name] in within for name in test)
    served.leak_free = len(test) - len(leaked)
    if near is not None:
        alike = {name for pair in near.pairs for name in pair[:2] if split_of[name] in tested}
        served.near_test = sum(name in alike and name not in leaked for name in test)


def _count_leaks_between_folds(
    served: Served, fold_of: Mapping[str, int], group_of: Mapping[str, int], near: NearDuplicates | None
) -> None:
    """Images with a copy in another fold, where it is trained on when they are tested."""
    folds_of: dict[int, set[int]] = {}
    for name, fold in fold_of.items():
        if name in group_of:
            folds_of.setdefault(group_of[name], set()).add(fold)
    leaked = {name for name in fold_of if name in group_of and len(folds_of[group_of[name]]) > 1}
    served.leaked_test = served.leaked_test_within = len(leaked)
    if near is not None:
        served.near_test = len({name for pair in near.pairs for name in pair[:2]} - leaked)


def _judge(ds: Dataset, report: Report) -> None:
    """Benchmark or not, with the first reason that decides it."""
    odd = _odd_sizes(ds.published_sizes, report.sizes)
    if odd:
        wanted = " or ".join(ds.published_sizes)
        counted = ", ".join(f"{n:,} of {size}" for size, n in odd.items())
        report.problems.append(f"images that are not {wanted}: {counted}")
    counted_in = [served for served in report.protocols if served.exact is not None]
    wrong = [served.id for served in counted_in if not served.exact]
    as_published = "exact, benchmark-sized" if report.synthetic else "exact, as published"
    more = f" and {len(wrong) - 2} more" if len(wrong) > 2 else ""
    report.counts = f"not those published, in {', '.join(wrong[:2])}{more}" if wrong else as_published
    if report.unusable and not wrong:
        report.counts += f" by the labels, but {len(report.unusable):,} images cannot be used"
    if not counted_in:
        report.counts = "nothing is published to compare them with" if report.own else "not known"
    against = _against(ds, report, bool(odd))
    report.benchmark, report.why = not against, against or _in_favour(ds, report)
    whole = not (report.problems or report.unusable or report.missing or any(s.problem for s in report.protocols))
    report.sound = report.benchmark or (report.own and whole)


def _against(ds: Dataset, report: Report, odd_sizes: bool) -> str:
    """Why the copy is not the benchmark; "" when it is."""
    served = next((one for one in report.protocols if one.id == report.protocol), None)
    known = ds.known_manifests.get(report.protocol, "")
    defects = [one for one in report.protocols if one.available and (one.problem or one.exact is False)]
    if report.synthetic:
        return SYNTHETIC
    if report.own:
        return "your own data: no published benchmark"
    if served is None:
        return report.problems[0] if report.problems else f"no benchmark protocol is declared for {report.dataset}"
    if served.problem:
        return served.problem
    if report.missing or report.unusable:
        first = next(iter(report.unusable.values()), f"{report.missing[0] if report.missing else ''} is missing")
        others = len(report.unusable.keys() | set(report.missing)) - 1
        return first + (f" (and {others:,} more)" if others else "")
    if served.exact is False:
        return f"the counts of {served.id} are not those published"
    if report.skip_bad:
        return "--skip-bad was asked for"
    if known and served.manifest_sha256 != known:
        return f"counts agree, but names or labels are not those of {served.id} (manifest hash differs)"
    if odd_sizes:
        return f"a re-aligned or re-distributed copy: {report.problems[-1]}"
    departures = ds.departures()
    if departures:
        return departures[0]
    if report.problems:
        return report.problems[0]
    if ds.known_pixels and report.pixels_sha256 != ds.known_pixels:
        return "labels as published, but the pixels are not those of the published images (re-encoded?)"
    if defects:
        return f"{served.id} is right, but {defects[0].problem or f'the counts of {defects[0].id} are not'}"
    return ""


def _in_favour(ds: Dataset, report: Report) -> str:
    if report.protocol in ds.known_manifests:
        return f"{report.protocol}: names, labels, split" + (" and pixels" if ds.known_pixels else "") + " as published"
    checked = [what for what, known in (("names' pattern", ds.official_names), ("size", ds.published_sizes)) if known]
    checked = ["counts", *checked]
    listed = ", ".join(checked[:-1]) + f" and {checked[-1]}" if len(checked) > 1 else checked[0]
    return f"{report.protocol}: {listed} as published; the images cannot be compared: no published hash"


def _odd_sizes(published: Sequence[str], sizes: Mapping[str, int]) -> dict[str, int]:
    if not published:
        return {}
    return {size: n for size, n in sizes.items() if size not in published and size.split()[0] not in published}
