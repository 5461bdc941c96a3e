"""`check`: results against the baseline; exit 1 on a regression, naming cell, numbers and how to see it again."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import collect, declare, matrix, regression, store
from bench.errors import UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `check`."""
    parser.add_argument("--results", default="results", help="folder of results (default: results)")
    parser.add_argument(
        "--baseline", default="results/baseline.csv", help="what is expected (default: results/baseline.csv)"
    )
    parser.add_argument("--profile", choices=declare.PROFILES, help="baseline rows checked (default: paper and short)")
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
    for report in declared.reports.values():
        for experiment in report.experiments.values():
            tables.setdefault((experiment, report.protocol), report.id)
    profiles = (args.profile,) if args.profile else ("paper", "short")
    runs = store.results_folder(args.results, profiles[0]) / "runs.csv"
    rows = [row for row in collect.read_rows(Path(args.baseline)) if row.get("profile") in profiles]
    if not rows:
        raise UserError(f"{args.baseline}: no row of profile {' or '.join(profiles)}", "nothing would be checked")
    found = [r for r in regression.check(runs, Path(args.baseline), args.band, tables) if r.profile in profiles]
    print(f"{len(rows)} baseline rows of profile {' and '.join(profiles)}")
    print(regression.format(found))
    return 1 if any(r.is_error for r in found) else 0
