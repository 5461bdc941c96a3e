"""Claims beside results: the one place where a printed number meets ours. The writers format what is decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench.declare import Claim, Table
from bench.errors import UserError
from bench.statistics import Judgement, Kind, Part, mcnemar, verdict, verdict_exact
from bench.store import SELECTIONS
from tables.render.results import Key, Results, SeedRuns

SYNTHETIC = "SYNTHETIC, not comparable"
PARAMETERS = "parameters_millions"
Networks = Callable[[str], Mapping[str, str]]  # run -> role -> SHA-256 of the stage's network it was built on
Correct = Callable[[str, str], Mapping[str, bool] | None]  # (run, selection) -> image -> right, None where not kept


@dataclass(frozen=True)
class Settings:
    """What a rendering is asked for, and what the plan knows that results cannot say."""

    seeds: int = 1  # wanted
    profiles: tuple[str, ...] = ("paper", "short")  # the first with results counts; quick stands alone
    selection: str = ""  # compared with the claim; empty: the one each table declares
    folds: Mapping[str, int] = field(default_factory=dict)  # protocol -> folds
    stand_ins: Mapping[str, str] = field(default_factory=dict)  # protocol -> its SynthFER protocol, for profile quick
    parameters: Mapping[tuple[str, str], float] | None = None  # (experiment, part) -> millions, as the paper builds it
    blocked: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (experiment, protocol) -> why and what to do
    deviations: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (experiment, protocol) -> count
    correct: Correct | None = None  # per-image answers, for the paired test within a column
    networks: Networks | None = None  # to tell where the runs of one cell were built on different ones
    asked: frozenset[str] = frozenset()  # cells of extra rows to list even where they have no result
    profile: str = ""  # of the runs that were just asked for; empty: the first of `profiles`
    unanswerable: Mapping[tuple[str, str], str] = field(
        default_factory=dict
    )  # (cell, profile) -> why no run is its own

    def __post_init__(self) -> None:
        if "quick" in self.profiles and len(self.profiles) > 1:
            raise UserError("profile quick is synthetic and cannot be mixed with real results", "render it alone")
        if self.selection and self.selection not in SELECTIONS:
            raise UserError(f"unknown selection '{self.selection}'", f"known: {', '.join(SELECTIONS)}")

    @property
    def synthetic(self) -> bool:
        return "quick" in self.profiles


@dataclass(frozen=True)
class Cell:
    """One printed number and what we have for it. Numbers in the table's unit (percent); None where there is none."""

    claim: Claim
    judgement: Judgement
    selection: str  # the one compared
    profile: str = ""  # of our results
    n: float = 0  # test images of one seed
    k: float = 0  # correct images, mean over seeds
    seeds: int = 0
    wanted: int = 0
    selections: Mapping[str, float] = field(default_factory=dict)  # every selection's mean over the same seeds
    runs: tuple[Mapping[str, Any], ...] = ()  # rows of runs.csv behind the number
    marks: tuple[str, ...] = ()  # †protocol, short‡, 'k of n seeds', ≈, cited

    @property
    def synthetic(self) -> bool:
        return self.judgement.kind is Kind.SYNTHETIC

    @property
    def ours(self) -> float | None:
        return self.judgement.mean


@dataclass(frozen=True)
class Comparison:
    """One table, compared. `cells` by (row id, column id), in the order the paper prints them.

    `extra` holds the cells of rows of ours that it does not print: never judged, and shown apart.
    """

    table: Table
    cells: Mapping[tuple[str, str], Cell]
    selection: str
    settings: Settings
    extra: Mapping[tuple[str, str], Cell] = field(default_factory=dict)

    @property
    def all_cells(self) -> tuple[Cell, ...]:
        """The paper's cells, then those of extra rows."""
        return (*self.cells.values(), *self.extra.values())

    @property
    def counted(self) -> bool:
        """A table of parameter counts alone: nothing in it was trained, whatever the profile."""
        return all(cell.claim.metric.startswith(PARAMETERS) for cell in self.cells.values())

    @property
    def synthetic(self) -> bool:
        return self.settings.synthetic and not self.counted


