"""`data how-to-get`: who may ask for a dataset, where, what arrives, and the next command."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data how-to-get`."""
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME",
        help="RAF-DB, AffectNet, FERPlus, CK+, ran (RAN's lists), or a protocol; without it, all in short",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Print it; exit status 0."""
    from bench.data import access

    known = access.read()
    if not args.name:
        print(access.overview(known))
    else:
        print("\n\n".join(access.render(one) for one in access.find(args.name, known)))
    return 0
