"""Results that `data order-doctor` takes: predictions of ours, tables of labels and predictions, confusion matrices.

All become a confusion matrix of named classes. Words for expressions are read in any spelling; numbers need an order.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.data.class_folders import number
from bench.data.classes import ORDERS, class_name
from bench.data.order_doctor import MOST, Result
from bench.errors import UserError, unknown

FORMS = (
    "give our predictions-*.parquet, a csv with the columns label,predicted, or a square csv of counts (rows: truth)"
)
SAY_ORDER = "say which class each number is: --order NAME or --classes a,b,c (from the first number on)"


def read(path: Path, order: str = "", classes: Sequence[str] = ()) -> Result:
    """A result from any of the three forms.

    Args:
        path: `.parquet` is predictions of ours, anything else is text.
        order: a known order that says what numbers mean, and which number a name had.
        classes: the same, for an order that is not known by a name.

    Raises:
        UserError: names file and row: unreadable, of no known form, an unknown class, or numbers without an order.
    """
    base = _base(order, classes)
    if path.suffix.lower() == ".parquet":
        return _predictions(path, base)
    rows = _rows(path)
    header = [cell.lower() for cell in rows[0][1]]
    if {"label", "predicted"} <= set(header):
        return _table(path, header, rows[1:], base, bool(order))
    return _matrix(path, rows, base, bool(order))


def _base(order: str, classes: Sequence[str]) -> tuple[str, ...]:
    if order and classes:
        raise UserError("--order and --classes both say what the numbers are", "give one of them")
    if order and order not in ORDERS:
        raise unknown("class order", order, ORDERS)
    named = ORDERS[order] if order else tuple(_word(label) for label in classes)
    if len(set(named)) < len(named) or "" in named:
        raise UserError(f"--classes names a class twice, or none: {','.join(classes)}", "name each class once")
    return named


def _predictions(path: Path, base: tuple[str, ...]) -> Result:
    from bench.metrics import from_predictions

    if base:
        raise UserError(f"{path}: a predictions file says its classes itself", "leave --order and --classes out")
    scores = from_predictions(path)
    last = scores.epochs[-1]
    remark = f"epoch {last.epoch}, the last of {len(scores.epochs)}" if len(scores.epochs) > 1 else ""
    return Result(scores.classes, last.matrix, scores.classes, remark)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Rows that are not empty, with their line numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream)
            rows = [(lines.line_num, [cell.strip() for cell in row]) for row in lines if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as csv: {error}", FORMS) from None
    if not rows:
        raise UserError(f"{path} is empty", FORMS)
    if len(rows[0][1]) == 1:
        raise UserError(f"{path}: the first line has no comma in it", FORMS)
    return rows


# ------------------------------------------------------------------------------------------------------------- tables
def _table(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]], base: tuple[str, ...], prefix: bool
) -> Result:
    """Columns label and predicted, in words or numbers; with a column `name`, no image may be there twice."""
    columns = [header.index("label"), header.index("predicted")]
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(f"{path}, row {line}: {len(row)} cells, not {len(header)}", "correct the row")
        for place in columns:
            if not row[place]:
                raise UserError(f"{path}, row {line}: no {header[place]}", "fill it in, or leave the row out")
    if "name" in header:
        _refuse_repeats(path, header.index("name"), rows)
    cells = [[row[place] for _, row in rows] for place in columns]
    remark = ""
    if any(_number(cell) is not None for column in cells for cell in column):
        base, remark = _named_numbers(path, cells, rows, base, prefix)
    else:
        cells = [[_word(cell) for cell in column] for column in cells]
    classes = base or tuple(sorted({cell for column in cells for cell in column}))
    place_of = {label: place for place, label in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    for (line, _), truth, predicted in zip(rows, *cells, strict=True):
        for label in (truth, predicted):
            if label not in place_of:
                raise _at(path, line, unknown("class", label, classes))
        matrix[place_of[truth], place_of[predicted]] += 1
    return Result(classes, matrix, base, remark)


def _refuse_repeats(path: Path, place: int, rows: list[tuple[int, list[str]]]) -> None:
    seen: dict[str, int] = {}
    for line, row in rows:
        first = seen.setdefault(row[place], line)
        if first != line:
            message = f"{path}, row {line}: image {row[place]} is already in row {first}"
            raise UserError(message, "keep one epoch, and each image once")


def _named_numbers(
    path: Path, cells: list[list[str]], rows: list[tuple[int, list[str]]], base: tuple[str, ...], prefix: bool
) -> tuple[tuple[str, ...], str]:
    """Names in place of the numbers of both columns; the classes that can occur, and where counting starts.

    An order that is longer than the numbers is cut: those of seven-class AffectNet are AffectNet's without the last.
    """
    if not base:
        raise UserError(f"{path}: classes are numbers", SAY_ORDER)
    found = [[_number(cell) for cell in column] for column in cells]
    values = [{value for value in column if value is not None} for column in found]
    first = [_first(path, column, values, len(base)) for column in values]
    for column, (start, numbers) in enumerate(zip(first, found, strict=True)):
        for row, value in enumerate(numbers):
            if value is None:
                cells[column][row] = _word(cells[column][row])
            elif not 0 <= value - start < len(base):
                message = f"{path}, row {rows[row][0]}: class {value} is not one of {start} to {start + len(base) - 1}"
                raise UserError(message, SAY_ORDER)
            else:
                cells[column][row] = base[value - start]
    remark = "numbers from 1" if 1 in first else ""
    if len(set(first)) > 1:
        remark = f"labels from {first[0]}, predictions from {first[1]}"
    seen = {cell for column in cells for cell in column}
    while prefix and len(base) > 2 and base[-1] not in seen:
        base = base[:-1]
    return base, remark


def _first(path: Path, column: set[int], both: list[set[int]], classes: int) -> int:
    """0 or 1, where a column's numbers start: it has a 0, or the number of classes; else as in the other column."""
    for values in (column, set().union(*both)):
        if 0 in values and classes in values:
            if values is column:
                raise UserError(f"{path}: numbers 0 to {classes} are more than {classes} classes", SAY_ORDER)
            break
        if 0 in values or classes in values:
            return 0 if 0 in values else 1
    if not column:
        return 0
    message = f"{path}: the numbers {min(column)} to {max(column)} of {classes} classes may start at 0 or at 1"
    raise UserError(message, "name just the classes that occur with --classes, or write names in the file")


