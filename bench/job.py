"""One run in one process, or in several that share its batches: data -> model -> train -> evaluate -> result.

Started by an executor as `python -m bench.job SPEC.json`; exit status 0 done, 1 failed (traceback in error.txt),
130 interrupted after writing a checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from bench import declare, launch, loop, matrix, parallel, provenance, registry, store, weights
from bench.checkpoints import Checkpoints
from bench.data import derived, source
from bench.errors import UserError
from bench.method import Context, Front, Method, Spec, Votes, macs, parameter_counts
from bench.splits import labels_of, load
from bench.weight_files import read_state

PROGRESS_SECONDS = 0.5


def main(arguments: list[str]) -> int:
    """Run the job described by the JSON file named on the command line."""
    spec = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    folder = store.run_folder(spec["key"])
    stop = _stop_when_asked()
    try:
        spec["device"] = parallel.own_device(spec["device"])
        with parallel.started(spec["device"]), _locked(folder, stop):
            if parallel.from_first(lambda: store.find_network(spec["key"])) is None:
                (folder / "result.json").unlink(missing_ok=True)  # its network is gone: no dependent may read the next
                execute(spec, folder, stop)
        return 0
    except loop.Interrupted:
        return 130
    except BaseException as error:
        said = error.message if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        print(f"{traceback.format_exc()}\n{error}", file=sys.stderr)
        with contextlib.suppress(OSError, UserError):  # a full disk must not hide the error itself
            # the first line is what the queue shows; of several processes the first to fail is the cause
            if parallel.size() == 1 or not (folder / "error.txt").exists():
                store.write_text(folder / "error.txt", f"{said}\n\n{traceback.format_exc()}")
        return 1


def execute(spec: dict[str, Any], folder: Path, stop: Callable[[], bool] = lambda: False) -> None:
    """Train and evaluate one run, or evaluate a checkpoint, leaving a finished run folder.

    Args:
        spec: `matrix.specification` of the run.
        folder: the run folder.
        stop: asked before every step; true means checkpoint and leave.
    """
    root = Path(spec["data_root"]) if spec["data_root"] else None
    declared = declare.load(root)
    run = matrix.find_run(declared, spec)
    launch.check(run, parallel.size())
    protocol = run.entry.protocol
    device = pick_device(spec["device"])
    data = source.open_data(protocol, root, bool(spec.get("skip_bad")), run.preprocessing)
    files = weights.require(run.weights)
    key = run.key(run.data_part(data.hash, data.votes_hash), weights.hashes(run.weights), spec.get("stages"))
    if key != spec["key"]:
        raise UserError(
            f"{run.name}: code, declarations or data changed after planning ({spec['key']} is now {key})", "run again"
        )

    products = {role: _product(role, stage, spec["stages"][role]) for role, stage in run.stages.items()}
    rows = source.splits_of(data.index, protocol, run.fold, run.recipe["train_splits"])
    steps = loop.steps_per_epoch(len(rows["train"]), int(run.recipe["batch_size"]))
    if run.checkpoint:
        rows = {"train": rows["train"][:0], "test": rows["test"]}
    torch.manual_seed(run.seed)
    code = _code(run)
    networks = {role: store.run_folder(made["key"]) / store.NETWORK for role, made in products.items()}
    method = _build(run, {**files, **networks}, steps, device, _votes(run, data, rows["train"]))
    shown, front = _prepared(run, data, rows, method, device, _preparing(folder, stop))
    splits = load(shown, labels_of(data, protocol), rows, device, front)
    job = loop.Job(
        train=splits["train"], evaluated={name: s for name, s in splits.items() if name != "train"}, recipe=run.recipe,
        augment=registry.find("augmentation", run.augmentation).load(), seed=run.seed, device=device,
        checkpoints=Checkpoints(folder), checkpoint_seconds=float(spec["checkpoint_seconds"]),
        progress=_reporter(folder, 1 if run.checkpoint else int(run.recipe["epochs"])), stop_requested=stop,
        code=json.dumps(code, sort_keys=True), test_transform=_test_transform(protocol),
    )  # fmt: skip
    if run.checkpoint:
        method.load_released(read_state(Path(spec["checkpoint"])))
        state = loop.evaluate_released(method, job, run.columns)
    else:
        state = loop.train(method, job)
    if parallel.first():
        _write_result(run, spec, data, rows, method, job, state, products, folder)
        job.checkpoints.clear()


def pick_device(name: str) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda` or `cuda:N`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UserError(f"device '{name}' asked for, but torch sees no CUDA device", "use --device cpu")
        # fp32 means fp32: convolutions would otherwise use tf32
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
    return torch.device(name)


def _build(
    run: matrix.Run, files: dict[str, Path], steps: int, device: torch.device, votes: Votes | None = None
) -> Method:
    """The run's method on the device; `files` are those of its weights roles."""
    experiment, protocol = run.entry.experiment, run.entry.protocol
    context = Context(
        classes=protocol.classes, input_size=int(run.recipe["input_size"]), steps_per_epoch=steps, device=device,
        precision=run.recipe["precision"], seed=run.seed, weights=files, votes=votes,
        restoring=bool(run.checkpoint),
    )  # fmt: skip
    model = Spec(experiment.id, experiment.backbone, run.pretraining, run.options)
    method: Method = registry.find("method", experiment.method).load()(model, run.recipe, context)
    launch.check_network(run, method.net, parallel.size())
    if method.classifies and not protocol.classes:
        raise UserError(f"{run.name}: {experiment.method} classifies, {protocol.id} has no classes", "use another one")
    if run.front and method.front is None:
        message = f"{run.name}: front is '{run.front}', and {experiment.method} with these options has none"
        raise UserError(message, "leave `front` out of the experiment, or correct its options")
    return method


