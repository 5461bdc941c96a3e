"""The writers by format name, and results/tables/<id>.<suffix>."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from bench.errors import unknown
from bench.store import write_text
from tables.render.compare import Comparison

MODULES = {"md": "markdown", "latex": "latex", "html": "html", "csv": "csv"}


def text(comparison: Comparison, format: str) -> str:
    """One comparison in a format: md, latex, html or csv.

    Raises:
        UserError: unknown format.
    """
    return _writer(format)(comparison)


def write(comparison: Comparison, folder: Path, formats: Iterable[str] = ("md", "csv", "latex", "html")) -> list[Path]:
    """Write `<folder>/<table id>.<md|csv|tex|html>`; returns the paths."""
    written = []
    for format in formats:
        path = folder / f"{comparison.table.id}.{'tex' if format == 'latex' else format}"
        write_text(path, text(comparison, format))
        written.append(path)
    return written


def _writer(format: str) -> Callable[[Comparison], str]:
    if format not in MODULES:
        raise unknown("format", format, MODULES)
    # Imported by name and late: tabulate and jinja2 cost start-up time, and a call usually needs one of them.
    render: Callable[[Comparison], str] = import_module(f"tables.render.{MODULES[format]}").render
    return render
