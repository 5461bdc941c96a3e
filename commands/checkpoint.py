"""`run --checkpoint FILE`: the tables' own rows answered by weights that were trained elsewhere; nothing is trained.

Results go to a folder of the file's own, `<results>/checkpoints/<first digits of its SHA-256>/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import declare, matrix, plan, store
from bench.errors import UserError
from bench.plan import Planned
from commands import render
from commands.arguments import tables_asked
from commands.filters import filtered
from commands.run import BLOCKED, DONE, FAILED, asked_preprocessing, carry_out, print_plan, recheck

if TYPE_CHECKING:
    from bench.released import Networks, Released

FOLDER = "checkpoints"
USUAL_CLASSES = (6, 7, 8)
SHOWN = 3  # experiments named for one reason


@dataclass(frozen=True)
class Candidate:
    """One entry behind the tables' printed numbers, and whether the file can answer for it.

    Attributes:
        claims: the printed numbers.
        runs: one for each fold; none where there is no network to compare with.
        why_not: why the file cannot; empty where it can.
    """

    entry: declare.Entry
    claims: tuple[declare.Claim, ...]
    runs: tuple[matrix.Run, ...]
    why_not: str

    @property
    def name(self) -> str:
        return f"{self.entry.experiment.id} on {self.entry.protocol.id}"


def main(declared: declare.Declarations, args: argparse.Namespace, root: Path | None) -> int:
    """Say what the file can answer, evaluate it there, and render the tables with those cells alone."""
    _refuse(args)
    from bench import released

    file = released.find(args.checkpoint, args.checkpoint_classes, declared.protocols)
    args = argparse.Namespace(**{**vars(args), "checkpoint": str(file.path)})
    print(_about(file))
    profile: declare.ProfileName = args.profile or ("paper" if root else "quick")
    if profile == "quick":
        print("profile quick: SYNTHETIC faces made on this machine; no number below is comparable with a paper's")
    tables, candidates = _fitting(declared, args, profile, file)
    fitting = [run for one in candidates if not one.why_not for run in one.runs]
    runs = [
        matrix.of_checkpoint(run, file.sha256, file.outputs, args.colour, released.departures(file, run))
        for run in fitting
    ]
    runs = filtered(declared, args, matrix.with_preprocessing(runs, asked_preprocessing(args)))
    for line in _shown(candidates, runs, file):
        print(line)
    if not runs:
        raise UserError("the filters leave nothing that this file answers", "name fewer, or others")
    results = store.results_folder(args.results, profile) / FOLDER / file.sha256[:12]
    planned = plan.plan(runs, root, results, args.force, args.skip_bad)
    if not args.plan:
        planned = recheck(planned, root, results, args)
    print_plan(planned, detailed=args.plan)
    failed = False
    if not args.plan:
        planned, failed = carry_out(planned, declared, root, results, args)
        titled = [_titled(table, file, runs) for table in tables]
        render.draw(
            declared, titled, profile, results, [0], None, args.format, root=root,
            only={p.key for p in planned}, blocked=_unanswered(declared, root, candidates, planned),
        )  # fmt: skip
        for line in _remarks(planned, root, results):
            print(line)
    return FAILED if failed else BLOCKED if any(p.status == "blocked" for p in planned) else DONE


def _refuse(args: argparse.Namespace) -> None:
    """What trains, or chooses among what was trained, has no meaning here; leaving it out silently would mislead."""
    for name in ("experiment", "seeds", "selection", "figures"):
        if getattr(args, name):
            raise UserError(f"--{name} is for runs that train", "--checkpoint evaluates one file on tables' own rows")
    if args.extra == "all":
        raise UserError("--checkpoint answers the papers' own rows alone", "leave out --extra")
    if args.profile == "short":
        raise UserError("--checkpoint trains nothing, so nothing can be shortened", "leave out --profile short")


# ------------------------------------------------------------------------------------------------------ what it answers
def _fitting(
    declared: declare.Declarations, args: argparse.Namespace, profile: declare.ProfileName, file: Released
) -> tuple[list[declare.Table], list[Candidate]]:
    """The tables, and their entries with what the file can answer.

    Raises:
        UserError: it fits no network of theirs; says so of the other profile's networks where it fits those.
    """
    tables, found = _candidates(declared, args, profile, file)
    if any(not one.why_not for one in found):
        return tables, found
    other: declare.ProfileName = "quick" if profile == "paper" else "paper"
    fits = [one.name for one in _candidates(declared, args, other, file)[1] if not one.why_not]
    for line in _left_out(found):
        print(line)
    message = f"{file.path.name} fits no network of these tables under profile {profile}"
    if fits and other == "paper":
        raise UserError(f"{message}; it fits {fits[0]}", "set FERBENCH_DATA or --data-root, and leave out --profile")
    if fits:
        raise UserError(f"{message}; it fits {fits[0]}", "--profile quick evaluates it on synthetic faces")
    raise UserError(message, "name the table of the paper whose authors released it; its networks are those above")


def _candidates(
    declared: declare.Declarations, args: argparse.Namespace, profile: declare.ProfileName, file: Released
) -> tuple[list[declare.Table], list[Candidate]]:
    from bench.released import Networks

    tables = tables_asked(declared, args, args.all, profile)
    claims = [c for t in tables for c in t.claims() if c.experiment and not c.metric.startswith("parameters")]
    behind: dict[str, tuple[declare.Entry, list[declare.Claim]]] = {}
    for claim in claims:
        entry = matrix.running_entry(declared, claim.experiment, claim.protocol, profile)
        behind.setdefault(entry.id, (entry, []))[1].append(claim)
    sizes = {len(entry.protocol.classes) for entry, _ in behind.values()}.union(USUAL_CLASSES)
    networks = Networks(file, sizes)
    return tables, [_candidate(declared, entry, tuple(own), profile, networks) for entry, own in behind.values()]


def _candidate(
    declared: declare.Declarations, entry: declare.Entry, claims: tuple[declare.Claim, ...],
    profile: declare.ProfileName, networks: Networks,
) -> Candidate:  # fmt: skip
    stop = plan.Planner(None).built(entry.experiment)
    if stop is not None:
        return Candidate(entry, claims, (), stop.message)
    if not matrix.has_profile(declared, claims[0], profile):
        return Candidate(entry, claims, (), f"recipe '{entry.experiment.recipe}' declares no profile '{profile}'")
    runs = tuple(matrix.runs_of(declared, entry, profile, [0]))
    return Candidate(entry, claims, runs, networks.why_not(runs[0]))


# ------------------------------------------------------------------------------------------------------------- in words
def _about(file: Released) -> str:
    told = file.trained_on or "the file does not say what it was trained on"
    return f"checkpoint {file.path.name}: {len(file.state):,} tensors, SHA-256 {file.sha256[:12]}...; {told}"


def _shown(candidates: Sequence[Candidate], runs: Sequence[matrix.Run], file: Released) -> Iterable[str]:
    """What is evaluated and how, then what is left out and why."""
    chosen = {run.entry.id: run for run in runs}
    for one in candidates:
        run = chosen.get(one.entry.id)
        if run is not None:
            yield f"  answers {one.name} ({_numbers(one)}): {_reading(run, file)}"
            if run.departures:
                yield f"    without a verdict: {'; '.join(run.departures)}"
    others = [one for one in candidates if not one.why_not and one.entry.id not in chosen]
    if others:
        yield f"  not asked for, it would answer: {', '.join(one.name for one in others)}"
    yield from _left_out(candidates)


def _left_out(candidates: Sequence[Candidate]) -> Iterable[str]:
    """One line for each reason: how many printed numbers, and of which experiments."""
    reasons: dict[str, list[Candidate]] = {}
    for one in candidates:
        if one.why_not:
            reasons.setdefault(one.why_not, []).append(one)
    for reason, left in reasons.items():
        protocols: dict[str, list[str]] = {}
        for one in left:
            protocols.setdefault(one.entry.experiment.id, []).append(one.entry.protocol.id)
        names = [f"{experiment} on {', '.join(ids)}" for experiment, ids in protocols.items()]
        more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield f"  left out ({_numbers(*left)}): {'; '.join(names[:SHOWN])}{more}: {reason}"


def _numbers(*candidates: Candidate) -> str:
    count = sum(len(one.claims) for one in candidates)
    return f"{count} number{'s' * (count != 1)}"


def _reading(run: matrix.Run, file: Released) -> str:
    """How a network's inputs and outputs are read."""
    from bench.released import ASKED, cross_dataset

    classes = run.entry.protocol.classes
    said_by = file.outputs_from or "the numbering of the dataset's publishers"
    crossed = cross_dataset(file, run)
    if crossed is not None and file.outputs_from != ASKED:
        said_by += f", the order of {crossed[0]}, applied to {crossed[1]}"
    colour = f"{run.recipe['colour']} ({'--colour' if run.asked_colour else f'recipe {run.entry.experiment.recipe}'})"
    return f"outputs {', '.join(file.outputs or classes)} ({said_by}); colours {colour}"


