"""Counting the parameters that tables print, for the commands that run tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from bench import declare, matrix, parameters, registry
from commands.filters import passes


def count_parameters(
    declared: declare.Declarations, args: argparse.Namespace, claims: Iterable[declare.Claim],
    profile: declare.ProfileName, results: Path,
) -> bool:  # fmt: skip
    """Count what claims ask for: what the file says is not trusted; with --plan only say what it lacks.

    Args:
        results: the folder of parameters.csv, the same for all profiles: networks are built as the paper has them.

    Returns:
        Whether something could not be counted; it is printed.
    """
    passing = (c for c in claims if c.experiment and passes(args, _entry(declared, c, profile)))
    built = registry.available("method")
    wanted = [e for e in parameters.asked(passing) if declared.experiment(e).method in built]
    known = {experiment for experiment, _ in parameters.known(declared, results)}
    missing = [experiment for experiment in wanted if args.force or experiment not in known]
    if missing:
        print(f"parameters to count (no data, no training): {', '.join(missing)}", flush=True)
    if args.plan or not wanted:
        return False
    corrected, problems = parameters.count(declared, wanted, results, args.force)
    for text in corrected:
        print(f"warning: {text}: counted again", file=sys.stderr)
    for problem in problems:
        print(f"warning: not counted: {problem}", file=sys.stderr)
    return bool(problems)


def _entry(declared: declare.Declarations, claim: declare.Claim, profile: declare.ProfileName) -> declare.Entry:
    return matrix.running_entry(declared, claim.experiment, claim.protocol, profile)
