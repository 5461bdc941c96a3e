"""How much of what a GPU can do a training step does; used by the benchmarks of methods."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

# Dense bfloat16 FLOP/s that makers give, by a part of the device's name.
PUBLISHED = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "A10": 125e12, "RTX 3090": 71e12}


def flops(step: Callable[[], object]) -> int:
    """Operations of a step, forward and backward, by torch's counter; attention counts as plain products."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def seconds(step: Callable[[], object], rounds: int = 20) -> float:
    """Of one step on the device, the mean behind some to warm up."""
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / rounds


def reachable(side: int = 8192) -> float:
    """FLOP/s of one large bfloat16 product: what software gets out of the device at best."""
    first, second = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(lambda: first @ second)


def share_of_peak(step: Callable[[], object]) -> dict[str, float]:
    """Seconds of a step, TFLOP/s, and their share of the published peak (where known) and of the reachable one."""
    count, taken = flops(step), seconds(step)
    found = {"seconds": taken, "tflops": count / taken / 1e12, "share_of_reachable": count / taken / reachable()}
    known = [peak for name, peak in PUBLISHED.items() if name in torch.cuda.get_device_name()]
    if known:
        found["share_of_published_peak"] = count / taken / known[0]
    return found
