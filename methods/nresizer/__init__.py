"""The Neural Resizer: Hwang et al., Vision transformer equipped with neural resizer on facial expression recognition
task (2022).
"""

from __future__ import annotations

from bench.errors import UserError, unknown
from bench.method import Context, Method, RecipeValues, Spec
from bench.registry import method
from bench.weight_files import read_state
from methods.nresizer.backbones import check_published, is_miniature, load_pretrained, table_name
from methods.nresizer.front import LOADERS, make_front
from methods.nresizer.model import NeuralResizer, backbone_size
from methods.nresizer.options import Options
from methods.nresizer.training import Training

PRETRAINING = ("none", "imagenet1k", "imagenet22k", "timm")


@method("nresizer", version=1)
def build(entry: Spec, recipe: RecipeValues, context: Context) -> Method:
    """Super-resolution and a learnable resizer in front of any timm backbone, with F-PDLS."""
    options = Options.parse(entry.options)
    if entry.pretraining not in PRETRAINING:
        raise unknown("pretraining of nresizer", entry.pretraining, PRETRAINING)
    size = int(recipe["input_size"])
    front = make_front(options, size, context)
    net = NeuralResizer(len(context.classes), entry.backbone, size, options)
    if entry.pretraining == "timm":
        check_published(entry.backbone, backbone_size(size, options), options.scale_down)
    if not context.restoring:
        _load_backbone(net, entry, context)
    method = Training(net, options, front, recipe, context)
    method.backbone = table_name(entry.backbone)
    if is_miniature(entry.backbone, options.scale_down):
        method.remark = f"a miniature of {entry.backbone}"
    return method


def _load_backbone(net: NeuralResizer, entry: Spec, context: Context) -> None:
    """Fill the backbone from the one role that is none of super-resolution's, where pretraining asks for it.

    Raises:
        UserError: the file is missing, or one too many is given.
    """
    given = [role for role in context.weights if role not in LOADERS]
    wanted = 0 if entry.pretraining == "none" else 1
    if len(given) < wanted:
        raise UserError(
            f"pretrained weights of {entry.backbone} ({entry.pretraining}) are not at hand",
            "name their role under 'weights:', or set pretraining to none",
        )
    if len(given) > wanted:
        message = f"weights '{given[wanted]}' have no place in nresizer with pretraining {entry.pretraining}"
        raise UserError(message, "take the role off 'weights:'")
    for role in given:
        load_pretrained(net.model, read_state(context.weights[role]), f"{context.weights[role]} ({role})")
