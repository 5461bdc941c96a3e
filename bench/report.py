"""Reports: tables of our own, of what finished networks make of test images. Here: what is declared of them.

`reports:` in a paper's YAML; how they are measured and kept says bench/measures.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench.errors import UserError, unknown
from bench.recipe import Declared

if TYPE_CHECKING:
    from bench.declare import Declarations


class Line(Declared):
    """A line of a report: the mean of a measure over test images, a number for each network.

    Attributes:
        of: the measure.
        per: a second one: the line is then the ratio of the two means.
        unit: said behind the title; "%" makes a measure of 0 and 1 a share.
        without: a class whose images are left out.
    """

    id: str
    title: str
    of: str
    per: str = ""
    unit: str = ""
    digits: int = 3
    without: str = ""


class Report(Declared):
    """A table of our own.

    Attributes:
        measure: name of the registered function.
        experiments: title in the table -> experiment, on `protocol`.
        judges: what the measure calls a network that it asks -> its entry, experiment:protocol.
    """

    id: str
    paper: str = ""
    title: str
    protocol: str
    measure: str
    experiments: dict[str, str]
    judges: dict[str, str] = Field(default_factory=dict)
    lines: tuple[Line, ...]
    notes: str = ""


def check_reports(declared: Declarations) -> None:
    """Every name that a report mentions exists, and what measures it is a network of one training.

    Raises:
        UserError: names the report.
    """
    for report in declared.reports.values():
        if report.id in declared.tables:
            raise UserError(f"'{report.id}' is both a table and a report", "rename the report")
        protocol = declared.protocol(report.protocol)
        if protocol.folds:
            raise UserError(f"report '{report.id}': {protocol.id} has folds", "use a protocol without")
        for name in report.experiments.values():
            declared.experiment(name)
        for entry in report.judges.values():
            if declared.entry(entry).protocol.folds:
                raise UserError(f"report '{report.id}': judge {entry} has folds", "use a protocol without")
        for line in report.lines:
            if line.without and line.without not in protocol.classes:
                raise unknown(f"class in {report.id}/{line.id}", line.without, protocol.classes)
        ids = [line.id for line in report.lines]
        if len(set(ids)) < len(ids):
            raise UserError(f"report '{report.id}': a line is declared twice")