def _titled(table: declare.Table, file: Released, runs: Sequence[matrix.Run]) -> declare.Table:
    """The table, saying whose weights its numbers are."""
    readings = dict.fromkeys(f"{run.entry.id}: {_reading(run, file)}." for run in runs)
    notes = f"{_about(file)}. Evaluated as it is: its epochs and how they were chosen are not known. "
    return table.model_copy(
        update={
            "title": f"{table.title}, by {file.path.name} ({file.sha256[:12]})",
            "compare": "released",
            "compare_why": f"weights of {file.path.name}, SHA-256 {file.sha256}, evaluated once",
            "notes": " ".join([notes, *readings, table.notes]),
            "extra": (),
        }
    )


def _unanswered(
    declared: declare.Declarations, root: Path | None, candidates: Sequence[Candidate], planned: Sequence[Planned]
) -> dict[tuple[str, str], str]:
    """(experiment, claimed protocol) -> why there is no number."""
    plans = {p.run.entry.id: p for p in planned}
    planner = plan.Planner(root)
    found = {}
    for one in candidates:
        mine = plans.get(one.entry.id)
        for claim in one.claims:
            protocol = declared.protocol(claim.protocol)
            lists = planner.blocker(declare.Entry(experiment=one.entry.experiment, protocol=protocol), ())
            if one.why_not:
                reason = f"not answered by this file: {one.why_not}"
            elif mine is None:
                reason = "left out by the filters"
            elif mine.status == "blocked":
                reason = ". ".join(filter(None, [mine.reason.rstrip("."), mine.unblock]))
            else:
                reason = lists.message if protocol.subset_of and lists else "its evaluation failed"
            found[claim.experiment, claim.protocol] = reason
    return found


