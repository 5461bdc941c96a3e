"""The default command: plan, run what is missing, collect, render."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import declare, extra, launch, matrix, plan, store
from bench.collect import collect
from bench.data.source import data_root
from bench.errors import UserError
from bench.plan import Planned
from bench.queue import Local, Outcome, Task
from commands import render, reports
from commands.arguments import add_checkpoint, add_variant, count, device, seed, tables_asked
from commands.devices import check_processes, slots_of
from commands.figures import draw_figures, figure_runs, figures_of, unasked
from commands.filters import filtered, passes
from commands.parameters import count_parameters
from commands.progress import Progress, duration

DONE, FAILED, BLOCKED = 0, 1, 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `run` (and of a command line that names no command)."""
    what = parser.add_argument_group("what")
    what.add_argument("--table", nargs="+", default=[], metavar="ID", help="tables such as fervt-table11")
    what.add_argument("--paper", nargs="+", default=[], metavar="ID", help="every table of a paper")
    what.add_argument("--all", action="store_true", help="every table of every paper")
    what.add_argument(
        "--experiment", nargs="+", default=[], metavar="ID", help="these experiments on every --protocol, no table"
    )
    what.add_argument("--dataset", nargs="+", default=[], help="only entries on these datasets")
    what.add_argument("--protocol", nargs="+", default=[], help="only on these protocols; those of --experiment")
    what.add_argument(
        "--method", nargs="+", default=[], help="only these methods; without a table, the experiments of these names"
    )
    what.add_argument(
        "--backbone",
        nargs="+",
        default=[],
        help="only these backbones; without a table, any that the method can take in place of the experiment's own "
        "(nresizer: every timm model), pretrained where its file is at hand, else from scratch",
    )
    add_variant(what)
    what.add_argument(
        "--extra",
        choices=extra.MODES,
        default="auto",
        help="rows that the paper does not print: auto (fallbacks for rows that lack a weights file), all, none",
    )
    what.add_argument("--seeds", nargs="+", type=seed, help="seeds to run (default: 0 1 2 for profile paper, else 0)")
    add_checkpoint(what)
    how = parser.add_argument_group("how")
    how.add_argument(
        "--profile",
        choices=declare.PROFILES,
        help="paper (default with a data root), short, or quick (default without)",
    )
    how.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    how.add_argument(
        "--jobs", type=count, help="runs at once (default: one per GPU, or one per CPU core in profile quick)"
    )
    how.add_argument(
        "--processes",
        type=count,
        default=1,
        metavar="N",
        help="processes for each run whose method can be split, on GPUs one each (default: 1)",
    )
    how.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1")
    how.add_argument("--data-root", help="folder holding the datasets (else FERBENCH_DATA)")
    how.add_argument("--results", default="results", help="folder for CSVs and tables (default: results)")
    how.add_argument("--force", action="store_true", help="run again what is finished")
    how.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out images that cannot be used; results say which and are not compared",
    )
    how.add_argument(
        "--preprocessing",
        nargs="+",
        default=[],
        metavar="NAME",
        help="profiles of bench/data/preprocessing.yaml in place of the recipes', one a dataset",
    )
    failing = how.add_mutually_exclusive_group()
    failing.add_argument("--keep-going", action="store_true", help="go on after a failure (the default)")
    failing.add_argument("--fail-fast", action="store_true", help="start nothing more after a failure")
    how.add_argument("--checkpoint-seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    out = parser.add_argument_group("output")
    out.add_argument("--selection", choices=store.SELECTIONS, help="compare this selection instead of each table's own")
    out.add_argument("--format", choices=("md", "latex", "html", "csv"), default="md", help="what to print")
    out.add_argument("--figures", action="store_true", help="draw the methods' figures too")


def main(args: argparse.Namespace) -> int:
    """Plan, run, collect, render."""
    in_tables = bool(args.table or args.paper or args.all)
    if not (in_tables or args.experiment or (args.method and not args.checkpoint)):
        raise UserError("nothing asked for", "name a table (--table fervt-table11), a paper (--paper fervt) or --all")
    alone = bool(args.experiment) or not in_tables  # experiments without a table
    root = data_root(args.data_root)
    declared = declare.load(root)
    if args.checkpoint:
        from commands import checkpoint

        if args.processes > 1:
            raise UserError("--processes shares training; a checkpoint is evaluated in one", "leave --processes out")
        return checkpoint.main(declared, args, root)
    if args.checkpoint_classes or args.colour:
        raise UserError("--checkpoint-classes and --colour are for --checkpoint", "a recipe has its own colour order")
    profile = args.profile or ("paper" if root else "quick")
    ours = [] if alone else reports.reports_asked(declared, args, args.all, profile)
    tables = [] if alone else tables_asked(declared, args, args.all, profile, declared.reports)
    seeds = list(dict.fromkeys(args.seeds or ([0, 1, 2] if profile == "paper" else [0])))
    results = store.results_folder(args.results, profile)
    if profile == "quick":
        print("profile quick: SYNTHETIC faces made on this machine; no number below is comparable with a paper's")
    if alone:
        from commands import experiment

        return experiment.main(declared, args, root, profile, seeds, results)
    figures = figures_of(declared, tables) if args.figures else []
    asked = asked_preprocessing(args)
    extras = extra_cells(declared, args, tables, profile, root)
    claims = [claim for table in tables for claim in table.claims()] + extras
    runs = wanted_runs(declared, args, claims, figures, profile, seeds, root)
    runs += reports.report_runs(declared, args, ours, profile, seeds)
    runs = matrix.with_preprocessing(runs, asked)
    planned = plan.plan(runs, root, results, args.force, args.skip_bad)
    if not args.plan:
        planned = recheck(planned, root, results, args)
    check_processes(planned, args)
    print_plan(planned, detailed=args.plan)
    print_extra(declared, args, tables, extras, profile)
    unanswered = print_unanswered(declared, args, tables, extras, profile, root)
    blocked = bool(unanswered) or any(p.status == "blocked" for p in planned)
    uncounted = count_parameters(declared, args, claims, profile, store.results_base(results, profile))
    if args.plan:
        return BLOCKED if blocked else DONE
    planned, failed = carry_out(planned, declared, root, results, args)
    # a shortened recipe asks for no seeds of its own; the table stands for the paper's profile
    shown = [0, 1, 2] if profile == "short" else seeds
    if tables:
        render.draw(
            declared, tables, profile, results, shown, args.selection, args.format, planned=planned, root=root,
            extras=extras,
        )  # fmt: skip
    reports.measure(declared, args, ours, profile, seeds, results, root)
    reports.draw(declared, ours, profile, results, args.format, named=True, root=root, planned=True)
    if args.figures:
        draw_figures(declared, figures, profile, results, root, seeds[0], asked, args.device)
    else:
        coming = unasked(declared, tables, ours)
        draw_figures(declared, coming, profile, results, root, seeds[0], asked, args.device, if_ready=True)
    return FAILED if failed or uncounted else BLOCKED if blocked else DONE


def carry_out(
    planned: list[Planned], declared: declare.Declarations, root: Path | None, results: Path, args: argparse.Namespace
) -> tuple[list[Planned], bool]:
    """Read data, run what is missing, collect.

    Returns:
        The plan with every key, and whether anything failed.
    """
    keyed, broken = prepare_data(planned, root, results, args)
    # runs whose data had to be read first may turn out to be cached: those have not been checked yet
    planned = keyed if keyed is planned else recheck(keyed, root, results, args, broken)
    outcomes = execute(planned, root, results, args) if any(p.status == "runnable" for p in planned) else []
    folders = [store.find_result(p.key, results) for p in planned if p.key]
    problems = collect([folder for folder in folders if folder is not None], results, declared, root)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    failed = bool(broken or problems) or any(outcome.status == "failed" for outcome in outcomes)
    return planned, failed


def asked_preprocessing(args: argparse.Namespace) -> dict[str, str]:
    """Dataset -> profile of --preprocessing."""
    if not args.preprocessing:
        return {}
    from bench.data.preprocess import by_dataset

    return by_dataset(args.preprocessing)


def extra_cells(
    declared: declare.Declarations, args: argparse.Namespace, tables: Sequence[declare.Table],
    profile: declare.ProfileName, root: Path | None,
) -> list[declare.Claim]:  # fmt: skip
    """The cells of rows that no paper prints which --extra and the filters ask for."""
    found = extra.asked(declared, tables, profile, args.extra, root)
    return [c for c in found if passes(args, matrix.running_entry(declared, c.experiment, c.protocol, profile))]


def wanted_runs(
    declared: declare.Declarations, args: argparse.Namespace, claims: Sequence[declare.Claim],
    figures: Sequence[declare.Figure], profile: declare.ProfileName, seeds: Sequence[int], root: Path | None,
) -> list[matrix.Run]:  # fmt: skip
    """The unique runs behind the claims and figures that pass the filters."""
    runs = matrix.expand(declared, claims, profile, seeds)
    runs += figure_runs(declared, figures, profile, seeds[0], root)
    unique = list({run.identity: run for run in runs}.values())
    passing = filtered(declared, args, unique)
    if unique and not passing:
        raise UserError("no run of these tables passes the filters", "see --plan without them")
    return passing


def recheck(
    planned: list[Planned], root: Path | None, results: Path, args: argparse.Namespace,
    broken: plan.Broken | None = None,
) -> list[Planned]:  # fmt: skip
    """Check the files of cached runs against their hashes; a damaged run is named and planned again."""
    needed = {stage.key for p in planned if p.status == "runnable" for stage in p.stages.values()}
    cached = [p.key for p in planned if p.status == "cached"]
    wrong = [text for key in cached for text in store.set_aside_damaged(key, results, network=key in needed)]
    for text in wrong:
        print(f"warning: {text}; set aside", file=sys.stderr)
    return plan.plan(_asked(planned), root, results, args.force, args.skip_bad, broken) if wrong else planned


def _asked(planned: Sequence[Planned]) -> list[matrix.Run]:
    """The runs without the stages that are there for them."""
    return [p.run for p in planned if not p.only_stage]


def print_plan(planned: Sequence[Planned], detailed: bool) -> None:
    """One line of totals; with `detailed`, one line for every run and one for every way to unblock."""
    count = {status: sum(p.status == status for p in planned) for status in ("cached", "runnable", "blocked")}
    stages = sum(p.only_stage for p in planned)
    total = f"{len(planned)} runs" + (f", {stages} of them for other runs to build on" if stages else "")
    known = [p.seconds for p in planned if p.status == "runnable" and p.seconds is not None]
    time = f", about {duration(sum(known))}" if known else ""
    if len(known) < count["runnable"]:
        time += f" ({count['runnable'] - len(known)} of unknown time: nothing like them has run here)"
    counted = f"{count['cached']} cached, {count['runnable']} runnable{time}, {count['blocked']} blocked"
    print(f"plan: {total}: {counted}")
    if detailed:
        for p in planned:
            notes = [p.key, p.status if p.only_stage else "", p.reason]
            notes += [f"about {duration(p.seconds)}" if p.seconds else ""]
            print("  ".join([f"  {'stage' if p.only_stage else p.status:8}", p.run.name, *filter(None, notes)]))
    changed = sum(p.status == "cached" and bool(p.reason) for p in planned)
    if changed and not detailed:
        print(f"  {changed} cached runs were made by other code of the same version: --plan says which")
    _print_blocked(p for p in planned if p.status == "blocked")


def _print_blocked(planned: Iterable[Planned]) -> None:
    """A line for each reason, and the way out of it."""
    reasons: dict[tuple[str, str], int] = {}
    for p in planned:
        reasons[p.reason, p.unblock] = reasons.get((p.reason, p.unblock), 0) + 1
    for (reason, unblock), runs in reasons.items():
        print(f"  blocked ({runs} runs): {reason}" + (f"\n    -> {unblock}" if unblock else ""))


def print_extra(
    declared: declare.Declarations, args: argparse.Namespace, tables: Sequence[declare.Table],
    extras: Sequence[declare.Claim], profile: declare.ProfileName,
) -> None:  # fmt: skip
    """The rows asked for that a paper's table does not print, and those the profile leaves out; a line each."""
    for table in tables:
        asked = {claim.row for claim in extras if claim.table == table.id}
        titles = [row.title for row in table.extra if row.id in asked]
        if titles:
            print(f"  not in the paper's {table.id} (--extra none leaves them out): {'; '.join(titles)}")
        for reason, titles in extra.left_out(declared, table, profile).items() if args.extra == "all" else ():
            print(f"  left out of {table.id}: {'; '.join(titles)} ({reason})")


def print_unanswered(
    declared: declare.Declarations, args: argparse.Namespace, tables: Sequence[declare.Table],
    extras: Sequence[declare.Claim], profile: declare.ProfileName, root: Path | None,
) -> int:  # fmt: skip
    """Cells that no run can answer here: lists of a subset, a method to count, a profile that a recipe lacks or that
    goes without what the row is about.
    """
    planner = plan.Planner(root)
    reasons: dict[tuple[str, str], int] = {}
    asked = [(table, claim) for table in tables for claim in (*table.claims(), *extras) if claim.table == table.id]
    for table, claim in ((table, claim) for table, claim in asked if claim.experiment):
        if not passes(args, matrix.running_entry(declared, claim.experiment, claim.protocol, profile)):
            continue
        scored = declared.protocol(matrix.scored_protocol(declared, claim, profile))
        stop: UserError | None = None
        if claim.metric.startswith("parameters"):
            stop = planner.built(declared.experiment(claim.experiment))
        elif not matrix.has_profile(declared, claim, profile):
            recipe = declared.experiment(claim.experiment).recipe
            stop = UserError(f"recipe '{recipe}' declares no profile '{profile}'", "use another --profile")
        elif unlike := extra.unanswerable(declared, table, claim, profile):
            stop = unlike
        elif scored.subset_of:
            stop = planner.blocker(declare.Entry(experiment=declared.experiment(claim.experiment), protocol=scored), ())
        if stop is not None:
            reasons[stop.message, stop.hint] = reasons.get((stop.message, stop.hint), 0) + 1
    for (reason, unblock), cells in reasons.items():
        print(f"  blocked ({cells} cells): {reason}" + (f"\n    -> {unblock}" if unblock else ""))
    return sum(reasons.values())


def prepare_data(
    planned: list[Planned], root: Path | None, results: Path, args: argparse.Namespace
) -> tuple[list[Planned], plan.Broken]:
    """Decode (or render) what the runnable runs need and do not have cached; then every run has its key.

    Returns:
        The plan, and the data that is broken: what needs it is blocked, the others go on.
    """
    runnable = {_data_of(p.run): p for p in planned if p.status == "runnable"}
    unread = {_data_of(p.run): p.run.entry.protocol for p in planned if p.status == "runnable" and not p.data_hash}
    for data, p in runnable.items():
        if data not in unread and not p.run.entry.protocol.synthetic:
            print(f"using {_named(*data)}{_copy_of(p.run, root, args.skip_bad)}")
    if not unread:
        return planned, {}
    from bench.data.source import open_data

    broken: dict[tuple[str, str], UserError] = {}
    for (name, preprocessing), protocol in unread.items():
        where = _copy_of(runnable[name, preprocessing].run, root, args.skip_bad)
        print(f"reading {_named(name, preprocessing)}{where} ...", flush=True)
        try:
            data = open_data(protocol, root, args.skip_bad, preprocessing)
        except UserError as error:
            broken[name, preprocessing] = error
            print(f"error: {error}", file=sys.stderr)
        else:
            for reason in list(data.skipped.values())[:5]:
                print(f"skipped: {reason}", file=sys.stderr)
            if data.skipped:
                print(f"{len(data.skipped):,} skipped in {name}: its results are not the benchmark's", file=sys.stderr)
            for reason in data.departures:
                print(f"not the benchmark: {name}: {reason}", file=sys.stderr)
    found = plan.plan(_asked(planned), root, results, args.force, args.skip_bad, broken)
    before = {p.run.identity for p in planned if p.status == "blocked"}
    late = (p for p in found if p.status == "blocked" and p.run.identity not in before)
    _print_blocked(p for p in late if _data_of(p.run) not in broken)  # only its data could tell: no votes in it
    return found, broken


def _data_of(run: matrix.Run) -> tuple[str, str]:
    """What has to be read for a run: protocol and preprocessing."""
    return run.entry.protocol.id, run.preprocessing


def _named(protocol: str, preprocessing: str) -> str:
    return f"{protocol} ({preprocessing})" if preprocessing else protocol


def _copy_of(run: matrix.Run, root: Path | None, skip_bad: bool) -> str:
    """' from FOLDER', and which other copies of the dataset lie there; '' for images that are made."""
    protocol = run.entry.protocol
    if protocol.synthetic or root is None:
        return ""
    from bench.data.base import find_copies
    from bench.data.source import locate

    used = locate(protocol, root, skip_bad, run.preprocessing)
    copies = [copy for copy in find_copies(root, type(used)) if copy != used.root and used.serves(copy, protocol)]
    more = ", ".join(map(str, copies))
    several = f"{len(copies)} more {'copies' if len(copies) > 1 else 'copy'} there: {more}"
    return f" from {used.root}" + (f" ({several})" if copies else "")


def execute(planned: Sequence[Planned], root: Path | None, results: Path, args: argparse.Namespace) -> list[Outcome]:
    """Run what is runnable in the local queue."""
    tasks = []
    needed = {stage.key for p in planned if p.status == "runnable" for stage in p.stages.values()}
    # first what others wait for, then the longest, so that no slot idles at the end; those of unknown time before them
    order = {p.key: (p.key in needed, math.inf if p.seconds is None else p.seconds) for p in planned}
    for p in sorted(planned, key=lambda p: order[p.key], reverse=True):
        if p.status == "runnable":
            if args.force and not p.only_stage:
                start_anew(p.key, results)
            stages = {role: stage.key for role, stage in p.stages.items()}
            specification = matrix.specification(
                p.run, p.key, root, args.device, args.checkpoint_seconds, args.skip_bad, stages,
                Path(args.checkpoint) if p.run.checkpoint else None,
            )  # fmt: skip
            processes = args.processes if launch.splits(p.run) else 1
            tasks.append(Task(p.key, p.run.name, specification, tuple(stages.values()), processes))
    devices, slots = slots_of(args, planned)
    progress = Progress(len(tasks))
    print(f"running {len(tasks)} on {', '.join(devices)}, {slots} at a time", flush=True)
    return Local(slots, devices, args.fail_fast, progress.update, progress.ended).run(tasks)


def start_anew(key: str, results: Path) -> None:
    """Forget a run's result and checkpoints; its kept copy stands aside until the new result replaces it."""
    for name in ("result.json", *store.CHECKPOINT_SLOTS):
        (store.run_folder(key) / name).unlink(missing_ok=True)
    kept = results / "runs" / key / "result.json"
    if kept.is_file():
        kept.rename(kept.with_name("result.superseded.json"))
