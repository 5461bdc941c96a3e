"""Rows of ours beside a paper's: which of their cells are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from bench import matrix, weights
from bench.declare import Claim, Declarations, ProfileName, Table

Mode = Literal["auto", "all", "none"]
MODES: tuple[Mode, ...] = get_args(Mode)


def asked(declared: Declarations, tables: Iterable[Table], profile: ProfileName, mode: Mode) -> list[Claim]:
    """The cells of extra rows that a command line asks for.

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
            if mode == "all" or (claim.row in fallback and _lacks_file(declared, stood_for, profile)):
                found.append(claim)
    return found


def _lacks_file(declared: Declarations, claim: Claim, profile: ProfileName) -> bool:
    """Whether the runs behind a printed cell need an external file that is not here."""
    if not matrix.has_profile(declared, claim, profile):
        return False
    entry = matrix.running_entry(declared, claim.experiment, claim.protocol, profile)
    run = matrix.runs_of(declared, entry, profile, [0])[0]
    return any(weights.find(role) is None for role in run.weights)
