"""SynthFER: the same image every time, faces that do what their action units say, votes of its raters."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data.synthfer import VARIANTS, facts, images, landmarks
from bench.data.synthfer.actions import COLUMN, EXPRESSIONS, UNITS, VOTES
from bench.data.synthfer.rng import Draws, pixel_noise
from bench.data.synthfer.sample import Facts
from bench.declare import ROOT
from bench.errors import UserError

GOLDEN = Path(__file__).parent / "golden" / "synthfer.npz"


def studio(known: Facts, **units: float) -> Facts:
    """The same faces with only the units given as au12=0.8, even light, no occluder, no turn, no noise."""
    wanted = np.zeros_like(known.units)
    for name, value in units.items():
        wanted[:, COLUMN[int(name.removeprefix("au"))]] = value
    still = ("yaw_t", "pitch_t", "roll_t", "occlusion", "noise", "light_x", "gaze_x", "gaze_y", "shift_x", "shift_y")
    scene = {name: np.zeros_like(value) if name in still else value for name, value in known.scene.items()}
    person = {**known.person, "glasses": np.zeros_like(known.person["glasses"])}
    return replace(known, units=wanted, side=np.zeros(len(wanted)), scene=scene, person=person)


# ---- the same image every time


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["ferplus", "affectnet8", "ckplus"]), st.integers(0, 3), st.data())
def test_an_image_does_not_depend_on_its_batch(variant: str, seed: int, data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, VARIANTS[variant].images - 1), min_size=2, max_size=40, unique=True))
    together = images(facts(variant, seed, indices))
    place = data.draw(st.integers(0, len(indices) - 1))
    alone = images(facts(variant, seed, [indices[place]]))
    assert np.array_equal(together[place], alone[0])


def test_chunks_and_order_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    order = np.random.default_rng(0).permutation(60)
    whole = images(facts("affectnet8", 1, range(60)))
    shuffled = images(facts("affectnet8", 1, order))
    assert np.array_equal(whole[order], shuffled)
    monkeypatch.setattr("bench.data.synthfer.render.CHUNK_PIXELS", 7 * 64 * 64)
    assert np.array_equal(whole, images(facts("affectnet8", 1, range(60))))


def test_variant_and_seed_change_the_image() -> None:
    one, other = images(facts("ferplus", 0, range(5))), images(facts("ferplus", 1, range(5)))
    assert all(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_pixels_are_those_of_the_golden_file() -> None:
    """At most one grey level apart; a change of the renderer raises RENDERER_VERSION and renews this file."""
    golden = np.load(GOLDEN)
    for variant in golden.files:
        made = images(facts(variant, 0, range(len(golden[variant]))))
        assert np.abs(made.astype(int) - golden[variant].astype(int)).max() <= 1, variant


def test_bytes_do_not_depend_on_the_processors_vector_units() -> None:
    """A process whose NumPy may use no SIMD beyond the baseline draws the same bytes."""
    from numpy._core import _multiarray_umath as core

    made = "import hashlib; from bench.data.synthfer import facts, images; known = facts('affectnet8', 0, range(9)); "
    made += "print(hashlib.sha256(images(known).tobytes()).hexdigest())"
    off = " ".join(name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name))
    plain = subprocess.run(
        [sys.executable, "-c", made], cwd=ROOT, env={**os.environ, "NPY_DISABLE_CPU_FEATURES": off},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert plain.stdout.strip() == hashlib.sha256(images(facts("affectnet8", 0, range(9))).tobytes()).hexdigest()


@given(st.integers(0, 2**63), st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_draws_are_a_function_of_key_and_index(key: int, indices: list[int]) -> None:
    together, alone = Draws(key, np.array(indices)), Draws(key, np.array(indices[-1:]))
    for _ in range(3):
        assert together.unit()[-1] == alone.unit()[0]
    light, tint = pixel_noise(key, np.array(indices), 64)
    assert np.array_equal(pixel_noise(key, np.array(indices[-1:]), 64)[0][0], light[-1])
    assert not np.array_equal(light, tint)


def test_draws_have_the_stated_moments() -> None:
    draws = Draws(3, np.arange(20000))
    unit, normal = draws.unit(), draws.normal(2.0)
    assert abs(unit.mean() - 0.5) < 0.01
    assert abs(normal.mean()) < 0.06
    assert abs(normal.std() - 2.0) < 0.05
    light, tint = pixel_noise(3, np.arange(4), 4096)
    assert abs(light.std() - 1) < 0.03
    assert abs(tint.std() - 1) < 0.03
    assert abs(float(np.corrcoef(light.ravel(), tint.ravel())[0, 1])) < 0.03


# ---- variants


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_renders(name: str) -> None:
    variant = VARIANTS[name]
    made = images(facts(name, 0, range(8)))
    assert made.dtype == np.uint8
    assert made.shape == (8, *variant.shape)
    spread = made.reshape(8, -1).std(axis=1)
    assert (spread > 8).all(), "a blank picture"


def test_high_resolution_shows_what_a_smaller_picture_does_not() -> None:
    made = images(facts("highres", 0, range(4))).mean(axis=3).astype(np.float32)
    for picture in made:
        one = Image.fromarray(picture)
        back = np.asarray(one.resize((192, 192), Image.Resampling.BICUBIC).resize((384, 384), Image.Resampling.BICUBIC))
        assert np.abs(back - picture).max() > 20, "edges"
        assert np.median(np.abs(back - picture)) < 1, "noise"


def test_grey_is_the_luma_of_colour() -> None:
    known = facts("ferplus", 0, range(12))
    known = replace(known, scene={**known.scene, "noise": np.zeros(12), "warm": np.zeros(12)})
    grey = images(known).astype(float)
    colour = images(replace(known, variant=replace(known.variant, colour=True))).astype(float)
    assert np.abs(colour @ np.array([0.299, 0.587, 0.114]) - grey).mean() < 2.5


def test_an_index_beyond_the_variant_is_refused() -> None:
    with pytest.raises(UserError, match="ferplus"):
        facts("ferplus", 0, [VARIANTS["ferplus"].images])
    with pytest.raises(UserError, match="rafdb"):
        facts("rafbd", 0, [0])


# ---- twins


def test_a_face_at_rest_is_its_own_twin() -> None:
    known = facts("ferplus", 0, range(400))
    rest = np.flatnonzero(known.units.max(axis=1) == 0)
    assert len(rest) > 20
    known = facts("ferplus", 0, rest)
    assert np.array_equal(images(known), images(known, neutral=True))


def test_twins_differ_only_where_the_expression_acts() -> None:
    known = facts("affectnet8", 0, range(200))
    acting = np.flatnonzero((known.intensity > 0.8) & (np.array(known.label) != "neutral") & (np.abs(known.yaw) < 20))
    known = facts("affectnet8", 0, acting)
    face, twin = images(known).astype(int), images(known, neutral=True).astype(int)
    changed = (np.abs(face - twin).max(axis=3) > 0).reshape(len(acting), -1).mean(axis=1)
    assert (changed > 0.01).all()
    still = replace(known, scene={**known.scene, "blur": np.zeros(len(acting))})
    face, twin = images(studio(still, au12=1.0)), images(studio(still))
    assert np.array_equal(face[:, :10], twin[:, :10]), "the forehead's hair and the background stay"
    assert not np.array_equal(face, twin)


# ---- what the units do


def test_landmarks_follow_the_units() -> None:
    known = facts("affectnet8", 0, range(30))
    rest = landmarks(studio(known))
    assert rest.shape == (30, 68, 2)
    inner = rest[:, 17:]
    assert inner.min() > 0
    assert inner.max() < 63
    assert (np.diff(rest[:, 0:17, 0], axis=1) > 0).all(), "the jaw runs from left to right"
    smile = landmarks(studio(known, au12=1.0))
    assert (smile[:, 48, 0] < rest[:, 48, 0] - 1).all()
    assert (smile[:, 54, 0] > rest[:, 54, 0] + 1).all()
    assert (smile[:, [48, 54], 1] < rest[:, [48, 54], 1] - 1).all()
    sad = landmarks(studio(known, au15=1.0))
    assert (sad[:, [48, 54], 1] > rest[:, [48, 54], 1] + 1).all()
    drop = landmarks(studio(known, au26=1.0))
    assert (drop[:, 66, 1] - drop[:, 62, 1] > rest[:, 66, 1] - rest[:, 62, 1] + 3).all()
    assert (drop[:, 8, 1] > rest[:, 8, 1] + 1).all(), "the chin drops with the jaw"
    raised = landmarks(studio(known, au1=1.0, au2=1.0))
    assert (raised[:, 17:27, 1] < rest[:, 17:27, 1] - 1).all()
    frown = landmarks(studio(known, au4=1.0))
    assert (frown[:, [21, 22], 1] > rest[:, [21, 22], 1] + 1).all()
    wide = landmarks(studio(known, au5=1.0))
    assert (wide[:, 37, 1] < rest[:, 37, 1]).all()


def test_contempt_acts_on_one_side() -> None:
    known = facts("affectnet8", 0, range(600))
    rows = np.flatnonzero(np.array(known.label) == "contempt")
    assert set(known.side[rows]) == {-1.0, 1.0}
    assert (np.delete(known.side, rows) == 0).all()
    one = studio(facts("affectnet8", 0, rows), au14=1.0, au12=0.6)
    rest = landmarks(replace(one, units=np.zeros_like(one.units)))
    moved = np.abs(landmarks(replace(one, side=known.side[rows])) - rest).sum(axis=2)
    left, right = moved[:, 48], moved[:, 54]
    assert (np.where(known.side[rows] < 0, left - right, right - left) > 0.5).all()


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_changes_the_picture(unit: int) -> None:
    known = facts("affectnet8", 0, range(12))
    rest = images(studio(known, au25=0.2)).astype(int)
    acting = images(studio(known, **{"au25": 1.0 if unit == 25 else 0.2, f"au{unit}": 1.0})).astype(int)
    changed = (np.abs(acting - rest).max(axis=3) > 6).reshape(12, -1).mean(axis=1)
    assert np.median(changed) > 0.003


def test_units_are_those_of_the_expression() -> None:
    known = facts("ferplus", 0, range(1600))
    label = np.array(known.label)
    mean = {name: known.units[label == name].mean(axis=0) for name in EXPRESSIONS}
    assert mean["happiness"][COLUMN[12]] > 0.5
    assert mean["anger"][COLUMN[4]] > 0.5
    assert mean["disgust"][COLUMN[9]] > 0.5
    assert mean["sadness"][COLUMN[15]] > 0.5
    assert mean["neutral"].max() < 0.05
    assert known.units.min() >= 0
    assert known.units.max() <= 1


# ---- raters


def test_votes_sum_to_ten_and_doubt_falls_with_intensity() -> None:
    known = facts("affectnet8", 0, range(VARIANTS["affectnet8"].images))
    assert (known.votes.sum(axis=1) == 10).all()
    own = known.votes[np.arange(len(known.label)), [VOTES.index(label) for label in known.label]]
    assert (own == known.votes.max(axis=1)).all(), "the label is what most raters see"
    acting = np.array(known.label) != "neutral"
    share, intensity = own[acting] / 10, known.intensity[acting]
    low, high = np.quantile(intensity, [0.33, 0.67])
    weak, strong = share[intensity < low], share[intensity >= high]
    middle = share[(intensity >= low) & (intensity < high)]
    assert weak.mean() + 0.05 < middle.mean()
    assert middle.mean() + 0.05 < strong.mean()


def test_fear_is_taken_for_surprise_more_than_for_happiness() -> None:
    known = facts("affectnet8", 0, range(VARIANTS["affectnet8"].images))
    fear = known.votes[np.array(known.label) == "fear"].sum(axis=0)
    assert fear[VOTES.index("surprise")] > 5 * fear[VOTES.index("happiness")]
