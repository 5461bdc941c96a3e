"""`doctor`: versions, devices and folders; what this installation can do."""

from __future__ import annotations

import argparse
import os
import shutil

from bench import provenance, registry, store
from bench.data.source import data_root


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `doctor`."""
    parser.add_argument("--data-root", help="folder holding the datasets (else FERBENCH_DATA)")


def main(args: argparse.Namespace) -> int:
    """Print one fact a line; exit 1 when something needed does not work."""
    for name, version in provenance.versions().items():
        print(f"{name:14} {version}")
    print(f"{'commit':14} {provenance.commit()}")
    print(f"{'processor':14} {provenance.processor()}, {os.cpu_count()} cores")
    cache = store.cache_root()
    cache.mkdir(parents=True, exist_ok=True)
    print(f"{'cache':14} {cache} ({shutil.disk_usage(cache).free / 2**30:.0f} GiB free)")
    print(f"{'data root':14} {data_root(args.data_root) or 'none (set FERBENCH_DATA or --data-root)'}")
    for kind in ("method", "dataset", "augmentation"):
        print(f"{kind + 's':14} {', '.join(sorted(registry.available(kind)))}")
    try:
        import torch
    except ImportError as error:
        print(f"torch does not import: {error}\n  -> pip install -r requirements.lock")
        return 1
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"{'GPUs':14} {', '.join(gpus) or 'none: runs use the CPU'}")
    print(f"{'waiting':14} OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'unset')} (jobs always run with PASSIVE)")
    return 0
