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
    parser.add_argument("--no-near", action="store_true", help="do not look for near duplicates across splits")
    parser.add_argument(
        "--skip-bad", action="store_true", help="count without images that cannot be read, as a run with --skip-bad"
    )


def main(args: argparse.Namespace) -> int:
    """Exit status: 0 benchmark, or own data without problems; 1 otherwise. UserError: no known dataset at PATH."""
    from bench import declare, registry
    from bench.data import verify, verify_text

    path = args.path.expanduser()
    known = {name: found.load() for name, found in registry.available("dataset").items()}
    protocols = declare.load(path if path.is_dir() else None).protocols.values()
    reports = verify.verify(path, known, protocols, near=not args.no_near, skip_bad=args.skip_bad)
    if args.json:
        print(json.dumps([dataclasses.asdict(report) for report in reports], indent=1))
    else:
        print("\n\n".join(verify_text.render(report) for report in reports))
    return DONE if all(report.sound for report in reports) else NOT_BENCHMARK
