"""Alignment: the geometry, the policies, the tree it writes, and what stopping it leaves."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import run_all
from bench.data.align import faces
from bench.data.align import sheet as align_sheet
from bench.data.align import tree as align
from bench.data.align.faces import Face, Settings
from bench.data.synthfer import facts, images, landmarks
from bench.errors import UserError

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


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images; the stand-in detector finds as many faces as the image's first pixel says."""

    def detect(image: np.ndarray, settings: Settings) -> list[Face]:
        return [face(10 + 30 * k, 20) for k in range(int(image[0, 0, 0]) // 100)]

    monkeypatch.setattr(faces, "detect", detect)
    source = tmp_path / "raw"
    for number, (suffix, found) in enumerate([("png", 1), ("png", 0), ("png", 2), ("bmp", 1), ("png", 1), ("png", 1)]):
        path = source / "Image" / "original" / f"test_{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((80, 90, 3), 100 * found, np.uint8)).save(path)
    (source / "labels.txt").write_text("test_0.png 1\n")
    return source


def test_tree_keeps_its_layout(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "aligned"
    counts = align.align(tree, dest, Settings(size=48))
    assert counts == {"aligned": 4, "no-face": 1, "several": 1}
    for path in (tree / "Image" / "original").iterdir():
        with Image.open(dest / path.relative_to(tree)) as image:
            assert image.size == (48, 48)
            assert image.format == {"png": "PNG", "bmp": "BMP"}[path.suffix[1:]]
    assert (dest / "labels.txt").read_text() == "test_0.png 1\n"
    about = json.loads((dest / align.SETTINGS).read_text())
    assert about["complete"] is True
    assert about["name"] == "mtcnn-48"
    rows = {row["path"]: row for row in align.rows_of(dest)}
    assert rows["Image/original/test_2.png"]["faces"] == "2"
    assert rows["Image/original/test_1.png"]["status"] == "no-face"
    assert Image.open(io.BytesIO(align_sheet.sheet(tree, dest, list(rows.values())))).width > 400


def test_stopping_loses_nothing(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, dest = tmp_path / "whole", tmp_path / "aligned"
    align.align(tree, whole, Settings(size=32))
    real, seen = align.align_image, []

    def stops(image: np.ndarray, settings: Settings) -> Any:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(1)
        return real(image, settings)

    monkeypatch.setattr(align, "align_image", stops)
    with pytest.raises(KeyboardInterrupt):
        align.align(tree, dest, Settings(size=32))
    assert json.loads((dest / align.SETTINGS).read_text())["complete"] is False
    with (dest / align.JOURNAL).open("a") as file:
        file.write("Image/original/test_4.png,alig")  # a row that a killed process left half written
    monkeypatch.setattr(align, "align_image", real)
    align.align(tree, dest, Settings(size=32))
    for path in sorted(whole.rglob("*.*")):
        if path.name != align.SETTINGS:
            assert path.read_bytes() == (dest / path.relative_to(whole)).read_bytes(), path


def test_changed_and_removed_images_are_done_again(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "aligned"
    align.align(tree, dest, Settings(size=32))
    first = tree / "Image" / "original" / "test_0.png"
    Image.fromarray(np.full((80, 90, 3), 0, np.uint8)).save(first)
    (dest / "Image" / "original" / "test_4.png").unlink()
    assert align.align(tree, dest, Settings(size=32)) == {"aligned": 3, "no-face": 2, "several": 1}
    assert (dest / "Image" / "original" / "test_4.png").is_file()


def test_refusals(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "aligned"
    align.align(tree, dest, Settings(size=32))
    with pytest.raises(UserError, match="other settings"):
        align.align(tree, dest, Settings(size=64))
    with pytest.raises(UserError, match="lies inside"):
        align.align(tree, tree / "out", Settings())
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not made by"):
        align.align(tree, foreign, Settings())
    with pytest.raises(UserError, match=r"test_1\.png: no face"):
        align.align(tree, tmp_path / "strict", Settings(no_face="fail"))
    with pytest.raises(UserError, match=r"test_2\.png: 2 faces"):
        align.align(tree, tmp_path / "strict2", Settings(several="fail"))
    skipped = align.align(tree, tmp_path / "skip", Settings(size=32, no_face="skip", several="skip"))
    assert skipped == {"aligned": 4, "skipped": 2}
    assert not (tmp_path / "skip" / "Image" / "original" / "test_1.png").exists()
    with pytest.raises(UserError, match="no images"):
        align.align(foreign, tmp_path / "none", Settings())


def test_unreadable_images_are_named_and_the_rest_goes_on(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "Image" / "original" / "test_0.png").write_bytes(b"")
    status = run_all.main(["data", "align", str(tree), str(tmp_path / "out"), "--size", "32", "--jobs", "1"])
    out = capsys.readouterr().out
    assert status == 1
    assert "1 unreadable" in out
    assert "test_0.png is empty" in out


def test_control_characters_in_a_name(tree: Path, tmp_path: Path) -> None:
    (tree / "Image" / "original" / "a\nb.png").write_bytes(b"x")
    with pytest.raises(UserError, match="control characters"):
        align.align(tree, tmp_path / "out", Settings())


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
