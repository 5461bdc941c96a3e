"""Declarations: what the papers print and what we run for it, read from YAML and refused when misspelt.

A paper file (tables/<paper>.yaml) holds recipes, experiments and tables; bench/data/protocols*.yaml hold protocols.
Everything here is frozen, forbids unknown keys, and is cheap to load (no torch, no pandas).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from copy import copy
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from bench.errors import UserError, unknown
from bench.recipe import PROFILES as PROFILES
from bench.recipe import RECIPE_FIELDS as RECIPE_FIELDS
from bench.recipe import REQUIRED as REQUIRED
from bench.recipe import Declared, Recipe
from bench.recipe import Override as Override
from bench.recipe import ProfileName as ProfileName
from bench.recipe import Sourced as Sourced
from bench.report import Report as Report
from bench.report import check_reports
from bench.stages import check_stages
from bench.table import SELECTIONS as SELECTIONS
from bench.table import TRAINED_SELECTIONS as TRAINED_SELECTIONS
from bench.table import Claim as Claim
from bench.table import Table as Table
from bench.yaml_files import parse, read_yaml

Kind = TypeVar("Kind")
ROOT = Path(__file__).resolve().parent.parent
STAGE = "stage:"  # begins what a figure says for the network of a stage


class Protocol(Declared):
    """A dataset with its labelling rule, classes, split and exact counts."""

    id: str
    dataset: str
    title: str = ""
    classes: tuple[str, ...] = ()
    targets: str = ""  # what a network is to answer with where it is no class, e.g. landmarks-68
    rule: str = ""
    folds: int = 0
    subset_of: str = ""
    counts: dict[str, int] = {}
    class_counts: dict[str, dict[str, int]] = {}
    stand_in: str = ""
    variants: dict[str, str] = {}  # other ways to report the same images: leak-free, by-subject, ... -> protocol
    test_transform: str = ""  # the augmentation that test and val images go through, whatever a run trains with
    synthetic: bool = False
    notes: str = ""
    access: str = ""


class Experiment(Declared):
    """A method with its options, before a dataset is chosen."""

    id: str = ""
    paper: str = ""
    method: str
    backbone: str
    pretraining: str = "none"
    augmentation: str
    recipe: str
    options: dict[str, Any] = {}
    weights: tuple[str, ...] = ()  # roles it cannot do without: external files, or products of stages
    front: str = ""  # the one of them whose network prepares images once, ahead of augmentation (bench.method.Front)
    note: str = ""


class Figure(Declared):
    """A figure of a paper that can be drawn again from finished runs.

    A method's figure gets test images: `expression` names a class and one face of it is shown, faces each-class shows
    one of every class, all-test gives it the whole test split. A face shown is the first of its class that every
    network of the figure classifies correctly, else the first. `fallback` takes the place of `experiments` where a file
    that those name is missing or the profile goes without it; its titles say what is not the paper's about them. In
    place of an experiment either may name `stage:<role>`: that stage's network, which gets images of `protocol` too.
    `drawn_with` names tables and reports that the figure comes with, unasked, where all its networks are there by then.
    """

    id: str
    paper: str = ""
    title: str
    where: str
    draw: str  # confusion, or the name of a method's registered figure
    experiments: dict[str, str]  # title in the figure -> experiment, or stage:<role>
    fallback: dict[str, str] = {}
    drawn_with: tuple[str, ...] = ()
    protocol: str
    expression: str = ""
    faces: Literal["", "each-class", "all-test"] = ""


class Paper(Declared):
    """One paper file."""

    id: str
    title: str
    venue: str
    year: int
    link: str = ""
    contradictions: tuple[str, ...] = ()


class PaperFile(Declared):
    """The layout of tables/<paper>.yaml."""

    paper: Paper
    recipes: dict[str, Recipe] = Field(default_factory=dict)
    experiments: dict[str, Experiment] = Field(default_factory=dict)
    stages: dict[str, str] = Field(default_factory=dict)  # role -> the entry whose network fills it
    tables: list[Table] = Field(default_factory=list)
    figures: list[Figure] = Field(default_factory=list)
    reports: list[Report] = Field(default_factory=list)


class Entry(Declared):
    """One declared experiment on one protocol: what the matrix is made of."""

    experiment: Experiment
    protocol: Protocol

    @property
    def id(self) -> str:
        """experiment:protocol, the name used by `show`, runs.csv and the baseline."""
        return f"{self.experiment.id}:{self.protocol.id}"


class Declarations:
    """Everything declared, with lookups that name the nearest match when they fail."""

    def __init__(self, files: Iterable[PaperFile], protocols: Iterable[Protocol]) -> None:
        self.protocols = _unique("protocol", ((p.id, p) for p in protocols))
        papers = list(files)
        self.papers = _unique("paper", ((f.paper.id, f.paper) for f in papers))
        self.recipes = _unique(
            "recipe", ((name, r.model_copy(update={"id": name})) for f in papers for name, r in f.recipes.items())
        )
        self.experiments = _unique(
            "experiment",
            (
                (name, e.model_copy(update={"id": name, "paper": f.paper.id}))
                for f in papers
                for name, e in f.experiments.items()
            ),
        )
        self.stages = _unique("stage", (pair for f in papers for pair in f.stages.items()))
        self.tables = _unique(
            "table", ((t.id, t.model_copy(update={"paper": f.paper.id})) for f in papers for t in f.tables)
        )
        self.figures = _unique(
            "figure", ((g.id, g.model_copy(update={"paper": f.paper.id})) for f in papers for g in f.figures)
        )
        self.reports = _unique(
            "report", ((r.id, r.model_copy(update={"paper": f.paper.id})) for f in papers for r in f.reports)
        )
        self._check()

    def adding(self, protocols: Iterable[Protocol]) -> Declarations:
        """The same declarations with more protocols."""
        more = copy(self)
        more.protocols = _unique("protocol", [*self.protocols.items(), *((p.id, p) for p in protocols)])
        return more

    def _check(self) -> None:
        """Every name a declaration mentions exists."""
        same: dict[str, str] = {}
        for experiment in self.experiments.values():
            self.recipe(experiment.recipe)
            if experiment.front not in ("", *experiment.weights):
                raise unknown(f"role in front of '{experiment.id}'", experiment.front, experiment.weights)
            content = repr(experiment.model_dump(exclude={"id", "paper", "note"}))
            if content in same:
                # they would be one run, recorded under one of the two names
                raise UserError(
                    f"experiments '{same[content]}' and '{experiment.id}' are the same", "use one in both places"
                )
            same[content] = experiment.id
        check_stages(self)
        check_reports(self)
        for table in self.tables.values():
            for row in table.rows:
                if bool(row.experiment) == bool(row.cited):
                    raise UserError(f"{table.id}/{row.id}: a row is either cited or names an experiment")
            for claim in (*table.claims(), *table.extra_claims()):
                if claim.experiment:
                    self.experiment(claim.experiment)
                    self.protocol(claim.protocol)
        for figure in self.figures.values():
            classes = self.protocol(figure.protocol).classes
            if figure.expression and figure.expression not in classes:
                raise unknown(f"class in {figure.id}", figure.expression, classes)
            if bool(figure.expression) + bool(figure.faces) != (figure.draw != "confusion"):
                raise UserError(f"figure '{figure.id}' needs either 'expression' or 'faces' (confusion: neither)")
            for name in (*figure.experiments.values(), *figure.fallback.values()):
                role = name.removeprefix(STAGE)
                _get("stage", role, self.stages) if role != name else self.experiment(name)
            for name in figure.drawn_with:
                if name not in self.reports:
                    self.table(name)

    def table(self, name: str) -> Table:
        if name in self.reports:
            raise UserError(f"'{name}' is a table of our own: no paper prints its numbers", f"--table {name} runs it")
        if name not in self.tables:
            raise unknown("table", name, (*self.tables, *self.reports))
        return self.tables[name]

    def recipe(self, name: str) -> Recipe:
        return _get("recipe", name, self.recipes)

    def experiment(self, name: str) -> Experiment:
        """A declared experiment, or one with another backbone: `experiment+backbone`, `experiment+backbone@timm`."""
        if "+" in name and name not in self.experiments:
            from bench.backbones import with_backbone  # only such ids need it

            return with_backbone(self, name)
        return _get("experiment", name, self.experiments)

    def protocol(self, name: str) -> Protocol:
        return _get("protocol", name, self.protocols)

    def entry(self, name: str) -> Entry:
        """An entry by its id `experiment:protocol`."""
        experiment, _, protocol = name.partition(":")
        return Entry(experiment=self.experiment(experiment), protocol=self.protocol(protocol))

    def claim(self, cell: str) -> Claim:
        """A claim by its address table/row/column; an extra row's cells have one too."""
        table = self.table(cell.split("/")[0])
        cells = {claim.cell: claim for claim in (*table.claims(), *table.extra_claims())}
        return _get("cell", cell, cells)

    def claims(self) -> list[Claim]:
        """Every printed number of every paper."""
        return [claim for table in self.tables.values() for claim in table.claims()]

    def tables_of(self, paper: str) -> list[Table]:
        if paper not in self.papers:
            raise unknown("paper", paper, self.papers)
        return [table for table in self.tables.values() if table.paper == paper]


