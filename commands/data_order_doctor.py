"""`data order-doctor`: whether another class order explains a result better."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.data.classes import ORDERS

DONE, OTHER_ORDER = 0, 1  # 2, a file that cannot be read, comes from the UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data order-doctor`."""
    parser.add_argument(
        "file", type=Path, metavar="FILE",
        help="our predictions-*.parquet, a csv with columns label,predicted, or a csv of counts (rows: truth)",
    )  # fmt: skip
    parser.add_argument(
        "--order", default="", metavar="NAME", help=f"which class each number is in FILE: {', '.join(ORDERS)}"
    )
    parser.add_argument("--classes", default="", metavar="A,B,C", help="the same, for an order without a name")


def main(args: argparse.Namespace) -> int:
    """Exit status: 0 the order is right or it is undecided, 1 another order explains the result better."""
    from bench.data import order_doctor, order_doctor_read

    result = order_doctor_read.read(args.file, args.order, args.classes.split(",") if args.classes else ())
    found = order_doctor.diagnose(result)
    print(order_doctor.render(found, str(args.file)))
    return OTHER_ORDER if found.wrong else DONE