def _votes(run: matrix.Run, data: source.Data, train: np.ndarray) -> Votes | None:
    """What raters said of the training images, where the recipe asks for it."""
    if not run.reads_votes:
        return None
    from bench.data.votes import training_votes

    return training_votes(data.index, run.entry.protocol, train)


def _test_transform(protocol: declare.Protocol) -> loop.Augment | None:
    """What the protocol sends val and test images through."""
    name = protocol.test_transform
    found: loop.Augment | None = registry.find("augmentation", name).load() if name else None
    return found


def _prepared(
    run: matrix.Run, data: source.Data, rows: dict[str, np.ndarray], method: Method, device: torch.device,
    told: Callable[[int, int], None],
) -> tuple[source.Data, Front | None]:  # fmt: skip
    """The data whose images training reads, and what every batch of them goes through ahead of augmentation."""
    if method.front is None or not method.front.once:
        return data, method.front
    wanted = np.concatenate(list(rows.values()))
    return derived.prepared(data, run.entry.protocol, wanted, method.front, device, store.cache_root(), told), None


def _product(role: str, stage: matrix.Run, key: str) -> dict[str, str]:
    """Key of a finished stage, and SHA-256 of its network.

    Raises:
        UserError: it is not finished, or damaged.
    """
    folder = store.find_network(key)
    if folder is None:
        raise UserError(f"stage {role} ({stage.entry.id}) is not finished: {store.run_folder(key)}", "run again")
    return {"key": key, "sha256": store.read_network(folder, store.read_result(folder))}


