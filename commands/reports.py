"""Tables of our own (bench/report.py): which are asked for, the runs behind them, measuring, drawing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import declare, matrix, plan, registry, store
from bench.errors import UserError
from commands.filters import passes

if TYPE_CHECKING:
    import torch

    from bench.measures import Judge, Measures
    from bench.method import Method

REAL: tuple[declare.ProfileName, ...] = ("paper", "short")


def reports_asked(
    declared: declare.Declarations, args: argparse.Namespace, everything: bool, profile: declare.ProfileName
) -> list[declare.Report]:
    """The reports of --table and --paper, or all.

    Raises:
        UserError: one that --table names cannot be run under the profile, or was asked for on a variant.
    """
    named = [declared.reports[name] for name in args.table if name in declared.reports]
    if args.variant:
        if named:
            raise UserError(f"{named[0].id} has no variants", "leave --variant out")
        return []
    more = [one for one in declared.reports.values() if everything or one.paper in args.paper]
    found = []
    for report in {one.id: one for one in (*named, *more)}.values():
        lacking = _without_profile(declared, report, profile)
        if not lacking:
            found.append(report)
        elif report in named:
            raise UserError(f"{report.id}: recipe '{lacking}' declares no profile '{profile}'", "use another --profile")
    return found


def _without_profile(declared: declare.Declarations, report: declare.Report, profile: declare.ProfileName) -> str:
    """The first recipe of a report that does not declare a profile; empty where all do."""
    entries = [*report.experiments.values(), *(entry.partition(":")[0] for entry in report.judges.values())]
    recipes = (declared.experiment(experiment).recipe for experiment in entries)
    return next((r for r in recipes if profile not in ("paper", *declared.recipe(r).profiles)), "")


def report_runs(
    declared: declare.Declarations, args: argparse.Namespace, reports: Sequence[declare.Report],
    profile: declare.ProfileName, seeds: Sequence[int],
) -> list[matrix.Run]:  # fmt: skip
    """The runs that reports measure, where they pass the filters, and the first seed of those that judge them."""
    found = []
    for report in reports:
        measured = [run for runs in _measured(declared, args, report, profile, seeds).values() for run in runs]
        found += [*measured, *_judges(declared, report, profile).values()] if measured else []
    return found


def _measured(
    declared: declare.Declarations, args: argparse.Namespace, report: declare.Report, profile: declare.ProfileName,
    seeds: Sequence[int],
) -> dict[str, list[matrix.Run]]:  # fmt: skip
    """Title -> its runs, of those that pass the filters."""
    entries = {
        title: matrix.running_entry(declared, experiment, report.protocol, profile)
        for title, experiment in report.experiments.items()
    }
    return {t: matrix.runs_of(declared, entry, profile, seeds) for t, entry in entries.items() if passes(args, entry)}


def _judges(
    declared: declare.Declarations, report: declare.Report, profile: declare.ProfileName
) -> dict[str, matrix.Run]:
    """The runs of the networks that a report's measure asks, by the name it calls them."""
    found = {}
    for name, entry in report.judges.items():
        experiment, _, protocol = entry.partition(":")
        judging = matrix.running_entry(declared, experiment, protocol, profile)
        found[name] = matrix.runs_of(declared, judging, profile, [0])[0]
    return found


def measure(
    declared: declare.Declarations, args: argparse.Namespace, reports: Sequence[declare.Report],
    profile: declare.ProfileName, seeds: Sequence[int], results: Path, root: Path | None,
) -> None:  # fmt: skip
    """Measure what the finished networks of reports make of the test images, where that has not been done."""
    for report in reports:
        judges = _judges(declared, report, profile)
        for title, runs in _measured(declared, args, report, profile, seeds).items():
            for run in runs:
                wanted = [run, *judges.values()]
                planned = {p.run.identity: p for p in plan.plan(wanted, root, results)}
                found = [planned[one.identity] for one in wanted]
                asking = dict(zip(judges, found[1:], strict=True))
                missing = [p.run.name for p in found if not p.key or store.find_network(p.key) is None]
                if missing and _is_measured(report, found[0], asking, results):
                    continue
                if missing:
                    print(f"{report.id}: {title} not measured, no network of {', '.join(missing)}", file=sys.stderr)
                    continue
                _measure(report, title, found[0], asking, results, root, args.device)


def _is_measured(
    report: declare.Report, planned: plan.Planned, judges: Mapping[str, plan.Planned], results: Path
) -> bool:
    """Whether kept measures are of this run and by these judges; their networks may be gone since."""
    from bench import measures

    run = planned.run
    try:
        before = measures.read(measures.path_of(results, report.id, run.entry.experiment.id, run.profile, run.seed))
    except UserError:
        return False
    plugin = registry.find("measure", report.measure)
    return before is not None and (
        before.about["measure"] == [plugin.name, plugin.version]
        and before.about["run"] == planned.key
        and {name: j["run"] for name, j in before.about["judges"].items()} == {n: p.key for n, p in judges.items()}
    )


