"""`compare`: two entries on the same images, seed by seed, with McNemar's exact test."""

from __future__ import annotations

import argparse
from typing import Any

from bench import collect, declare, statistics, store
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
    parser.add_argument("--results", default="results", help="folder of results (default: results)")


def main(args: argparse.Namespace) -> int:
    """Print one line for each seed that both entries have."""
    declared = declare.load()
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
    for seed in common:
        first, second = answers[0][seed], answers[1][seed]
        if first.keys() != second.keys():
            raise UserError(
                f"seed {seed}: the two runs were tested on different images", "run both again on the same data"
            )
        only_first = sum(first[i] and not second[i] for i in first)
        only_second = sum(second[i] and not first[i] for i in first)
        p = statistics.mcnemar(only_first, only_second)
        one, two = (100 * sum(right.values()) / len(right) for right in (first, second))
        chance = f"p = {p:.4f}" if p >= 1e-4 else "p < 0.0001"
        called = "different" if p < 0.05 / len(common) else "not distinguishable"
        level = "5 %, Bonferroni" if len(common) > 1 else "5 %"
        print(
            f"seed {seed}: {one:.2f} and {two:.2f} ({two - one:+.2f}) on {len(first)} images; only first right "
            f"{only_first}, only second right {only_second}; {chance} ({called} at {level})"
        )
    return 0


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
