"""POSTER: Zheng et al., POSTER: A pyramid cross-fusion transformer network for facial expression recognition (2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from bench.errors import UserError, unknown
from bench.method import Context, Method, RecipeValues, Spec, require_weights
from bench.registry import method
from bench.weight_files import read_state
from methods.poster.model import POSTER
from methods.poster.options import Options
from methods.poster.training import Training

PRETRAINING = ("none", "ms1m")
IMAGE_ROLES = ("ir50-ms1m",)
# By landmark net: roles any of which can fill it, files or products of a stage.
LANDMARK_ROLES = {"mobilefacenet": ("mobilefacenet-300w", "mobilefacenet-synthfer"), "onet": ("mtcnn-onet",)}


@method("poster", version=1)
def build(entry: Spec, recipe: RecipeValues, context: Context) -> Method:
    """POSTER: a frozen landmark net and IR-50, joined by a pyramid of cross-fusion transformer encoders."""
    options = Options.parse(entry.options)
    if entry.pretraining not in PRETRAINING:
        raise unknown("pretraining of poster", entry.pretraining, PRETRAINING)
    backbone = f"ir50-{options.landmark}"
    if entry.backbone != backbone:
        raise unknown(f"backbone of poster with landmark {options.landmark}", entry.backbone, [backbone])
    net = POSTER(len(context.classes), options, recipe["colour"])
    if not context.restoring:
        _load(net, entry.pretraining, context)
    return Training(net, recipe, context)


def _load(net: POSTER, pretraining: str, context: Context) -> None:
    """Fill the backbones from `context.weights`: exactly the files that the options call for, no fewer and no more.

    Raises:
        UserError: a file is missing (the landmark net is frozen, so it would stay random) or has no place.
    """
    options = net.options
    wanted: list[tuple[tuple[str, ...], Callable[[Mapping[str, Tensor], str], int]]] = []
    if options.streams != "landmark" and pretraining == "ms1m":
        wanted.append((IMAGE_ROLES, net.load_image_backbone))
    if options.streams != "image":
        wanted.append((LANDMARK_ROLES[options.landmark], net.load_landmark_net))
    known = {role for roles, _ in wanted for role in roles}
    for role in context.weights:
        if role not in known:
            about = f"streams {options.streams}, landmark {options.landmark}, pretraining {pretraining}"
            raise UserError(f"weights '{role}' have no place in poster with {about}", "take the role off 'weights:'")
    for roles, load in wanted:
        given = [role for role in roles if role in context.weights]
        if len(given) > 1:
            raise UserError(f"weights '{given[0]}' and '{given[1]}' are both for the landmark net", "name one of them")
        role = given[0] if given else roles[0]
        path = require_weights(context, role)
        load(read_state(path), f"{path} ({role})")
