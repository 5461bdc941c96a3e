"""Rows of ours beside a paper's: which of their cells are asked for; and which cells a profile cannot answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from bench import matrix, weights
from bench.declare import Claim, Declarations, ProfileName, Table
from bench.errors import UserError

Mode = Literal["auto", "all", "none"]
MODES: tuple[Mode, ...] = get_args(Mode)


def asked(declared: Declarations, tables: Iterable[Table], profile: ProfileName, mode: Mode) -> list[Claim]:
    """The cells of extra rows that a command line asks for and the profile can answer.

    Args:
        mode: auto: fallback rows where a printed row lacks an external file here, and never under profile quick, which
            needs none; all: every extra row; none: none.
    """
    if mode == "none" or (mode == "auto" and profile == "quick"):
        return []
    found = []
    for table in tables:
        fallback = {row.id for row in table.extra if row.run == "fallback"}
        printed = {(claim.row, claim.column): claim for claim in table.claims()}
        for claim in table.extra_claims():
            stood_for = printed[claim.instead_of, claim.column]
            wanted = mode == "all" or (
                claim.row in fallback
                and matrix.has_profile(declared, stood_for, profile)
                and lacks_file(declared, stood_for.experiment, stood_for.protocol, profile)
            )
            if wanted and unanswerable(declared, table, claim, profile) is None:
                found.append(claim)
    return found


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

    That is a file that the experiment names, on real data; or an option that an asked row sets, which would then be
    larger or smaller than the row it stands for in another way than its title says.
    """
    if not claim.experiment or claim.metric.startswith("parameters"):
        return None
    if not matrix.has_profile(declared, claim, profile):
        return None
    gone = matrix.goes_without(declared, claim.experiment, profile)
    if gone:
        rows = [row for row in table.extra if row.run == "fallback" and row.instead_of == claim.row]
        titles = [row.title for row in rows if claim.column in (row.columns or (claim.column,))]
        hint = f"see the row '{titles[0]}' below the table" if titles else "use --profile paper"
        return UserError(f"profile {profile} goes without {', '.join(gone)}", hint)
    asked_rows = {row.id for row in table.extra if row.run == "asked"}
    scaled = _scaled(declared, claim.experiment, profile) if claim.row in asked_rows else ()
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


def _scaled(declared: Declarations, experiment: str, profile: ProfileName) -> tuple[str, ...]:
    """The options that both an experiment and the profile of its recipe set."""
    named = declared.experiment(experiment)
    override = declared.recipe(named.recipe).override(profile)
    return tuple(name for name in named.options if name in override.options or f"method.{name}" in override.fields)
