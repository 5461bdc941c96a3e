"""`render`: draw tables, confusion matrices and CSVs again from what results/ holds; nothing is trained.

With a data root, kept runs are first scored on the subsets whose lists have come to hand since.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import declare, extra, matrix, parameters, plan, store
from bench.collect import CLASS_COLUMNS, RUN_COLUMNS, collect, kept_folders
from bench.data.source import data_root
from bench.errors import UserError
from bench.plan import Planned
from commands import reports
from commands.arguments import add_variant, seed, tables_asked

REAL: tuple[declare.ProfileName, ...] = ("paper", "short")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `render`."""
    parser.add_argument("--table", nargs="+", default=[], metavar="ID", help="tables (default: all)")
    parser.add_argument("--paper", nargs="+", default=[], metavar="ID", help="every table of a paper")
    add_variant(parser)
    parser.add_argument(
        "--profile",
        choices=("real", "quick"),
        default="real",
        help="real data (paper, else short), or quick: synthetic",
    )
    parser.add_argument("--seeds", nargs="+", type=seed, default=None, help="seeds wanted (default: 0 1 2, quick: 0)")
    parser.add_argument(
        "--selection", choices=store.SELECTIONS, help="compare this selection instead of each table's own"
    )
    parser.add_argument("--format", choices=("md", "latex", "html", "csv"), default="md", help="what to print")
    parser.add_argument(
        "--extra",
        choices=("auto", "all"),
        default="auto",
        help="rows that the paper does not print: auto (those with results) or all",
    )
    parser.add_argument("--quiet", action="store_true", help="write files, print only the summary")
    parser.add_argument("--data-root", help="folder holding the datasets (else FERBENCH_DATA)")
    parser.add_argument("--results", default="results", help="folder of results (default: results)")


def main(args: argparse.Namespace) -> int:
    """Render."""
    declared = declare.load(data_root(args.data_root))
    everything = not (args.table or args.paper)
    profile: declare.ProfileName = "quick" if args.profile == "quick" else "paper"
    ours = reports.reports_asked(declared, args, everything, profile)
    tables = tables_asked(declared, args, everything, profile, declared.reports)
    seeds = args.seeds or ([0] if profile == "quick" else [0, 1, 2])
    results = store.results_folder(args.results, profile)
    shown = "" if args.quiet else args.format
    root = data_root(args.data_root)
    if root and profile != "quick":
        for problem in collect(kept_folders(results), results, declared, root):
            print(f"warning: {problem}", file=sys.stderr)
    extras = extra.asked(declared, tables, profile, "all" if args.extra == "all" else "none")
    if tables or not args.table:
        draw(declared, tables, profile, results, seeds, args.selection, shown, root=root, extras=extras)
    reports.draw(declared, ours, profile, results, shown, named=bool(args.table))
    return 0


def draw(
    declared: declare.Declarations, tables: Sequence[declare.Table], profile: declare.ProfileName, results: Path,
    seeds: Sequence[int], selection: str | None, format: str, *,
    planned: Sequence[Planned] = (), root: Path | None = None, extras: Sequence[declare.Claim] = (),
    only: Collection[str] | None = None, blocked: Mapping[tuple[str, str], str] | None = None,
) -> None:  # fmt: skip
    """Compare, write <results>/tables/ and print.

    Args:
        profile: of the runs asked for. quick renders synthetic results alone; anything else renders real ones, the
            paper profile's where there are some, else the shortened recipe's.
        seeds: seeds wanted.
        format: what to print; empty prints the summary alone.
        planned: the plan at hand, for the reasons of blocked cells; made here when empty.
        extras: cells of rows that no paper prints to list even where they have no result.
        only: show these runs alone.
        blocked: (experiment, claimed protocol) -> why it has no result, where nothing was trained; made here when None.
    """
    import pandas as pd

    from tables.render import compare, summary, write
    from tables.render.results import Results

    runs = _read(pd, results / "runs.csv")
    runs = runs if only is None else runs[runs["run"].isin(list(only))]
    measured = Results(runs, _read(pd, results / "per_class.csv"), results / "confusion")
    profiles: tuple[declare.ProfileName, ...] = ("quick",) if profile == "quick" else REAL
    settings = compare.Settings(
        seeds=len(seeds),
        profiles=profiles,
        selection=selection or "",
        folds={protocol.id: protocol.folds for protocol in declared.protocols.values()},
        stand_ins={protocol.id: protocol.stand_in for protocol in declared.protocols.values()},
        parameters=_parameters(declared, tables, store.results_base(results, profile)),
        blocked=_blocked(declared, tables, extras, profile, planned, root) if blocked is None else blocked,
        deviations=_deviations(declared, tables, profile) if blocked is None else {},
        correct=_answers(results),
        networks=_networks(results),
        asked=frozenset(claim.cell for claim in extras),
        profile=profile,
        unanswerable=_unanswerable(declared, tables, profiles),
    )
    comparisons = [compare.compare(table, measured, settings) for table in tables]
    folder = results / "tables"
    for comparison in comparisons:
        if not selection:  # the files hold each table's own selection
            write.write(comparison, folder)
        if format:
            print(write.text(comparison, format))
    _confusions(declared, comparisons, results)
    print(summary.line(comparisons))
    if not selection:
        print(f"written to {folder}/<table>.md, .csv, .tex, .html; confusion matrices in {results / 'confusion'}/")


