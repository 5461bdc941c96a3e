"""A file of weights that was trained elsewhere: whose network it fits, and which class each of its outputs is.

A state dict says neither. So a network has to take every one of its tensors, and the order of its outputs is that of
whoever says so: the command line, the record of a registered file, our own file's notes, else the protocol, whose
classes stand in the order in which the dataset's publishers number them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from bench import registry, store, weight_files, weights, weights_add
from bench.data.classes import class_name
from bench.declare import Protocol
from bench.errors import UserError, unknown
from bench.matrix import Run
from bench.method import Context, Method, Spec

ASKED = "--checkpoint-classes"  # who says so, where the command line does
TITLES = {"rafdb": "RAF-DB", "affectnet": "AffectNet", "ferplus": "FERPlus", "ckplus": "CK+", "synthfer": "SynthFER"}


# ------------------------------------------------------------------------------------------------------------- the file
@dataclass(frozen=True)
class Released:
    """One file, read once.

    Attributes:
        state: tensors by name, on the CPU.
        outputs: classes in the order of its outputs; empty where nothing says so.
        outputs_from: who says so.
        trained_on: what it was trained on, in words; empty where nothing says so.
        dataset: what it was trained on, by id; empty where nothing says so.
        ours: the entry that was trained, where a run of ours made the file.
        copy_of: SHA-256 of the file that an evaluation of ours wrote down again as this one.
    """

    path: Path
    sha256: str
    state: Mapping[str, Tensor]
    outputs: tuple[str, ...] = ()
    outputs_from: str = ""
    trained_on: str = ""
    dataset: str = ""
    ours: str = ""
    copy_of: str = ""


def find(file: str, classes: str, protocols: Mapping[str, Protocol]) -> Released:
    """Read a file, or that of a role of weights.yaml, safely.

    Args:
        file: a path or a role.
        classes: the order of its outputs, "surprise,fear,..."; empty where it is not given.
        protocols: by id, to tell on which dataset a network of ours was trained.

    Raises:
        UserError: no such file, one that is no weight file or not its role's, or no order of classes.
    """
    given = class_order(classes) if classes else ()
    path = _path(file)
    state = weight_files.read_state(path)
    found = _described(Released(path, store.sha256_file(path), state), protocols)
    return replace(found, outputs=given, outputs_from=ASKED) if given else found


def _described(file: Released, protocols: Mapping[str, Protocol]) -> Released:
    """The file with what its record, or the notes of a run of ours, say of it."""
    record, ours = _record(file.path, file.sha256), _notes(file.path)
    if ours is not None:  # before the record: added under a role, a network of ours stays ours
        file = replace(file, outputs=ours.classes, outputs_from="the file's own notes")
        if ours.checkpoint:
            told = f"checkpoint {ours.checkpoint[:12]}, written down again by an evaluation on {ours.protocol}"
            return replace(file, trained_on=told, copy_of=ours.checkpoint)
        dataset = protocols[ours.protocol].dataset if ours.protocol in protocols else ""
        return replace(file, trained_on=f"{ours.entry}, by us", dataset=dataset, ours=ours.entry)
    if record is not None:
        weights_add.verify(record.role, file.path, file.state)
        said_by = f"weights.yaml, {record.role}"
        return replace(
            file, outputs=record.classes, outputs_from=said_by, trained_on=record.title, dataset=record.dataset
        )
    return file


def cross_dataset(file: Released, run: Run) -> tuple[str, str] | None:
    """The dataset a file was trained on and the run's, by title; None where they are one, or nothing says the first."""
    tested = run.entry.protocol.dataset
    if file.dataset in ("", tested):
        return None
    return TITLES.get(file.dataset, file.dataset), TITLES.get(tested, tested)


def departures(file: Released, run: Run) -> tuple[str, ...]:
    """Why a file's numbers on a run's row are not those of the row's own released file."""
    found = []
    if file.ours:
        trained, row = file.ours.partition(":")[0], run.entry.experiment.id
        other = "" if trained == row else f", another configuration than {row}"
        found.append(f"trained by this project as {trained}{other}: not a released file")
    if file.copy_of:
        found.append(f"the copy of {file.copy_of[:12]} that an evaluation left: not a released file, evaluate that one")
    crossed = cross_dataset(file, run)
    if crossed is not None:
        found.append(f"trained on {crossed[0]}, tested on {crossed[1]}: a cross-dataset test")
    return tuple(found)


def _path(file: str) -> Path:
    path = Path(file).expanduser()
    if path.exists() or file not in weights.records():
        if path.is_dir():
            raise UserError(f"{file}: is a folder", "give the file in it, such as model.safetensors")
        if not path.is_file():
            near = unknown("role of weights.yaml", file, [r.role for r in weights.records().values() if r.classes])
            raise UserError(f"{file}: no such file", f"nor is it a registered checkpoint: {near}")
        return path
    return weights.require([file])[file]