def _get(kind: str, name: str, known: Mapping[str, Kind]) -> Kind:
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def _unique(kind: str, pairs: Iterable[tuple[str, Kind]]) -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    for name, value in pairs:
        if name in found:
            raise UserError(f"{kind} '{name}' is declared twice")
        found[name] = value
    return found


def protocol_files() -> list[Path]:
    return sorted((ROOT / "bench" / "data").glob("protocols*.yaml"))


def table_files() -> list[Path]:
    """Our paper files, then those beside the modules that outside packages name under `ferbench.tables`."""
    found = sorted((ROOT / "tables").glob("*.yaml"))
    for point in entry_points(group="ferbench.tables"):
        spec = importlib.util.find_spec(point.module)
        if spec is not None and spec.origin is not None:
            found += sorted(Path(spec.origin).parent.glob("*.yaml"))
    return list(dict.fromkeys(found))


@lru_cache(maxsize=1)
def installed() -> Declarations:
    """All declarations of this installation, read once."""
    return load_from(table_files(), protocol_files())


def load(root: Path | None = None) -> Declarations:
    """All declarations: of this installation, and of the user's own folders under a data root."""
    if root is None:
        return installed()
    from bench.data.own.file import protocols_under

    return installed().adding(protocols_under(root))


def load_from(tables: Iterable[Path], protocols: Iterable[Path]) -> Declarations:
    """Declarations from given files (tests, outside packages)."""
    found = []
    for path in protocols:
        data = read_yaml(path)
        if not isinstance(data, dict) or set(data) != {"protocols"}:
            raise UserError(f"{path}: expected one key 'protocols' holding a list")
        found += [parse(Protocol, item, path) for item in data["protocols"]]
    return Declarations([parse(PaperFile, read_yaml(path), path) for path in tables], found)
