"""`run --experiment`: chosen experiments on chosen protocols, a user's own among them, without a printed table."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import backbones, declare, matrix, plan, registry, store
from bench.data import source
from bench.errors import UserError
from bench.plan import Planned
from commands.chosen import experiments
from commands.compare import paired_lines
from commands.devices import check_processes
from commands.run import BLOCKED, DONE, FAILED, asked_preprocessing, carry_out, print_plan, recheck

if TYPE_CHECKING:
    import numpy as np

    from bench.metrics import Scores

Done = Sequence[tuple[matrix.Run, Path]]  # finished runs and their folders


@dataclass(frozen=True)
class Asked:
    """One experiment on the protocol it was asked for, and the runs that answer."""

    experiment: str
    protocol: declare.Protocol
    runs: tuple[matrix.Run, ...]

    @property
    def name(self) -> str:
        return f"{self.experiment} on {self.protocol.id}"


def main(
    declared: declare.Declarations, args: argparse.Namespace, root: Path | None, profile: declare.ProfileName,
    seeds: Sequence[int], results: Path,
) -> int:  # fmt: skip
    """Plan, run, collect and report the entries."""
    _refuse_table_words(args)
    asked = _with_preprocessing(_asked(declared, args, profile, seeds), asked_preprocessing(args))
    runs = list({run.identity: run for one in asked for run in one.runs}.values())
    planned = plan.plan(runs, root, results, args.force, args.skip_bad)
    if not args.plan:
        planned = recheck(planned, root, results, args)
    check_processes(planned, args)
    print_plan(planned, detailed=args.plan)
    failed = False
    if not args.plan:
        planned, failed = carry_out(planned, declared, root, results, args)
        _report(asked, planned, root, results, args)
    return FAILED if failed else BLOCKED if any(p.status == "blocked" for p in planned) else DONE


def _refuse_table_words(args: argparse.Namespace) -> None:
    """What chooses or draws tables has no meaning here; leaving it out silently would mislead."""
    if args.table or args.paper or args.all:
        raise UserError("--experiment runs without a table", "give either --experiment and --protocol, or tables")
    if args.experiment and args.method:
        raise UserError(
            "--method is for tables", "--experiment says the method; alone, --method is an experiment's name"
        )
    for name in ("dataset", "variant", "figures", "extra"):
        if getattr(args, name) not in ("", False, [], "auto"):
            raise UserError(f"--{name} is for tables", "without a table, name the protocols themselves (--protocol)")
    if args.format != "md":
        raise UserError("--format is for tables", "runs.csv and per_class.csv in --results hold the numbers")


def _asked(
    declared: declare.Declarations, args: argparse.Namespace, profile: declare.ProfileName, seeds: Sequence[int]
) -> list[Asked]:
    if not args.protocol:
        own = [name for name in declared.protocols if name.startswith("own/")]
        hint = f"here are {', '.join(own)}" if own else "`list datasets` names them; own data needs --data-root"
        raise UserError(f"--{'experiment' if args.experiment else 'method'} needs --protocol", hint)
    for name in args.protocol:
        if name.startswith("own/") and profile == "quick":
            message = "profile quick trains on synthetic faces, not on your own"
            raise UserError(f"{name}: {message}", "give --data-root, and --profile short or paper")
    found = []
    chosen = experiments(declared, args, profile)
    for experiment, name in dict.fromkeys(itertools.product(chosen, args.protocol)):
        entry = matrix.running_entry(declared, experiment, name, profile)
        protocol = declared.protocol(name)
        if profile == "quick" and not protocol.synthetic:
            protocol = declared.protocol(protocol.stand_in)
        found.append(Asked(experiment, protocol, tuple(matrix.runs_of(declared, entry, profile, seeds))))
        if name.startswith("own/"):
            _check_classes(declared, found[-1])
    return found


def _check_classes(declared: declare.Declarations, asked: Asked) -> None:
    """Refuse classes of one's own that a method cannot learn, before minutes of stages and reading.

    Raises:
        UserError: with the command of a declared experiment that knows nothing of the classes, where there is one.
    """
    experiment = declared.experiment(asked.experiment)
    if experiment.method not in registry.available("method") or not asked.protocol.classes:
        return  # the plan says so
    try:
        backbones.check_classes(asked.runs[0])
    except UserError as error:
        same = [one for one in declared.experiments.values() if one.method == experiment.method]
        others = [one.id for one in same if one.options.get("prior") == "uniform"]
        backbone = "".join(asked.experiment.partition("+")[1:])
        way = f"give `--experiment {others[0]}{backbone} --protocol {asked.protocol.id}` instead" if others else ""
        raise UserError(f"{asked.name}: {error.message}", way or error.hint) from None


def _with_preprocessing(asked: Sequence[Asked], chosen: Mapping[str, str]) -> list[Asked]:
    """The same with the runs' preprocessing as --preprocessing says; a profile that none of them reads is an error."""
    runs = iter(matrix.with_preprocessing([run for one in asked for run in one.runs], chosen))
    return [replace(one, runs=tuple(itertools.islice(runs, len(one.runs)))) for one in asked]


