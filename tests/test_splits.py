"""Images that do not fit into memory are read from the cache batch by batch, to the same numbers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_engine import predictions, specify
from test_loop import assert_same, job, method, recipe, split

from bench import loop, store
from bench.data.pixel_file import PixelFile
from bench.errors import UserError
from bench.loop import Interrupted, Split

pytest_plugins = ("helpers_engine",)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def in_file(folder: Path, resident: Split, seed: int = 0) -> Split:
    """The same images, mixed with others in a file."""
    assert isinstance(resident.images, torch.Tensor)
    draw = np.random.default_rng(seed)
    rows = draw.permutation(2 * len(resident))[: len(resident)]
    pixels = draw.integers(0, 256, (2 * len(resident), *resident.images.shape[1:]), dtype=np.uint8)
    pixels[rows] = resident.images.numpy()
    path = folder / f"{seed}.u8"
    path.write_bytes(pixels.tobytes())
    return Split(PixelFile(path, pixels.shape), resident.labels, rows)


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize(("count", "size"), [(24, 8), (20, 8), (5, 8), (8, 8)])
def test_batches_are_the_same_from_memory_and_from_the_file(tmp_path: Path, count: int, size: int, first: int) -> None:
    resident = split(30)
    order = torch.from_numpy(np.random.default_rng(1).integers(0, 30, count))
    wanted = list(resident.batches(order, size, first))
    found = list(in_file(tmp_path, resident).batches(order, size, first))
    assert len(found) == len(wanted) == max(0, -(-count // size) - first)
    for (images, labels), (own_images, own_labels) in zip(wanted, found, strict=True):
        assert torch.equal(images, own_images)
        assert torch.equal(labels, own_labels)


@pytest.mark.parametrize("fields", [{"sampler": "shuffle"}, {"sampler": "balanced", "channels_last": True}])
def test_training_from_the_file_ends_with_the_same_numbers(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Interrupted at every step, too; no thread stays behind."""
    plain = recipe(**fields)
    whole_method = method(plain)
    whole = loop.train(whole_method, job(tmp_path / "memory", plain))
    train = in_file(tmp_path, split(36))
    evaluated = {"test": in_file(tmp_path, split(20, 1), 1), "val": in_file(tmp_path, split(12, 2), 2)}
    threads, finished, starts = threading.active_count(), False, 0
    while not finished:
        asked = iter([False, True])
        stop = lambda asked=asked: next(asked, True)  # noqa: E731
        part, starts = method(plain, seed=starts), starts + 1
        try:
            own = job(tmp_path / "file", plain, train=train, evaluated=evaluated, stop_requested=stop)
            state, finished = loop.train(part, own), True
        except Interrupted:
            assert threading.active_count() == threads
    assert_same(state, whole)
    for name, value in whole_method.net.state_dict().items():
        assert torch.equal(part.net.state_dict()[name], value), name


def test_a_file_that_fails_ends_training_with_its_name(tmp_path: Path) -> None:
    plain = recipe()
    train = in_file(tmp_path, split(36))
    (tmp_path / "0.u8").write_bytes(b"")
    with pytest.raises(UserError, match=r"0\.u8 has become shorter while it was in use"):
        loop.train(method(plain), job(tmp_path / "run", plain, train=train))


def test_a_run_reads_batches_where_memory_is_short_and_says_what_it_saw(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import job, splits

    spec = specify(tiny, checkpoint_seconds=1e9)
    job.execute(spec, tmp_path / "memory")
    assert "batch by batch" not in capsys.readouterr().out
    monkeypatch.setattr(splits, "RESIDENT_BYTES", 0)
    job.execute(spec, tmp_path / "file")
    assert "of images do not fit: they are read from" in capsys.readouterr().out
    assert predictions(tmp_path / "file") == predictions(tmp_path / "memory")
    results = [store.read_result(tmp_path / name, verify=True) for name in ("memory", "file")]
    assert results[0].history == results[1].history

    data = json.loads((tmp_path / "file" / "manifest.json").read_text())["data"]
    shown = data["preprocessing"]
    assert (shown["colour"], shown["resize"], shown["input_size"]) == ("rgb", "bilinear", 12)
    assert results[1].preprocessing == f"{shown['name']}#{shown['sha256'][:8]}"
    assert (results[1].skipped, data["skipped"], data["images"]) == (0, {}, 120)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_reach_a_gpu_without_waiting_for_it(tmp_path: Path) -> None:
    resident = split(64)
    assert isinstance(resident.images, torch.Tensor)
    on_gpu = Split(resident.images.cuda(), resident.labels.cuda())
    from_file = in_file(tmp_path, resident)
    from_file = Split(from_file.images, on_gpu.labels, from_file.rows)
    order = torch.from_numpy(np.random.default_rng(1).integers(0, 64, 640))
    wanted, found = on_gpu.batches(order, 16), from_file.batches(order, 16)
    pairs = [(next(wanted), next(found))]  # the order goes to the device before the first
    torch.cuda.set_sync_debug_mode("error")
    pairs += list(zip(wanted, found, strict=True))
    torch.cuda.set_sync_debug_mode("default")
    for (images, labels), (own_images, own_labels) in pairs:
        assert torch.equal(images, own_images)
        assert torch.equal(labels, own_labels)


@pytest.mark.parametrize(("free", "resident"), [(36 * 64 * 2, True), (36 * 64 * 2 - 2, False)])
def test_a_gpu_takes_images_that_leave_half_its_memory_free(
    monkeypatch: pytest.MonkeyPatch, free: int, resident: bool
) -> None:
    from bench import splits

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    assert (splits.room(torch.device("cuda")) >= 36 * 64) == resident
