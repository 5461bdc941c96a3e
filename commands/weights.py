"""`run_all.py weights ACTION`: external weight files: which are here, how to get one, and taking one in."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bench import declare, weights, weights_status
from bench.errors import UserError, unknown
from bench.weights_status import Standing

if TYPE_CHECKING:
    from bench import weights_add

WIDTH = 100  # columns


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `weights`: each action has its own."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    about = "every role: whether its file is here, who needs it, what it unblocks"
    status = actions.add_parser("status", help=about, description=about)
    status.add_argument("--json", action="store_true", help="the same as JSON")
    about = "all about one role: what it is, how to get it, what is checked, what runs without it"
    show = actions.add_parser("show", help=about, description=about)
    show.add_argument("role", metavar="ROLE")
    about = "take in a file: read without running anything in it, held against its role, copied into the cache"
    add = actions.add_parser("add", help=about, description=about)
    add.add_argument("role", metavar="ROLE")
    add.add_argument("file", metavar="FILE", type=Path)
    about = "get files from the Hugging Face hub and take them in"
    fetch = actions.add_parser("fetch", help=about, description=about)
    fetch.add_argument("roles", metavar="ROLE", nargs="+")
    fetch.add_argument("--offline", action="store_true", help="from the hub's local cache alone (as HF_HUB_OFFLINE=1)")
    for action in (add, fetch):
        action.add_argument("--replace", action="store_true", help="put it in place of another file of the role")


def main(args: argparse.Namespace) -> int:
    """Exit status of the action."""
    declared = declare.load()
    asked = [*getattr(args, "roles", ()), *([args.role] if "role" in args else ())]
    known = {standing.role: standing for standing in weights_status.standings(declared, asked)}
    for role in asked:
        if role not in known:
            raise _unknown(role, known)
        if args.action != "fetch" and known[role].state == "missing":  # fetching asks the hub
            _check_backbone(declared, role)
        if known[role].stage and args.action != "show":
            raise UserError(
                f"'{role}' is no file: {known[role].stage} trains it", "run what needs it; it is trained first"
            )
    if args.action == "status":
        print(_json(known.values()) if args.json else _table(known.values()))
    elif args.action == "show":
        print(_page(known[args.role]))
    elif args.action == "add":
        _add(args.role, args.file, args.replace)
    else:
        return _fetch(asked, args.offline, args.replace)
    return 0


def _unknown(role: str, known: Iterable[str]) -> UserError:
    found = unknown("weights role", role, known)
    own = f"a role of your own needs an experiment that says `weights: [{role}]` first (docs/own-data.md)"
    return UserError(found.message, f"{found.hint} {own}" if found.hint.endswith("?") else f"{own}; {found.hint}")


def _check_backbone(declared: declare.Declarations, role: str) -> None:
    """A role made up for timm's file of a backbone is of a backbone that there is.

    Raises:
        UserError: neither timm nor an experiment knows the backbone, or timm no weights of such a tag.
    """
    backbone = role.removeprefix(weights.TIMM)
    used = {one.backbone for one in declared.experiments.values()}
    if backbone == role or role in weights.records() or backbone in used:
        return
    import timm

    architecture, _, tag = backbone.partition(".")
    tagged = timm.list_models(f"{architecture}.*", pretrained=True, include_tags=True) if tag else []
    if not timm.is_model(architecture) or (tag and backbone not in tagged):
        raise unknown("backbone", backbone, {*used, *(tagged or timm.list_models())}, sorted(used))


# --------------------------------------------------------------------------------------------------------------- status
def _table(standings: Iterable[Standing]) -> str:
    rows = [("role", "state", "size", "needed by", "unblocks")]
    wrong = []
    for one in standings:
        size = f"{one.path.stat().st_size / 2**20:,.1f} MiB" if one.path is not None else ""
        unblocks = str(one.unblocks) if one.state in ("missing", "wrong") and one.claims else ""
        rows.append((one.role, one.state, size, _needed(one), unblocks))
        wrong += [one.problem] if one.problem else []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    lines += ["", "unblocks: printed numbers for which no other weights file is missing (data sets not counted)"]
    lines += [
        f"files: {weights.folder()}",
        "more: python run_all.py weights show ROLE",
        *(f"wrong: {p}" for p in wrong),
    ]
    return "\n".join(lines)


def _needed(one: Standing) -> str:
    papers = ", ".join(one.papers)
    if one.entries:
        numbers = f", {_count(one.claims, 'number', 'numbers')}" if one.claims else ""
        return f"{_count(len(one.entries), 'entry', 'entries')}{numbers}: {papers}"
    return f"{_count(len(one.experiments), 'experiment', 'experiments')}: {papers}" if one.experiments else ""


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _json(standings: Iterable[Standing]) -> str:
    found = []
    for one in standings:
        record = weights.record(one.role)
        found.append(
            dataclasses.asdict(one)
            | {
                "path": str(one.path) if one.path else "",
                "bytes": one.path.stat().st_size if one.path else 0,
                "title": record.title if record else "",
                "hub": record.hub.repo if record and record.hub else "",
            }
        )
    return json.dumps(found, indent=1)


# ----------------------------------------------------------------------------------------------------------------- show
def _page(one: Standing) -> str:
    """All about one role, as text of at most 100 columns; commands are never wrapped."""
    record = weights.record(one.role)
    if record is None:
        how = f"The network of {one.stage}: trained before the runs that need it, then kept." if one.stage else ""
        parts = {"what": [how or "A file that an experiment names; the registry does not know it."]}
        commands = [] if one.stage else [f"weights add {one.role} FILE"]
        return _text(one.role, "", parts | {"needed by": _users(one)}, commands)
    here = f"{one.state}: {one.path}" if one.path else one.state
    identity = [f"{len(record.has)} tensors by name and shape" if record.has else "no tensor names are known"]
    identity += [f"{record.tensors} tensors are loaded"] if record.tensors else []
    identity += [f"SHA-256 {record.sha256}" if record.sha256 else "no SHA-256 is known"]
    fetched = record.hub is not None or one.role.startswith(weights.TIMM)
    commands = [f"weights fetch {one.role}"] if fetched else []
    parts = {
        "state": [here, one.problem], "needed by": _users(one), "from": [record.origin],
        "by hand": list(record.get), "hub": [f"{record.hub.repo}, {record.hub.file}"] if record.hub else [],
        "licence": [record.licence], "size": [record.size], "loads into": [record.loads_into],
        "names": [record.keys], "classes": [", ".join(record.classes)], "checked": ["; ".join(identity)],
        "without it": [record.fallback],
    }  # fmt: skip
    return _text(one.role, record.title, parts, [*commands, f"weights add {one.role} FILE"])


def _users(one: Standing) -> list[str]:
    if not one.experiments:
        record = weights.record(one.role)
        return [f"no experiment: {record.reserved}" if record is not None and record.reserved else "no experiment"]
    missing = one.state in ("missing", "wrong") and one.claims
    alone = f"; for {one.unblocks} of the numbers no other weights file is missing" if missing else ""
    return [f"{_needed(one)}{alone}", f"experiments: {', '.join(one.experiments)}"]


def _text(role: str, title: str, parts: dict[str, list[str]], commands: list[str]) -> str:
    head = f"{role}: {title}" if title else role
    lines = [head, "=" * len(head)]
    for name, texts in parts.items():
        told = [text for text in texts if text]
        lines += ["", name] if told else []
        for text in told:
            lines += textwrap.wrap(
                text,
                WIDTH,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    lines += ["", "next", *(f"  python run_all.py {command}" for command in commands)] if commands else []
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------- add, fetch
def _add(role: str, file: Path, replace: bool) -> None:
    from bench import weights_add

    _report(role, weights_add.add(role, file, replace))


def _fetch(roles: Iterable[str], offline: bool, replace: bool) -> int:
    """Each role on its own; 1 when one could not be had."""
    from bench import weights_add

    status = 0
    for role in roles:
        try:
            _report(role, weights_add.fetch(role, offline, replace))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    return status


def _report(role: str, added: weights_add.Added) -> None:
    old = f"; without {added.absent} batch counters of BatchNorm, which nothing reads: an old file" * bool(added.absent)
    print(f"{role}: {added.used} tensors to load, {added.held} in the file{old}")
    print(f"SHA-256 {added.sha256}" + (f", of {added.repo} on the hub" if added.repo else ""))
    print(f"{'added as' if added.new else 'there already:'} {added.path}")
