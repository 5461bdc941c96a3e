"""Where runs go: the devices, how many runs at once, and the processes that share one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench import launch, plan
from bench.errors import UserError
from bench.plan import Planned
from bench.queue import cores


def check_processes(planned: Sequence[Planned], args: argparse.Namespace) -> None:
    """Refuse --processes that no run could use; runs that cannot be split go on beside others that can, in one each.

    Raises:
        UserError: nothing here can be split so, or there are fewer GPUs.
    """
    runs = [p.run for p in planned if p.status == "runnable"] if args.processes > 1 else []
    split = [run for run in runs if launch.splits(run)]
    for run in split or runs:
        launch.check(run, args.processes)
    whole = dict.fromkeys(run.entry.experiment.method for run in runs if run not in split)
    if whole:
        print(f"in one process each, as they cannot be split: runs of {', '.join(whole)}")
    if split:
        slots_of(args, planned)


def slots_of(args: argparse.Namespace, planned: Sequence[Planned]) -> tuple[list[str], int]:
    """Devices of the slots, and how many slots.

    Raises:
        UserError: a run is to have more processes than there are GPUs.
    """
    gpus = [args.device] if args.device.startswith("cuda") else []
    if (args.device == "auto" and plan.has_gpu()) or (args.device == "cuda" and args.processes > 1):
        import torch

        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or gpus
    if gpus and len(gpus) < args.processes:
        message = f"--processes {args.processes} needs as many GPUs, and here {'is' if len(gpus) == 1 else 'are'} "
        raise UserError(message + ", ".join(gpus), "give at most so many processes, or --device cpu")
    if gpus:
        return gpus, max(args.processes, args.jobs or len(gpus))
    quick = all(p.run.profile == "quick" for p in planned if p.status == "runnable" and not p.only_stage)
    return ["cpu"], args.jobs or max(1, (min(cores(), 8) if quick else 1) // args.processes)
