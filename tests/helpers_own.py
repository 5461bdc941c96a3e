"""Small folders of one's own: images, a ferbench.yaml, and what the adapter makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conftest import png

from bench import declare
from bench.data import source
from bench.data.base import Dataset


def image(number: int) -> bytes:
    return png(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def folders(root: Path, counts: dict[str, int], text: str = "id: mine\npreprocessing: own-64\n") -> Path:
    """Class folders such as `train/happy` with so many images, and a ferbench.yaml."""
    number = 0
    for place, count in counts.items():
        (root / place).mkdir(parents=True)
        for _ in range(count):
            (root / place / f"{number:03d}.png").write_bytes(image(number))
            number += 1
    (root / "ferbench.yaml").write_text(text)
    return root


SPLIT = {"train/happy": 4, "train/Sad": 3, "test/happy": 2, "test/Sad": 2}
LIST = "id: mine\nimages: labels.csv\nlabels: {happy: happiness, grumpy: annoyed}\nsplit: {by: image, test: 0.25}\n"


def listed(root: Path, text: str = LIST, header: str = "image,label,subject", rows: Sequence[str] = ()) -> Path:
    """Twelve images in one folder and a list of them."""
    (root / "faces").mkdir(parents=True)
    lines = [header]
    for number in range(12):
        (root / "faces" / f"{number:02d}.png").write_bytes(image(number))
        lines.append(f"faces/{number:02d}.png,{('happy', 'grumpy')[number % 2]},person {number // 3}")
    (root / "labels.csv").write_text("\n".join([*(lines if not rows else [header, *rows]), ""]))
    (root / "ferbench.yaml").write_text(text)
    return root


def opened(root: Path, skip_bad: bool = False) -> Dataset:
    declared = declare.load(root)
    (protocol,) = [p for p in declared.protocols.values() if p.dataset == "own" and not p.subset_of]
    return source.locate(protocol, root, skip_bad)


def index(root: Path, skip_bad: bool = False) -> Any:
    ds = opened(root, skip_bad)
    return ds.index(ds.protocol)


def counted(frame: Any) -> Counter[tuple[str, str]]:
    return Counter(zip(frame["split"], frame["label"], strict=True))
