"""`data synth`: synthetic faces in the official layout of a dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.data.official import LAYOUTS
from commands.arguments import count, seed


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data synth`."""
    shown = "; ".join(f"{name}: {what}" for name, what in LAYOUTS.items())
    parser.add_argument("--layout", required=True, choices=LAYOUTS, metavar="LAYOUT", help=shown)
    parser.add_argument("dest", type=Path, metavar="DEST", help="a new or empty folder, or one to be finished")
    parser.add_argument(
        "--like-counts", action="store_true", help="as many images of each class and split as published; else a few"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="which faces (default 0)")
    parser.add_argument("--jobs", type=count, default=0, metavar="N", help="processes (default: one a core)")


def main(args: argparse.Namespace) -> int:
    """Write the tree; exit status 0."""
    from bench.data.official.writer import write

    done = write(args.layout, args.dest, args.like_counts, args.seed, args.jobs)
    rate = f" in {done.seconds:.0f} s, {done.now / done.seconds:.0f} a second" if done.now else ", all there before"
    print(f"{args.dest}: {done.pictures:,} synthetic pictures in the layout {args.layout}{rate}")
    print(f"next: python run_all.py data verify {args.dest}")
    return 0