# ------------------------------------------------------------------------------------------------------ the class order
def _remarks(planned: Sequence[Planned], root: Path | None, results: Path) -> Iterable[str]:
    """For each entry its colour order and, where another class order explains the predictions much better, which."""
    from bench.data import order_doctor
    from bench.data.source import Copies
    from bench.metrics import from_predictions

    copies, planned = Copies(root), [p for p in planned if p.run.checkpoint]  # not a stage that made its front
    counted: dict[str, order_doctor.Matrix] = {}
    for p in planned:
        folder = store.find_result(p.key, results) if p.key else None
        if folder is not None:
            scores = from_predictions(folder / "predictions-released.parquet")
            counted[p.run.entry.id] = counted.get(p.run.entry.id, 0) + scores.matrix
    for run in {p.run.entry.id: p.run for p in planned if p.run.entry.id in counted}.values():
        classes = run.entry.protocol.classes
        outputs = run.outputs or classes
        found = order_doctor.diagnose(order_doctor.Result(classes, counted[run.entry.id], outputs))
        if found.wrong:
            best = found.known[0] if found.verdict == "wrong" else found.best
            meant = [classes[best.means[classes.index(name)]] for name in outputs]
            title = best.titles[0] if found.verdict == "wrong" else "they follow an order that no known code has"
            images = counted[run.entry.id].sum()
            was, would = (f"{100 * one.right / images:.2f} %" for one in (found.given, best))
            yield f"warning: {run.entry.id}: another class order explains the predictions better: {would}, not {was},"
            yield f"  if {title}\n    -> --checkpoint-classes {','.join(meant)}"
        used, other = ("rgb", "bgr") if run.recipe["colour"] == "rgb" else ("bgr", "rgb")
        if len(copies.open(run.entry.protocol, True, run.preprocessing).shape) == 3:  # not grey
            yield f"{run.entry.id} was read with colours {used}; --colour {other} evaluates it with the other order"
