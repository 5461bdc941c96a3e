"""`data verify`: what a dataset copy is."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

DONE, NOT_BENCHMARK = 0, 1  # 2, a path that holds no known dataset, comes from the UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data verify`."""
    parser.add_argument("path", type=Path, metavar="PATH", help="a dataset's folder, or a data root")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")


def main(args: argparse.Namespace) -> int:
    """Exit status: 0 benchmark, 1 not the benchmark or problems found. UserError: no known dataset at PATH."""
    from bench import declare, registry
    from bench.data import verify

    known = {name: found.load() for name, found in registry.available("dataset").items()}
    reports = verify.verify(args.path.expanduser(), known, declare.load().protocols.values())
    if args.json:
        print(json.dumps([dataclasses.asdict(report) for report in reports], indent=1))
    else:
        print("\n\n".join(verify.render(report) for report in reports))
    return DONE if all(report.benchmark for report in reports) else NOT_BENCHMARK