def compare(table: Table, results: Results, settings: Settings) -> Comparison:
    """Join every claim of a table with the results.

    Raises:
        UserError: unknown metric in a claim, or a damaged confusion file.
    """
    selection = settings.selection or table.compare
    cells = {(claim.row, claim.column): _cell(claim, results, settings, selection) for claim in table.claims()}
    if settings.correct and not settings.synthetic:
        cells = _mark_indistinguishable(cells, settings.correct)
    return Comparison(table, cells, selection, settings, _extra_cells(table, results, settings, selection))


def command(table_id: str, profile: str, more: str = "") -> str:
    """The command line that runs a table, whose id may name a variant."""
    table, _, variant = table_id.partition("@")
    words = [f"--table {table}", variant and f"--variant {variant}", f"--profile {profile}", more]
    return " ".join(["python run_all.py", *filter(None, words)])


# ----------------------------------------------------------------------------------------------------------- one cell
def _cell(claim: Claim, results: Results, settings: Settings, selection: str) -> Cell:
    differs = _marks(claim)
    if claim.cited:
        return Cell(claim, Judgement(Kind.CITED, claim.cited), selection, marks=("cited", *differs))
    if claim.metric.startswith(PARAMETERS):
        return _parameter_cell(claim, settings, selection)
    for profile in _answering(claim, settings):
        cell = _measured(claim, results, settings, selection, profile)
        if cell:
            return replace(cell, marks=(*_marks(cell.claim), *cell.marks))
    return Cell(
        claim, _why_nothing(claim, results, settings, selection), selection, wanted=settings.seeds, marks=differs
    )


def _marks(claim: Claim) -> tuple[str, ...]:
    return ("†protocol",) if claim.differs else ()


def _why_nothing(claim: Claim, results: Results, settings: Settings, selection: str) -> Judgement:
    for profile in _answering(claim, settings):
        key = Key(claim.experiment, _protocol(claim, settings, profile), profile, selection)
        if results.seeds(key):
            return Judgement(Kind.BLOCKED, f"its runs hold no counts for {claim.metric}")
        kept = [other for other in SELECTIONS if results.seeds(key._replace(selection=other))]
        if kept:
            return Judgement(Kind.BLOCKED, f"its runs kept no {selection}; render with --selection {kept[0]}")
    unlike = settings.unanswerable.get((claim.cell, settings.profile or settings.profiles[0]))
    blocked = unlike or settings.blocked.get((claim.experiment, claim.protocol))
    if blocked:
        return Judgement(Kind.BLOCKED, blocked)
    more = "--extra all" if claim.instead_of else ""
    return Judgement(Kind.NOT_RUN, command(claim.table, settings.profiles[0], more))


def _answering(claim: Claim, settings: Settings) -> list[str]:
    """The profiles whose runs are what the cell's row says."""
    return [profile for profile in settings.profiles if (claim.cell, profile) not in settings.unanswerable]


def _parameter_cell(claim: Claim, settings: Settings, selection: str) -> Cell:
    part = claim.metric.removeprefix(PARAMETERS).strip("[]")
    ours = (settings.parameters or {}).get((claim.experiment, part))
    why = settings.blocked.get((claim.experiment, claim.protocol))
    if ours is None and not why and settings.parameters is not None:
        return Cell(claim, Judgement(Kind.NOT_RUN, command(claim.table, settings.profiles[0])), selection)
    return Cell(claim, verdict_exact(claim.printed, ours, blocked=why or "nothing counted"), selection)


def _protocol(claim: Claim, settings: Settings, profile: str) -> str:
    """The protocol our runs used: profile quick trains on the claim's synthetic stand-in."""
    return (settings.stand_ins.get(claim.protocol) if profile == "quick" else "") or claim.protocol


