"""The training loop: selections, orders, and an interruption at every step that changes nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench import loop
from bench.checkpoints import Checkpoints
from bench.data.augment import fervt_common, none
from bench.declare import RECIPE_FIELDS, REQUIRED
from bench.errors import UserError
from bench.loop import Interrupted, Job, Split, State, epoch_order, prepare, seed_step, steps_per_epoch
from bench.method import Context, Method, Supervised

CPU = torch.device("cpu")
CLASSES = ("a", "b", "c")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe(**fields: Any) -> dict[str, Any]:
    plain = {name: value for name, value in RECIPE_FIELDS.items() if value is not REQUIRED}
    base = {"optimizer": "adamw", "learning_rate": 0.01, "batch_size": 8, "epochs": 3, "input_size": 8, "last_k": 2}
    return {**plain, **base, **fields}


def split(count: int, seed: int = 0) -> Split:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, count)
    images = draw.integers(0, 120, (count, 8, 8), dtype=np.uint8) + (labels[:, None, None] * 60).astype(np.uint8)
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def job(folder: Path, plain: dict[str, Any], **more: Any) -> Job:
    fields: dict[str, Any] = {
        "train": split(36), "evaluated": {"test": split(20, 1), "val": split(12, 2)}, "recipe": plain,
        "augment": fervt_common, "seed": 3, "device": CPU, "checkpoints": Checkpoints(folder),
        "checkpoint_seconds": 1e9,
    }  # fmt: skip
    return Job(**{**fields, **more})


def method(plain: dict[str, Any], seed: int = 0) -> Supervised:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.4), nn.Flatten(), nn.Linear(4 * 36, 3)
    )
    return Supervised(net, plain, Context(CLASSES, 8, 4, CPU))


def assert_same(one: State, other: State) -> None:
    assert one.history == other.history
    assert one.kept.keys() == other.kept.keys()
    for selection, kept in one.kept.items():
        assert kept["epochs"] == other.kept[selection]["epochs"], selection
        assert np.array_equal(kept["probabilities"], other.kept[selection]["probabilities"]), selection


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": "cosine", "label_smoothing": 0.1, "warmup_epochs": 1},
        {
            "schedule": "plateau",
            "schedule_patience": 0,
            "sampler": "balanced",
            "optimizer": "sgd",
            "channels_last": True,
        },
        {"precision": "bf16", "optimizer": "adam", "weight_decay": 0.1, "last_k": 5},
    ],
)
def test_an_interruption_at_every_step_changes_nothing(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Dropout, batch norm, augmentation and last-k included; every continuation begins with another network."""
    plain = recipe(**fields)
    whole_method = method(plain)
    whole = loop.train(whole_method, job(tmp_path / "whole", plain))
    starts, finished = 0, False
    while not finished:
        asked = iter([False, True])  # one step, then stop
        own = job(tmp_path / "parts", plain, stop_requested=lambda: next(asked, True))  # noqa: B023
        part = method(plain, seed=starts)  # the checkpoint, not the seed, decides from the second start on
        torch.rand(starts)  # nor does the global generator's state
        try:
            state, finished = loop.train(part, own), True
        except Interrupted:
            starts += 1
    assert starts == 3 * 4 - 1  # the last start makes step 12 and ends
    assert_same(state, whole)
    for name, value in whole_method.net.state_dict().items():
        assert torch.equal(part.net.state_dict()[name], value), name


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 11])
def test_a_crash_continues_from_the_last_checkpoint(tmp_path: Path, steps: int) -> None:
    plain = recipe()
    whole = loop.train(method(plain), job(tmp_path / "whole", plain))
    dying = method(plain)
    update, left = dying.update, iter(range(steps))

    def update_until_dead(images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if next(left, None) is None:
            raise MemoryError
        return update(images, targets)

    dying.update = update_until_dead  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        loop.train(dying, job(tmp_path / "parts", plain, checkpoint_seconds=-1.0))
    again = loop.train(method(plain, seed=9), job(tmp_path / "parts", plain))
    assert_same(again, whole)


def test_the_seed_decides(tmp_path: Path) -> None:
    plain = recipe()
    one = loop.train(method(plain), job(tmp_path / "a", plain))
    assert_same(loop.train(method(plain), job(tmp_path / "b", plain)), one)
    other = loop.train(method(plain), job(tmp_path / "c", plain, seed=4))
    assert other.history != one.history


class Clock:
    """Time that passes only when a step is made."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("at", [0, 2, 4, 6, 11])
def test_time_is_counted_across_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """images_per_second and the plan's estimates stand on it: twelve steps of one second are twelve seconds."""
    clock, plain, made = Clock(), recipe(), 0
    monkeypatch.setattr(loop, "time", clock)

    def started() -> Supervised:
        found = method(plain)
        update = found.update

        def timed(images: Tensor, targets: Tensor) -> dict[str, Tensor]:
            nonlocal made
            clock.now += 1.0
            made += 1
            return update(images, targets)

        found.update = timed  # type: ignore[method-assign]
        return found

    with pytest.raises(Interrupted):
        loop.train(started(), job(tmp_path, plain, stop_requested=lambda: made >= at))
    clock.now += 1000.0
    state = loop.train(started(), job(tmp_path, plain))
    assert made == 12
    assert state.seconds == pytest.approx(12.0)
    assert state.train_seconds == pytest.approx(12.0)


# ------------------------------------------------------------------------------------------------------- selections


def select(test: list[float], val: list[float] | None, last_k: int) -> dict[str, list[int]]:
    """Epochs of every selection on a hand-made history; the probabilities carry the epoch's number."""
    state = State()
    for epoch, accuracy in enumerate(test, 1):
        state.epoch = epoch
        state.history.append(
            {"epoch": epoch, "test_accuracy": accuracy, **({"val_accuracy": val[epoch - 1]} if val else {})}
        )
        loop._select(state, np.full((2, 3), float(epoch), np.float32), len(test), last_k)
    for kept in state.kept.values():
        assert kept["probabilities"][:, 0, 0].tolist() == kept["epochs"]
    return {name: kept["epochs"] for name, kept in state.kept.items()}


def test_selections_of_a_history() -> None:
    found = select([0.1, 0.5, 0.4, 0.5, 0.3], [0.7, 0.2, 0.9, 0.9, 0.1], last_k=2)
    assert found == {"last": [5], "last-k": [4, 5], "test-best": [2], "val-best": [3]}


def test_without_validation_there_is_no_val_best() -> None:
    assert select([0.2, 0.1], None, 1) == {"last": [2], "last-k": [2], "test-best": [1]}


def test_all_zero_still_selects_the_first() -> None:
    assert select([0.0, 0.0], [0.0, 0.0], 5) == {"last": [2], "last-k": [1, 2], "test-best": [1], "val-best": [1]}


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12), st.integers(1, 15))
def test_selections_in_general(test: list[float], last_k: int) -> None:
    found = select(test, test[::-1], last_k)
    assert found["last"] == [len(test)]
    assert found["test-best"] == [1 + test.index(max(test))]  # a tie goes to the earlier epoch
    assert found["val-best"] == [1 + test[::-1].index(max(test))]
    assert found["last-k"] == list(range(max(1, len(test) - last_k + 1), len(test) + 1))


