"""Rows of ours beside a paper's: which of their cells are asked for; and which cells a profile cannot answer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from bench import matrix, weights
from bench.data import source
from bench.declare import PROFILES, Claim, Declarations, ProfileName, Table
from bench.errors import UserError

Mode = Literal["auto", "all", "none"]
MODES: tuple[Mode, ...] = get_args(Mode)


def asked(
    declared: Declarations, tables: Iterable[Table], profile: ProfileName, mode: Mode, root: Path | None = None
) -> list[Claim]:
    """The cells of extra rows that a command line asks for and the profile can answer.

    Args:
        mode: auto: where a printed cell lacks an external file here, the first fallback row that has its own and the
            images of its stages; never under profile quick, which needs none. all: every extra row; none: none.
        root: the data root, where images of stages are looked for; None: they are taken to be there.
    """
    if mode == "none" or (mode == "auto" and profile == "quick"):
        return []
    found = []
    copies = source.Copies(root) if root else None
    for table in tables:
        answered = [c for c in table.extra_claims() if unanswerable(declared, table, c, profile) is None]
        found += answered if mode == "all" else _fallbacks(declared, table, answered, profile, copies)
    return found


def _fallbacks(
    declared: Declarations, table: Table, answered: Iterable[Claim], profile: ProfileName,
    copies: source.Copies | None,
) -> list[Claim]:  # fmt: skip
    """Of the cells of extra rows, one for each printed cell that lacks a file; where all lack theirs too, the last."""
    fallback = {row.id for row in table.extra if row.run == "fallback"}
    several: dict[tuple[str, str], list[Claim]] = {}
    for claim in answered:
        if claim.row in fallback:
            several.setdefault((claim.instead_of, claim.column), []).append(claim)
    chosen = []
    for printed in table.claims():
        there = several.get((printed.row, printed.column), [])
        asks = bool(there) and matrix.has_profile(declared, printed, profile)
        if asks and _lacks_file(declared, printed, profile):
            whole = (one for one in there if not _lacks_file(declared, one, profile))
            chosen.append(next((one for one in whole if _has_images(declared, one, profile, copies)), there[-1]))
    return [claim for claim in table.extra_claims() if claim in chosen]  # in the order of the rows


def _lacks_file(declared: Declarations, claim: Claim, profile: ProfileName) -> bool:
    return lacks_file(declared, claim.experiment, claim.protocol, profile)


def _has_images(declared: Declarations, claim: Claim, profile: ProfileName, copies: source.Copies | None) -> bool:
    """Whether the images of all stages behind a cell are at hand; without `copies` nobody looks."""
    if copies is None:
        return True
    entry = matrix.running_entry(declared, claim.experiment, claim.protocol, profile)
    behind = list(matrix.runs_of(declared, entry, profile, [0])[0].stages.values())
    for run in behind:
        behind += run.stages.values()
    try:
        for run in behind:
            copies.check(run.entry.protocol, preprocessing=run.preprocessing)
    except UserError:
        return False
    return True


def lacks_file(declared: Declarations, experiment: str, protocol: str, profile: ProfileName) -> bool:
    """Whether runs lack a file that their experiment names: absent, another one, or the profile goes without it."""
    if matrix.goes_without(declared, experiment, profile):
        return True
    entry = matrix.running_entry(declared, experiment, protocol, profile)
    try:
        weights.require(matrix.runs_of(declared, entry, profile, [0])[0].weights)
    except UserError:
        return True
    return False


def unanswerable(declared: Declarations, table: Table, claim: Claim, profile: ProfileName) -> UserError | None:
    """Why a cell gets no number under a profile: the profile changes what its row is about. None where it gets one.

    That is a file that the experiment names, on real data; or an option or another augmentation that an asked row
    sets, which would then differ from the row it stands for in another way than its title says, or not at all; or
    another profile than a row's own.
    """
    if not claim.experiment or claim.metric.startswith("parameters"):
        return None
    if not matrix.has_profile(declared, claim, profile):
        return None
    gone = matrix.goes_without(declared, claim.experiment, profile)
    if gone:
        rows = {row.id: row.title for row in table.extra if row.run == "fallback" and row.instead_of == claim.row}
        cells = [c for c in table.extra_claims() if c.row in rows and c.column == claim.column]
        titles = [rows[c.row] for c in cells if not matrix.goes_without(declared, c.experiment, profile)]
        named = " or ".join(f"'{title}'" for title in titles)
        hint = f"see the row {named} below the table" if titles else "use --profile paper"
        return UserError(f"profile {profile} goes without {', '.join(gone)}", hint)
    own = next((row.profiles for row in table.extra if row.id == claim.row), PROFILES)
    if profile not in own:
        return UserError(f"not declared for profile {profile}", f"use --profile {' or '.join(own)}")
    asked_rows = {row.id for row in table.extra if row.run == "asked"}
    scaled = _scaled(declared, table, claim, profile) if claim.row in asked_rows else ()
    if scaled:
        return UserError(f"profile {profile} sets {', '.join(scaled)} for all rows alike", "use --profile paper")
    return None


def left_out(declared: Declarations, table: Table, profile: ProfileName) -> dict[str, list[str]]:
    """Reason -> titles of the extra rows that the profile cannot answer."""
    titles = {row.id: row.title for row in table.extra}
    found: dict[str, dict[str, None]] = {}
    for claim in table.extra_claims():
        stop = unanswerable(declared, table, claim, profile)
        if stop is not None:
            found.setdefault(stop.message, {})[titles[claim.row]] = None
    return {reason: list(rows) for reason, rows in found.items()}


def _scaled(declared: Declarations, table: Table, claim: Claim, profile: ProfileName) -> tuple[str, ...]:
    """What both an extra row's experiment and the profile of its recipe set: options, and another augmentation."""
    named = declared.experiment(claim.experiment)
    override = declared.recipe(named.recipe).override(profile)
    found = [name for name in named.options if name in override.options or f"method.{name}" in override.fields]
    if override.augmentation:
        (stood_for,) = (c for c in table.claims() if (c.row, c.column) == (claim.instead_of, claim.column))
        if declared.experiment(stood_for.experiment).augmentation != named.augmentation:
            found.append("augmentation")
    return tuple(found)
