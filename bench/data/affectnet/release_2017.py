"""AffectNet's release of 2017: training.csv and validation.csv over pictures of any size with a face box each.

The lists are large (414,799 rows of some 900 bytes, most of it landmarks), so they are read line by line and only the
wanted cells are kept. One line is one row: a damaged one is reported and shifts nothing.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.data.affectnet.layouts import (
    CLASSES,
    DROPPED,
    ORDER,
    RELEASE_2017,
    RESTORE,
    AffectNetLayout,
    dropped_remark,
    label_number,
    release_of,
    without_repeats,
)
from bench.data.image import SUFFIXES
from bench.data.listing import Bad, Listing, entries, is_folder, safe_name
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

LISTS = {"train": "training.csv", "test": "validation.csv"}  # the validation set is what everybody tests on
LIST_FOLDERS = ("Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated_file_lists", ".")
IMAGE_FOLDERS = (
    "Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated_Images/Manually_Annotated_Images", "Manually_Annotated", ".",
)  # fmt: skip
# columns of a list without a header, in order
COLUMNS = (
    "subdirectory_filepath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
)  # fmt: skip
BOX = COLUMNS[1:5]
BOX_COLUMNS = ("box_x", "box_y", "box_width", "box_height")
NO_BOX = (float("nan"),) * 4
PUBLISHED = "use the training.csv and validation.csv of the release of 2017 as published"


class Release2017(AffectNetLayout):
    """`Manually_Annotated_file_lists/{training,validation}.csv` over `Manually_Annotated_Images/<number>/<56 hex>`."""

    name: ClassVar[str] = "release-2017"

    def find(self, root: Path) -> Path | None:
        return root if len(_lists(root)) == len(LISTS) and _images(root) is not None else None

    def release(self, base: Path) -> str:
        return RELEASE_2017

    def state(self, base: Path) -> list[Path]:
        images = _image_folder(base)
        inside = [images / entry.name for entry in entries(images) if _is_part(entry.name)]
        return [*_lists(base).values(), images, *inside]

    def lacks(self, root: Path) -> str:
        lists, images = _lists(root), _images(root)
        wanted = [f"{name} in {LIST_FOLDERS[0]}/ or beside it" for split, name in LISTS.items() if split not in lists]
        if images is None:
            wanted.append(f"{IMAGE_FOLDERS[0]}/<number>/<56 hex digits>.jpg")
        if not wanted or (not lists and images is None):
            return ""
        there = [str(path.relative_to(root)) for path in lists.values()]
        there += [str(images.relative_to(root)) + "/" if images != root else "pictures"] if images else []
        return f"{root} has {' and '.join(there)} of AffectNet (2017) but not {' and '.join(wanted)}."

    def read(self, base: Path) -> Listing:
        """Frame with box_x, box_y, box_width, box_height in pixels of the whole picture, where the lists have them."""
        lists = _lists(base)
        rows, bad = Rows([path.relative_to(base).as_posix() for path in lists.values()]), []
        for number, (split, path) in enumerate(lists.items()):
            bad += _read_list(path, number, split, rows)
        extra, absent = _look_for(rows, _image_folder(base), base)
        bad += absent
        frame = without_repeats(rows.frame(), rows.place, bad)
        remarks = dropped_remark(rows.dropped)
        if not rows.boxed:
            remarks.append("the lists have no face boxes: pictures are used whole")
        files = dict(zip(rows.lists, lists.values(), strict=True))
        return Listing(frame, bad, extra, files, remarks, ORDER)


@dataclass
class Rows:
    """Rows of both lists that name an expression, cell by cell: one object per row would need too much memory."""

    lists: list[str]
    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("B"))  # of the expression
    origins: array[int] = field(default_factory=lambda: array("B"))  # position in `lists`
    lines: array[int] = field(default_factory=lambda: array("I"))  # in the list, from 1
    boxes: array[float] = field(default_factory=lambda: array("f"))  # four a row, NaN in a list without boxes
    boxed: bool = False  # whether any list has boxes
    dropped: Counter[int] = field(default_factory=Counter)  # number of a label that is no expression -> rows
    unused: dict[str, set[str]] = field(default_factory=dict)  # folder -> files of rows that are not kept
    kept: list[int] = field(default_factory=list)  # rows whose picture is there
    paths: list[str] = field(default_factory=list)  # of the kept rows

    def place(self, row: int) -> str:
        """File and row of the kept row at `row`."""
        original = self.kept[row]
        return f"{self.lists[self.origins[original]]} row {self.lines[original]}"

    def frame(self) -> pd.DataFrame:
        """The kept rows."""
        import numpy as np
        import pandas as pd

        kept = self.kept
        frame = pd.DataFrame(
            {
                "name": [stem(self.files[k]).lower() for k in kept],
                "label": [CLASSES[self.numbers[k]] for k in kept],
                "split": [self.splits[k] for k in kept],
                "path": self.paths,
            },
            dtype="str",
        )
        if self.boxed:
            boxes = np.frombuffer(self.boxes, np.float32).reshape(-1, 4)[kept]
            for column, name in enumerate(BOX_COLUMNS):
                frame[name] = boxes[:, column]
        return frame


@dataclass(frozen=True)
class Columns:
    """Where the wanted cells of a list are."""

    width: int
    path: int
    label: int
    box: tuple[int, ...]  # four, or none
    header: bool


def columns_of(line: bytes, where: str) -> Columns:
    """The columns of a list from its first line, which is a header only if no cell of it is a number.

    Raises:
        UserError: there is no header and not the published number of columns, or the header lacks a wanted one.
    """
    cells = [_clean(cell).lower() for cell in line.removeprefix(b"\xef\xbb\xbf").split(b",")]
    header = not any(_is_number(cell) for cell in cells)
    names = cells if header else list(COLUMNS)
    if len(names) != len(cells):
        raise UserError(f"{where} has {len(cells)} columns and no header; expected {len(COLUMNS)}", PUBLISHED)
    lacking = [name for name in (COLUMNS[0], "expression") if name not in names]
    if lacking:
        raise UserError(f"{where} has no column '{lacking[0]}' (its first row: {', '.join(cells)[:80]})", PUBLISHED)
    box = tuple(names.index(name) for name in BOX) if all(name in names for name in BOX) else ()
    return Columns(len(cells), names.index(COLUMNS[0]), names.index("expression"), box, header)


def stem(file: str) -> str:
    """A file name without its ending."""
    return file.rpartition(".")[0]


def _read_list(path: Path, origin: int, split: str, rows: Rows) -> list[Bad]:
    """Add the rows of one list to `rows`; rows that cannot be used are returned."""
    bad: list[Bad] = []
    shown = rows.lists[origin]
    numbers: dict[bytes, int] = {}  # every way a label is written -> its number
    for line, cells, columns in _lines(path, shown, bad):
        folder, file = _folder_and_file(cells[columns.path])
        place = f"{shown} row {line}"
        if not _is_part(folder) or release_of(stem(file)) != RELEASE_2017 or not safe_name(file):
            message = f"{place}: '{_clean(cells[columns.path])}' is not <number>/<56 hex digits>.<ending>"
            bad.append(Bad(place, "name", message, PUBLISHED))
            continue
        rows.unused.setdefault(folder, set())
        cell = cells[columns.label]
        number = numbers.get(cell)
        if number is None:
            parsed = label_number(cell.decode(errors="replace"))
            if parsed is None or (parsed >= len(CLASSES) and parsed not in DROPPED):
                rows.unused[folder].add(file)
                bad.append(_bad_label(stem(file).lower(), place, _clean(cell)))
                continue
            number = numbers[cell] = parsed
        if number in DROPPED:
            rows.dropped[number] += 1
            rows.unused[folder].add(file)
            continue
        box = _box(cells, columns)
        if box is None:
            rows.unused[folder].add(file)
            text = ", ".join(_clean(cells[k]) for k in columns.box)
            bad.append(Bad(stem(file).lower(), "row", f"{place}: ({text}) is no face box", PUBLISHED))
            continue
        rows.boxed |= bool(columns.box)
        rows.boxes.extend(box)
        rows.folders.append(folder)
        rows.files.append(file)
        rows.splits.append(split)
        rows.numbers.append(number)
        rows.origins.append(origin)
        rows.lines.append(line)
    return bad


def _lines(path: Path, shown: str, bad: list[Bad]) -> Iterator[tuple[int, list[bytes], Columns]]:
    """Number, cells and columns of every row; rows of another width go into `bad`."""
    try:
        file = path.open("rb", buffering=1 << 20)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "check links and permissions") from None
    with file:
        columns: Columns | None = None
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if columns is None:
                columns = columns_of(line, shown)
                line = line.removeprefix(b"\xef\xbb\xbf")
                if columns.header:
                    continue
            cells = line.split(b",")
            if len(cells) != columns.width:
                place = f"{shown} row {number}"
                message = f"{place} has {len(cells)} cells, not {columns.width}"
                bad.append(Bad(place, "row", message, PUBLISHED))
                continue
            yield number, cells, columns


def _look_for(rows: Rows, images: Path, base: Path) -> tuple[list[str], list[Bad]]:
    """Find every row's picture, folder by folder; gives files that no row names, and rows without a picture."""
    of_folder: dict[str, list[int]] = {}
    for row, folder in enumerate(rows.folders):
        of_folder.setdefault(folder, []).append(row)
    there = [entry.name for entry in entries(images) if _is_part(entry.name) and is_folder(entry)]
    prefix = "" if images == base else images.relative_to(base).as_posix() + "/"
    extra: list[str] = []
    bad: list[Bad] = []
    for folder in sorted({*there, *of_folder}):
        files = {entry.name for entry in entries(images / folder)} if folder in there else set()
        stems: dict[str, str] | None = None
        unnamed = set(files)
        for row in of_folder.get(folder, ()):
            file = rows.files[row]
            if file not in files:
                # copies that were converted keep the name before the ending
                if stems is None:
                    stems = {stem(name).lower(): name for name in files}
                file = stems.get(stem(file).lower(), "")
            if file:
                unnamed.discard(file)
                rows.kept.append(row)
                rows.paths.append(f"{prefix}{folder}/{file}")
            else:
                wanted = f"{prefix}{folder}/{rows.files[row]}"
                place = f"{rows.lists[rows.origins[row]]} row {rows.lines[row]}"
                name = stem(rows.files[row]).lower()
                bad.append(Bad(name, "missing", f"{base / wanted} is missing; {place} names it", RESTORE))
        unused = {stem(name).lower() for name in rows.unused.get(folder, ())}
        extra += [f"{prefix}{folder}/{name}" for name in sorted(unnamed) if stem(name).lower() not in unused]
    return extra, bad


