"""Which weight files are here, who needs them, and what each would unblock. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import weights
from bench.declare import Claim, Declarations
from bench.errors import UserError

State = Literal["here", "bundled", "wrong", "missing", "stage"]


@dataclass(frozen=True)
class Standing:
    """One role: whether its file is here, and who needs it.

    Attributes:
        path: of the file, where there is one.
        problem: why the file is wrong.
        stage: the entry whose network fills the role, where a stage does.
        papers, experiments: that name the role.
        entries: of tables, printed rows and extra ones, that cannot do without it.
        claims: printed numbers of those entries.
        unblocks: claims among them for which no other weights file is missing.
    """

    role: str
    state: State
    path: Path | None
    problem: str
    stage: str
    papers: tuple[str, ...]
    experiments: tuple[str, ...]
    entries: tuple[str, ...]
    claims: int
    unblocks: int


def standings(declared: Declarations, asked: Sequence[str] = ()) -> list[Standing]:
    """Every role that a record, a stage or an experiment names, those of the registry first, in its order; then timm's
    files that are here or `asked` for.
    """
    named = [role for experiment in declared.experiments.values() for role in experiment.weights]
    of_timm = [
        path.stem for path in sorted(weights.folder().glob(f"{weights.TIMM}*")) if path.suffix in weights.SUFFIXES
    ]
    of_timm += [role for role in asked if weights.record(role) is not None]
    roles = dict.fromkeys([*weights.records(), *declared.stages, *named, *of_timm])
    found = {role: _found(declared, role) for role in roles}
    lacking = {role for role, (state, _, _) in found.items() if state in ("missing", "wrong")}
    printed = [claim for claim in declared.claims() if claim.experiment]
    extra = [claim for table in declared.tables.values() for claim in table.extra_claims()]
    return [_standing(declared, role, found[role], lacking, printed, extra) for role in found]


def _found(declared: Declarations, role: str) -> tuple[State, Path | None, str]:
    if role in declared.stages:
        return "stage", None, ""
    path = weights.find(role)
    if path is None:
        return "missing", None, ""
    try:
        weights.check(role, path)
    except UserError as error:
        return "wrong", path, error.message
    return ("here" if path.parent == weights.folder() else "bundled"), path, ""


def _standing(
    declared: Declarations,
    role: str,
    found: tuple[State, Path | None, str],
    lacking: AbstractSet[str],
    printed: Sequence[Claim],
    extra: Sequence[Claim],
) -> Standing:
    state, path, problem = found
    needing = {name: one for name, one in declared.experiments.items() if role in one.weights}
    claims = [claim for claim in printed if claim.experiment in needing]
    entries = dict.fromkeys(claim.entry for claim in (*claims, *extra) if claim.experiment in needing)
    alone = {name for name, one in needing.items() if lacking & set(one.weights) == {role}}
    return Standing(
        role=role, state=state, path=path, problem=problem, stage=declared.stages.get(role, ""),
        papers=tuple(dict.fromkeys(one.paper for one in needing.values())), experiments=tuple(needing),
        entries=tuple(entries), claims=len(claims), unblocks=sum(claim.experiment in alone for claim in claims),
    )  # fmt: skip
