"""Tensors of backbones as timm of 2022 (0.4, 0.5) called them, by the names of timm 1.x.

The released NR code, its checkpoints and many published files are of that time. Its Swin merges patches at the end of
stages 0 to 2, today's at the start of stages 1 to 3; the tensors are the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

BUFFERS = (".relative_position_index", ".attn_mask")  # computed from the window size; files of today leave them out
STAGE = re.compile(r"^layers\.(\d+)\.downsample\.")
POSITIONS = {"pos_embeder.": "pos_embed."}  # of XCiT


def to_current(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's tensors by today's names; a state that has them already comes back as it is, but for BUFFERS."""
    is_swin = any(name.endswith("relative_position_bias_table") for name in state)
    merges_last = any(name.startswith("layers.0.downsample.") for name in state)
    renamed = {}
    for name, value in state.items():
        if name.endswith(BUFFERS):
            continue
        if is_swin and merges_last:
            name = STAGE.sub(lambda stage: f"layers.{int(stage[1]) + 1}.downsample.", name)
        if is_swin and name.startswith("head.") and not name.startswith("head.fc."):
            name = name.replace("head.", "head.fc.", 1)
        for old, new in POSITIONS.items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
        renamed[name] = value
    return renamed