def _read(pd: Any, path: Path) -> Any:
    """A results CSV; an empty frame where nothing has been run."""
    if store.read_rows(path):  # says which row is wrong, where one is
        return pd.read_csv(path, dtype={"run": str, "commit": str, "data_hash": str, "epoch": str})
    return pd.DataFrame(columns=list(CLASS_COLUMNS if path.name == "per_class.csv" else RUN_COLUMNS))


def _blocked(
    declared: declare.Declarations, tables: Sequence[declare.Table], extras: Sequence[declare.Claim],
    profile: declare.ProfileName, planned: Sequence[Planned], root: Path | None,
) -> dict[tuple[str, str], str]:  # fmt: skip
    """(experiment, claimed protocol) -> why it cannot run here and how to unblock it."""
    stopped = {(p.run.entry.experiment.id, p.run.entry.protocol.id): p for p in planned if p.status == "blocked"}
    planner = plan.Planner(root)
    found = {}
    claims = [claim for table in tables for claim in table.claims() if claim.experiment]
    for claim in (*claims, *extras):
        entry = matrix.running_entry(declared, claim.experiment, claim.protocol, profile)
        known = stopped.get((claim.experiment, entry.protocol.id))
        if claim.metric.startswith("parameters"):
            stop: UserError | None = planner.built(entry.experiment)  # counting needs no data
        elif known:
            stop = UserError(known.reason, known.unblock)
        elif matrix.has_profile(declared, claim, profile):
            stop = planner.stop(matrix.runs_of(declared, entry, profile, [0])[0])
        else:
            stop = planner.blocker(entry, ())
        scored = declared.protocol(matrix.scored_protocol(declared, claim, profile))
        if stop is None and scored.subset_of:
            stop = planner.blocker(declare.Entry(experiment=entry.experiment, protocol=scored), ())
        if stop is not None:
            found[claim.experiment, claim.protocol] = _told(stop)
    return found


def _parameters(
    declared: declare.Declarations, tables: Sequence[declare.Table], base: Path
) -> dict[tuple[str, str], float]:
    """(experiment, part) -> millions; says which counts are of other networks than today's."""
    for table in tables:
        for problem in parameters.outdated(declared, base, parameters.asked(table.claims())):
            print(f"warning: {problem}; `python run_all.py --table {table.id}` counts again", file=sys.stderr)
    return {place: number / 1e6 for place, number in parameters.known(declared, base).items()}


def _unanswerable(
    declared: declare.Declarations, tables: Sequence[declare.Table], profiles: Sequence[declare.ProfileName]
) -> dict[tuple[str, str], str]:
    """(cell, profile) -> why runs under that profile are no answer to the cell."""
    return {
        (claim.cell, profile): _told(stop)
        for table in tables
        for claim in (*table.claims(), *table.extra_claims())
        for profile in profiles
        if (stop := extra.unanswerable(declared, table, claim, profile)) is not None
    }


def _told(stop: UserError) -> str:
    """A reason and what to do about it, in one line."""
    return f"{stop.message.rstrip('.')}. {stop.hint}" if stop.hint else stop.message


def _deviations(
    declared: declare.Declarations, tables: Sequence[declare.Table], profile: declare.ProfileName
) -> dict[tuple[str, str], int]:
    """(experiment, claimed protocol) -> recipe fields that are our choice, neither paper nor code."""
    found = {}
    for table in tables:
        for claim in (*table.claims(), *table.extra_claims()):
            if claim.experiment:
                recipe = declared.recipe(declared.experiment(claim.experiment).recipe)
                found[claim.experiment, claim.protocol] = sum(f.source == "choice" for f in recipe.fields.values())
    return found


def _answers(results: Path) -> Any:
    """Per-image correctness of kept runs, for the paired test; read once a run and selection."""
    from functools import lru_cache

    from bench.metrics import correctness

    @lru_cache(maxsize=256)
    def answers(run: str, selection: str) -> dict[str, bool] | None:
        path = results / "runs" / run / f"predictions-{selection}.parquet"
        try:
            return correctness(path) if path.is_file() else None
        except UserError as error:
            print(f"warning: {error.message}; left out of the paired test", file=sys.stderr)
            return None

    return answers


def _networks(results: Path) -> Any:
    """What a run's manifest says of the networks it was built on; nothing where it is gone; read once a run."""
    from functools import cache

    @cache
    def networks(run: str) -> dict[str, str]:
        folder = store.find_result(run, results)
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8")) if folder else {}
            return {role: made["sha256"] for role, made in manifest.get("stages", {}).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    return networks


def _confusions(declared: declare.Declarations, comparisons: Sequence[Any], results: Path) -> None:
    """Draw the confusion matrix of each compared run that has none yet."""
    wanted = {
        (row["run"], cell.selection): (cell, row) for c in comparisons for cell in c.all_cells for row in cell.runs
    }
    for (run, selection), (cell, row) in wanted.items():
        source = results / "confusion" / f"{run}-{selection}.csv"
        picture = source.with_suffix(".png")
        if source.is_file() and (not picture.is_file() or picture.stat().st_mtime < source.stat().st_mtime):
            from tables.render import confusion

            fold = f" fold {int(row['fold']) + 1}" if row["fold"] else ""
            protocol = declared.protocol(row["protocol"]).subset_of or row["protocol"]  # what all predictions are for
            title = f"{row['experiment']} on {protocol}, seed {int(row['seed'])}{fold}, {selection}"
            confusion.draw(source, title, cell.synthetic)