def test_selected_probabilities_are_those_of_their_epochs(tmp_path: Path) -> None:
    plain = recipe(epochs=4, last_k=3)
    own = job(tmp_path, plain)
    state = loop.train(method(plain), own)
    labels = own.evaluated["test"].labels.numpy()
    for kept in state.kept.values():
        assert kept["probabilities"].shape == (len(kept["epochs"]), 20, 3)
        assert np.allclose(kept["probabilities"].sum(axis=2), 1, atol=1e-5)
        for epoch, chances in zip(kept["epochs"], kept["probabilities"], strict=True):
            assert (chances.argmax(axis=1) == labels).mean() == state.history[epoch - 1]["test_accuracy"]


# ------------------------------------------------------------------------------------------- orders and randomness


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_a_shuffled_epoch_has_every_image_once(tmp_path_factory: pytest.TempPathFactory, seed: int, epoch: int) -> None:
    own = job(tmp_path_factory.getbasetemp(), recipe(), seed=seed)
    order = epoch_order(own, epoch)
    assert sorted(order.tolist()) == list(range(36))
    assert torch.equal(order, epoch_order(own, epoch))
    assert not torch.equal(order, epoch_order(own, epoch + 1))
    assert not torch.equal(order, epoch_order(job(tmp_path_factory.getbasetemp(), recipe(), seed=seed + 1), epoch))


def test_balanced_draws_give_classes_equal_chances(tmp_path: Path) -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    train = Split(torch.zeros(1000, 2, 2, dtype=torch.uint8), labels)
    own = job(tmp_path, recipe(sampler="balanced"), train=train)
    drawn = torch.cat([labels[epoch_order(own, epoch)] for epoch in range(10)])
    assert len(drawn) == 10_000
    shares = torch.bincount(drawn) / len(drawn)
    assert torch.allclose(shares, torch.tensor([1 / 3] * 3), atol=0.02)  # four standard deviations
    rows = torch.cat([epoch_order(own, epoch) for epoch in range(10)])
    assert rows[labels[rows] == 2].bincount()[990:].min() > 250  # within a class, too


def test_an_unknown_sampler_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown sampler 'shufle'"):
        epoch_order(job(tmp_path, recipe(sampler="shufle")), 0)


def test_every_step_has_its_own_randomness(tmp_path: Path) -> None:
    own = job(tmp_path, recipe())
    seen = []
    for epoch in range(3):
        for step in range(4):
            draws = []
            for _ in range(2):
                generator = seed_step(own, epoch, step)
                draws.append((torch.rand(1).item(), torch.rand(1, generator=generator).item()))
            assert draws[0] == draws[1]
            seen += draws[0]
    assert len(set(seen)) == 24


