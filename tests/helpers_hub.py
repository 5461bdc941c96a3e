"""A small dataset of one's own to export, and what Hugging Face's library and our import make of a folder.

Used with `pytest_plugins = ("helpers_hub",)`; it asserts little and needs no rewriting (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import png

from bench import declare
from bench.data import source
from bench.data.hub import importing as hub
from bench.data.hub import source as hub_source
from bench.data.own.adapter import Own


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def jpeg(number: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture(number)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Twenty-four images of three classes in JPEG and PNG, own data."""
    root = tmp_path / "data" / "faces"
    for number in range(24):
        place = root / ("train", "train", "val", "test")[number % 4] / ("Happy", "neutral", "cross")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        name, data = (f"{number}.jpg", jpeg(number)) if number % 2 else (f"{number}.png", png(picture(number)))
        (place / name).write_bytes(data)
    (root / "ferbench.yaml").write_text("id: faces\nlabels: {cross: cross, Happy: happiness, neutral: neutral}\n")
    return root


def own(root: Path) -> Own:
    (protocol,) = [p for p in declare.load(root).protocols.values() if p.dataset == "own" and not p.subset_of]
    found = source.locate(protocol, root)
    assert isinstance(found, Own)
    return found


def loaded(folder: Path, cache: Path) -> Any:
    library = hub_source._library(offline=True)
    return library.load_dataset(str(folder), cache_dir=str(cache))


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def bring(place: Path, to: Path, **options: Any) -> hub.Imported:
    """What `data import` does."""
    opened = hub_source.open_source(str(place))
    columns = hub_source.find_columns(opened.features)
    return hub.import_dataset(opened, columns, to, declare.load().protocols, **options)
