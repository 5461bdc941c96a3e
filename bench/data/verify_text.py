"""A report of bench/data/verify.py as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.data.verify import SYNTHETIC, LabelFile, Report, Served
from bench.data.verify_images import Duplicates, NearDuplicates

MANY = 20  # names listed before "and n more"
SIZES = 8
WIDTH = 11


def render(report: Report) -> str:
    """The report, short; `--json` has everything."""
    lines = [f"{report.dataset} at {report.root}"]
    if report.synthetic:
        lines.append(f"SYNTHETIC: {SYNTHETIC}, no images of {report.dataset}")
    if report.copies:
        lines.append(f"{len(report.copies)} copies of {report.dataset} here; a run takes the first that can serve it:")
        lines += [f"  {copy}{'  (this one)' if copy == report.root else ''}" for copy in report.copies]
    if report.layout:
        lines.append(f"layout: {report.layout}")
    if report.order:
        lines.append(f"class order: '{report.order}' (numbers, read as names)")
    for file in report.label_files:
        lines.append(f"labels: {file.path}  sha256 {file.sha256[:16]}  {_publication(file)}".rstrip())
    lines += _protocols(report)
    if report.sizes:
        lines += ["", f"sizes: {_sizes(report.sizes)}"]
        lines += [*_duplicates(report.duplicates), *_near(report.near)]
    lines += _files(report)
    lines += [f"problem: {text}" for text in report.problems[:MANY]]
    if len(report.problems) > MANY:
        lines.append(f"problem: and {len(report.problems) - MANY:,} more")
    lines += [f"note: {text}" for text in report.remarks if not (report.order and "are in the order" in text)]
    lines.append(f"counts: {report.counts}")
    lines.append(f"benchmark: {'yes' if report.benchmark else 'no'} ({report.why})")
    return "\n".join(lines)


def _publication(file: LabelFile) -> str:
    if not file.comparable:
        return ""
    if not file.published_as:
        return "not a published file (changed, or other line ends)"
    return "as published" if file.path.endswith(file.published_as) else f"the published {file.published_as}"


def _protocols(report: Report) -> list[str]:
    """The benchmark in full (and the first that differs, where it does not), all others in a table."""
    at_hand = [served for served in report.protocols if not served.problem]
    full = [one for one in at_hand if one.id == report.protocol] or at_hand[:1]
    if all(one.exact for one in full):
        full += [one for one in at_hand if one.exact is False][:1]
    short = [one for one in at_hand if one not in full]
    lines = [line for served in full for line in ["", *_in_full(served)]]
    if short:
        lines += ["", *_table(short)]
    rest = [served for served in report.protocols if served.problem]
    return lines + ([""] if rest else []) + [
        f"{one.id}: {'WRONG' if one.available else 'cannot be served'}: {one.problem}" for one in rest
    ]  # fmt: skip


def _in_full(served: Served) -> list[str]:
    counts = ", ".join(f"{split} {n:,}" for split, n in served.counts.items())
    agree = {True: ", as published", False: ", NOT as published", None: ""}[served.exact]
    lines = [f"{served.id}: {counts}{f' in {served.folds} folds' if served.folds else ''}{agree}"]
    classes = list(next(iter(served.class_counts.values()), {}))
    if len(classes) > 1:
        lines.append("  " + " " * 12 + _row(classes) + f"{'all':>{WIDTH}}")
    for split in dict.fromkeys([*served.class_counts, *served.published]):
        own = [served.class_counts.get(split, {}).get(label, 0) for label in classes]
        wanted = [served.published_class_counts.get(split, {}).get(label) for label in classes]
        total, published = served.counts.get(split, 0), served.published.get(split, 0)
        if len(classes) > 1:
            lines.append(f"  {split:<12}" + _row([f"{n:,}" for n in own]) + f"{total:>{WIDTH},}")
        if served.exact is False and (total != published or any(w is not None and w != n for w, n in zip(wanted, own))):
            known = ["" if n is None else f"{n:,}" for n in wanted]
            off = ["" if w is None or w == n else f"{n - w:+,}" for w, n in zip(wanted, own, strict=True)]
            difference = f"{total - published:+,}" if total != published else ""
            lines.append(f"  {'  published':<12}" + _row(known) + f"{published:>{WIDTH},}")
            lines.append(f"  {'  difference':<12}" + _row(off) + f"{difference:>{WIDTH}}")
    return [*lines, *_leaks(served), f"  manifest sha256 {served.manifest_sha256}"]


def _leaks(served: Served) -> list[str]:
    if served.leaked_test is None:
        return []
    tested = served.counts.get("test", 0)
    if served.folds:
        line = f"  {served.leaked_test:,} of {tested:,} images have an identical copy in another fold"
    else:
        line = (
            f"  {served.leaked_test:,} of {tested:,} test images have an identical copy in train or val "
            f"({served.leaked_test_within:,} in this protocol's own images)"
        )
    if served.near_test is not None:
        line += f", {served.near_test:,} others a near copy"
    return [line] + ([f"  leak-free: {served.leak_free:,} test images"] if served.leak_free is not None else [])


def _table(protocols: Sequence[Served]) -> list[str]:
    splits = [split for split in ("train", "val", "test") if any(split in one.counts for one in protocols)]
    near = any(one.near_test is not None for one in protocols)
    wide = max(len(one.id) for one in protocols)
    lines = [f"{'others':<{wide + 2}}" + _row([*splits, "identical", *(["near"] if near else [])])]
    for one in protocols:
        cells = [_number(one.counts.get(split)) for split in splits] + [_number(one.leaked_test)]
        cells += [_number(one.near_test)] if near else []
        off = _off(one)
        agree = "" if one.exact is None else f"off by {off:,}" if off else "as published"
        lines.append(f"  {one.id:<{wide}}{_row(cells)}  {one.manifest_sha256[:16]}  {agree}".rstrip())
    copies = "identical: test images with such a copy in train or val, or in another fold"
    return [*lines, f"  ({copies}{'; near: others with a near copy there' if near else ''})"]


def _off(served: Served) -> int:
    """Images too many and too few, over the published classes and splits."""
    if not served.published_class_counts:
        splits = served.counts.keys() | served.published.keys()
        return sum(abs(served.counts.get(split, 0) - served.published.get(split, 0)) for split in splits)
    return sum(
        abs(served.class_counts.get(split, {}).get(label, 0) - n)
        for split, classes in served.published_class_counts.items()
        for label, n in classes.items()
    )


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _row(cells: Iterable[str]) -> str:
    return "".join(f"{cell:>{WIDTH}}" for cell in cells)


def _sizes(sizes: Mapping[str, int]) -> str:
    shown = ", ".join(f"{size} {n:,}" for size, n in list(sizes.items())[:SIZES])
    rest = len(sizes) - SIZES
    return shown + (f", and {rest:,} other sizes" if rest > 0 else "")


def _duplicates(d: Duplicates) -> list[str]:
    lines = [f"duplicates: {d.distinct:,} distinct of {d.images:,} images, {d.groups:,} groups of identical images"]
    if d.groups:
        lines.append("  surplus within a split: " + ", ".join(f"{s or 'all'} {n:,}" for s, n in d.surplus.items()))
        if d.across:
            lines.append("  groups across splits: " + ", ".join(f"{pair} {n:,}" for pair, n in d.across.items()))
        lines += [f"  e.g. {example}" for example in d.examples]
    return lines


def _near(near: NearDuplicates | None) -> list[str]:
    if near is None:
        return ["near duplicates: not looked for"]
    if not near.pairs and not near.mirrored:
        return ["near duplicates: none across splits or folds"]
    across = ", ".join(f"{parts} {n:,}" for parts, n in near.across.items())
    lines = [
        f"near duplicates: {len(near.pairs):,} pairs ({across or 'none'}), {near.images:,} images; "
        f"about {100 * near.false_share:.0f} % of the pairs by chance"
    ]
    lines += [f"  e.g. {example}" for example in near.examples]
    if near.mirrored:
        one, two = near.mirrored[0]
        lines.append(f"  {len(near.mirrored):,} more are mirror images of each other, e.g. {one} ~ {two}")
    return lines


def _files(report: Report) -> list[str]:
    lines = [f"missing: {_some(report.missing)}", f"extra: {_some(report.extra)}"]
    wrong = {name: text for name, text in report.unusable.items() if name not in set(report.missing)}
    if wrong:
        lines.append(f"cannot be used: {len(wrong):,}")
        lines += [f"  {text}" for text in list(wrong.values())[:MANY]]
        if len(wrong) > MANY:
            lines.append(f"  and {len(wrong) - MANY:,} more")
    lost = len(report.unusable.keys() | set(report.missing))
    if lost and report.skip_bad:
        lines.append(f"a run with --skip-bad leaves out {lost:,} of them, as counted above, and is no benchmark")
    elif lost:
        lines.append(f"a run refuses this copy; with --skip-bad it leaves out {lost:,}, and is no benchmark")
    return lines


def _some(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f", and {len(names) - MANY:,} more" if len(names) > MANY else ""
    return f"{len(names):,}: " + ", ".join(names[:MANY]) + more
