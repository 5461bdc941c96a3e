"""Fronts: images computed for every batch, or once for all runs that need them, whatever happens meanwhile."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_cache import flip_a_byte, until
from helpers_engine import Server, predictions, write_spec
from helpers_front import built, execute, give, kept, manifest, specify
from helpers_stages import one
from test_loop import assert_same, recipe, split
from test_loop import job as engine_job
from test_loop import method as small

from bench import job, loop, matrix, store
from bench.data import derived, source
from bench.declare import Declarations
from bench.errors import UserError
from bench.method import Front
from bench.weight_files import read_state
from commands.progress import doing

pytest_plugins = ("helpers_engine", "helpers_front")

CPU = torch.device("cpu")
PLAIN = {
    "input_size": 8, "resize": "bilinear", "colour": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1], "channels_last": False,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------------- what it does


def test_a_front_comes_before_augmentation_and_leaves_no_gradient() -> None:
    pixels = torch.randint(0, 256, (2, 4, 4), dtype=torch.uint8)
    scale = torch.nn.Parameter(torch.tensor(0.5))
    seen = []

    def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(images)
        return images

    front = Front(lambda images: images.repeat_interleave(2, -1).repeat_interleave(2, -2) * scale)
    found = loop.prepare(pixels, PLAIN, augment, torch.Generator(), front)
    wanted = (pixels[:, None].float() / 255).repeat_interleave(2, -1).repeat_interleave(2, -2) / 2
    torch.testing.assert_close(found, wanted.expand(-1, 3, -1, -1))
    assert seen[0].shape == (2, 1, 8, 8)
    assert not found.requires_grad


def test_a_front_of_every_batch_is_one_of_the_images(tmp_path: Path) -> None:
    """Negatives made by a front train and test as negatives that are stored."""
    plain = recipe()
    front = Front(lambda images: (255 - (images * 255).round()) / 255)

    def negative(images: loop.Split) -> loop.Split:
        return replace(images, images=255 - images.images)  # type: ignore[operator]

    states = []
    for change in (lambda images: replace(images, front=front), negative, lambda images: images):
        evaluated = {"test": change(split(20, 1)), "val": change(split(12, 2))}
        own = engine_job(tmp_path / str(len(states)), plain, train=change(split(36)), evaluated=evaluated)
        states.append(loop.train(small(plain), own))
    assert_same(states[0], states[1])
    assert states[0].history != states[2].history
    only_tested = loop.evaluate(small(plain), replace(split(20, 1), front=front), plain)
    assert np.array_equal(only_tested, loop.evaluate(small(plain), negative(split(20, 1)), plain))
    assert not np.array_equal(only_tested, loop.evaluate(small(plain), split(20, 1), plain))


def test_images_computed_once_train_the_same_network_as_those_of_every_batch(fronted: Declarations) -> None:
    """The plain doubling is exact in 8 bits, so the two runs are one but for where their images come from."""
    folders = [execute(specify(one(fronted, f"front-{kind}:tiny-4"))) for kind in ("once", "batch")]
    one_net, other = (read_state(folder / store.NETWORK) for folder in folders)
    assert all(torch.equal(value, other[name]) for name, value in one_net.items())
    histories = [store.read_result(folder, verify=True).history for folder in folders]
    assert histories[0] == histories[1]
    assert histories[0] != store.read_result(execute(specify(one(fronted, "plain:tiny-4")))).history
    assert manifest(folders[0])["front"] == {"once": "plain doubling", "size": [24, 24]}
    assert manifest(folders[1])["front"] == {"once": "", "size": [24, 24]}
    assert len(kept()) == 1


def test_kept_images_are_those_of_the_front_rounded(fronted: Declarations) -> None:
    run = one(fronted, "front-of-file:tiny-4")
    execute(specify(run))
    data = source.open_data(run.entry.protocol, None)
    method = built(run, weights={"shade": store.cache_root() / "weights" / "shade.safetensors"})
    assert method.front is not None
    wanted = derived.to_bytes(method.front.apply(loop.as_float(torch.from_numpy(np.array(data.pixels)))))
    (file,) = kept()
    assert file.read_bytes() == wanted.detach().numpy().tobytes()
    assert float(wanted.float().mean()) < 0.8 * float(data.pixels.mean())


def test_figures_get_no_more_images_at_a_time_than_training_did() -> None:
    seen: list[int] = []

    def halves(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images / 2

    images = torch.rand(9, 1, 4, 4)
    found = derived.rounding(Front(halves, "halves", 4)).apply(images)
    assert seen == [4, 4, 1]
    torch.testing.assert_close(found, (images / 2 * 255).round() / 255)


def test_only_the_images_of_the_splits_are_made_and_in_the_index_order(fronted: Declarations, tmp_path: Path) -> None:
    protocol = fronted.protocol("tiny-4")
    data = source.open_data(protocol, None)
    backwards = replace(data, index=data.index[::-1].reset_index(drop=True), rows=data.rows[::-1].copy())
    front, wanted = Front(lambda images: 1 - images, "negative", 8), np.array([5, 3, 3, 110])
    found = derived.prepared(backwards, protocol, wanted, front, CPU, tmp_path)
    assert found.pixels.shape == (3, 12, 12)
    for row in wanted:
        np.testing.assert_array_equal(found.pixels[found.rows[row]], 255 - data.pixels[backwards.rows[row]])
    assert set(found.rows[[0, 1, 2, 4]]) == {-1}
    assert found.hash == data.hash


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda images: images * float("nan"), "not finite"),
        (lambda images: images[:, 0], "not images"),
        (lambda images: images.expand(-1, 2, -1, -1), "not images"),
    ],
)
def test_what_is_no_image_is_refused(fronted: Declarations, tmp_path: Path, result: Any, said: str) -> None:
    protocol = fronted.protocol("tiny-4")
    data = source.open_data(protocol, None)
    with pytest.raises(UserError, match=said):
        derived.prepared(data, protocol, np.arange(9), Front(result, "wrong", 8), CPU, tmp_path)
    assert not list(tmp_path.glob("pixels/*.u8"))


@pytest.mark.parametrize("done", [0, 1, 4, 5, 7, 119])
def test_a_continued_computation_sees_the_same_batches(fronted: Declarations, done: int) -> None:
    """A network's last digits may depend on which images it gets together."""
    data, protocol = source.open_data(fronted.protocol("tiny-4"), None), fronted.protocol("tiny-4")
    seen: list[int] = []
    made_of = lambda images: images * (0.5 + images[:1].mean())  # noqa: E731  # of the batch's first image
    images = derived._Made(
        data, protocol, np.arange(120), Front(made_of, "mean", 5), CPU, lambda at, of: seen.append(at)
    )
    whole = np.stack(list(images.decoded(images.names())))
    seen.clear()
    np.testing.assert_array_equal(np.stack(list(images.decoded(images.names()[done:]))), whole[done:])
    assert seen == list(range(done // 5 * 5 + 5, 121, 5))


# ------------------------------------------------------------------------------------------ made once, whatever happens


def test_a_killed_computation_continues_to_the_same_bytes(
    fronted: Declarations, front_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, log = one(fronted, "front-once:tiny-4"), tmp_path / "log"
    spec = write_spec(tmp_path, specify(run))
    assert front_server.start(spec, log).wait() == 0, log.read_text()
    (file,) = kept()
    wanted, trained = file.read_bytes(), predictions(store.run_folder(spec.stem))
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "other"))
    assert specify(run)["key"] == spec.stem
    # 5 images reach the disk at a time and 7 are computed at a time: no stop is at the beginning of a batch
    for moment in ("front:4", "front:6", "front:9"):
        killed = front_server.start(spec, log, TINYFER_KILL=f"{moment}:SIGKILL", TINYFER_FLUSH=str(5 * 24 * 24))
        assert killed.wait() == -signal.SIGKILL, log.read_text()
        assert not kept()
    assert front_server.start(spec, log).wait() == 0, log.read_text()
    assert log.read_text().count("continuing at") == 3
    (file,) = kept()
    assert file.read_bytes() == wanted
    assert predictions(store.run_folder(spec.stem)) == trained


def test_an_interrupted_computation_leaves_politely_and_continues(
    fronted: Declarations, front_server: Server, tmp_path: Path
) -> None:
    spec, log = write_spec(tmp_path, specify(one(fronted, "front-once:tiny-4"))), tmp_path / "log"
    assert front_server.start(spec, log, TINYFER_KILL="front:5:SIGINT").wait() == 130, log.read_text()
    assert front_server.start(spec, log).wait() == 0, log.read_text()
    assert "continuing at 28 of 120 images" in log.read_text()


def test_a_damaged_byte_is_noticed_and_the_images_made_again(
    fronted: Declarations, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = specify(one(fronted, "front-once:tiny-4"))
    first = predictions(execute(spec))
    (file,) = kept()
    whole = file.read_bytes()
    flip_a_byte(file)
    assert predictions(execute(spec)) == first
    assert "damaged" in capsys.readouterr().err
    assert file.read_bytes() == whole


def test_seeds_and_folds_share_the_images_and_another_front_has_its_own(fronted: Declarations) -> None:
    def prepare(run: matrix.Run) -> int:
        """How many files there are then."""
        data = source.open_data(run.entry.protocol, None)
        rows = source.splits_of(data.index, run.entry.protocol, run.fold)
        file = store.cache_root() / "weights" / "shade.safetensors"
        job._prepared(run, data, rows, built(run, weights={"shade": file}), CPU, lambda done, images: None)
        return len(kept())

    runs = [one(fronted, "front-once:tiny-4", seed=seed) for seed in (0, 1)]
    runs += matrix.runs_of(fronted, fronted.entry("front-once:tiny-folds"), "quick", [0])
    assert [prepare(run) for run in runs] == [1] * 5
    assert prepare(one(fronted, "front-of-file:tiny-4")) == 2
    give("shade", 0.3)
    assert prepare(one(fronted, "front-of-file:tiny-4")) == 3
    assert all(file.with_suffix(".json").is_file() for file in kept())


def test_other_pixels_get_other_images(fronted: Declarations, tmp_path: Path) -> None:
    protocol = fronted.protocol("tiny-4")
    data, front = source.open_data(protocol, None), Front(lambda images: images, "same", 8)
    for changed in (data, replace(data, pixels_sha256="other")):
        derived.prepared(changed, protocol, np.arange(9), front, CPU, tmp_path)
    derived.prepared(data, protocol, np.arange(8), front, CPU, tmp_path)
    derived.prepared(data, protocol, np.arange(8)[::-1], front, CPU, tmp_path)
    assert len(list(tmp_path.glob("pixels/*.u8"))) == 3


def test_processes_that_need_the_same_images_make_them_once(
    fronted: Declarations, front_server: Server, tmp_path: Path
) -> None:
    specs = [write_spec(tmp_path, specify(one(fronted, "front-once:tiny-4", seed=seed))) for seed in (0, 1)]
    logs = [tmp_path / "first", tmp_path / "second"]
    first = front_server.start(specs[0], logs[0], TINYFER_FRONT_SLEEP="0.1")
    until(lambda: list((store.cache_root() / "pixels").glob("*-front-*.journal")))
    # were it to make more than the image whose size it asks for, it would die
    second = front_server.start(specs[1], logs[1], TINYFER_KILL="front:2:SIGKILL")
    progress = store.run_folder(specs[1].stem) / "progress.json"
    until(progress.is_file)
    assert json.loads(progress.read_text()).items() >= {"preparing": 0, "images": 120}.items()
    assert [first.wait(), second.wait()] == [0, 0], logs[1].read_text()
    assert f"waiting for process {first.pid}" in logs[1].read_text()


def test_a_process_that_waits_for_images_can_be_interrupted(
    fronted: Declarations, front_server: Server, tmp_path: Path
) -> None:
    specs = [write_spec(tmp_path, specify(one(fronted, "front-once:tiny-4", seed=seed))) for seed in (0, 1)]
    first = front_server.start(specs[0], tmp_path / "first", TINYFER_FRONT_SLEEP="2")
    until(lambda: list((store.cache_root() / "pixels").glob("*-front-*.journal")))
    second = front_server.start(specs[1], tmp_path / "second")
    log = tmp_path / "second"
    until(lambda: log.exists() and "waiting for" in log.read_text())
    second.send_signal(signal.SIGINT)
    assert second.wait(15.0) == 130
    first.kill()
    first.wait()


def test_progress_is_told_in_images_and_time() -> None:
    assert doing({}) == "starting"
    assert doing({"preparing": 0, "images": 31373, "rate": 0.0}) == "preparing images 0/31,373"
    told = {"preparing": 1200, "images": 31373, "rate": 167.6}
    assert doing(told) == "preparing images 1,200/31,373, 3 min left"
    assert doing({"epoch": 1, "epochs": 3, "step": 2, "steps": 4, "rate": 12.3}) == "epoch 2/3, 12 images/s"
