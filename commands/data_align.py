"""`data align`: faces of raw images brought to one template, in the layout they came in."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from commands.arguments import count


def size(text: str) -> int:
    """A whole number of pixels from 16 to 2048."""
    value = int(text)
    if not 16 <= value <= 2048:
        raise argparse.ArgumentTypeError(f"{text}: from 16 to 2048 pixels")
    return value


def zoom(text: str) -> float:
    """A number from 0.2 to 3."""
    value = float(text)
    if not 0.2 <= value <= 3:
        raise argparse.ArgumentTypeError(f"{text}: from 0.2 to 3")
    return value


def probability(text: str) -> float:
    """A number above 0, at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: above 0 and at most 1")
    return value


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data align`."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder with raw images, in any layout")
    parser.add_argument("dest", type=Path, metavar="DEST", help="new folder: the same files, images aligned")
    parser.add_argument("--only", default="", metavar="SUBFOLDER", help="images under this folder of SOURCE only")
    parser.add_argument("--size", type=size, default=224, help="pixels a side of the result (default 224)")
    parser.add_argument("--zoom", type=zoom, default=1.0, help="below 1 leaves more around the face (default 1)")
    parser.add_argument(
        "--no-face", choices=("whole", "skip", "fail"), default="whole",
        help="image without a face: keep it whole (default), leave it out, or stop",
    )  # fmt: skip
    parser.add_argument(
        "--several", choices=("centre", "largest", "confident", "skip", "fail"), default="centre",
        help="several faces: the one nearest to the centre (default), the largest, the most probable; leave out, stop",
    )  # fmt: skip
    parser.add_argument(
        "--probability", type=probability, default=0.9, help="faces less probable do not count (default 0.9)"
    )
    parser.add_argument("--jobs", type=count, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="contact sheet (default: DEST/alignment.png)")


def main(args: argparse.Namespace) -> int:
    """Align, draw the sheet, say what was found. Exit status 0; 1 when images could not be read."""
    from bench import store
    from bench.data.align import faces, files
    from bench.data.align import sheet as align_sheet
    from bench.data.align import tree as align
    from bench.errors import UserError

    settings = faces.Settings(
        size=args.size, zoom=args.zoom, no_face=args.no_face, several=args.several, probability=args.probability
    )
    source, dest = args.source.expanduser(), args.dest.expanduser()
    picture = args.sheet.expanduser() if args.sheet else dest / files.PICTURE
    if picture.is_dir():
        raise UserError(f"--sheet {picture} is a folder", "name a file, sheet.png")
    files.refuse_under_file(picture.parent)  # before hours of work, not after
    counts = align.align(source, dest, settings, args.only, args.jobs)
    rows = align.rows_of(dest)
    with files.in_words(picture):
        store.write_bytes(picture, align_sheet.sheet(source, dest, rows))
    print(f"{dest}: " + ", ".join(f"{number:,} {status}" for status, number in counts.items()))
    print(f"look at {picture}; every image is a row of {dest / files.JOURNAL}")
    if counts.get("unreadable"):
        bad = [row["message"] for row in rows if row["status"] == "unreadable"]
        print("\n".join(f"unreadable: {text}" for text in bad[:5]))
        return 1
    return 0
