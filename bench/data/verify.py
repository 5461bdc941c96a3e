"""What a copy of a dataset is: layout, counts, missing and extra files, duplicates, and whether it is the benchmark.

Everything is looked at, every image is decoded, and problems are collected rather than raised.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.base import SPLITS, Dataset, find_dataset, manifest_hash, why_not_found
from bench.declare import Protocol
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

MANY = 20  # names listed in a report before "and n more"


@dataclass
class LabelFile:
    """A label file and the published file it equals (empty where it equals none)."""

    path: str
    sha256: str
    published_as: str


@dataclass
class Served:
    """One protocol on this copy: what it gives, or why it cannot."""

    id: str
    rule: str
    problem: str = ""
    available: bool = True  # False where the copy lacks the files for it, which is no defect of the copy
    counts: dict[str, int] = field(default_factory=dict)
    class_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    manifest_sha256: str = ""
    leaked_test: int | None = None  # test images with an identical copy in train or val, of any image of the copy
    leaked_test_within: int | None = None  # the same, counting only train and val images of this protocol


@dataclass
class Duplicates:
    """Images with identical pixels, over all images of the copy."""

    images: int = 0
    distinct: int = 0
    groups: int = 0
    surplus: dict[str, int] = field(default_factory=dict)  # per split: images less distinct images
    across: dict[str, int] = field(default_factory=dict)  # "train+test" -> groups with members in both


@dataclass
class Report:
    """Result of `verify`; `benchmark` is the verdict, `why` its reason."""

    dataset: str
    root: str
    layout: str
    benchmark: bool = False
    why: str = ""
    label_files: list[LabelFile] = field(default_factory=list)
    protocols: list[Served] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    duplicates: Duplicates = field(default_factory=Duplicates)
    pixels_sha256: str = ""
    remarks: list[str] = field(default_factory=list)


def verify(path: Path, classes: Mapping[str, type[Dataset]], protocols: Iterable[Protocol]) -> list[Report]:
    """A report for every dataset found at `path`, which is a copy or a data root with copies in it.

    Args:
        classes: dataset name -> adapter.
        protocols: all declared protocols.

    Raises:
        UserError: `path` is not a folder or holds no known dataset; the message lists what was looked for.
    """
    real: dict[str, list[Protocol]] = {}
    for protocol in protocols:
        if protocol.dataset in classes and not protocol.synthetic:
            real.setdefault(protocol.dataset, []).append(protocol)
    reports = []
    for name, own in real.items():
        root = find_dataset(path, classes[name])
        if root is not None:
            reports.append(examine(classes[name](root, own[0]), own))
    if not reports:
        near = [text for name in real for text in why_not_found(path, classes[name])]
        looked = [f"{name}: {classes[name].looked_for}" for name in real]
        raise UserError(
            f"{path} holds no dataset known here" + "".join(f"\n  incomplete: {text}" for text in near),
            "looked in it and one folder deep for\n     " + "\n     ".join(looked),
        )
    return reports


def examine(ds: Dataset, protocols: Sequence[Protocol]) -> Report:
    """Everything about one copy. Decodes every image once (FERPlus: about 5 s)."""
    assert ds.root is not None  # embedded datasets are not verified
    report = Report(ds.protocol.dataset, str(ds.root), ds.detect(ds.root) or "")
    for name, file in ds.label_files().items():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        report.label_files.append(LabelFile(name, digest, ds.known_files.get(digest, "")))
    indexes = {p.id: _serve(ds, p, report) for p in protocols if not p.subset_of}
    try:
        names, splits = ds.names(), ds.splits()
        report.missing, report.extra, report.remarks = ds.missing(), ds.extra(), ds.remarks()
    except UserError as error:
        report.problems.append(error.message)
    else:
        digests = _read_all(ds, names, set(report.missing), report)
        split_of = dict(zip(names, splits, strict=True)) if splits else dict.fromkeys(names, "")
        _find_duplicates(digests, split_of, report.duplicates)
        for served in report.protocols:
            _count_leaks(served, indexes[served.id], digests, split_of)
    _judge(ds, report)
    return report


def _serve(ds: Dataset, protocol: Protocol, report: Report) -> pd.DataFrame | None:
    """The protocol's index, recorded in the report; None where it cannot be served."""
    served = Served(protocol.id, protocol.rule)
    report.protocols.append(served)
    blocked = ds.blocked(protocol)
    if blocked:
        served.problem, served.available = blocked.message, False
        return None
    try:
        frame = ds.index(protocol)
    except UserError as error:
        served.problem = error.message
        return None
    served.counts = {split: int((frame["split"] == split).sum()) for split in SPLITS if (frame["split"] == split).any()}
    counted = Counter(zip(frame["split"], frame["label"], strict=True))
    served.class_counts = {s: {c: counted[s, c] for c in protocol.classes} for s in served.counts}
    served.manifest_sha256 = manifest_hash(frame)
    return frame


def _read_all(ds: Dataset, names: Sequence[str], missing: set[str], report: Report) -> dict[str, bytes]:
    """Hash of every image that can be read; sizes and unreadable files go into the report."""
    digests: dict[str, bytes] = {}
    sizes: Counter[str] = Counter()
    whole = hashlib.sha256()
    for name in names:
        if name in missing:
            continue
        try:
            image = ds.read(name)
        except UserError as error:
            report.problems.append(error.message)
            continue
        sizes[f"{image.shape[1]}x{image.shape[0]} {'grey' if image.ndim == 2 else 'colour'}"] += 1
        digests[name] = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest()
    for name in sorted(digests.keys() - ds.unstable_images):
        whole.update(name.encode() + digests[name])
    report.sizes = dict(sizes.most_common())
    report.pixels_sha256 = whole.hexdigest()
    return digests


