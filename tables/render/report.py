"""A table of our own, in every format: a line for each thing measured, a column for each network."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import unknown
from bench.measures import Measures, Value, value
from bench.report import Line, Report
from bench.store import write_text
from tables.render import html, latex, markdown
from tables.render.compare import SYNTHETIC
from tables.render.text import number

NONE = "–"
LEGEND = (
    "A line is a mean over test images, a column a network; in brackets its 95 % interval over images (bootstrap; "
    "shares: Wilson). No paper prints these numbers."
)


@dataclass(frozen=True)
class Sheet:
    """A report with its numbers.

    Attributes:
        values: (line, title of the network) -> its number, where there is one.
        provenance: where the numbers come from, a line each.
        synthetic: whether the faces are made by this project.
    """

    report: Report
    values: Mapping[tuple[str, str], Value]
    provenance: tuple[str, ...]
    synthetic: bool

    @property
    def heading(self) -> str:
        text = f"{self.report.id}: {self.report.title}"
        return f"{text} · {SYNTHETIC}" if self.synthetic else text

    @property
    def head(self) -> list[str]:
        return ["", "images", *self.report.experiments]

    @property
    def rows(self) -> list[list[str]]:
        """Title of the line, how many images count, a cell for each network."""
        return [self._row(line) for line in self.report.lines]

    def _row(self, line: Line) -> list[str]:
        found = [self.values.get((line.id, title)) for title in self.report.experiments]
        counts = [str(count) for count in dict.fromkeys(one.images for one in found if one is not None)]
        title = f"{line.title}, {line.unit}" if line.unit else line.title
        return [title, " / ".join(counts) or NONE, *(_cell(one, line.digits) for one in found)]

    @property
    def remarks(self) -> list[str]:
        left_out = {
            f"without {line.without} faces: {'; '.join(same.title for same in self._without(line.without))}": None
            for line in self.report.lines
            if line.without
        }
        return [*left_out, *filter(None, [" ".join(self.report.notes.split())])]

    def _without(self, name: str) -> list[Line]:
        return [line for line in self.report.lines if line.without == name]


def sheet(report: Report, found: Mapping[str, Sequence[Measures]]) -> Sheet:
    """A report's numbers from the measures of each network, by title."""
    values = {
        (line.id, title): one
        for line in report.lines
        for title, seeds in found.items()
        if (one := value(line, seeds)) is not None
    }
    everything = [(title, one) for title, seeds in found.items() for one in seeds]
    return Sheet(report, values, tuple(_said(everything)), any(one.about["synthetic"] for _, one in everything))


def _said(found: Iterable[tuple[str, Measures]]) -> Iterable[str]:
    judges: dict[str, None] = {}
    for title, one in found:
        about = one.about
        yield (
            f"{title}: run {about['run']}, {about['entry']}, profile {about['profile']}, seed {about['seed']}, "
            f"{about['seconds']:.0f} s on {about['device']}, {len(one.frame):,} test images"
        )
        judges |= {f"judge of {name}: run {j['run']}, {j['entry']}": None for name, j in about["judges"].items()}
    yield from judges


def _cell(found: Value | None, digits: int) -> str:
    if found is None:
        return NONE
    low, high = number(found.low, digits), number(found.high, digits)
    return f"{number(found.mean, digits)} [{low}, {high}]"


# ------------------------------------------------------------------------------------------------------------- formats
def text(found: Sheet, format: str) -> str:
    """A report in a format: md, latex, html or csv.

    Raises:
        UserError: unknown format.
    """
    if format not in WRITERS:
        raise unknown("format", format, WRITERS)
    return WRITERS[format](found)


def write(found: Sheet, folder: Path) -> list[Path]:
    """Write `<folder>/<report id>.<md|csv|tex|html>`; returns the paths."""
    paths = []
    for format in WRITERS:
        path = folder / f"{found.report.id}.{'tex' if format == 'latex' else format}"
        write_text(path, text(found, format))
        paths.append(path)
    return paths


def _markdown(found: Sheet) -> str:
    parts = [f"## {markdown.escape(found.heading)}", markdown.say(LEGEND, found.synthetic)]
    parts += markdown.grids(found.head, found.rows, found.synthetic)
    for lines in (found.remarks, found.provenance):
        if lines:
            parts.append("\n".join(markdown.say(f"- {markdown.escape(line)}", found.synthetic) for line in lines))
    return "\n\n".join(parts) + "\n"


def _latex(found: Sheet) -> str:
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex.escape(found.heading)}. {latex.escape(LEGEND)}}}",
        rf"\label{{tab:{found.report.id}}}",
        *latex.tabular(found.head, found.rows, found.synthetic),
        *(rf"\par\footnotesize {latex.escape(line)}" for line in (*found.remarks, *found.provenance)),
        r"\end{table}",
    ]
    if found.synthetic:
        lines = [line if SYNTHETIC in line else f"{line} % {SYNTHETIC}" for line in lines]
    return "\n".join(lines) + "\n"


def _html(found: Sheet) -> str:
    return html.template().render(
        title=found.heading, legend=LEGEND, head=found.head, rows=found.rows, details=[], beside=[],
        remarks=found.remarks, provenance=found.provenance, synthetic=SYNTHETIC if found.synthetic else "",
    )  # fmt: skip


def _csv(found: Sheet) -> str:
    """A row for each number, plain digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("table", "line", "network", "measure", "per", "unit", "without", "mean", "low", "high", "images",
                     "protocol", "experiment", "synthetic"))  # fmt: skip
    report = found.report
    for line in report.lines:
        for title, experiment in report.experiments.items():
            one = found.values.get((line.id, title))
            numbers = ("", "", "", "") if one is None else (
                f"{one.mean:.6g}", f"{one.low:.6g}", f"{one.high:.6g}", str(one.images)
            )  # fmt: skip
            said = SYNTHETIC if found.synthetic else ""
            writer.writerow([report.id, line.id, title, line.of, line.per, line.unit, line.without, *numbers,
                             report.protocol, experiment, said])  # fmt: skip
    return stream.getvalue()


WRITERS: dict[str, Callable[[Sheet], str]] = {"md": _markdown, "latex": _latex, "html": _html, "csv": _csv}
