"""Command-line arguments that several commands have: their types (a wrong value is a usage error) and the tables."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection

from bench import declare, matrix, variants


def count(text: str) -> int:
    """A whole number of at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return value


def device(text: str) -> str:
    """auto, cpu, cuda or cuda:N."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text}: one of auto, cpu, cuda, cuda:0, cuda:1, ...")
    return text


def seed(text: str) -> int:
    """A whole number of at least zero."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: at least 0")
    return value


def add_variant(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """`--variant`."""
    parser.add_argument(
        "--variant", metavar="NAME", default="", help="report on a variant of each protocol: leak-free, by-subject, ..."
    )


def add_checkpoint(parser: argparse._ArgumentGroup) -> None:
    """`--checkpoint` and what goes with it."""
    parser.add_argument(
        "--checkpoint", metavar="FILE", default="", help="evaluate these weights on the tables' own rows; train nothing"
    )
    parser.add_argument(
        "--checkpoint-classes",
        metavar="A,B,C",
        default="",
        help="its classes, first output first (default: as the publishers of each dataset number them)",
    )
    parser.add_argument(
        "--colour", choices=("rgb", "bgr"), default="", help="channel order of its input (default: the recipe's)"
    )


def tables_asked(
    declared: declare.Declarations, args: argparse.Namespace, everything: bool, profile: declare.ProfileName,
    besides: Collection[str] = (),
) -> list[declare.Table]:  # fmt: skip
    """The tables of --table (but those named `besides`) and --paper, or all; under --variant those that it concerns."""
    names = [name for name in args.table if name not in besides]
    tables = matrix.selected_tables(declared, names, args.paper, everything)
    if not args.variant:
        return tables
    found = variants.reported_on(declared, tables, args.variant, profile)
    left_out = {table.id for table in tables} - {table.id.partition("@")[0] for table in found}
    if left_out and not everything:
        print(f"left out, without a variant '{args.variant}': {', '.join(sorted(left_out))}", file=sys.stderr)
    return found