def _find_duplicates(digests: Mapping[str, bytes], split_of: Mapping[str, str], found: Duplicates) -> None:
    groups: defaultdict[bytes, Counter[str]] = defaultdict(Counter)
    for name, digest in digests.items():
        groups[digest][split_of[name]] += 1
    found.images, found.distinct = len(digests), len(groups)
    repeated = [members for members in groups.values() if members.total() > 1]
    found.groups = len(repeated)
    for split in dict.fromkeys(split_of.values()):
        found.surplus[split] = sum(members[split] - 1 for members in repeated if members[split])
    for i, one in enumerate(SPLITS):
        for other in SPLITS[i + 1 :]:
            shared = sum(1 for members in repeated if members[one] and members[other])
            if shared:
                found.across[f"{one}+{other}"] = shared


def _count_leaks(
    served: Served, frame: pd.DataFrame | None, digests: Mapping[str, bytes], split_of: Mapping[str, str]
) -> None:
    if frame is None or "test" not in served.counts:
        return
    anywhere = {digest for name, digest in digests.items() if split_of[name] in ("train", "val")}
    within = {digests.get(name) for name in frame["name"][frame["split"] != "test"]} - {None}
    test = [digests[name] for name in frame["name"][frame["split"] == "test"] if name in digests]
    served.leaked_test = sum(digest in anywhere for digest in test)
    served.leaked_test_within = sum(digest in within for digest in test)


def _judge(ds: Dataset, report: Report) -> None:
    """Benchmark or not, with the first reason that decides it."""
    served = next((s for s in report.protocols if s.id == ds.benchmark), None)
    known = ds.known_manifests.get(ds.benchmark, "")
    expected = "x".join(map(str, ds.shape[1::-1])) + (" grey" if len(ds.shape) == 2 else " colour")
    odd = {size: n for size, n in report.sizes.items() if size != expected}
    if odd:
        report.problems.append(
            f"images that are not {expected}: " + ", ".join(f"{n:,} of {size}" for size, n in odd.items())
        )
    defects = [s.problem for s in report.protocols if s.problem and s.available]
    if served is None:
        report.why = f"no benchmark protocol is declared for {report.dataset}"
    elif served.problem:
        report.why = served.problem
    elif known and served.manifest_sha256 != known:
        report.why = f"counts agree, but names or labels are not those of {ds.benchmark} (manifest hash differs)"
    elif report.missing:
        report.why = f"{len(report.missing):,} images are missing"
    elif report.problems:
        report.why = report.problems[0]
    elif ds.known_pixels and report.pixels_sha256 != ds.known_pixels:
        report.why = "labels as published, but the pixels are not those of the published images (re-encoded?)"
    elif defects:
        report.why = f"{ds.benchmark} is right, but {defects[0]}"
    else:
        report.benchmark = True
        report.why = (
            f"{ds.benchmark}: names, labels, split" + (" and pixels" if ds.known_pixels else "") + " as published"
        )


def render(report: Report) -> str:
    """The report as text."""
    lines = [f"{report.dataset} at {report.root}", f"layout: {report.layout}"]
    for file in report.label_files:
        lines.append(f"labels: {file.path}  sha256 {file.sha256[:16]}  {_publication(file)}")
    for served in report.protocols:
        lines += ["", *_protocol_lines(served)]
    d = report.duplicates
    lines += [
        "",
        "sizes: " + (", ".join(f"{size} {n:,}" for size, n in report.sizes.items()) or "no image was read"),
        f"duplicates: {d.distinct:,} distinct of {d.images:,} images, {d.groups:,} groups of identical images",
    ]
    if d.groups:
        lines.append("  surplus within a split: " + ", ".join(f"{s or 'all'} {n:,}" for s, n in d.surplus.items()))
        if d.across:
            lines.append("  groups across splits: " + ", ".join(f"{pair} {n:,}" for pair, n in d.across.items()))
    lines += [f"missing: {_some(report.missing)}", f"extra: {_some(report.extra)}"]
    lines += [f"problem: {text}" for text in report.problems[:MANY]]
    if len(report.problems) > MANY:
        lines.append(f"problem: and {len(report.problems) - MANY:,} more")
    lines += [f"note: {text}" for text in report.remarks]
    lines.append(f"benchmark: {'yes' if report.benchmark else 'no'} ({report.why})")
    return "\n".join(lines)


def _publication(file: LabelFile) -> str:
    if not file.published_as:
        return "not a published file (changed, or other line ends)"
    return "as published" if file.path.endswith(file.published_as) else f"the published {file.published_as}"


def _protocol_lines(served: Served) -> list[str]:
    if served.problem:
        return [f"{served.id}: {'cannot be served' if not served.available else 'WRONG'}: {served.problem}"]
    lines = [f"{served.id}: " + ", ".join(f"{split} {n:,}" for split, n in served.counts.items())]
    classes = next(iter(served.class_counts.values()), {})
    lines.append("  " + " " * 6 + "".join(f"{name:>11}" for name in classes))
    for split, counts in served.class_counts.items():
        lines.append(f"  {split:<6}" + "".join(f"{n:>11,}" for n in counts.values()))
    if served.leaked_test is not None:
        lines.append(
            f"  {served.leaked_test:,} of {served.counts['test']:,} test images have an identical copy in train or val "
            f"({served.leaked_test_within:,} in this protocol's own images)"
        )
    lines.append(f"  manifest sha256 {served.manifest_sha256}")
    return lines


def _some(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f", and {len(names) - MANY:,} more" if len(names) > MANY else ""
    return f"{len(names):,}: " + ", ".join(names[:MANY]) + more
