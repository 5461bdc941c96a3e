"""The one training loop: read it from top to bottom.

Everything random is a function of (seed, epoch, step): the order of images, the augmentation draws, dropout. So a run
continued from a checkpoint draws what the uninterrupted run would have drawn, and ends bit-identical on a CPU.
Nothing inside an epoch waits for the device: losses are summed there and read once an epoch.
Where several processes share a run (bench/parallel.py), batches hold the same images whatever their number, each
process takes its part and draws by its rank: other augmentation than one process draws, else the same training.
Bump LOOP_VERSION when a change here or in bench/method.py changes numbers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import parallel
from bench.checkpoints import Checkpoints
from bench.errors import UserError
from bench.method import Front, Method
from bench.splits import Split as Split

Augment = Callable[[Tensor, torch.Generator], Tensor]
LOOP_VERSION = 1
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Job:
    """What the loop needs besides the method."""

    train: Split
    evaluated: Mapping[str, Split]  # "test" and, where the protocol has one, "val"; of a stage, maybe neither
    recipe: Mapping[str, Any]
    augment: Augment
    seed: int
    device: torch.device
    checkpoints: Checkpoints
    checkpoint_seconds: float = 60.0
    progress: Callable[[int, int, int, float], None] = lambda epoch, step, steps, rate: None
    stop_requested: Callable[[], bool] = lambda: False
    code: str = ""  # commit and source hashes of the running code; a run resumed by other code says so
    test_transform: Augment | None = None  # what val and test images go through, drawn anew at every epoch


@dataclass
class State:
    """How far a run has come; with the method's state, all that a checkpoint holds."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the current epoch
    sums: dict[str, Tensor] = field(default_factory=dict)  # losses summed over the current epoch's steps
    history: list[dict[str, float]] = field(default_factory=list)
    # selection -> {"epochs": [...], "probabilities": (k, N, K)}
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    train_seconds: float = 0.0
    threads: int = 0  # of the first start: sums are ordered by thread, so a resumed run keeps them
    codes: list[str] = field(default_factory=list)
    processes: list[int] = field(default_factory=lambda: [1])  # that shared the run; of later starts where it changed


class Interrupted(Exception):
    """Training was asked to stop; the checkpoint has been written."""


