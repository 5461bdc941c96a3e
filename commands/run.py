"""The default command: plan, run what is missing, collect, render."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import declare, matrix, plan, store
from bench.data.source import data_root
from bench.errors import UserError, unknown
from bench.plan import Planned
from bench.queue import Local, Outcome, Task
from commands.figures import draw_figures, figure_runs, figures_of
from commands.progress import Progress, duration

DONE, FAILED, BLOCKED = 0, 1, 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `run` (and of a command line that names no command)."""
    what = parser.add_argument_group("what")
    what.add_argument("--table", nargs="+", default=[], metavar="ID", help="tables such as fervt-table11")
    what.add_argument("--paper", nargs="+", default=[], metavar="ID", help="every table of a paper")
    what.add_argument("--all", action="store_true", help="every table of every paper")
    what.add_argument("--dataset", nargs="+", default=[], help="only entries on these datasets")
    what.add_argument("--protocol", nargs="+", default=[], help="only entries on these protocols")
    what.add_argument("--method", nargs="+", default=[], help="only these methods")
    what.add_argument("--backbone", nargs="+", default=[], help="only these backbones")
    what.add_argument("--seeds", nargs="+", type=int, help="seeds to run (default: 0 1 2 for profile paper, else 0)")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--profile",
        choices=declare.PROFILES,
        help="paper (default with a data root), short, or quick (default without)",
    )
    how.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    how.add_argument(
        "--jobs", type=int, help="runs at once (default: one per GPU, or one per CPU core in profile quick)"
    )
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    how.add_argument("--data-root", help="folder holding the datasets (else FERBENCH_DATA)")
    how.add_argument("--results", default="results", help="folder for CSVs and tables (default: results)")
    how.add_argument("--force", action="store_true", help="run again what is finished")
    how.add_argument("--fail-fast", action="store_true", help="start nothing more after a failure")
    how.add_argument("--checkpoint-seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    out = parser.add_argument_group("output")
    out.add_argument("--selection", choices=store.SELECTIONS, help="compare this selection instead of each table's own")
    out.add_argument("--format", choices=("md", "latex", "html", "csv"), default="md", help="what to print")
    out.add_argument("--figures", action="store_true", help="draw the methods' figures too")


def main(args: argparse.Namespace) -> int:
    """Plan, run, collect, render."""
    declared = declare.load()
    if not (args.table or args.paper or args.all):
        raise UserError("nothing asked for", "name a table (--table fervt-table11), a paper (--paper fervt) or --all")
    tables = matrix.selected_tables(declared, args.table, args.paper, args.all)
    root = data_root(args.data_root)
    profile = args.profile or ("paper" if root else "quick")
    seeds = args.seeds or ([0, 1, 2] if profile == "paper" else [0])
    results = store.results_folder(args.results, profile)
    if profile == "quick":
        print("profile quick: SYNTHETIC faces made on this machine; no number below is comparable with a paper's")
    runs = matrix.expand(declared, [c for t in tables for c in t.claims()], profile, seeds)
    figures = figures_of(declared, tables) if args.figures else []
    runs += figure_runs(declared, figures, profile, seeds[0])
    runs = filtered(declared, args, list({run.identity: run for run in runs}.values()))
    planned = plan.plan(runs, root, results, args.force)
    print_plan(planned, detailed=args.plan)
    if args.plan:
        return BLOCKED if any(p.status == "blocked" for p in planned) else DONE
    planned = prepare_data(planned, root, results, args.force)
    outcomes = execute(planned, root, args) if any(p.status == "runnable" for p in planned) else []
    failed = [o for o in outcomes if o.status == "failed"]
    finished = [p for p in planned if store.find_result(p.key, results) and p.key]
    _collect([store.find_result(p.key, results) for p in finished], results, declared)
    from commands.render import draw

    draw(declared, tables, profile, results, seeds, args.selection, args.format, planned=planned)
    draw_figures(declared, figures, profile, results, root, seeds[0])
    return FAILED if failed else BLOCKED if any(p.status == "blocked" for p in planned) else DONE


def filtered(declared: declare.Declarations, args: argparse.Namespace, runs: list[matrix.Run]) -> list[matrix.Run]:
    """Runs that pass --dataset, --protocol, --method and --backbone; a value nothing declares is an error."""
    known = {
        "dataset": {p.dataset for p in declared.protocols.values()},
        "protocol": set(declared.protocols),
        "method": {e.method for e in declared.experiments.values()},
        "backbone": {e.backbone for e in declared.experiments.values()},
    }
    for name, values in known.items():
        for asked in getattr(args, name):
            if asked not in values:
                raise unknown(name, asked, values)

    def passes(run: matrix.Run) -> bool:
        experiment, protocol = run.entry.experiment, run.entry.protocol
        found = {
            "dataset": protocol.dataset,
            "protocol": protocol.id,
            "method": experiment.method,
            "backbone": experiment.backbone,
        }
        return all(not getattr(args, name) or value in getattr(args, name) for name, value in found.items())

    return [run for run in runs if passes(run)]


def print_plan(planned: Sequence[Planned], detailed: bool) -> None:
    """One line of totals; with `detailed`, one line for every run and one for every way to unblock."""
    count = {status: sum(p.status == status for p in planned) for status in ("cached", "runnable", "blocked")}
    known = [p.seconds for p in planned if p.status == "runnable" and p.seconds is not None]
    time = f", about {duration(sum(known))}" if known else ""
    if len(known) < count["runnable"]:
        time += f" ({count['runnable'] - len(known)} of unknown time: nothing like them has run here)"
    counted = f"{count['cached']} cached, {count['runnable']} runnable{time}, {count['blocked']} blocked"
    print(f"plan: {len(planned)} runs: {counted}")
    if detailed:
        for p in planned:
            note = p.reason or (f"about {duration(p.seconds)}" if p.seconds else "")
            print(f"  {p.status:8}  {p.run.name}{'  ' + p.key if p.key else ''}{'  ' + note if note else ''}")
    reasons: dict[tuple[str, str], int] = {}
    for p in planned:
        if p.status == "blocked":
            reasons[p.reason, p.unblock] = reasons.get((p.reason, p.unblock), 0) + 1
    for (reason, unblock), runs in reasons.items():
        print(f"  blocked ({runs} runs): {reason}" + (f"\n    -> {unblock}" if unblock else ""))


def prepare_data(planned: list[Planned], root: Path | None, results: Path, force: bool) -> list[Planned]:
    """Decode (or render) what the runnable runs need and do not have cached; then every run has its key."""
    unread = {p.run.entry.protocol.id: p.run.entry.protocol for p in planned if p.status == "runnable" and not p.key}
    if not unread:
        return planned
    from bench.data.source import open_data

    for protocol in unread.values():
        print(f"reading {protocol.id} ...", flush=True)
        open_data(protocol, root)
    return plan.plan([p.run for p in planned], root, results, force)


def execute(planned: Sequence[Planned], root: Path | None, args: argparse.Namespace) -> list[Outcome]:
    """Run what is runnable in the local queue."""
    tasks = []
    for p in planned:
        if p.status == "runnable":
            if args.force:
                (store.run_folder(p.key) / "result.json").unlink(missing_ok=True)
            specification = matrix.specification(p.run, p.key, root, args.device, args.checkpoint_seconds)
            tasks.append(Task(p.key, p.run.name, specification))
    devices, slots = _devices(args, planned)
    progress = Progress(len(tasks))
    print(f"running {len(tasks)} on {', '.join(devices)}, {slots} at a time", flush=True)
    return Local(slots, devices, args.fail_fast, progress.update, progress.ended).run(tasks)


def _devices(args: argparse.Namespace, planned: Sequence[Planned]) -> tuple[list[str], int]:
    """Devices of the slots, and how many slots."""
    cores = os.cpu_count() or 1
    if args.device == "auto" and any(Path("/dev").glob("nvidia[0-9]*")):
        import torch

        if torch.cuda.is_available():
            devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
            return devices, args.jobs or len(devices)
    if args.device.startswith("cuda"):
        return [args.device], args.jobs or 1
    quick = all(p.run.profile == "quick" for p in planned if p.status == "runnable")
    return ["cpu"], args.jobs or (min(cores, 8) if quick else 1)


def _collect(folders: Sequence[Path | None], results: Path, declared: declare.Declarations) -> None:
    """Score finished runs; a damaged one is named, set aside and will be run again by the next call."""
    from bench.collect import collect

    for folder in folders:
        if folder is None:
            continue
        try:
            collect([folder], results, declared)
        except UserError as error:
            print(f"warning: {error.message}; the run is set aside and will be made again", file=sys.stderr)
            (folder / "result.json").rename(folder / "result.damaged.json")
