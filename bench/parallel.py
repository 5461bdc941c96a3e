"""One job on several processes, on GPUs one each: which of them this is, and what they tell each other.

Every process holds the whole network and trains on its own share of each batch; gradients and losses are averaged, so
that all of them stay equal, and the first alone writes files. With one process everything here is what it is given.
bench/launch.py starts the processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.errors import UserError

BUCKET_BYTES = 32 << 20  # gradients averaged at a time: few exchanges, each long enough to fill a link
Found = TypeVar("Found")


@contextmanager
def started(device: str) -> Iterator[None]:
    """Meet the other processes that torchrun started; nothing where there are none.

    Args:
        device: of this process. Tensors of a GPU travel by NCCL, those of the host by gloo.
    """
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device))
    with _exchange():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    yield
    dist.destroy_process_group()  # not after an error: the others may be gone, and the process ends anyway


def size() -> int:
    """Processes of this job."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def first() -> bool:
    """Whether this is the one that writes files."""
    return rank() == 0


def own_device(names: str) -> str:
    """This process's device of "cuda:0,cuda:1"; a single one is everybody's."""
    each = names.split(",")
    return each[int(os.environ.get("LOCAL_RANK", "0")) % len(each)]


def backend(device: torch.device) -> str:
    """What gradients travel by; "" with one process."""
    return "" if size() == 1 else "nccl" if device.type == "cuda" else "gloo"


def share(order: Tensor, batch: int) -> Tensor:
    """The part of every batch that this process trains on, one after another.

    Args:
        order: int64 (steps x batch,), whole batches.

    Returns:
        int64 (steps x batch / processes,).
    """
    return order if size() == 1 else order.reshape(-1, size(), batch // size())[:, rank()].reshape(-1)


@torch.no_grad()
def same_start(net: nn.Module) -> None:
    """Give every process the first one's network."""
    if size() == 1:
        return
    with _exchange():
        for tensor in net.state_dict().values():
            sent = tensor.contiguous()
            dist.broadcast(sent, 0)
            tensor.copy_(sent)


@torch.no_grad()
def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over processes, in place; to be called between backward and step.

    The mean over shares is that over the batch where the loss is a mean over images.
    """
    if size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    with _exchange():
        sent = []
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket]).div_(size())
            sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, exchange in sent:
            exchange.wait()
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type in the order given, about BUCKET_BYTES together."""
    bucket: list[Tensor] = []
    held = 0
    for gradient in gradients:
        if bucket and (held >= BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(gradient)
        held += gradient.numel() * gradient.element_size()
    if bucket:
        yield bucket


def mean_of(losses: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Scalars by name, averaged over processes; still on the device, which is not waited for."""
    if size() == 1:
        return losses
    with _exchange():
        together = torch.stack([loss.float() for loss in losses.values()]) / size()
        dist.all_reduce(together)
    return dict(zip(losses, together.unbind(), strict=True))


def any_of(here: bool) -> bool:
    """Whether it is so in any process: the same answer, at the same step, in all. No GPU waits for it."""
    if size() == 1:
        return here
    told = torch.tensor([int(here)])
    with _exchange():
        dist.all_reduce(told, dist.ReduceOp.MAX)
    return bool(told.item())


def from_first(make: Callable[[], Found]) -> Found:
    """What the first process makes; the others wait for it."""
    if size() == 1:
        return make()
    found: list[Any] = [make() if first() else None]
    with _exchange():
        dist.broadcast_object_list(found, 0, device=torch.device("cpu"))
    made: Found = found[0]
    return made


@contextmanager
def _exchange() -> Iterator[None]:
    """Say what it means when an exchange fails."""
    try:
        yield
    except RuntimeError as error:
        message = f"process {os.environ.get('RANK', '?')} lost the others of its job: {str(error).splitlines()[0]}"
        raise UserError(message, "what ended them is in the run's log.txt; the next call continues") from error
