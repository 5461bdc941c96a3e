"""Any backbone in a declared experiment, without a declaration of its own.

`experiment+backbone` is that experiment with the backbone from random weights; `experiment+backbone@timm` starts from
timm's pretrained file of the backbone, the role `timm-<backbone>` (`weights.record`). What ran under such an id is
found by it everywhere: in job processes, `show`, `compare` and runs.csv.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import registry, weights
from bench.errors import UnfitWeights, UserError, unknown

if TYPE_CHECKING:
    from bench.declare import Declarations, Experiment
    from bench.matrix import Run
    from bench.method import Method

PRETRAINED = "timm"  # behind the @ of an id, and the experiment's `pretraining`


def name_of(experiment: str, backbone: str, pretrained: bool = False) -> str:
    """Id of an experiment with another backbone."""
    return f"{experiment}+{backbone}" + f"@{PRETRAINED}" * pretrained


def with_backbone(declared: Declarations, name: str) -> Experiment:
    """The experiment that an id with `+` names.

    Experiments that differ in their backbones alone become the same one here. It has the id of the one that is declared
    as such, else that of the first of them with `+` that is itself pretrained, or not: one run, under one name.

    Raises:
        UserError: no such experiment, or not an id of this form. Whether there is such a backbone its method knows.
    """
    base, _, rest = name.partition("+")
    backbone, at, how = rest.partition("@")
    if at and how != PRETRAINED:
        raise unknown("pretraining of a backbone", how, [PRETRAINED])
    if not re.fullmatch(r"\w[\w.-]*", backbone):
        raise UserError(f"'{name}': '{backbone}' is no name of a backbone", f"write {name_of(base, 'resnet18')}")
    wanted = _content(_replaced(declared.experiment(base), backbone, bool(at)))
    for one in declared.experiments.values():
        if _content(one) == wanted:
            return one
    alike = sorted(declared.experiments.values(), key=lambda one: (one.pretraining == "none") == bool(at))
    others = (_replaced(one, backbone, bool(at)) for one in alike)
    return next(one for one in others if _content(one) == wanted)


def _replaced(base: Experiment, backbone: str, pretrained: bool) -> Experiment:
    """An experiment with another backbone: the files of its own go, what prepares its images (`front`) stays."""
    begins = "timm's pretrained weights" if pretrained else "random weights"
    return base.model_copy(
        update={
            "id": name_of(base.id, backbone, pretrained),
            "backbone": backbone,
            "pretraining": PRETRAINED if pretrained else "none",
            "weights": (*filter(None, [base.front]), *([weights.timm_role(backbone)] if pretrained else [])),
            "note": f"{base.id} with the backbone {backbone} from {begins}; in no table",
        }
    )


def _content(experiment: Experiment) -> dict[str, Any]:
    return experiment.model_dump(exclude={"id", "paper", "note"})


@dataclass(frozen=True)
class Tried:
    """What a method makes of a run's backbone.

    Attributes:
        takes_timm: it can start from timm's pretrained file of this backbone.
        unfit: why it cannot from this one, where it takes such files.
        remark: what to tell whoever asks for the backbone by name; may be empty.
        name: the tables' name of the backbone.
        parameters: of the method's whole network.
    """

    takes_timm: bool
    unfit: UnfitWeights | None
    remark: str
    name: str
    parameters: int


def tried(run: Run) -> Tried:
    """The run's network, built without memory.

    Raises:
        UserError: the method cannot take the backbone at all; says what it knows.
    """
    plain, pretrained = built(run, "none"), built(run, PRETRAINED)
    if isinstance(plain, UserError):
        raise plain
    return Tried(
        takes_timm=not isinstance(pretrained, UserError),
        unfit=pretrained if isinstance(pretrained, UnfitWeights) else None,
        remark=plain.remark,
        name=plain.backbone or run.entry.experiment.backbone,
        parameters=sum(parameter.numel() for parameter in plain.net.parameters()),
    )


def check_classes(run: Run) -> None:
    """Raise the method's UserError where it cannot be trained for the run's classes, whatever files are at hand."""
    found = built(run, "none")
    if not isinstance(found, UserError):  # what else is wrong, its job says with the files that it is built from
        found.check_classes()


def built(run: Run, pretraining: str) -> Method | UserError:
    """The run's method with random weights, without memory where it can be; or why it cannot be built."""
    import torch

    from bench.method import Context, Spec

    experiment = run.entry.experiment
    build = registry.find("method", experiment.method).load()
    spec = Spec(experiment.id, experiment.backbone, pretraining, run.options)
    recipe = {**run.recipe, "channels_last": False}
    for device in ("meta", "cpu"):  # some networks make numbers while they are built
        size, classes = int(run.recipe["input_size"]), run.entry.protocol.classes
        context = Context(classes, size, 1, torch.device(device), restoring=True)
        try:
            with torch.device(device):
                found: Method = build(spec, recipe, context)
        except UserError as error:
            return error
        except (NotImplementedError, RuntimeError):
            if device == "cpu":
                raise
        else:
            return found
    raise AssertionError("the processor always answers")
