"""Checkpoints of the released NR code by our names.

`stn.` and `res.` are named alike. The backbone `model.` is timm's: of timm 0.4 or 0.5, which the released code needs,
or of timm 1.x with the head behind the pooling. The head is Linear, BN, ReLU, dropout, Linear in either.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bench.errors import UserError
from methods.nresizer.timm_names import to_current

PARTS = ("stn.", "res.", "model.")
BACKBONE = "model."


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released checkpoint's tensors by our names, those of one of ours as they are; buffers that timm computes go.

    Raises:
        UserError: there is no backbone under `model.`, or there are tensors of no part of the network.
    """
    foreign = [name for name in state if not name.startswith(PARTS)]
    if foreign or not any(name.startswith(BACKBONE) for name in state):
        told = f"'{foreign[0]}' and {len(foreign) - 1} more" if foreign else "no backbone"
        raise UserError(
            f"the checkpoint: no Neural Resizer: it has {told}, where all names begin with {', '.join(PARTS)}",
            "a backbone's file alone is given as a role of weights: `python run_all.py weights`",
        )
    ahead = {name: value for name, value in state.items() if not name.startswith(BACKBONE)}
    backbone = {name.removeprefix(BACKBONE): value for name, value in state.items() if name.startswith(BACKBONE)}
    return ahead | {BACKBONE + name: value for name, value in to_current(backbone).items()}
