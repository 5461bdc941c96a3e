"""`--dataset`, `--protocol`, `--method` and `--backbone`: which runs of the tables asked for are left."""

from __future__ import annotations

import argparse

from bench import declare, matrix
from bench.errors import unknown


def filtered(declared: declare.Declarations, args: argparse.Namespace, runs: list[matrix.Run]) -> list[matrix.Run]:
    """Runs that pass --dataset, --protocol, --method and --backbone; a value nothing declares is an error."""
    known = {
        "dataset": {p.dataset for p in declared.protocols.values()},
        "protocol": set(declared.protocols),
        "method": {e.method for e in declared.experiments.values()},
        "backbone": {e.backbone for e in declared.experiments.values()},
    }
    for name, values in known.items():
        for asked in getattr(args, name):
            if asked not in values:
                raise unknown(name, asked, values)

    return [run for run in runs if passes(args, run.entry)]


def passes(args: argparse.Namespace, entry: declare.Entry) -> bool:
    """Whether an entry is among those that the filters leave."""
    experiment, protocol = entry.experiment, entry.protocol
    found = {
        "dataset": protocol.dataset, "protocol": protocol.id, "method": experiment.method,
        "backbone": experiment.backbone,
    }  # fmt: skip
    return all(not getattr(args, name) or value in getattr(args, name) for name, value in found.items())