def _record(path: Path, sha256: str) -> weights.Record | None:
    """The registered classifier that a file is."""
    for record in weights.records().values():
        added = weights.find(record.role) if record.classes else None
        same = added is not None and (added.samefile(path) or weights.hashes([record.role])[record.role] == sha256)
        if record.classes and (same or record.sha256 == sha256):
            return record
    return None


@dataclass(frozen=True)
class _Notes:
    """What a run of ours notes in its model.safetensors; `checkpoint` is the SHA-256 of a file it only evaluated."""

    entry: str
    classes: tuple[str, ...]
    checkpoint: str

    @property
    def protocol(self) -> str:
        return self.entry.partition(":")[2]


def _notes(path: Path) -> _Notes | None:
    if weight_files.kind(path) != "safetensors":
        return None
    from safetensors import safe_open

    with safe_open(path, "pt") as stream:
        noted = stream.metadata() or {}
    try:
        about = json.loads(noted["ferbench"])
        return _Notes(str(about["entry"]), tuple(map(str, about["classes"])), str(about.get("checkpoint", "")))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


# --------------------------------------------------------------------------------------------------------- its classes
def class_order(words: str) -> tuple[str, ...]:
    """Class names in the order of a network's outputs, from "surprise,fear,..." in any spelling of the expressions.

    Raises:
        UserError: a class is named twice, or one is empty.
    """
    named = tuple(class_name(word) or word.strip() for word in words.split(","))
    if "" in named or len(set(named)) < len(named):
        raise UserError(f"'{words}' names a class twice, or none", "name each class once, first output first: a,b,c")
    return named


def other_classes(outputs: Sequence[str], classes: Sequence[str]) -> str:
    """How the classes of a file differ from a protocol's, in words; empty where they are the same but for order."""
    lacking = [name for name in classes if name not in outputs]
    surplus = [name for name in outputs if name not in classes]
    told = [f"lack {', '.join(lacking)}"] * bool(lacking) + [f"have {', '.join(surplus)}"] * bool(surplus)
    return " and ".join(told)


# --------------------------------------------------------------------------------------------------------- its network
@dataclass
class Networks:
    """Which networks a file fits; each distinct one is built once, without memory for its weights.

    Attributes:
        sizes: numbers of classes that a network may have been trained for.
    """

    file: Released
    sizes: Collection[int]
    _tried: dict[bytes, str] = field(default_factory=dict)

    def why_not(self, run: Run) -> str:
        """Why the file cannot answer a run, in words; empty where its network takes every tensor and lacks none."""
        classes = run.entry.protocol.classes
        stop = self._fit(run, len(classes))
        if stop:
            lengths = {value.shape[0] for value in self.file.state.values() if value.ndim == 1}  # a classifier's bias
            others = {size: self._fit(run, size) for size in self.sizes if size in lengths and size != len(classes)}
            found = [size for size, other in others.items() if not other]
            # what else is wrong is told without the classifier's shape
            shortest = min([stop, *others.values()], key=len)
            return f"needs {len(classes)} classes, it has {found[0]}" if found else shortest
        other = other_classes(self.file.outputs or classes, classes)
        return f"its classes, after {self.file.outputs_from}, {other}" if other else ""

    def _fit(self, run: Run, classes: int) -> str:
        experiment, size = run.entry.experiment, run.recipe["input_size"]
        place = store.canonical([experiment.method, experiment.backbone, run.options, size, classes])
        if place not in self._tried:
            self._tried[place] = _try(run, classes, self.file.state)
        return self._tried[place]


def _try(run: Run, classes: int, state: Mapping[str, Tensor]) -> str:
    """What is wrong with a file for the run's network with so many classes; empty where it fits."""
    for device in ("meta", "cpu"):  # a network that cannot be built without memory is built with it
        try:
            with warnings.catch_warnings(), torch.device(device):
                warnings.simplefilter("ignore")  # a tensor is copied to nowhere
                _build(run, classes, device).load_released(state)
        except UserError as error:
            return error.message
        except (NotImplementedError, RuntimeError):
            if device == "cpu":
                raise
        else:
            return ""
    raise AssertionError("the processor always answers")


def _build(run: Run, classes: int, device: str) -> Method:
    """The run's method to compare a file with: without memory where that can be, and without the file of its front."""
    experiment = run.entry.experiment
    context = Context(
        classes=tuple(f"class {i}" for i in range(classes)), input_size=int(run.recipe["input_size"]),
        steps_per_epoch=1, device=torch.device(device), restoring=True,
    )  # fmt: skip
    model = Spec(experiment.id, experiment.backbone, run.pretraining, run.options)
    built: Method = registry.find("method", experiment.method).load()(model, run.recipe, context)
    return built
