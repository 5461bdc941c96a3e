"""`check`: results against the baseline; exit 1 on a regression, naming cell, numbers and how to see it again."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import declare, matrix, regression


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `check`."""
    parser.add_argument("--results", default="results", help="folder whose runs.csv is checked (default: results)")
    parser.add_argument(
        "--baseline", default="results/baseline.csv", help="what is expected (default: results/baseline.csv)"
    )
    parser.add_argument("--profile", choices=declare.PROFILES, help="only baseline rows of this profile")
    parser.add_argument(
        "--band", type=float, default=0.01, help="allowed drop of rows that state none, a fraction (default 0.01)"
    )


def main(args: argparse.Namespace) -> int:
    """Print disagreements; 1 when one is an error."""
    declared = declare.load()
    tables: dict[tuple[str, str], str] = {}
    for claim in declared.claims():
        for profile in declare.PROFILES if claim.experiment else ():
            tables.setdefault((claim.experiment, matrix.scored_protocol(declared, claim, profile)), claim.table)
    found = regression.check(Path(args.results) / "runs.csv", Path(args.baseline), args.band, tables)
    found = [r for r in found if not args.profile or r.profile == args.profile]
    print(regression.format(found))
    return 1 if any(r.is_error for r in found) else 0
