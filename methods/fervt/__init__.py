"""FER-VT: Huang et al., Facial expression recognition with grid-wise attention and visual transformer (2021)."""

from __future__ import annotations

from bench.errors import UserError, unknown
from bench.method import Context, Method, RecipeValues, Spec, Supervised, require_weights
from bench.registry import method
from methods.fervt.model import FERVT, Options

PRETRAINING = ("none", "imagenet1k")


@method("fervt", version=1)
def build(entry: Spec, recipe: RecipeValues, context: Context) -> Method:
    """FER-VT: ResNet with grid-wise attention and a transformer over tokens of its last three stages."""
    options = Options.parse(entry.options)
    size = int(recipe["input_size"])
    if options.gwa and (size % options.grid[0] or size % options.grid[1]):
        h, w = options.grid
        raise UserError(f"input_size {size} is not divisible by grid {h} x {w}", "use 192, 96 or 48, or another grid")
    net = FERVT(len(context.classes), size, entry.backbone, options)
    if entry.pretraining not in PRETRAINING:
        raise unknown("pretraining of fervt", entry.pretraining, PRETRAINING)
    if entry.pretraining == "imagenet1k":
        net.backbone.load_pretrained(require_weights(context, f"{entry.backbone}-imagenet1k"))
    return Supervised(net, recipe, context)