def _report(
    asked: Sequence[Asked], planned: Sequence[Planned], root: Path | None, results: Path, args: argparse.Namespace
) -> None:
    """Print every entry's scores, then the paired tests between entries of one protocol."""
    key_of = {p.run.identity: p.key for p in planned}
    answers: dict[str, list[tuple[Asked, str, dict[int, dict[Any, bool]]]]] = {}
    for one in asked:
        found = [(run, store.find_result(key_of[run.identity], results)) for run in one.runs if key_of[run.identity]]
        done = [(run, folder) for run, folder in found if folder is not None]
        if not done:
            print(f"\n{one.name}: no result")
            continue
        if not store.read_result(done[0][1]).selections:
            for line in _stage_lines(one, done):
                print(line)
            continue
        names = _names(one, root, args)
        selection = _selection(done, args.selection)
        for line in _entry_lines(one, done, selection, names):
            print(line)
        _draw(one, done, selection, results)
        answers.setdefault(one.protocol.id, []).append((one, selection, _answers(done, selection, names)))
    for same in answers.values():
        pairs = list(itertools.combinations(same, 2))
        for (first, selection, right), (second, other, right_too) in pairs:
            print(f"\n{first.experiment} ({selection}) and {second.experiment} ({other}) on {first.protocol.id}:")
            for line in paired_lines(right, right_too, pairs=len(pairs)):
                print(f"  {line}")


def _stage_lines(one: Asked, done: Done) -> list[str]:
    """What runs of a stage that does not classify measured in their last epoch, and where their networks are."""
    lines = ["", f"## {one.name}, profile {done[0][0].profile}"]
    for run, folder in done:
        measured = store.read_result(folder).history[-1]
        values = ", ".join(f"{name} {value:.4g}" for name, value in measured.items() if name != "epoch")
        lines += [f"  {run.name}, epoch {measured['epoch']:.0f}: {values}", f"  network: {folder / store.NETWORK}"]
    return lines


def _names(one: Asked, root: Path | None, args: argparse.Namespace) -> set[str] | None:
    """Test images of a subset, which is scored by filtering; None for a whole protocol."""
    if not one.protocol.subset_of:
        return None
    run = one.runs[0]
    found = source.locate(one.protocol, root, args.skip_bad, run.preprocessing)
    return set(found.index(one.protocol)["name"])


def _selection(done: Done, wanted: str | None) -> str:
    """The selection asked for, else the one that has not seen the test images: val-best, or last without val."""
    there = set.intersection(*(set(store.read_result(folder).selections) for _, folder in done))
    if wanted and wanted not in there:
        raise UserError(f"there is no selection '{wanted}' here", f"these runs have {', '.join(sorted(there))}")
    return wanted or ("val-best" if "val-best" in there else "last")


