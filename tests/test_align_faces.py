"""Alignment of one image: the geometry, the choice among several faces, and the real detector."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data.align import faces
from bench.data.align.faces import Face, Settings
from bench.data.synthfer import facts, images, landmarks

POINTS = faces.template(Settings(size=112))


@given(angle=st.floats(-math.pi, math.pi), scale=st.floats(0.05, 20), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_transform_recovers_any_similarity(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = POINTS @ turn.T + np.array([x, y])
    matrix = faces.transform(moved, POINTS)
    back = moved @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(back, POINTS, atol=1e-6)


def test_transform_is_the_best_of_its_neighbours() -> None:
    noisy = POINTS * 1.7 + np.random.default_rng(0).normal(0, 4, POINTS.shape)
    best = faces.transform(noisy, POINTS)

    def error(matrix: np.ndarray) -> float:
        return float(((noisy @ matrix[:, :2].T + matrix[:, 2] - POINTS) ** 2).sum())

    for k in range(4):  # cos, sin, dx, dy
        for step in (-1e-3, 1e-3):
            cos, sin = best[0, 0] + step * (k == 0), best[1, 0] + step * (k == 1)
            other = np.array([[cos, -sin, best[0, 2] + step * (k == 2)], [sin, cos, best[1, 2] + step * (k == 3)]])
            assert error(other) > error(best)


def test_warp_by_whole_pixels_copies_them() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    matrix = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, -10.0]])
    np.testing.assert_array_equal(faces.warp(image, matrix, 32), image[10:42, 20:52])


def test_warp_that_shrinks_keeps_places_and_does_not_alias() -> None:
    image = np.zeros((400, 400), np.uint8)
    image[::2] = 255  # one-pixel stripes average to grey
    small = faces.warp(image, np.array([[0.1, 0.0, -0.45], [0.0, 0.1, -0.45]]), 40)
    assert abs(float(small[4:36, 4:36].mean()) - 127.5) < 2
    assert float(small[4:36, 4:36].std()) < 2
    spot = np.zeros((400, 400), np.uint8)
    spot[190:210, 290:310] = 255
    found = faces.warp(spot, np.array([[0.1, 0.0, -0.45], [0.0, 0.1, -0.45]]), 40)
    y, x = np.argwhere(found > 128).mean(0)
    assert abs(x - 29.5) < 0.6
    assert abs(y - 19.5) < 0.6


def face(x: float, y: float, side: float = 20, probability: float = 0.95) -> Face:
    return Face((x, y, side, side), probability, POINTS / 112 * side + np.array([x, y]))


def test_policies_for_several_faces() -> None:
    three = [face(0, 0, 50, 0.91), face(45, 45, 10, 0.92), face(80, 0, 15, 0.99)]
    shape = (100, 100, 3)
    assert faces.choose(three, shape, "centre") is three[1]
    assert faces.choose(three, shape, "largest") is three[0]
    assert faces.choose(three, shape, "confident") is three[2]
    assert faces.choose(three, shape, "skip") is None
    assert faces.choose(three[:1], shape, "fail") is three[0]


def test_the_real_detector_brings_known_eyes_to_the_template() -> None:
    pytest.importorskip("facenet_pytorch")
    known = facts("rafdb", 0, [1600, 1601, 1604])
    near = 0
    for pixels, points in zip(images(known), landmarks(known), strict=True):
        scene = Image.new("RGB", (320, 280), (90, 120, 140))
        scene.paste(Image.fromarray(pixels).resize((180, 180)), (90, 40))
        aligned, row = faces.align_image(np.asarray(scene), Settings(size=112))
        assert aligned is not None
        if row["status"] == "aligned":
            found = np.array(row["points"].split(), float).reshape(5, 2)
            matrix = faces.transform(found, POINTS)
            eyes = np.stack([points[36:42].mean(0), points[42:48].mean(0)]) * 1.8 + (90, 40)
            near += bool(np.abs(eyes @ matrix[:, :2].T + matrix[:, 2] - POINTS[:2]).max() < 6)
    assert near >= 2
