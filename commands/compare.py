"""`compare`: two entries on the same images, seed by seed, with McNemar's exact test."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from bench import collect, declare, statistics, store
from bench.data.source import data_root
from bench.errors import UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `compare`."""
    parser.add_argument("first", help="an entry, experiment:protocol")
    parser.add_argument("second", help="the entry it is compared with")
    parser.add_argument(
        "--profile", choices=declare.PROFILES, default="paper", help="of the runs compared (default paper)"
    )
    parser.add_argument(
        "--selection", choices=store.SELECTIONS, default="last", help="of the predictions (default last)"
    )
    parser.add_argument("--data-root", help="folder holding the datasets (else FERBENCH_DATA), for own protocols")
    parser.add_argument("--results", default="results", help="folder of results (default: results)")


def main(args: argparse.Namespace) -> int:
    """Print one line for each seed that both entries have."""
    declared = declare.load(data_root(args.data_root))
    entries = [declared.entry(name) for name in (args.first, args.second)]
    if entries[0].protocol.id != entries[1].protocol.id:
        raise UserError(
            f"{entries[0].protocol.id} and {entries[1].protocol.id} are different test sets",
            "compare entries of one protocol",
        )
    if entries[0].protocol.subset_of:
        raise UserError(f"{entries[0].protocol.id} is a subset", f"compare on {entries[0].protocol.subset_of}")
    answers = [_answers(entry, args) for entry in entries]
    common = sorted(answers[0].keys() & answers[1].keys())
    if not common:
        raise UserError(
            f"no seed of profile {args.profile} has finished for both entries", "run them first, see --table"
        )
    if entries[0].protocol.synthetic:
        print("SYNTHETIC faces: not comparable with any paper")
    for line in paired_lines(*answers):
        print(line)
    return 0


def paired_lines(
    first: Mapping[int, Mapping[Any, bool]], second: Mapping[int, Mapping[Any, bool]], pairs: int = 1
) -> list[str]:
    """One line with McNemar's exact test for each seed that both have.

    Args:
        first, second: seed -> image -> answered rightly.
        pairs: how many pairs of entries are compared; the level is divided by all tests made.

    Raises:
        UserError: a seed's answers are about different images.
    """
    common = sorted(first.keys() & second.keys())
    tests = pairs * len(common)
    lines = []
    for seed in common:
        one, two = first[seed], second[seed]
        if one.keys() != two.keys():
            raise UserError(
                f"seed {seed}: the two runs were tested on different images", "run both again on the same data"
            )
        only_first = sum(one[i] and not two[i] for i in one)
        only_second = sum(two[i] and not one[i] for i in one)
        p = statistics.mcnemar(only_first, only_second)
        share, other = (100 * sum(right.values()) / len(right) for right in (one, two))
        chance = f"p = {p:.4f}" if p >= 1e-4 else "p < 0.0001"
        called = "different" if p < 0.05 / tests else "not distinguishable"
        level = "5 %, Bonferroni" if tests > 1 else "5 %"
        lines.append(
            f"seed {seed}: {share:.2f} and {other:.2f} ({other - share:+.2f}) on {len(one)} images; only first right "
            f"{only_first}, only second right {only_second}; {chance} ({called} at {level})"
        )
    return lines


def _answers(entry: declare.Entry, args: argparse.Namespace) -> dict[int, dict[Any, bool]]:
    """Seed -> (fold, image) -> right."""
    from bench.metrics import correctness

    found: dict[int, dict[Any, bool]] = {}
    results = store.results_folder(args.results, args.profile)
    for row in collect.read_rows(results / "runs.csv"):
        key = (row["experiment"], row["protocol"], row["profile"], row["selection"])
        if key != (entry.experiment.id, entry.protocol.id, args.profile, args.selection):
            continue
        folder = store.find_result(row["run"], results)
        if folder is not None:
            right = correctness(folder / f"predictions-{args.selection}.parquet")
            found.setdefault(int(row["seed"]), {}).update(
                {(row["fold"], image): answer for image, answer in right.items()}
            )
    return found