def _write_result(
    run: matrix.Run, spec: dict[str, Any], data: source.Data, rows: dict[str, np.ndarray], method: Method,
    job: loop.Job, state: loop.State, products: dict[str, dict[str, str]], folder: Path,
) -> None:  # fmt: skip
    """Predictions first, then weights and manifest, result.json last."""
    from safetensors.torch import save

    protocol, experiment = run.entry.protocol, run.entry.experiment
    selections = {}
    for selection, kept in state.kept.items():
        test = data.index.iloc[rows["test"]]
        about = {
            "run": spec["key"], "entry": run.entry.id, "protocol": protocol.id, "classes": list(protocol.classes),
            "selection": selection, "profile": run.profile, "seed": run.seed, "fold": run.fold,
        }  # fmt: skip
        path = folder / f"predictions-{selection}.parquet"
        _write_predictions(path, test["name"].tolist(), test["label"].tolist(), kept, protocol.classes, about)
        selections[selection] = store.Selected(
            epochs=tuple(kept["epochs"]), file=path.name, sha256=store.sha256_file(path)
        )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in method.net.state_dict().items()}
    about_network = {"run": spec["key"], "entry": run.entry.id, "classes": run.outputs or protocol.classes}
    about_network |= {"checkpoint": run.checkpoint} if run.checkpoint else {}
    # one note: safetensors writes several in any order, and the same network is to be the same bytes
    store.write_bytes(folder / store.NETWORK, save(tensors, {"ferbench": json.dumps(about_network, sort_keys=True)}))
    codes, shown = [json.loads(text) for text in state.codes], _shown(run, data)
    departures = _departures(run, data)
    store.write_json(folder / "manifest.json", {
        "machine": provenance.machine(), "code": codes, "torch_threads": torch.get_num_threads(),
        "deterministic": job.device.type == "cpu", "processes": state.processes,
        "backend": parallel.backend(job.device), "weights": weights.hashes(run.weights), "stages": products,
        "data": {
            "hash": data.hash, "images": len(data.index), "skipped": data.skipped, "preprocessing": shown,
            "folder": data.folder, "departures": list(departures),
            "trained_on": {"splits": _trained_on(run, data), "images": len(rows["train"])},
        },
        "specification": {**spec, "data_root": "", "checkpoint": Path(spec.get("checkpoint", "")).name},
        **_front(method, job),
    })  # fmt: skip
    total, trainable = parameter_counts(method.net)
    trained = int(run.recipe["epochs"]) * _steps(job) * int(run.recipe["batch_size"])
    passed, seconds = (len(rows["test"]), state.seconds) if run.checkpoint else (trained, state.train_seconds)
    result = store.Result(
        run=spec["key"], experiment=experiment.id, method=experiment.method, backbone=experiment.backbone,
        pretraining=run.pretraining, augmentation=run.augmentation, options=run.options,
        protocol=protocol.id, classes=protocol.classes, profile=run.profile, synthetic=protocol.synthetic,
        seed=run.seed, fold=run.fold, recipe=run.recipe, selections=selections, history=state.history,
        seconds=round(state.seconds, 2), images_per_second=round(passed / max(1e-9, seconds), 2),
        peak_memory_mb=round(_peak_memory(job.device), 1), parameters=total, trainable_parameters=trainable,
        macs=macs(method.net, int(run.recipe["input_size"])), device=_device_name(job.device),
        versions=codes[-1]["versions"], commit=codes[-1]["commit"], data_hash=data.hash, finished=provenance.now(),
        preprocessing=f"{shown['name']}#{shown['sha256'][:8]}", skipped=len(data.skipped),
        departures=departures, stages={role: made["key"] for role, made in products.items()}, checkpoint=run.checkpoint,
        network_sha256=store.sha256_file(folder / store.NETWORK),
    )  # fmt: skip
    store.write_text(folder / "result.json", result.model_dump_json(indent=1) + "\n")


def _trained_on(run: matrix.Run, data: source.Data) -> list[str]:
    """The splits whose images were training images; none of a checkpoint that is evaluated, nor under folds."""
    fixed = not run.checkpoint and not run.entry.protocol.folds
    return [name for name in run.recipe["train_splits"] if (data.index["split"] == name).any()] if fixed else []


def _front(method: Method, job: loop.Job) -> dict[str, Any]:
    """What the manifest says of a front: its identity where its images are kept, and their size in pixels."""
    if method.front is None:
        return {}
    split = next(split for split in (job.train, *job.evaluated.values()) if len(split))
    with torch.inference_mode():
        for pixels, _ in split.batches(torch.arange(1), 1):
            images = loop.as_float(pixels)
            images = images if split.front is None else split.front.apply(images)
    return {"front": {"once": method.front.once, "size": list(images.shape[-2:])}}


def _shown(run: matrix.Run, data: source.Data) -> dict[str, Any]:
    """What becomes of a stored image until the network sees it: name, settings, and a hash over them."""
    after = {name: run.recipe[name] for name in ("colour", "input_size", "mean", "resize", "std")}
    shown = {**data.preprocessing, **after}
    return {**shown, "sha256": hashlib.sha256(store.canonical(shown)).hexdigest()[:16]}