def _measured(claim: Claim, results: Results, settings: Settings, selection: str, profile: str) -> Cell | None:
    protocol = _protocol(claim, settings, profile)
    folds = settings.folds.get(protocol, 0)
    key = Key(claim.experiment, protocol, profile, selection)
    used, scores = _scores(results, key, claim.metric, folds)
    if not scores:
        return None
    values = list(scores.values())
    claim = _with_departures(claim, used)
    # a shortened recipe is never judged, so no number of seeds is missing from it
    wanted = len(values) if profile == "short" else settings.seeds
    judgement = verdict(claim.printed, values, wanted, protocol_differs=claim.differs, profile=profile)
    marks: tuple[str, ...] = ("short‡",) if profile == "short" else ()
    if len(values) < wanted:
        marks += (f"{len(values)} of {wanted} seeds",)
    missing_folds = [max(folds, 1) - len(runs.folds) for runs in used.values() if not runs.complete(folds)]
    if missing_folds:
        text = f"{folds - max(missing_folds)} of {folds} folds"
        marks += (text,)
        judgement = _partial(judgement, text)
    return Cell(
        claim,
        judgement,
        selection,
        profile=profile,
        n=sum(n for _, n in values[0]),
        k=sum(k for score in values for k, _ in score) / len(values),
        seeds=len(values),
        wanted=wanted,
        selections=_selections(results, key, claim.metric, folds),
        runs=tuple(row for runs in used.values() for row in runs.folds.values()),
        marks=marks,
    )


def _with_departures(claim: Claim, used: Mapping[int, SeedRuns]) -> Claim:
    """The claim, with what runs say of their data among the reasons why their protocol is not the paper's.

    That is: another copy than the published one, other preprocessing, images that were left out.
    """
    rows = [row for runs in used.values() for row in runs.folds.values()]
    told = [why for row in rows if (why := row.get("departures")) == why and why]  # NaN: an empty field
    reasons = list(dict.fromkeys(told))
    skipped = {int(n) for row in rows if (n := row.get("skipped")) == n and n}
    if skipped:
        count = " or ".join(f"{n:,}" for n in sorted(skipped))
        reasons.append(f"{count} image{'s' * (skipped != {1})} skipped (--skip-bad): not the benchmark")
    if not reasons:
        return claim
    return claim.model_copy(update={"differs": "; ".join(filter(None, [claim.differs, *reasons]))})


def _scores(
    results: Results, key: Key, metric: str, folds: int
) -> tuple[dict[int, SeedRuns], dict[int, tuple[Part, ...]]]:
    """Runs and counts of the seeds that have all their folds; where no seed is complete yet, of the incomplete ones."""
    seeds = results.seeds(key)
    used = {seed: runs for seed, runs in sorted(seeds.items()) if runs.complete(folds)} or dict(sorted(seeds.items()))
    scores = {seed: results.score(key, seed, metric) for seed in used}
    classes = max((len(score or ()) for score in scores.values()), default=0)  # unfinished folds can lack a class
    counted = {seed: score for seed, score in scores.items() if score and len(score) == classes}
    return {seed: used[seed] for seed in counted}, counted


def _selections(results: Results, key: Key, metric: str, folds: int) -> dict[str, float]:
    found = {}
    for selection in SELECTIONS:
        scores = _scores(results, key._replace(selection=selection), metric, folds)[1]
        if scores:
            seeds = [sum(k / n for k, n in score) / len(score) for score in scores.values()]
            found[selection] = 100 * sum(seeds) / len(seeds)
    return found


def _partial(judgement: Judgement, text: str) -> Judgement:
    """A verdict on incomplete folds is none; what is never compared anyway keeps saying so."""
    if judgement.kind in (Kind.SYNTHETIC, Kind.SHORTENED, Kind.DIFFERENT):
        return judgement
    return replace(judgement, kind=Kind.PARTIAL, reason=text)