def _measure(
    report: declare.Report, title: str, planned: plan.Planned, judges: Mapping[str, plan.Planned], results: Path,
    root: Path | None, device: str,
) -> None:  # fmt: skip
    """Write one run's measures, unless they are there, taken with the same networks."""
    import torch

    from bench import measures
    from commands.figures import faces_of, front_of, trained

    run = planned.run
    about = _about(report, planned, judges)
    path = measures.path_of(results, report.id, run.entry.experiment.id, run.profile, run.seed)
    try:
        before = measures.read(path)
    except UserError as error:
        print(f"warning: {error.message}; taken again", file=sys.stderr)
        before = None
    if before is not None and before.about == about:
        return
    print(f"{report.id}: measuring {run.name} ...", flush=True)
    take = registry.find("measure", report.measure).load()
    method = trained(planned, device)
    faces = faces_of({title: run}, root, {title: front_of(method, device)})
    asked = {name: _judge(trained(p, device), p.run.recipe) for name, p in judges.items()}
    with torch.inference_mode():
        columns = take(method.net, faces, title, asked)
    labels = [faces.classes[label] for label in faces.labels]
    measures.write(path, faces.names, labels, columns, about)


def _about(report: declare.Report, planned: plan.Planned, judges: Mapping[str, plan.Planned]) -> dict[str, Any]:
    """What measures were taken of and with: networks by the hashes of their files."""
    run = planned.run
    made = store.read_result(store.run_folder(planned.key))
    plugin = registry.find("measure", report.measure)
    return {
        "report": report.id, "measure": [plugin.name, plugin.version], "entry": run.entry.id, "profile": run.profile,
        "seed": run.seed, "run": planned.key, "network": made.network_sha256, "synthetic": made.synthetic,
        "seconds": made.seconds, "device": made.device,
        "judges": {
            name: {
                "entry": p.run.entry.id, "run": p.key,
                "network": store.read_result(store.run_folder(p.key)).network_sha256,
            }
            for name, p in judges.items()
        },
    }  # fmt: skip


def _judge(method: Method, recipe: Mapping[str, Any]) -> Judge:
    from bench.loop import prepare
    from bench.measures import Judge

    device = next(method.net.parameters()).device

    def inputs(pictures: torch.Tensor) -> torch.Tensor:
        stored = (pictures.permute(0, 2, 3, 1) * 255).round().byte()
        return prepare(stored.to(device), recipe, front=method.front)

    return Judge(method.net, inputs)


def draw(
    declared: declare.Declarations, reports: Sequence[declare.Report], profile: declare.ProfileName, results: Path,
    format: str, *, named: bool, root: Path | None = None, planned: bool = False,
) -> None:  # fmt: skip
    """Write <results>/tables/<report>.* from the kept measures and print them.

    Args:
        profile: quick for synthetic faces made in minutes; else what was measured of the paper profile's runs, or of
            the shortened recipe's where there is none.
        format: what to print; empty prints nothing.
        named: whether the reports were asked for; else one that was never measured is left out.
        planned: leave out measures of other runs than those that are planned today.
    """
    from bench import measures
    from tables.render import report as drawn

    for report in reports:
        found: dict[str, list[measures.Measures]] = {}
        for tried in ("quick",) if profile == "quick" else REAL:
            found = measures.kept(results, report, tried)
            today = _today(declared, report, found, tried, results, root) if planned else ({}, {})
            found, gone = measures.agreeing(report, found, *today)
            for reason, files in gone.items():
                hint = f"`python run_all.py --table {report.id} --profile {tried} --seeds ...` measures again"
                print(f"warning: {report.id}: left out {', '.join(files)} ({reason}); {hint}", file=sys.stderr)
            if any(found.values()):
                break
        if not (named or any(found.values())):
            continue
        sheet = drawn.sheet(report, found)
        drawn.write(sheet, results / "tables")
        if format:
            print(drawn.text(sheet, format))
        print(f"{report.id}: written to {results / 'tables'}/{report.id}.md, .csv, .tex, .html")


def _today(
    declared: declare.Declarations, report: declare.Report, found: Mapping[str, Sequence[Measures]],
    profile: declare.ProfileName, results: Path, root: Path | None,
) -> tuple[dict[tuple[str, int], str], dict[str, str]]:  # fmt: skip
    """The keys that the runs behind kept measures have today, and those of judges, where they are known here."""
    if not any(found.values()) or _without_profile(declared, report, profile):
        return {}, {}
    runs = {}
    for title, kept in found.items():
        entry = matrix.running_entry(declared, report.experiments[title], report.protocol, profile)
        for run in matrix.runs_of(declared, entry, profile, [one.about["seed"] for one in kept]):
            runs[title, run.seed] = run
    judges = _judges(declared, report, profile)
    keys = {p.run.identity: p.key for p in plan.plan([*runs.values(), *judges.values()], root, results)}
    known = {place: key for place, run in runs.items() if (key := keys[run.identity])}
    return known, {name: key for name, run in judges.items() if (key := keys[run.identity])}
