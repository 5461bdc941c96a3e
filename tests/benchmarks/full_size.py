"""Seconds and peak memory of a whole data set, by hand: `python tests/benchmarks/full_size.py DATA_ROOT PROTOCOL`.

Index, building the decode cache, opening it, and 500 batches of 128 images drawn as in training; each in a process of
its own, since the peak is of a process. Copies made by `data synth` are accepted. The cache goes to FERBENCH_CACHE, and
a cache that is there is not built again; nothing is removed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

BATCHES, BATCH = 500, 128


def dataset(root: Path, protocol: str):  # type: ignore[no-untyped-def]
    """The dataset of a protocol, and the protocol."""
    from bench import declare
    from bench.data import source

    declared = declare.load(root).protocol(protocol)
    return source.locate(declared, root, synthetic_ok=True), declared


def index(root: Path, protocol: str) -> str:
    """Read every label; a second time, from the kept listing where the set is large."""
    found, declared = dataset(root, protocol)
    return f"{len(found.index(declared)):,} images"


def cache(root: Path, protocol: str) -> str:
    """Open the decode cache, building it where it is not there."""
    from bench import store
    from bench.data.cache import open_pixels

    found, _ = dataset(root, protocol)
    begun = time.perf_counter()
    pixels = open_pixels(found, store.cache_root())
    seconds = time.perf_counter() - begun
    rate = len(pixels.names) / seconds
    return f"{pixels.array.nbytes / 1e9:.1f} GB, {seconds:.1f} s, {rate:,.0f} images/s, sha256 {pixels.sha256[:16]}"


def sample(root: Path, protocol: str) -> str:
    """Batches in random order, as the training loop gets them when the images are not in memory."""
    import numpy as np
    import torch

    from bench import loop, store
    from bench.data.cache import open_pixels

    found, _ = dataset(root, protocol)
    pixels = open_pixels(found, store.cache_root())
    count = len(pixels.names)
    split = loop.Split(pixels.array.file, torch.zeros(count, dtype=torch.long), np.arange(count))
    draw = np.random.default_rng(0)
    order = torch.from_numpy(draw.integers(0, count, BATCHES * BATCH))
    waits, total = [], 0
    begun = now = time.perf_counter()
    for images, _ in split.batches(order, BATCH):
        waits.append(time.perf_counter() - now)
        total += int(images[:, 0, 0].sum())  # touches every image
        now = time.perf_counter()
    seconds = time.perf_counter() - begun
    middle, worst = np.median(waits) * 1e3, max(waits) * 1e3
    return f"{BATCHES * BATCH / seconds:,.0f} images/s; a batch {middle:.1f} ms (median), {worst:.0f} ms (worst)"


PHASES: dict[str, Callable[[Path, str], str]] = {
    "index": index, "index again": index, "build": cache, "open": cache, "sample": sample,
}  # fmt: skip


def main() -> int:
    """Run every phase in a process of its own, or the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_root", type=Path)
    parser.add_argument("protocol")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.phase:
        begun = time.perf_counter()
        said = PHASES[args.phase](args.data_root, args.protocol)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{args.phase:12} {time.perf_counter() - begun:8.1f} s  {peak:7.0f} MiB  {said}", flush=True)
        return 0
    for phase in PHASES:
        command = [sys.executable, __file__, str(args.data_root), args.protocol, "--phase", phase]
        if subprocess.run(command, check=False).returncode:
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