# ----------------------------------------------------------------------------------------------------------- matrices
def _matrix(path: Path, rows: list[tuple[int, list[str]]], base: tuple[str, ...], prefix: bool) -> Result:
    """A square of counts, rows the truth; names in the first row, the first column, both (ours) or neither."""
    top = not any(_count(cell) is not None for cell in rows[0][1])
    body = rows[1:] if top else rows
    side = bool(body) and all(_count(row[0]) is None for _, row in body)
    n = len(body)
    if not 2 <= n <= MOST:
        raise UserError(f"{path}: {n} rows of counts; it is no confusion matrix of 2 to {MOST} classes", FORMS)
    for line, row in body:
        if len(row) - side != n:
            raise UserError(f"{path}, row {line}: {len(row) - side} counts, but there are {n} rows", FORMS)
    matrix = np.array([[_whole(path, line, cell) for cell in row[side:]] for line, row in body], np.int64)
    across = [_word(cell) for cell in rows[0][1][-n:]] if top else []
    down = [_word(row[0]) for _, row in body] if side else across
    across = across or down
    if not down:
        if not base:
            raise UserError(f"{path}: the rows have no names", SAY_ORDER)
        base = base[:n] if prefix else base
        if len(base) != n:
            raise UserError(f"{path}: {n} rows, but {len(base)} classes are named", SAY_ORDER)
        return Result(base, matrix, base)
    if len(set(down)) < n or sorted(down) != sorted(across):
        raise UserError(
            f"{path}: rows are {', '.join(down)}; columns {', '.join(across)}", "name each class once in both"
        )
    if base and set(base[:n] if prefix else base) != set(down):
        raise UserError(f"{path}: its classes are {', '.join(down)}, not {', '.join(base)}", "leave --order out")
    matrix = matrix[:, [across.index(label) for label in down]]
    return Result(tuple(down), matrix, (base[:n] if prefix else base) or tuple(down))


def _whole(path: Path, line: int, cell: str) -> int:
    value = _count(cell)
    if value is None or value < 0 or not value.is_integer() or value > 1e9:
        hint = "counts of images are needed, not shares or means; a predictions file has them"
        raise UserError(f"{path}, row {line}: '{cell[:40]}' is no count", hint)
    return int(value)


def _count(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


# -------------------------------------------------------------------------------------------------------------- words
def _number(cell: str) -> int | None:
    """A class number; tables written from floating-point columns have 3.0."""
    return number(cell.removesuffix(".0"))


def _word(cell: str) -> str:
    """The expression a word names, or the word itself: a user's own classes have names of their own."""
    return class_name(cell) or cell.strip()


def _at(path: Path, line: int, problem: UserError) -> UserError:
    return UserError(f"{path}, row {line}: {problem.message}", problem.hint)
