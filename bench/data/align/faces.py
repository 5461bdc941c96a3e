"""Faces of one image: detection by MTCNN, the choice among several, and the similarity transform to a template.

Detector: MTCNN (Zhang et al. 2016, arXiv 1604.02878) of facenet-pytorch, whose weights are inside the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from bench.errors import UserError

# Where eyes, nose and mouth corners lie in a 112x112 face: the five-point template that ArcFace's preparation uses.
TEMPLATE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
NoFace = Literal["whole", "skip", "fail"]
Several = Literal["centre", "largest", "confident", "skip", "fail"]


@dataclass(frozen=True)
class Settings:
    """Everything that decides the aligned pixels.

    Attributes:
        size: pixels, height = width, of the result.
        zoom: 1 fills the result as the template does; 0.8 leaves more around the face.
        no_face: the whole image resized, no image, or stop.
        several: which of several faces: nearest to the centre, largest, most probable; or no image, or stop.
        probability: faces below it do not count.
        detect_side: larger images are shrunk to this side for detection only.
        quality: of JPEG files (other formats are lossless); no chroma subsampling.
    """

    size: int = 224
    zoom: float = 1.0
    no_face: NoFace = "whole"
    several: Several = "centre"
    probability: float = 0.9
    detect_side: int = 640
    quality: int = 97

    @property
    def name(self) -> str:
        """What the profile is called in results."""
        return f"mtcnn-{self.size}"


@dataclass(frozen=True)
class Face:
    """One detected face, in pixels of the image: box (x, y, width, height) and five points (5, 2)."""

    box: tuple[float, float, float, float]
    probability: float
    points: np.ndarray


def transform(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity (rotation, one scale, shift) that brings points nearest to a target in the least-squares sense.

    Args:
        points, target: (N, 2), x and y.

    Returns:
        (2, 3) matrix M with target ~ M[:, :2] @ point + M[:, 2] (Umeyama 1991, without reflection).
    """
    centre, goal = points.mean(0), target.mean(0)
    a, b = points - centre, target - goal
    # with complex numbers z -> w the best rotation and scale is sum(conj(z) w) / sum |z|^2
    real = float((a * b).sum())
    imaginary = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum())
    norm = max(float((a**2).sum()), 1e-12)
    cos, sin = real / norm, imaginary / norm
    matrix = np.array([[cos, -sin], [sin, cos]])
    return np.concatenate([matrix, (goal - matrix @ centre)[:, None]], axis=1)


def template(settings: Settings) -> np.ndarray:
    """The five points (5, 2) in the result, in pixels."""
    centred = TEMPLATE_112 / 112 - 0.5
    points: np.ndarray = (centred * settings.zoom + 0.5) * settings.size
    return points


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Resample (H, W) or (H, W, 3) uint8 through a (2, 3) similarity, bicubic; borders are grey.

    Where the transform shrinks by two or more, the image is averaged down first, so that nothing aliases.
    """
    from PIL import Image

    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    picture = Image.fromarray(image)
    shrink = max(1, int(1 / max(scale, 1e-6)))
    if shrink > 1:
        picture = picture.reduce(shrink)
        # pixel centres: x = shrink * x' + (shrink - 1) / 2
        offset = matrix[:, :2] @ np.full(2, (shrink - 1) / 2)
        matrix = np.concatenate([matrix[:, :2] * shrink, (matrix[:, 2] + offset)[:, None]], axis=1)
    inverse = np.linalg.inv(np.concatenate([matrix, [[0.0, 0.0, 1.0]]]))
    # Pillow takes coordinates of pixel corners, the matrix those of pixel centres
    inverse[:2, 2] += 0.5 - inverse[:2, :2] @ np.full(2, 0.5)
    fill = 128 if image.ndim == 2 else (128, 128, 128)
    found = picture.transform(
        (size, size), Image.Transform.AFFINE, tuple(inverse[:2].ravel()), Image.Resampling.BICUBIC, fillcolor=fill
    )
    return np.asarray(found)


def choose(faces: Sequence[Face], shape: tuple[int, ...], several: Several) -> Face | None:
    """The face that counts, or None where the policy says that none does. `faces` has at least one."""
    if len(faces) == 1:
        return faces[0]
    if several in ("skip", "fail"):
        return None
    middle = np.array([shape[1] / 2, shape[0] / 2])

    def merit(face: Face) -> float:
        x, y, width, height = face.box
        if several == "centre":
            return -float(np.hypot(*(np.array([x + width / 2, y + height / 2]) - middle)))
        return width * height if several == "largest" else face.probability

    return max(faces, key=merit)


def detect(image: np.ndarray, settings: Settings) -> list[Face]:
    """Faces of an RGB image (H, W, 3) uint8, most probable first."""
    from PIL import Image

    picture = Image.fromarray(image)
    shrink = min(1.0, settings.detect_side / max(picture.size))
    if shrink < 1:
        size = (max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink)))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    if min(picture.size) < 20:  # smaller than the detector's first window
        return []
    boxes, probabilities, points = _detector().detect(picture, landmarks=True)
    if boxes is None:
        return []
    found = []
    for box, probability, five in zip(boxes, probabilities, points, strict=True):
        if probability is not None and probability >= settings.probability:
            x, y, right, bottom = (float(v) / shrink for v in box)
            found.append(Face((x, y, right - x, bottom - y), float(probability), np.asarray(five, float) / shrink))
    return sorted(found, key=lambda face: -face.probability)


@lru_cache(maxsize=1)
def _detector() -> Any:
    try:
        import torch
        from facenet_pytorch import MTCNN
    except ImportError as error:
        raise not_installed(error) from None
    torch.set_num_threads(1)
    return MTCNN(keep_all=True, device="cpu")


def not_installed(error: ImportError) -> UserError:
    """What to install, where the detector is not there."""
    return UserError(f"the face detector is not installed ({error.name})", 'pip install "ferbench[face]"')


def align_image(image: np.ndarray, settings: Settings) -> tuple[np.ndarray | None, dict[str, Any]]:
    """One image: the aligned pixels (size, size[, 3]), None where the policy leaves it out, and what was found."""
    rgb = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    faces = detect(rgb, settings)
    row: dict[str, Any] = {"faces": len(faces)}
    if not faces:
        return _without_face(image, settings, row)
    face = choose(faces, image.shape, settings.several)
    if face is None:
        row["status"] = "failed" if settings.several == "fail" else "skipped"
        return None, row | {"message": f"{len(faces)} faces"}
    matrix = transform(face.points, template(settings))
    x, y, width, height = (round(v, 1) for v in face.box)
    row |= {
        "status": "aligned" if len(faces) == 1 else "several", "probability": round(face.probability, 4),
        "x": x, "y": y, "width": width, "height": height,
        "points": " ".join(f"{v:.1f}" for v in face.points.ravel()),
        "scale": round(math.hypot(matrix[0, 0], matrix[1, 0]), 4),
        "degrees": round(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])), 1),
    }  # fmt: skip
    return warp(image, matrix, settings.size), row


def _without_face(
    image: np.ndarray, settings: Settings, row: dict[str, Any]
) -> tuple[np.ndarray | None, dict[str, Any]]:
    from PIL import Image

    if settings.no_face != "whole":
        return None, row | {"status": "failed" if settings.no_face == "fail" else "skipped", "message": "no face"}
    whole = Image.fromarray(image).resize((settings.size, settings.size), Image.Resampling.BICUBIC)
    return np.asarray(whole), row | {"status": "no-face"}
