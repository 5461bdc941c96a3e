"""`data align`: faces of raw images brought to one template, in the layout they came in."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from commands.arguments import count


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data align`."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder with raw images, in any layout")
    parser.add_argument("dest", type=Path, metavar="DEST", help="new folder: the same files, images aligned")
    parser.add_argument("--only", default="", metavar="SUBFOLDER", help="images under this folder of SOURCE only")
    parser.add_argument("--size", type=count, default=224, help="pixels a side of the result (default 224)")
    parser.add_argument("--zoom", type=float, default=1.0, help="below 1 leaves more around the face (default 1)")
    parser.add_argument(
        "--no-face", choices=("whole", "skip", "fail"), default="whole",
        help="image without a face: keep it whole (default), leave it out, or stop",
    )  # fmt: skip
    parser.add_argument(
        "--several", choices=("centre", "largest", "confident", "skip", "fail"), default="centre",
        help="several faces: the one nearest to the centre (default), the largest, the most probable; leave out, stop",
    )  # fmt: skip
    parser.add_argument("--probability", type=float, default=0.9, help="faces less probable do not count (default 0.9)")
    parser.add_argument("--jobs", type=count, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="contact sheet (default: DEST/alignment.png)")


def main(args: argparse.Namespace) -> int:
    """Align, draw the sheet, say what was found. Exit status 0; 1 when images could not be read."""
    from bench import store
    from bench.data.align import faces
    from bench.data.align import sheet as align_sheet
    from bench.data.align import tree as align

    settings = faces.Settings(
        size=args.size, zoom=args.zoom, no_face=args.no_face, several=args.several, probability=args.probability
    )
    source, dest = args.source.expanduser(), args.dest.expanduser()
    counts = align.align(source, dest, settings, args.only, args.jobs)
    picture = args.sheet or dest / align.PICTURE
    store.write_bytes(picture, align_sheet.sheet(source, dest, align.rows_of(dest)))
    print(f"{dest}: " + ", ".join(f"{number:,} {status}" for status, number in counts.items()))
    print(f"look at {picture}; every image is a row of {dest / align.JOURNAL}")
    if counts.get("unreadable"):
        bad = [row["message"] for row in align.rows_of(dest) if row["status"] == "unreadable"]
        print("\n".join(f"unreadable: {text}" for text in bad[:5]))
        return 1
    return 0
