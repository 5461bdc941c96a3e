"""`audit`: contradictions inside and between the papers, and printed numbers that no count of test images gives."""

from __future__ import annotations

import argparse

from bench import declare, statistics


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `audit`."""
    parser.add_argument("--paper", nargs="+", default=[], metavar="ID", help="only these papers")


def main(args: argparse.Namespace) -> int:
    """Print declared contradictions, then computed ones."""
    declared = declare.load()
    printed = {table.paper for table in declared.tables.values()}
    for name in args.paper or [name for name in declared.papers if name in printed]:
        declared.tables_of(name)
        paper = declared.papers[name]
        print(f"{name}: {paper.title} ({paper.venue}, {paper.year})")
        for text in paper.contradictions:
            print(f"  - {text}")
        unreachable = _unreachable(declared, name)
        print(f"  {len(unreachable)} own accuracies are no k of the n test images of the protocol:")
        for claim, n in unreachable:
            print(f"    {claim.cell}: {claim.printed} of {n:,} ({claim.protocol})")
    return 0


def _unreachable(declared: declare.Declarations, paper: str) -> list[tuple[declare.Claim, int]]:
    """Own accuracies and class accuracies that cannot be k of n; means over folds or epochs would be such numbers."""
    found = []
    for table in declared.tables_of(paper):
        for claim in table.claims():
            if not claim.experiment:
                continue
            protocol = declared.protocol(claim.protocol)
            n = protocol.counts.get("test", 0)
            if claim.metric.startswith("class_accuracy["):
                n = protocol.class_counts.get("test", {}).get(claim.metric[15:-1], 0)
            elif claim.metric != "accuracy":
                continue
            if n and statistics.check_number(claim.printed, n) is None:
                found.append((claim, n))
    return found
