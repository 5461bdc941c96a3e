"""Start one job on several processes of this machine, by torchrun; which jobs can be split.

`python -m bench.launch N SPEC.json` is `torchrun --standalone --nproc-per-node N -m bench.job SPEC.json`, but ends with
a job's exit status and does not outlive the queue. Where one process dies or a stop is asked for, torchrun gives the
others 30 seconds (for a checkpoint, where all are there) and then ends them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from bench import registry
from bench.errors import UserError
from bench.matrix import Run

if TYPE_CHECKING:
    from torch import nn

FAILED, INTERRUPTED = 1, 130  # as bench.job


def splits(run: Run) -> bool:
    """Whether several processes can share the run: its method says so, and it trains."""
    return registry.find("method", run.entry.experiment.method).parallel and not run.checkpoint


def check(run: Run, processes: int) -> None:
    """Refuse processes that the run cannot be shared by.

    Raises:
        UserError: its method cannot be split, or its batch does not divide.
    """
    if processes == 1:
        return
    if not splits(run):
        able = sorted(name for name, found in registry.available("method").items() if found.parallel)
        message = f"{run.name}: method {run.entry.experiment.method} cannot be split over {processes} processes"
        why = "batch statistics and networks that train against each other need the whole batch"
        raise UserError(message, f"leave --processes out ({why}; {', '.join(able) or 'no method'} can be split)")
    batch = int(run.recipe["batch_size"])
    if batch % processes:
        fits = [count for count in range(1, batch + 1) if batch % count == 0]
        near = [max(n for n in fits if n < processes), *[n for n in fits if n > processes][:1]]
        ways = " or ".join(f"--processes {count}" for count in near)
        raise UserError(f"{run.name}: a batch of {batch} does not divide by {processes} processes", f"use {ways}")


def check_network(run: Run, net: nn.Module, processes: int) -> None:
    """Refuse processes for a network that looks across the images of a batch, of which each sees a share alone.

    Raises:
        UserError: it has batch norm, as miniatures of networks without may; names the first.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    found = next((name for name, part in net.named_modules() if isinstance(part, _BatchNorm)), "")
    if processes > 1 and found:
        message = f"{run.name}: its network has batch norm ({found}), which needs the whole batch"
        raise UserError(f"{message}: {processes} processes cannot share it", "leave --processes out")


def main(arguments: list[str]) -> int:
    """Start the processes and wait for them."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    processes, specification = arguments
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    where = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", processes]
    try:
        run.run(run.parse_args([*where, "-m", "bench.job", specification]))  # type: ignore[no-untyped-call]
    except SignalException:
        return INTERRUPTED
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        return status if status > 0 else FAILED  # below: killed by a signal
    return 0


def _end_with(parent: int) -> None:
    """Ask the job to stop once the queue that started it is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
