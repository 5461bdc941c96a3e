"""`list`: tables, methods and datasets, with what can be run here."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import declare, matrix, plan, registry
from bench.data.source import Copies, data_root
from bench.errors import UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `list`."""
    parser.add_argument(
        "what", nargs="?", choices=("tables", "methods", "datasets", "experiments"), help="only this part"
    )
    parser.add_argument("--data-root", help="folder holding the datasets (else FERBENCH_DATA)")
    parser.add_argument("--results", default="results", help="folder of results (default: results)")


def main(args: argparse.Namespace) -> int:
    """Print the lists."""
    root = data_root(args.data_root)
    declared = declare.load(root)
    parts = {"tables": _tables, "methods": _methods, "datasets": _datasets, "experiments": _experiments}
    for name, part in parts.items():
        if args.what == name or (not args.what and name != "experiments"):
            print(f"{name}:")
            part(declared, root)
    if not args.what:
        where = (
            str(root) if root else "none (set FERBENCH_DATA or --data-root; without one, tables run on synthetic faces)"
        )
        print(f"data root: {where}")
    return 0


def _tables(declared: declare.Declarations, root: Path | None) -> None:
    planner = plan.Planner(root)
    for table in declared.tables.values():
        own = [claim for claim in table.claims() if claim.experiment]
        runs = matrix.expand(declared, own, "paper", [0])
        real = sum(planner.stop(run, votes=False) is None for run in runs)
        quick = matrix.expand(declared, own, "quick", [0])
        faces = sum(planner.stop(run, votes=False) is None for run in quick)
        numbers = f"{len(own)} own of {len(table.claims())} numbers"
        numbers += f" + {len(table.extra)} rows" if table.extra else ""
        here = f"runs here: real {real}/{len(runs)}, synthetic {faces}/{len(quick)}"
        print(f"  {table.id:18} {numbers:30} {here}  {table.title}")
    for report in declared.reports.values():
        entries = [f"{experiment}:{report.protocol}" for experiment in report.experiments.values()]
        asked = [declared.entry(entry) for entry in (*entries, *report.judges.values())]
        runs = [matrix.runs_of(declared, entry, "paper", [0])[0] for entry in asked]
        able = sum(planner.stop(run, votes=False) is None for run in runs)
        numbers = f"{len(report.lines)} measures of {len(entries)} networks"
        print(f"  {report.id:18} {numbers:30} runs here: {able}/{len(runs)}  {report.title} (ours)")


def _methods(declared: declare.Declarations, root: Path | None) -> None:
    built = registry.available("method")
    for name in sorted(built | {e.method: None for e in declared.experiments.values()}):
        count = sum(e.method == name for e in declared.experiments.values())
        about = f"version {built[name].version}  {built[name].doc}" if name in built else "not built yet"
        print(f"  {name:18} {count:3} experiments  {about}")


def _datasets(declared: declare.Declarations, root: Path | None) -> None:
    copies = Copies(root)
    for protocol in declared.protocols.values():
        counts = " / ".join(f"{split} {count:,}" for split, count in protocol.counts.items())
        try:
            copies.check(protocol)
            state = "ready"
        except UserError as error:
            state = error.message
        print(f"  {protocol.id:30} {counts:44} {state}")


def _experiments(declared: declare.Declarations, root: Path | None) -> None:
    for experiment in declared.experiments.values():
        print(f"  {experiment.id:30} {experiment.method:10} {experiment.backbone:22} {experiment.recipe}")
