"""PF-ViT: Li et al., Emotion separation and recognition from a facial expression by generating the poker face with
vision transformers (2024).
"""

from __future__ import annotations

import torch
from torch import nn

from bench.errors import UserError, unknown
from bench.method import Context, Method, RecipeValues, Spec
from bench.registry import method
from methods.mae.released import load_mae
from methods.mae.sizes import size_of
from methods.mae.vit import Decoder, Encoder
from methods.pfvit.constraint import ROLES, make_constraint
from methods.pfvit.model import Discriminator, PFViT
from methods.pfvit.options import Options
from methods.pfvit.training import Training

MASKED = "mae-"  # how roles of masked autoencoders begin, and the names of such pretraining
PRETRAINING = ("none", "mae-affectnet", "mae-imagenet1k")


@method("pfvit", version=1)
def build(entry: Spec, recipe: RecipeValues, context: Context) -> Method:
    """PF-ViT with a ViT-T, -S or -B: its encoder, generator and discriminator start from one masked autoencoder."""
    options = Options.parse(entry.options)
    pretrained = entry.pretraining.startswith(MASKED)
    if not pretrained and entry.pretraining != "none":
        raise unknown("pretraining of pfvit", entry.pretraining, PRETRAINING)
    if options.constraint_network == "mae-encoder" and not (pretrained or context.restoring):
        raise UserError("constraint_network mae-encoder is a copy of a pretrained encoder", "pretraining is none here")
    size = size_of(entry.backbone, options.scale_down, context.input_size)
    net = PFViT(size, context.input_size, len(context.classes), options)
    if not context.restoring:
        _start(net, pretrained, context)
    constraint = make_constraint(options.constraint_network, net.encoder, recipe, context)
    method = Training(net, constraint, recipe, context)
    if options.scale_down != "full":
        method.remark = f"a miniature of {entry.backbone}"
    return method


def _start(net: PFViT, pretrained: bool, context: Context) -> None:
    """Give encoder, generator and discriminator what they start from.

    Raises:
        UserError: the file of the masked autoencoder is missing, or a file has no place.
    """
    masked = [role for role in context.weights if role.startswith(MASKED)]
    for role in [*masked[1:], *(masked[:1] if not pretrained else [])]:
        about = f"which already has '{masked[0]}'" if pretrained else "with pretraining none"
        raise UserError(f"weights '{role}' have no place in pfvit, {about}", "take the role off 'weights:'")
    network = net.options.constraint_network
    for role in context.weights:
        if role not in masked and role not in ROLES[network]:
            message = f"weights '{role}' have no place in pfvit with constraint_network {network}"
            raise UserError(message, "take the role off 'weights:'")
    if pretrained and not masked:
        message = "the masked autoencoder that pfvit starts from is not at hand"
        raise UserError(message, f"name its role ('{MASKED}...') under 'weights:', or set pretraining to none")
    for role in masked:
        load_mae(net.encoder, net.generator.decoder, context.weights[role], role)
    start_discriminator(net.discriminator, net.encoder, net.generator.decoder, net.options.discriminator_stem)


def start_discriminator(discriminator: Discriminator, encoder: Encoder, decoder: Decoder, stem: str) -> None:
    """Generator and discriminator "have the same initial weights" (Fig. 2), pretrained or not.

    With stem `encoder` also what is ahead of the blocks comes from the masked autoencoder: its patch embedding and its
    class token, each through the Linear by which its decoder begins. Both are linear, so one convolution is both.
    """
    discriminator.blocks.load_state_dict(decoder.blocks.state_dict())
    discriminator.norm.load_state_dict(decoder.norm.state_dict())
    if stem == "own":
        return
    if not isinstance(encoder.patch_embed.proj, nn.Conv2d):
        raise UserError(
            "discriminator_stem encoder needs a linear patch embedding", "miniatures have convolutions there"
        )
    patch, into = encoder.patch_embed.proj, decoder.embed
    with torch.no_grad():
        discriminator.embed.weight.copy_((into.weight @ patch.weight.flatten(1)).unflatten(1, patch.weight.shape[1:]))
        discriminator.embed.bias.copy_(into(patch.bias))
        discriminator.cls_token.copy_(into(encoder.cls_token))