def _bad_label(name: str, place: str, text: str) -> Bad:
    known = ", ".join(f"{number} {word}" for number, word in enumerate((*CLASSES, *DROPPED.values())))
    return Bad(name, "label", f"{place}: label '{text}' is not one of {known}", PUBLISHED)


def _box(cells: list[bytes], columns: Columns) -> Sequence[float] | None:
    """x, y, width, height in pixels, NaN in a list without boxes; None when a cell is no number or the box empty."""
    if not columns.box:
        return NO_BOX
    try:
        box = [float(cells[k]) for k in columns.box]
    except ValueError:
        try:
            box = [float(_clean(cells[k])) for k in columns.box]
        except ValueError:
            return None
    usable = all(abs(value) < 1e6 for value in box) and box[2] > 0 and box[3] > 0
    return box if usable else None


def _folder_and_file(cell: bytes) -> tuple[str, str]:
    folder, _, file = _clean(cell).replace("\\", "/").rpartition("/")
    return folder.rpartition("/")[2], file


def _clean(cell: bytes) -> str:
    return cell.decode(errors="replace").strip().strip("\"'").strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_part(folder: str) -> bool:
    """Whether a folder's name is that of one of the folders the pictures are dealt out to."""
    return folder.isascii() and folder.isdigit()


def _lists(root: Path) -> dict[str, Path]:
    """Split -> list, for those that are there and look like AffectNet's."""
    found = {}
    for split, name in LISTS.items():
        places = [root / folder / name for folder in LIST_FOLDERS]
        first = next((path for path in places if _is_list(path)), None)
        if first is not None:
            found[split] = first
    return found


