"""Reporting a table another way: its claims answered by a variant of their protocols, such as `leak-free`.

A variant that is a subset of the claim's own protocol is scored on the predictions that are there; any other (folds by
subject) has runs of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.declare import Claim, Declarations, ProfileName, Protocol, Table
from bench.errors import UserError, unknown


def reported_on(
    declared: Declarations, tables: Iterable[Table], variant: str, profile: ProfileName = "paper"
) -> list[Table]:
    """The tables in which some claim has the variant, called `<table>@<variant>`; their other claims stay as they are.

    Raises:
        UserError: no protocol has such a variant, or none behind these tables.
    """
    _check_known(declared, variant)
    asked = list(tables)
    found = [table for table in asked if any(variant in _variants(declared, claim) for claim in table.claims())]
    if not found:
        have = sorted({name for table in asked for claim in table.claims() for name in _variants(declared, claim)})
        message = f"no protocol behind {', '.join(table.id for table in asked)} has a variant '{variant}'"
        raise UserError(message, f"known there: {', '.join(have)}" if have else "none has any")
    return [
        table.answering(
            f"{table.id}@{variant}",
            [claim_on(declared, claim, variant, profile) for claim in table.claims()],
            [claim_on(declared, claim, variant, profile) for claim in table.extra_claims()],
        )
        for table in found
    ]


def claim_on(declared: Declarations, claim: Claim, variant: str, profile: ProfileName = "paper") -> Claim:
    """A claim as answered by the variant; only its table's name changes where its protocol has none."""
    _check_known(declared, variant)
    changed = {"table": f"{claim.table}@{variant}"}
    if variant in _variants(declared, claim):
        protocol = declared.protocol(_variants(declared, claim)[variant])
        why = _why(protocol, declared.protocol(claim.protocol), variant, profile)
        changed |= {"protocol": protocol.id, "differs": "; ".join(filter(None, [why, claim.differs]))}
    return claim.model_copy(update=changed)


def _why(protocol: Protocol, plain: Protocol, variant: str, profile: ProfileName) -> str:
    """What the claim is answered with; profile quick takes the stand-in, which can be the plain protocol's."""
    if profile == "quick" and protocol.stand_in and protocol.stand_in == plain.stand_in:
        if protocol.rule.endswith("leak-free"):
            return f"--variant {variant}: the synthetic stand-in has no copies: its whole test set"
        return f"--variant {variant}: the synthetic stand-in is the same as without it"
    return f"reported on {protocol.title or protocol.id} (--variant {variant})"


def _variants(declared: Declarations, claim: Claim) -> dict[str, str]:
    """Variants that can answer a claim: none for a cited number, or one that no test image enters."""
    if not claim.experiment or claim.metric.startswith("parameters"):
        return {}
    return declared.protocol(claim.protocol).variants


def _check_known(declared: Declarations, variant: str) -> None:
    known = {name for protocol in declared.protocols.values() for name in protocol.variants}
    if variant not in known:
        raise unknown("variant", variant, known)