def _entry_lines(one: Asked, done: Done, selection: str, names: set[str] | None) -> list[str]:
    from bench import metrics, statistics

    seeds = _matrices(done, selection, names)
    classes = one.protocol.classes
    parts = {
        name: [metrics.metric_parts(name, classes, m) for m in seeds.values()]
        for name in ("accuracy", "mean_class_accuracy")
    }
    missing = len(one.runs) - len(done)
    about = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
    about += f", {missing} of {len(one.runs)} runs lacking" if missing else ""
    profile = done[0][0].profile
    synthetic = " · SYNTHETIC, not comparable" if one.protocol.synthetic else ""
    lines = ["", f"## {one.name}, profile {profile}, {selection}, {about}{synthetic}", ""]
    reasons = dict.fromkeys(why for _, folder in done for why in store.read_result(folder).departures)
    lines += [*(f"  not the benchmark: {why}" for why in reasons), *([""] if reasons else [])]
    n = next(iter(seeds.values())).sum()
    lines.append(f"  test images           {n:,.0f}")
    for name, title in (("accuracy", "accuracy"), ("mean_class_accuracy", "mean class accuracy")):
        mean, sd = statistics.mean_sd([metrics.metric_value(name, classes, m) for m in seeds.values()])
        low, high = statistics.combined_interval(parts[name])
        spread = f"  sd over seeds {100 * sd:.2f}" if sd is not None else ""
        lines.append(f"  {title:<20} {100 * mean:6.2f} %  95 % interval {100 * low:.2f} to {100 * high:.2f}{spread}")
    f1 = statistics.mean_sd([metrics.metric_value("macro_f1", classes, m) for m in seeds.values()])[0]
    lines += [f"  {'macro-F1':<20} {100 * f1:6.2f} %", ""]
    lines += _class_lines(classes, list(seeds.values()))
    return lines + _other_lines(one, done, selection, names)


def _class_lines(classes: Sequence[str], seeds: Sequence[np.ndarray]) -> list[str]:
    """Accuracy of every class, mean over seeds."""
    from bench.metrics import class_accuracy

    width = max(map(len, (*classes, "class")))
    lines = [f"  {'class':<{width}} {'n':>7} {'accuracy':>9}"]
    for k, name in enumerate(classes):
        n = float(seeds[0][k].sum())
        mean = sum(float(class_accuracy(m)[k]) for m in seeds) / len(seeds) if n else float("nan")
        lines.append(f"  {name:<{width}} {n:>7,.0f} " + (f"{100 * mean:>9.2f}" if n else f"{'–':>9}"))
    return lines


def _other_lines(one: Asked, done: Done, selection: str, names: set[str] | None) -> list[str]:
    """Accuracy of the other selections of the same runs."""
    from bench.metrics import metric_value

    shown = []
    for other in store.SELECTIONS:
        if other != selection and all(other in store.read_result(folder).selections for _, folder in done):
            seeds = _matrices(done, other, names).values()
            mean = sum(metric_value("accuracy", one.protocol.classes, m) for m in seeds) / len(seeds)
            note = " (chosen on the test images)" if other == "test-best" else ""
            shown.append(f"{other} {100 * mean:.2f}{note}")
    return ["", f"  other selections: {', '.join(shown)}"] if shown else []


def _matrices(done: Done, selection: str, names: set[str] | None) -> dict[int, np.ndarray]:
    """Seed -> confusion matrix (K, K), folds added up; rows are the truth."""
    found: dict[int, np.ndarray] = {}
    for run, folder in done:
        counted = _scores(folder / f"predictions-{selection}.parquet", names).matrix
        found[run.seed] = found[run.seed] + counted if run.seed in found else counted
    return found


def _scores(path: Path, names: set[str] | None) -> Scores:
    from bench import metrics

    return metrics.from_predictions(path if names is None else _part(path, names), str(path))


def _part(path: Path, names: set[str]) -> Any:
    """Predictions of the images of a subset."""
    import pandas as pd

    predictions = pd.read_parquet(path)
    return predictions[predictions["name"].isin(names)]


def _answers(done: Done, selection: str, names: set[str] | None) -> dict[int, dict[Any, bool]]:
    """Seed -> (fold, image) -> right."""
    from bench.metrics import correctness

    found: dict[int, dict[Any, bool]] = {}
    for run, folder in done:
        path = folder / f"predictions-{selection}.parquet"
        right = correctness(path if names is None else _part(path, names), str(path))
        found.setdefault(run.seed, {}).update({(run.fold, image): answer for image, answer in right.items()})
    return found


def _draw(one: Asked, done: Done, selection: str, results: Path) -> None:
    """Draw the confusion matrix of each run that has none yet, and say where they lie."""
    from tables.render import confusion

    print()
    for run, folder in done:
        table = results / "confusion" / f"{folder.name}-{selection}.csv"
        if not table.is_file():
            continue
        title = f"{run.name}, {selection}"
        if not table.with_suffix(".png").is_file():
            confusion.draw(table, title, one.protocol.synthetic)
        whole = f" (of {run.entry.protocol.id}, all test images)" if one.protocol.subset_of else ""
        print(f"  confusion matrix: {table} and .png{whole}")