def train(method: Method, job: Job) -> State:
    """Train from the last checkpoint, or from the start, to the recipe's last epoch.

    Returns:
        The final state: history and, for every selection of a method that classifies, test probabilities.

    Raises:
        Interrupted: after writing a checkpoint, when a stop was requested.
        UserError: when a loss, or a measure of a stage, stops being finite.
    """
    state = _resume(method, job)
    parallel.same_start(method.net)
    epochs, batch = int(job.recipe["epochs"]), int(job.recipe["batch_size"])
    steps = steps_per_epoch(len(job.train), batch)
    begun = epoch_begun = last_saved = time.monotonic()

    def save() -> None:
        # clocks restart with the process, so the time spent so far goes into the state
        nonlocal begun, epoch_begun, last_saved
        now = time.monotonic()
        state.seconds += now - begun
        state.train_seconds += now - epoch_begun
        begun = epoch_begun = last_saved = now
        if parallel.first():
            job.checkpoints.save({"method": method.state_dict(), "loop": _plain(state)})

    while state.epoch < epochs:
        order = parallel.share(epoch_order(job, state.epoch)[: steps * batch], batch)
        method.train()
        epoch_begun = rate_begun = time.monotonic()
        first_step = state.step
        with closing(job.train.batches(order, batch // parallel.size(), first_step)) as batches:
            while state.step < steps:
                if parallel.any_of(job.stop_requested()):
                    save()
                    raise Interrupted
                if time.monotonic() - last_saved > job.checkpoint_seconds:
                    save()
                pixels, targets = next(batches)
                generator = seed_step(job, state.epoch, state.step)
                images = prepare(pixels, job.recipe, job.augment, generator, job.train.front)
                losses = parallel.mean_of(method.update(images, targets))
                for name, loss in losses.items():
                    state.sums[name] = state.sums[name] + loss if name in state.sums else loss.clone()
                state.step += 1
                rate = (state.step - first_step) * batch / max(1e-9, time.monotonic() - rate_begun)
                job.progress(state.epoch, state.step, steps, rate)
        _finish_epoch(method, job, state, steps, epoch_begun)
    state.seconds += time.monotonic() - begun
    return state


def _finish_epoch(method: Method, job: Job, state: State, steps: int, epoch_begun: float) -> None:
    """Read the epoch's losses (the one synchronisation), evaluate, and keep what each selection wants."""
    record = {name: float(total) / steps for name, total in state.sums.items()}
    _refuse_infinite("training loss", record, state.epoch)
    state.train_seconds += time.monotonic() - epoch_begun
    method.train(False)
    # one process evaluates and tells the others: what they do next may depend on it
    found, probabilities = parallel.from_first(lambda: _evaluations(method, job, state.epoch + 1))
    record |= found
    if not method.classifies:
        _refuse_infinite("evaluation", record, state.epoch)
    state.epoch += 1
    state.step, state.sums = 0, {}
    state.history.append({"epoch": state.epoch, **record})
    method.epoch_end(state.epoch, record.get("loss", 0.0), record.get("val_accuracy"))
    if method.classifies:
        _select(state, probabilities["test"], int(job.recipe["epochs"]), int(job.recipe["last_k"]))


def _evaluations(method: Method, job: Job, epoch: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """What the splits give after an epoch: accuracies or a stage's measures by name, and probabilities by split."""
    record: dict[str, float] = {}
    probabilities = {}
    for name, split in job.evaluated.items():
        drawn = _drawn(job, epoch, name)
        if method.classifies:
            probabilities[name] = evaluate(method, split, job.recipe, drawn=drawn)
            record[f"{name}_accuracy"] = _accuracy(probabilities[name], split)
        else:
            measured = measure(method, split, job.recipe, drawn)
            record |= {f"{name}_{what}": value for what, value in measured.items()}
    return record, probabilities


def _refuse_infinite(what: str, record: Mapping[str, float], epoch: int) -> None:
    if not all(np.isfinite(value) for value in record.values()):
        hint = "lower the learning rate or use precision fp32; --force starts this run anew"
        raise UserError(f"the {what} is not finite after epoch {epoch + 1}: {dict(record)}", hint)


def _accuracy(probabilities: np.ndarray, split: Split) -> float:
    return float((probabilities.argmax(axis=1) == split.labels.cpu().numpy()).mean())


def _select(state: State, probabilities: np.ndarray, epochs: int, last_k: int) -> None:
    """Keep this epoch's test probabilities for every selection that it belongs to (ties go to the earlier epoch)."""
    now = {"epochs": [state.epoch], "probabilities": probabilities[None]}
    for selection, measure in (("test-best", "test_accuracy"), ("val-best", "val_accuracy")):
        earlier = [record[measure] for record in state.history[:-1] if measure in record]
        if measure in state.history[-1] and state.history[-1][measure] > max(earlier, default=-1.0):
            state.kept[selection] = now
    if state.epoch == epochs:
        state.kept["last"] = now
    if state.epoch > epochs - last_k:
        before = state.kept.get("last-k")
        state.kept["last-k"] = now if before is None else {
            "epochs": [*before["epochs"], state.epoch],
            "probabilities": np.concatenate([before["probabilities"], probabilities[None]]),
        }  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """What an evaluation's images go through where that is random; drawn from the start of the split to its end."""

    augment: Augment
    generator: torch.Generator


def _drawn(job: Job, epoch: int, split: str) -> Drawn | None:
    """Of one evaluation, drawn from (seed, epoch, split): a continued run draws the same. None: nothing is drawn."""
    if job.test_transform is None:
        return None
    (word,) = np.random.SeedSequence([job.seed, epoch, *split.encode()]).generate_state(1, np.uint64)
    return Drawn(job.test_transform, torch.Generator(job.device).manual_seed(int(word >> np.uint64(1))))


def evaluate(
    method: Method, split: Split, recipe: Mapping[str, Any], passed: Callable[[int], None] = lambda batches: None,
    drawn: Drawn | None = None,
) -> np.ndarray:  # fmt: skip
    """Class probabilities (N, K) float32 of a split in its own order, without augmentation unless it is `drawn`.

    Args:
        passed: called after every batch with the number of batches so far.
    """
    parts = []
    with torch.inference_mode():
        for pixels, _ in split.batches(torch.arange(len(split)), EVALUATION_BATCH):
            parts.append(method.predict(_evaluated(pixels, split, recipe, drawn)).float().softmax(dim=1))
            passed(len(parts))
    found: np.ndarray = torch.cat(parts).cpu().numpy()
    return found


def measure(method: Method, split: Split, recipe: Mapping[str, Any], drawn: Drawn | None = None) -> dict[str, float]:
    """Means over a split of what a method that does not classify measures; images as in `evaluate`."""
    sums: dict[str, Tensor] = {}
    with torch.inference_mode():
        for pixels, targets in split.batches(torch.arange(len(split)), EVALUATION_BATCH):
            for name, values in method.validate(_evaluated(pixels, split, recipe, drawn), targets).items():
                total = values.double().sum()
                sums[name] = sums[name] + total if name in sums else total
    return {name: float(total) / len(split) for name, total in sums.items()}


def _evaluated(pixels: Tensor, split: Split, recipe: Mapping[str, Any], drawn: Drawn | None) -> Tensor:
    if drawn is None:
        return prepare(pixels, recipe, front=split.front)
    return prepare(pixels, recipe, drawn.augment, drawn.generator, split.front)


def evaluate_released(method: Method, job: Job, columns: Sequence[int] = ()) -> State:
    """Test probabilities of a network as it is, as selection `released` of epoch 0; nothing is trained.

    Args:
        columns: for each class the output that stands for it, where their order is another.

    Raises:
        Interrupted: when a stop was requested; nothing is kept of a part.
    """
    split, begun = job.evaluated["test"], time.monotonic()

    def passed(batches: int) -> None:
        if job.stop_requested():
            raise Interrupted
        images = min(batches * EVALUATION_BATCH, len(split))
        job.progress(0, images, len(split), images / max(1e-9, time.monotonic() - begun))

    method.train(False)
    passed(0)
    probabilities = evaluate(method, split, job.recipe, passed, _drawn(job, 0, "test"))
    probabilities = probabilities[:, list(columns)] if columns else probabilities
    kept = {"released": {"epochs": [0], "probabilities": probabilities[None]}}
    history = [{"epoch": 0.0, "test_accuracy": _accuracy(probabilities, split)}]
    return State(history=history, kept=kept, seconds=time.monotonic() - begun, codes=[job.code])


def prepare(
    pixels: Tensor,
    recipe: Mapping[str, Any],
    augment: Augment | None = None,
    generator: torch.Generator | None = None,
    front: Front | None = None,
) -> Tensor:
    """Stored pixels to network input, all on the device.

    Args:
        pixels: uint8 (B, H, W) grey or (B, H, W, 3) RGB.
        recipe: gives input_size, resize kernel, channel order, mean, std and the memory layout.
        augment: applied at the size that the images have then; None for evaluation. What it has as `after` is applied
            to the normalised images (B, 3, S, S).
        generator: source of the augmentation's draws.
        front: applied first of all, to the images as stored.

    Returns:
        float32 (B, 3, S, S), normalised.
    """
    images = as_float(pixels)
    if front is not None:
        with torch.no_grad():
            images = front.apply(images)
    if augment is not None and generator is not None:
        images = augment(images, generator)
    size = int(recipe["input_size"])
    if images.shape[-2:] != (size, size):
        images = F.interpolate(
            images, (size, size), mode=recipe["resize"], align_corners=False, antialias=images.shape[-1] > size
        )
    if recipe["colour"] == "bgr" and images.shape[1] == 3:
        images = images.flip(1)
    mean, std = (_channels(tuple(recipe[name]), images.device) for name in ("mean", "std"))
    images = (images - mean) / std  # grey broadcasts to three channels here
    after = getattr(augment, "after", None)
    if after is not None and generator is not None:
        images = after(images, generator)
    return images.contiguous(memory_format=torch.channels_last) if recipe["channels_last"] else images.contiguous()


def as_float(pixels: Tensor) -> Tensor:
    """Stored pixels, uint8 (B, H, W) or (B, H, W, 3), as float32 (B, 1 or 3, H, W) in [0, 1]."""
    images = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return images.to(torch.float32).div_(255)


@lru_cache(maxsize=16)
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One number a channel, (3, 1, 1), put on the device once: a copy in every step would make the host wait."""
    return torch.tensor(values, device=device)[:, None, None]


def steps_per_epoch(images: int, batch: int) -> int:
    """Whole batches in an epoch; the remainder, another one each epoch, is left out (tiny batches hurt batch norm)."""
    return max(1, images // batch)


def epoch_order(job: Job, epoch: int) -> Tensor:
    """Row numbers of an epoch in training order: a permutation, or draws with equal chances for every class."""
    generator = np.random.Generator(np.random.Philox(key=[job.seed, epoch]))
    count = len(job.train)
    if job.recipe["sampler"] == "balanced":
        labels = job.train.labels.cpu().numpy()
        weights = 1.0 / np.bincount(labels)[labels]
        order = generator.choice(count, size=count, p=weights / weights.sum())
    elif job.recipe["sampler"] == "shuffle":
        order = generator.permutation(count)
    else:
        raise UserError(f"unknown sampler '{job.recipe['sampler']}'", "known: shuffle, balanced")
    return torch.from_numpy(order)


def seed_step(job: Job, epoch: int, step: int) -> torch.Generator:
    """Seed the device's randomness for one step; returns the generator for augmentation.

    Processes that share the step draw apart from each other; the first as one alone.
    """
    own = [] if parallel.first() else [parallel.rank()]
    words = np.random.SeedSequence([job.seed, epoch, step, *own]).generate_state(2, np.uint64)
    torch.manual_seed(int(words[0] >> np.uint64(1)))
    return torch.Generator(job.device).manual_seed(int(words[1] >> np.uint64(1)))


def _resume(method: Method, job: Job) -> State:
    loaded = job.checkpoints.load()
    if loaded is None:
        return State(threads=torch.get_num_threads(), codes=[job.code], processes=[parallel.size()])
    method.load_state_dict(loaded["method"])
    plain = {"processes": [1], **loaded["loop"]}  # a checkpoint of before there were several has none
    if plain["processes"][-1] == parallel.size():
        torch.set_num_threads(plain["threads"])
    else:
        plain["threads"] = torch.get_num_threads()
        plain["processes"] = [*plain["processes"], parallel.size()]
        message = f"{plain['processes'][-2]} processes shared this run before, now {parallel.size()}"
        print(f"warning: {message}: the same batches, but other draws in them", file=sys.stderr)
    if job.code not in plain["codes"]:
        plain["codes"] = [*plain["codes"], job.code]
        print("warning: the code changed since this run's checkpoint; its manifest will list both", file=sys.stderr)
    plain["sums"] = {name: value.to(job.device) for name, value in plain["sums"].items()}
    plain["kept"] = {
        name: {"epochs": list(kept["epochs"]), "probabilities": kept["probabilities"].numpy()}
        for name, kept in plain["kept"].items()
    }
    return State(**plain)


def _plain(state: State) -> dict[str, Any]:
    """The state as tensors and plain values, which `torch.load(weights_only=True)` accepts."""
    kept = {
        name: {"epochs": list(kept["epochs"]), "probabilities": torch.from_numpy(kept["probabilities"])}
        for name, kept in state.kept.items()
    }
    return {**state.__dict__, "kept": kept, "sums": dict(state.sums), "history": list(state.history)}