def _departures(run: matrix.Run, data: source.Data) -> tuple[str, ...]:
    """Why a run is not on the published benchmark: its copy, other preprocessing or colours, another file's weights."""
    adapter = registry.find("dataset", run.entry.protocol.dataset).load()
    own = "" if adapter.own_data else getattr(adapter, "default_preprocessing", "")
    found = [*data.departures, *run.departures]
    if own and run.asked_preprocessing not in ("", own):
        found.append(f"--preprocessing {run.asked_preprocessing} in place of {own}")
    if run.asked_colour:
        found.append(f"--colour {run.asked_colour} in place of the recipe's order")
    return tuple(found)


def _write_predictions(
    path: Path,
    names: list[str],
    labels: list[str],
    kept: dict[str, Any],
    classes: tuple[str, ...],
    about: dict[str, Any],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    repeats = len(kept["epochs"])
    probabilities = kept["probabilities"].reshape(-1, len(classes))
    columns = {
        "name": pa.array(names * repeats),
        "label": pa.array(labels * repeats).dictionary_encode(),
        "epoch": pa.array(np.repeat(np.asarray(kept["epochs"], np.int32), len(names))),
        **{f"p_{name}": pa.array(probabilities[:, i].astype(np.float32)) for i, name in enumerate(classes)},
    }
    table = pa.table(columns).replace_schema_metadata({"ferbench": json.dumps(about)})
    store.write_stream(path, lambda stream: pq.write_table(table, stream, compression="zstd", compression_level=9))


def _code(run: matrix.Run) -> dict[str, Any]:
    """What this process runs: taken before training, since files may change during it."""
    return {"commit": provenance.commit(), "versions": provenance.versions(), "source": run.source_hashes()}


def _steps(job: loop.Job) -> int:
    return loop.steps_per_epoch(len(job.train), int(job.recipe["batch_size"]))


def _preparing(folder: Path, stop: Callable[[], bool]) -> Callable[[int, int], None]:
    """Write progress.json while images are made that training is to read; leave where a stop was requested."""
    begun, last, before = time.monotonic(), 0.0, 0

    def report(done: int, images: int) -> None:
        nonlocal last, before
        if stop():
            raise loop.Interrupted
        now = time.monotonic()
        before = before or done  # an earlier job's images came in no time
        if not done or now - last >= PROGRESS_SECONDS:
            last = now
            rate = (done - before) / max(1e-9, now - begun)
            _progress(folder, {"preparing": done, "images": images, "rate": rate})

    return report


def _reporter(folder: Path, epochs: int) -> Callable[[int, int, int, float], None]:
    """Write progress.json at most twice a second; the executor reads it."""
    last = 0.0

    def report(epoch: int, step: int, steps: int, rate: float) -> None:
        nonlocal last
        if time.monotonic() - last < PROGRESS_SECONDS:
            return
        last = time.monotonic()
        _progress(folder, {"epoch": epoch, "epochs": epochs, "step": step, "steps": steps, "rate": rate})

    return report


def _progress(folder: Path, told: dict[str, float]) -> None:
    if not parallel.first():
        return
    temporary = folder / ".progress.tmp"
    with contextlib.suppress(OSError):  # progress is a courtesy; a full disk is the checkpoint's to report
        temporary.write_text(json.dumps({**told, "pid": os.getpid()}), encoding="utf-8")
        os.replace(temporary, folder / "progress.json")


def _stop_when_asked() -> Callable[[], bool]:
    """True once SIGINT or SIGTERM has come, or the queue that started this job is gone."""
    raised: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: raised.append(received))
    parent = os.getppid()
    return lambda: bool(raised) or os.getppid() != parent


@contextlib.contextmanager
def _locked(folder: Path, stop: Callable[[], bool]) -> Iterator[None]:
    """Hold the run folder alone; wait while another process trains the same run, unless asked to stop.

    Of several processes that share a run the first holds it for all.
    """
    lock = FileLock(folder / "lock")
    while not parallel.from_first(lambda: _acquired(lock)):
        if parallel.any_of(stop()):
            raise loop.Interrupted
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        return False
    return True


def _peak_memory(device: torch.device) -> float:
    """MiB: allocated on the GPU, or resident for the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _device_name(device: torch.device) -> str:
    shared = f", {parallel.size()} processes" if parallel.size() > 1 else ""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) + shared
    return f"CPU {provenance.processor()} ({torch.get_num_threads()} threads{shared})"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