@pytest.mark.parametrize(("images", "batch", "steps"), [(64, 16, 4), (70, 16, 4), (16, 16, 1), (5, 16, 1)])
def test_steps_per_epoch(images: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(images, batch) == steps


def test_batches_are_whole_and_the_rest_changes_from_epoch_to_epoch(tmp_path: Path) -> None:
    plain, seen = recipe(epochs=3), []
    own = job(tmp_path, plain, augment=lambda images, generator: seen.append(images) or images)
    loop.train(method(plain), own)
    assert [len(images) for images in seen] == [8] * 12
    used = [torch.cat(seen[4 * e : 4 * e + 4]).flatten(1).unique(dim=0) for e in range(3)]
    assert all(len(images) == 32 for images in used)
    assert not torch.equal(used[0], used[1])


# ------------------------------------------------------------------------------------------------ input, evaluation


def test_prepare_normalises_and_makes_three_channels() -> None:
    plain = recipe(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    grey = torch.randint(0, 256, (2, 8, 8), dtype=torch.uint8)
    found = prepare(grey, plain)
    assert found.shape == (2, 3, 8, 8)
    for channel, (mean, std) in enumerate(zip(plain["mean"], plain["std"], strict=True)):
        assert torch.allclose(found[:, channel], (grey / 255 - mean) / std, atol=1e-6)
    colour = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    assert torch.allclose(prepare(colour, plain)[:, 2], (colour[..., 2] / 255 - 0.3) / 0.7, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [8, 5, 16])
def test_prepare_gives_the_size_and_layout_asked_for(size: int, channels_last: bool) -> None:
    plain = recipe(input_size=size, channels_last=channels_last)
    pixels = torch.full((2, 8, 8, 3), 51, dtype=torch.uint8)
    found = prepare(pixels, plain)
    assert found.shape == (2, 3, size, size)
    assert found.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert torch.allclose(found[:, 0], torch.tensor((0.2 - 0.485) / 0.229), atol=1e-5)
    assert int(pixels[0, 0, 0, 0]) == 51


def test_evaluation_keeps_order_and_takes_no_augmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = recipe()
    found, held_out = method(plain), split(30, 5)
    found.train(False)
    whole = loop.evaluate(found, held_out, plain)
    monkeypatch.setattr(loop, "EVALUATION_BATCH", 7)
    assert np.allclose(loop.evaluate(found, held_out, plain), whole, atol=1e-6)
    with torch.no_grad():
        wanted = found.net(prepare(held_out.images, plain)).softmax(1).numpy()
    assert np.allclose(whole, wanted, atol=1e-6)


class Broken(Method):
    """Its loss is not a number from the second epoch on."""

    def __init__(self) -> None:
        self.net, self.steps = nn.Linear(1, 1), 0

    def update(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        self.steps += 1
        return {"loss": torch.tensor(float("nan") if self.steps > 4 else 1.0)}

    def predict(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 3)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}


def test_a_loss_that_is_no_number_stops_the_run_and_says_when(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite after epoch 2.*nan") as caught:
        loop.train(Broken(), job(tmp_path, recipe(), augment=none))
    assert "learning rate" in caught.value.hint


def test_the_loss_is_read_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No synchronisation inside an epoch: nothing turns a device value into a Python number there."""
    plain = recipe(epochs=1)
    found, reads = method(plain), []
    update = found.update

    def watched(images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss": update(images, targets)["loss"].as_subclass(Watched)}

    class Watched(Tensor):
        def __float__(self) -> float:
            reads.append(1)
            return float(self.as_subclass(Tensor))

        def item(self) -> Any:
            reads.append(1)
            return self.as_subclass(Tensor).item()

    found.update = watched  # type: ignore[method-assign]
    state = loop.train(found, job(tmp_path, plain))
    assert len(reads) == 1
    assert np.isfinite(state.history[0]["loss"])


def test_a_recorded_loss_is_the_mean_over_the_epoch(tmp_path: Path) -> None:
    plain, losses = recipe(), []
    found = method(plain)
    update = found.update

    def watched(images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        result = update(images, targets)
        losses.append(result["loss"].item())
        return result

    found.update = watched  # type: ignore[method-assign]
    state = loop.train(found, job(tmp_path, plain))
    for epoch, record in enumerate(state.history):
        assert record["loss"] == pytest.approx(np.mean(losses[4 * epoch : 4 * epoch + 4]), rel=1e-5)


def test_training_learns(tmp_path: Path) -> None:
    plain = recipe(epochs=8, learning_rate=0.02)
    state = loop.train(method(plain), job(tmp_path, plain, train=split(120), augment=none))
    assert state.history[-1]["test_accuracy"] > 0.8
    assert state.history[-1]["loss"] < state.history[0]["loss"]
    assert copy.deepcopy(state.kept["last"]["epochs"]) == [8]
