"""Preprocessing profiles: named, hashed, and each setting does what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench import loop
from bench.data import preprocess
from bench.data.preprocess import Preprocessing
from bench.errors import UserError
from bench.recipe import RECIPE_FIELDS

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def profile(**fields: object) -> Preprocessing:
    return Preprocessing.model_validate({"id": "p", "dataset": "d", "colour": "rgb", "size": 20, **fields})


def test_declared_profiles_have_names_of_their_own_and_settings_of_their_own() -> None:
    declared = preprocess.profiles()
    assert len({p.sha256 for p in declared.values()}) >= len(declared) - 1  # two datasets may share a way
    assert all(p.why for p in declared.values())
    assert preprocess.profile_of("rafdb-aligned-100", "rafdb").shape == (100, 100, 3)
    with pytest.raises(UserError, match="did you mean"):
        preprocess.profile_of("rafdb-aligned-10", "rafdb")
    with pytest.raises(UserError, match="of dataset 'rafdb', not 'affectnet'"):
        preprocess.profile_of("rafdb-aligned-100", "affectnet")


def test_every_setting_is_in_the_hash_and_the_reason_is_not() -> None:
    base = profile()
    changes = [
        {"size": 21}, {"colour": "grey"}, {"crop": "box"}, {"margin": 0.1}, {"kernel": "area"}, {"convert": True},
        {"id": "q"},
    ]  # fmt: skip
    hashes = {profile(**change).sha256 for change in changes}
    assert len(hashes | {base.sha256}) == len(changes) + 1
    assert profile(why="because").sha256 == base.sha256


def test_a_published_size_is_demanded_where_there_is_no_kernel() -> None:
    with pytest.raises(UserError, match=r"x\.jpg is 60x40, not 20x20"):
        preprocess.apply(IMAGE, profile(), "x.jpg")
    same = IMAGE[:20, :20]
    np.testing.assert_array_equal(preprocess.apply(same, profile(), "x.jpg"), same)


def test_crop_takes_the_box_and_its_margin() -> None:
    cut = preprocess.apply(IMAGE, profile(crop="box"), "x", (10, 5, 20, 20))
    np.testing.assert_array_equal(cut, IMAGE[5:25, 10:30])
    wide = preprocess.apply(IMAGE, profile(crop="box", margin=0.5), "x", (20, 15, 10, 10))
    np.testing.assert_array_equal(wide, IMAGE[10:30, 15:35])
    at_border = preprocess.apply(IMAGE, profile(crop="box", kernel="bilinear"), "x", (-10, -10, 30, 30))
    expected = preprocess.apply(IMAGE[:20, :20], profile(), "x")
    np.testing.assert_array_equal(at_border, expected)
    with pytest.raises(UserError, match="outside the image"):
        preprocess.apply(IMAGE, profile(crop="box"), "x", (100, 5, 20, 20))


def test_kernels_differ_and_do_not_alias() -> None:
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::2] = 255
    for kernel in ("bilinear", "bicubic", "area", "lanczos"):
        small = preprocess.apply(stripes, profile(kernel=kernel), "x")
        assert small.std() < 12, kernel
    found = {preprocess.apply(IMAGE, profile(kernel=k), "x").tobytes() for k in ("bilinear", "bicubic", "area")}
    assert len(found) == 3


def test_grey_and_colour() -> None:
    grey = preprocess.apply(IMAGE[:20, :20], profile(colour="grey"), "x")
    assert grey.shape == (20, 20)
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 255
    assert int(preprocess.apply(red, profile(colour="grey"), "x")[0, 0]) == 76  # ITU-R 601 luma: 0.299 of red
    back = preprocess.apply(grey, profile(), "x")
    assert back.shape == (20, 20, 3)
    assert (back == grey[..., None]).all()


def recipe(**fields: object) -> dict[str, object]:
    return {**RECIPE_FIELDS, "input_size": 20, "mean": [0.0] * 3, "std": [1.0] * 3, **fields}


def test_colour_order_and_resize_kernel_of_the_recipe() -> None:
    pixels = torch.from_numpy(IMAGE[None, :20, :20])
    rgb = loop.prepare(pixels, recipe())
    torch.testing.assert_close(loop.prepare(pixels, recipe(colour="bgr")), rgb.flip(1))
    grey = torch.from_numpy(np.ascontiguousarray(IMAGE[None, :20, :20, 0]))
    torch.testing.assert_close(loop.prepare(grey, recipe(colour="bgr")), loop.prepare(grey, recipe()))
    sizes = [loop.prepare(pixels, recipe(input_size=33, resize=kernel)) for kernel in ("bilinear", "bicubic")]
    assert sizes[0].shape == sizes[1].shape == (1, 3, 33, 33)
    assert float((sizes[0] - sizes[1]).abs().max()) > 0.01


def test_mean_and_std_meet_the_channel_they_are_given_for() -> None:
    """POSTER reads RAF-DB in BGR and normalises with the RGB statistics: the flip comes first."""
    pixels = torch.zeros(1, 20, 20, 3, dtype=torch.uint8)
    pixels[..., 0] = 255  # red
    out = loop.prepare(pixels, recipe(colour="bgr", mean=[0.1, 0.2, 0.3]))
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([-0.1, -0.2, 0.7]))