def _is_list(path: Path) -> bool:
    """Whether a csv starts as AffectNet's do: with its header, or with a path of 56 hex digits."""
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 16)
    except OSError:
        return False
    cells = line.removeprefix(b"\xef\xbb\xbf").split(b",")
    if any(_clean(cell).lower() == COLUMNS[0] for cell in cells):
        return True
    return any(release_of(stem(_folder_and_file(cell)[1])) == RELEASE_2017 for cell in cells[:2])


def _images(root: Path) -> Path | None:
    """The folder of numbered folders of pictures."""
    return next((root / name for name in IMAGE_FOLDERS if _holds_pictures(root / name)), None)


def _image_folder(base: Path) -> Path:
    found = _images(base)
    if found is None:
        raise UserError(f"{base} holds no pictures of AffectNet any more", RESTORE)
    return found


def _holds_pictures(folder: Path) -> bool:
    """Whether one of the first numbered folders has a picture named by 56 hex digits."""
    if not folder.is_dir():
        return False
    numbered = [entry for entry in entries(folder, 200) if _is_part(entry.name) and is_folder(entry)]
    return any(
        release_of(stem(entry.name)) == RELEASE_2017 and "." + entry.name.rpartition(".")[2].lower() in SUFFIXES
        for part in numbered[:5]
        for entry in entries(folder / part.name, 20)
    )
