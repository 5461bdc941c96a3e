"""Preprocessing profiles: decoder, crop, size, kernel and colour of the cached pixels, by name.

Papers say "aligned and resized"; a change of crop or kernel moves accuracies by points. So each way is declared in
preprocessing.yaml, has a name and a hash, and every result says which one it saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.errors import UserError, unknown
from bench.recipe import Declared
from bench.store import canonical
from bench.yaml_files import parse, read_yaml

FILE = Path(__file__).with_name("preprocessing.yaml")


class Preprocessing(Declared):
    """One named way from a stored image to cached pixels."""

    id: str
    dataset: str
    decoder: Literal["pillow"] = "pillow"
    colour: Literal["rgb", "grey"]
    convert: bool = False  # accept RGBA, palette and CMYK files (bench/data/image.py)
    crop: Literal["none", "box"] = "none"
    margin: float = 0.0  # added on each side of the box, as a fraction of its side
    size: int  # pixels, height = width
    kernel: Literal["none", "bilinear", "bicubic", "area", "lanczos"] = "none"
    why: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) grey or (H, W, 3)."""
        return (self.size, self.size) if self.colour == "grey" else (self.size, self.size, 3)

    def settings(self) -> dict[str, Any]:
        """Everything that can change a pixel."""
        return self.model_dump(exclude={"why", "dataset"})

    @property
    def sha256(self) -> str:
        """16 hex digits over the settings."""
        return hashlib.sha256(canonical(self.settings())).hexdigest()[:16]


@lru_cache(maxsize=1)
def profiles() -> dict[str, Preprocessing]:
    """All declared profiles by id."""
    listed = [parse(Preprocessing, item, FILE) for item in read_yaml(FILE)["preprocessing"]]
    return {profile.id: profile for profile in listed}


def profile_of(name: str, dataset: str) -> Preprocessing:
    """The profile `name`; UserError when it is unknown or of another dataset."""
    if name not in profiles():
        raise unknown("preprocessing", name, [p.id for p in profiles().values() if p.dataset == dataset])
    found = profiles()[name]
    if found.dataset != dataset:
        own = [p.id for p in profiles().values() if p.dataset == dataset]
        raise UserError(f"preprocessing '{name}' is of dataset '{found.dataset}', not '{dataset}'", f"known: {own}")
    return found


def by_dataset(names: Iterable[str]) -> dict[str, str]:
    """Dataset -> profile, for profiles named on a command line; UserError when one is unknown or two are of one."""
    found: dict[str, str] = {}
    for name in names:
        if name not in profiles():
            raise unknown("preprocessing", name, profiles())
        dataset = profiles()[name].dataset
        if found.setdefault(dataset, name) != name:
            raise UserError(f"preprocessing '{found[dataset]}' and '{name}' are both of {dataset}", "name one of them")
    return found


def apply(
    image: np.ndarray, profile: Preprocessing, where: str, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Crop, colour and resize one decoded image.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        where: names the image in messages.
        box: x, y, width, height in pixels, for profiles that crop; None leaves the image whole.

    Returns:
        uint8 of `profile.shape`.

    Raises:
        UserError: the size differs and the profile has no kernel, or the box lies outside the image.
    """
    if profile.crop == "box" and box is not None:
        image = _cut(image, box, profile.margin, where)
    image = _colour(image, profile.colour)
    height, width = image.shape[:2]
    if (height, width) == (profile.size, profile.size):
        return image
    if profile.kernel == "none":
        wanted = f"{profile.size}x{profile.size}"
        message = f"{where} is {width}x{height}, not {wanted} as published"
        others = [p.id for p in profiles().values() if p.dataset == profile.dataset and p.kernel != "none"]
        choice = f", or resize with --preprocessing {' or '.join(others)} (no benchmark then)" if others else ""
        raise UserError(message, f"use the published images{choice}")
    return _resize(image, profile.size, profile.kernel)


def _cut(image: np.ndarray, box: tuple[float, float, float, float], margin: float, where: str) -> np.ndarray:
    x, y, width, height = box
    left, right = round(x - margin * width), round(x + width + margin * width)
    top, bottom = round(y - margin * height), round(y + height + margin * height)
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, image.shape[1]), min(bottom, image.shape[0])
    if right - left < 2 or bottom - top < 2:
        message = f"{where}: its face box {box} lies outside the image ({image.shape[1]}x{image.shape[0]})"
        raise UserError(message, "the label file and the images are of different copies; restore both")
    return image[top:bottom, left:right]


def _colour(image: np.ndarray, colour: str) -> np.ndarray:
    if colour == "rgb":
        return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
    if image.ndim == 2:
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L"))


def _resize(image: np.ndarray, size: int, kernel: str) -> np.ndarray:
    from PIL import Image

    kernels = {
        "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "area": Image.Resampling.BOX,
        "lanczos": Image.Resampling.LANCZOS,
    }  # fmt: skip
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((size, size), kernels[kernel]))