# ---------------------------------------------------------------------------------------- rows the paper does not print
def _extra_cells(table: Table, results: Results, settings: Settings, selection: str) -> dict[tuple[str, str], Cell]:
    """Cells of the rows that the paper does not print: those that were run, and those asked for."""
    return {
        (claim.row, claim.column): _unjudged(_cell(claim, results, settings, selection))
        for claim in table.extra_claims()
        if claim.cell in settings.asked or _was_run(claim, results, settings)
    }


def _was_run(claim: Claim, results: Results, settings: Settings) -> bool:
    keys = (
        Key(claim.experiment, _protocol(claim, settings, profile), profile, selection)
        for profile in _answering(claim, settings)
        for selection in SELECTIONS
    )
    return any(results.seeds(key) for key in keys)


def _unjudged(cell: Cell) -> Cell:
    """A cell with a number of ours and nothing it could be compared with."""
    if cell.ours is None:
        return cell
    kind = Kind.SYNTHETIC if cell.synthetic else Kind.EXTRA
    return replace(cell, judgement=replace(cell.judgement, kind=kind, reason="", delta=None, detectable=None))


# -------------------------------------------------------------------------------------------- paired test in a column
def _mark_indistinguishable(cells: Mapping[tuple[str, str], Cell], correct: Correct) -> dict[tuple[str, str], Cell]:
    """Mark with ≈ the best own accuracy of each column and those that McNemar's exact test cannot tell from it.

    Rows are paired seed by seed on the same images; a row differs from the best when one of its S common seeds has
    p < 0.05 / S (Bonferroni). A column whose best row has no per-image answers stays unmarked.
    """
    marked = dict(cells)
    columns: dict[str, list[tuple[str, str]]] = {}
    for place, cell in cells.items():
        if cell.claim.metric == "accuracy" and cell.ours is not None and not cell.claim.cited:
            columns.setdefault(place[1], []).append(place)
    for places in columns.values():
        best = max(places, key=lambda place: cells[place].ours or 0.0)
        alike = [p for p in places if p != best and _indistinguishable(cells[best], cells[p], correct)]
        for place in [best, *alike] if alike else []:
            marked[place] = replace(marked[place], marks=(*marked[place].marks, "≈"))
    return marked


def _indistinguishable(best: Cell, other: Cell, correct: Correct) -> bool:
    if (best.claim.protocol, best.profile) != (other.claim.protocol, other.profile):
        return False
    first, second = _answers(best, correct), _answers(other, correct)
    common = first.keys() & second.keys()
    p_values = []
    for seed in common:
        a, b = first[seed], second[seed]
        if a.keys() != b.keys():
            return False  # not the same test images: no pairs
        p_values.append(mcnemar(sum(a[i] and not b[i] for i in a), sum(b[i] and not a[i] for i in a)))
    return bool(p_values) and min(p_values) >= 0.05 / len(p_values)


def _answers(cell: Cell, correct: Correct) -> dict[int, dict[tuple[int, str], bool]]:
    """Seed -> (fold, image) -> right, of the runs whose predictions are kept."""
    found: dict[int, dict[tuple[int, str], bool]] = {}
    for row in cell.runs:
        answers = correct(row["run"], cell.selection)
        if answers and len(answers) == row["n"]:  # not a subset of the images the predictions are for
            fold = int(row["fold"]) if row.get("fold") == row.get("fold") and row.get("fold") is not None else 0
            found.setdefault(int(row["seed"]), {}).update({(fold, image): right for image, right in answers.items()})
    return found


# --------------------------------------------------------------------------------------------------------- provenance
def runs_of(cells: Iterable[Cell]) -> list[Mapping[str, Any]]:
    """The rows of runs.csv behind cells, each run once."""
    return list({row["run"]: row for cell in cells for row in cell.runs}.values())


def entries_of(cells: Iterable[Cell]) -> set[tuple[str, str]]:
    """(experiment, protocol) of the cells that have results."""
    return {(c.claim.experiment, c.claim.protocol) for c in cells if c.runs}
