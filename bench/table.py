"""A printed table of results: its columns and rows, rows of ours beside them, and the claims they make."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator

from bench.errors import UserError, unknown
from bench.recipe import PROFILES, Declared, ProfileName

TRAINED_SELECTIONS = ("last", "last-k", "test-best", "val-best")
SELECTIONS = (*TRAINED_SELECTIONS, "released")  # released: weights that were trained elsewhere, evaluated once
METRIC_NAMES = (
    "accuracy", "mean_class_accuracy", "macro_f1", "class_accuracy", "prediction_share", "parameters_millions",
)  # fmt: skip


class Column(Declared):
    """A column of a printed table. Whatever it leaves out, the row or the table gives."""

    id: str
    title: str
    protocol: str = ""
    metric: str = ""
    predicted: str = ""  # prediction-share tables: the predicted class
    differs: str = ""  # why the paper's protocol is not ours, where it is not
    batch_mean: int = 0  # images in a batch where its numbers are means over the accuracies of batches; 0: they are not


class Row(Declared):
    """A printed row: ours to run (experiment) or quoted from another paper (cited).

    `experiments` names another experiment for some columns, where one printed row is several models.
    """

    id: str
    title: str
    experiment: str = ""
    experiments: dict[str, str] = {}
    cited: str = ""
    protocol: str = ""
    metric: str = ""
    truth: str = ""  # prediction-share tables: the true class
    differs: str = ""
    differs_in: tuple[str, ...] = ()  # the columns `differs` speaks of; empty: all
    cells: dict[str, str]

    @field_validator("cells", mode="before")
    @classmethod
    def _quoted(cls, cells: dict[str, Any]) -> dict[str, Any]:
        for column, text in cells.items():
            if not isinstance(text, str):
                raise ValueError(
                    f"cell '{column}': write the number as a quoted string, else its digits are lost ({text})"
                )
            float(text)
        return cells


class ExtraRow(Declared):
    """A row of ours that the paper does not print, in the place of one that it does; shown apart and never judged.

    It answers with the protocol and metric of the row it stands for. `run: fallback` rows run, on real data, where an
    external file of that row is missing or the profile goes without it: of several for one cell, the first whose own
    files are at hand. `asked` rows run only with --extra all. Where a profile's miniatures have no such part as the row
    is about, `profiles` names those under which it runs.
    """

    id: str
    title: str
    experiment: str = ""
    experiments: dict[str, str] = {}
    instead_of: str  # id of a printed row of the same table, not a cited one
    columns: tuple[str, ...] = ()  # empty: those of the row it stands for
    run: Literal["fallback", "asked"] = "asked"
    profiles: tuple[ProfileName, ...] = PROFILES
    why: str = Field(min_length=1)  # what is not the paper's about it, and what it is for


class Claim(Declared):
    """One number printed in a paper, or a cell of a row of ours in the place of one (`instead_of`)."""

    table: str
    row: str
    column: str
    printed: str  # the digits as printed; those of the row it stands for where the paper prints none
    unit: str
    metric: str
    protocol: str
    experiment: str
    cited: str
    differs: str
    instead_of: str = ""  # the printed row that an extra row stands for; empty for a printed number

    @property
    def cell(self) -> str:
        """The cell's address on the command line, e.g. pfvit-table4/vit-b/raf-db."""
        return f"{self.table}/{self.row}/{self.column}"

    @property
    def value(self) -> float:
        """The printed number."""
        return float(self.printed)

    @property
    def entry(self) -> str:
        """Id of the entry this claim is about; empty for cited rows."""
        return f"{self.experiment}:{self.protocol}" if self.experiment else ""


class Table(Declared):
    """A printed table of results."""

    id: str
    paper: str = ""
    title: str
    where: str
    unit: str = "%"
    metric: str = "accuracy"
    compare: str = "test-best"  # the selection the claim is compared with
    compare_why: str = ""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    extra: tuple[ExtraRow, ...] = ()
    notes: str = ""
    _answered: tuple[tuple[Claim, ...], tuple[Claim, ...]] | None = PrivateAttr(default=None)

    @field_validator("columns", "rows", "extra")
    @classmethod
    def _unique_ids(cls, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        ids = [part.id for part in parts]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"id '{twice[0]}' is given twice")
        return parts

    @field_validator("compare")
    @classmethod
    def _known_selection(cls, compare: str) -> str:
        if compare not in SELECTIONS:
            raise ValueError(str(unknown("selection", compare, SELECTIONS)))
        return compare

    def answering(self, id: str, claims: Iterable[Claim], extra: Iterable[Claim] = ()) -> Table:
        """The same table under another id, with other claims in its cells (bench/variants.py)."""
        other = self.model_copy(update={"id": id})
        other._answered = (tuple(claims), tuple(extra))
        return other

    def claims(self) -> list[Claim]:
        """Every printed number, row by row."""
        if self._answered:
            return list(self._answered[0])
        columns = {column.id: column for column in self.columns}
        found = []
        for row in self.rows:
            for name in (*row.cells, *row.experiments, *row.differs_in):
                if name not in columns:
                    raise unknown(f"column in {self.id}/{row.id}", name, columns)
            for name, printed in row.cells.items():
                column = columns[name]
                metric = column.metric or row.metric or self.metric
                if metric.partition("[")[0] not in METRIC_NAMES:
                    raise unknown(f"metric in {self.id}", metric, METRIC_NAMES)
                if metric == "prediction_share":
                    metric = f"prediction_share[{row.truth}>{column.predicted}]"
                differs = row.differs if name in (row.differs_in or row.cells) else ""
                found.append(
                    Claim(
                        table=self.id, row=row.id, column=name, printed=printed, unit=self.unit, metric=metric,
                        protocol=column.protocol or row.protocol, experiment=row.experiments.get(name, row.experiment),
                        cited=row.cited, differs=column.differs or differs,
                    )
                )  # fmt: skip
        return found

    def extra_claims(self) -> list[Claim]:
        """The cells of the rows that the paper does not print, each with what is asked of the cell it stands for.

        Raises:
            UserError: an extra row names a row, a column or no experiment where it should.
        """
        if self._answered:
            return list(self._answered[1])
        printed = {(claim.row, claim.column): claim for claim in self.claims()}
        return [
            # what `differs` says is about the printed number, with which these are not compared
            printed[row.instead_of, name].model_copy(
                update={
                    "row": row.id,
                    "experiment": row.experiments.get(name, row.experiment),
                    "differs": "",
                    "instead_of": row.instead_of,
                }
            )
            for row in self.extra
            for name in self._extra_columns(row)
        ]

    def _extra_columns(self, extra: ExtraRow) -> tuple[str, ...]:
        """The columns of an extra row, after checking what it names."""
        where = f"{self.id}/{extra.id}"
        rows = {row.id: row for row in self.rows}
        if extra.id in rows:
            raise UserError(f"{where}: a printed row has the same id", "give the extra row another one")
        if extra.instead_of not in rows:
            raise unknown(f"row in {where}", extra.instead_of, rows)
        printed = rows[extra.instead_of]
        if printed.cited:
            raise UserError(f"{where}: stands for the cited row '{printed.id}'", "name a row of the authors' own")
        columns = extra.columns or tuple(printed.cells)
        for name in columns:
            if name not in printed.cells:
                raise unknown(f"column in {where}", name, printed.cells)
            if not extra.experiments.get(name, extra.experiment):
                raise UserError(f"{where}: no experiment for column '{name}'", "add `experiment`")
        for name in extra.experiments:
            if name not in columns:
                raise unknown(f"column in {where}", name, columns)
        return columns
