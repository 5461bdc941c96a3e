"""`claims`: every number the four papers print, as CSV or as a count for each table."""

from __future__ import annotations

import argparse
import csv
import sys

from bench import declare

COLUMNS = ("table", "row", "column", "metric", "value", "cited", "entry")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `claims`."""
    parser.add_argument("--csv", action="store_true", help="one line for each number: " + ",".join(COLUMNS))
    parser.add_argument("--table", nargs="+", default=[], metavar="ID", help="only these tables")


def main(args: argparse.Namespace) -> int:
    """Print claims."""
    declared = declare.load()
    tables = [declared.table(name) for name in args.table] or list(declared.tables.values())
    if not args.csv:
        for table in tables:
            claims = table.claims()
            cited = sum(bool(claim.cited) for claim in claims)
            print(f"{table.id:18} {len(claims):4} numbers, {cited:3} cited  {table.title} ({table.where})")
        print(f"{sum(len(table.claims()) for table in tables)} numbers in {len(tables)} tables; --csv lists them")
        return 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for table in tables:
        for claim in table.claims():
            cited = "1" if claim.cited else "0"
            writer.writerow([claim.table, claim.row, claim.column, claim.metric, claim.printed, cited, claim.entry])
    return 0
