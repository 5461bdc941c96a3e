"""Near duplicates: altered copies are found, different faces are not, however alike they are posed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench import declare
from bench.data import near
from bench.data.synthfer.adapter import SynthFER


def faces(protocol: str, count: int) -> tuple[list[np.ndarray], list[str]]:
    """Some images of a synthetic protocol, and the person in each."""
    ds = SynthFER(None, declare.load().protocol(protocol))
    frame = ds.index(ds.protocol).head(count)
    return list(ds.pixels(frame["name"].tolist())), frame["subject"].tolist()


@pytest.fixture(scope="module")
def aligned() -> np.ndarray:
    """700 thumbnails of different aligned faces, in colour."""
    images, _ = faces("synth-rafdb-7", 700)
    return np.stack([near.thumbnail(image) for image in images])


def search(thumbnails: np.ndarray, rank: list[int], same: list[int] | None = None) -> near.Near:
    return near.find(thumbnails, np.array(rank), np.arange(len(rank)) if same is None else np.array(same))


def darker(image: Image.Image) -> Image.Image:
    return image.point(lambda value: round(0.6 * value + 20))


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((1, 2, image.width - 2, image.height - 1)).resize(image.size, Image.Resampling.BILINEAR)


def compressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=30)
    return Image.open(stream)


def marked(image: Image.Image) -> Image.Image:
    changed = image.copy()
    place = (30, 74, 70, 80)
    changed.paste(Image.blend(changed.crop(place), Image.new("RGB", (40, 6), "white"), 0.4), place)
    return changed


def test_altered_copies_are_found_and_nothing_else() -> None:
    images, _ = faces("synth-rafdb-7", 500)
    changes = (darker, cropped, compressed, marked)
    copies = [np.asarray(changes[k % 4](Image.fromarray(images[k]))) for k in range(60)]
    thumbnails = np.stack([near.thumbnail(image) for image in [*images, *copies]])
    found = search(thumbnails, [0] * len(images) + [1] * len(copies))
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    planted = {(500 + k, k) for k in range(60)}
    assert len(pairs & planted) >= 50
    assert len(pairs - planted) <= 3


def test_different_aligned_faces_are_no_duplicates(aligned: np.ndarray) -> None:
    found = search(aligned, [0] * 500 + [1] * 200)
    assert len(found.first) == 0
    assert found.limit == near.LIMITS[-1]


def test_frames_of_one_person_are_not_all_near() -> None:
    images, people = faces("synth-ckplus-7", 300)
    thumbnails = np.stack([near.thumbnail(image) for image in images])
    persons = {person: k for k, person in enumerate(sorted(set(people)))}
    found = search(thumbnails, [persons[person] % 10 for person in people])  # no person in two parts
    assert len(set(found.first) | set(found.second)) < 0.05 * len(images)
    dealt = np.random.default_rng(0).integers(0, 10, len(images)).tolist()
    found = search(thumbnails, dealt)  # frames of one sequence in different parts are
    assert len(set(found.first) | set(found.second)) > 0.8 * len(images)
    sequences = len({(people[i], people[j]) for i, j in zip(found.first, found.second, strict=True)})
    assert sequences >= 0.5 * len(persons)


def test_mirrored_copies_are_told_apart(aligned: np.ndarray) -> None:
    flipped = aligned[:8, :, ::-1]
    found = search(np.concatenate([aligned[:400], flipped]), [0] * 400 + [1] * 8)
    assert set(found.mirrored) >= {(400 + k, k) for k in range(8)}
    assert len(found.first) == 0


def test_identical_images_are_left_to_the_exact_comparison(aligned: np.ndarray) -> None:
    twins = np.concatenate([aligned[:300], aligned[:20]])
    rank = [0] * 300 + [1] * 20
    assert len(search(twins, rank).first) == 20
    assert len(search(twins, rank, [*range(300), *range(20)]).first) == 0


def test_parts_that_take_no_part(aligned: np.ndarray) -> None:
    twins = np.concatenate([aligned[:50], aligned[:50]])
    assert len(search(twins, [0] * 100).first) == 0
    assert len(search(twins, [0] * 50 + [-1] * 50).first) == 0
    assert len(search(twins, [-1] * 100).first) == 0
    assert len(search(twins[:0], []).first) == 0


def test_blank_images_are_like_nothing() -> None:
    blank = np.stack([np.full((near.SIDE, near.SIDE), value, np.uint8) for value in (0, 90, 90, 255)])
    assert len(search(blank, [0, 0, 1, 1]).first) == 0


@pytest.mark.parametrize("shape", [(48, 48), (100, 100, 3), (31, 20), (480, 640, 3), (1, 1)])
def test_thumbnails_of_any_image(shape: tuple[int, ...]) -> None:
    found = near.thumbnail(np.full(shape, 77, np.uint8))
    assert (found.shape, found.dtype) == ((near.SIDE, near.SIDE), np.uint8)
    assert np.unique(found).tolist() == [77]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), gain=st.floats(0.3, 1.0), offset=st.integers(0, 60))
def test_brightness_and_contrast_do_not_matter(seed: int, gain: float, offset: int) -> None:
    generator = np.random.default_rng(seed)
    image = np.kron(generator.integers(0, 190, (16, 16)), np.ones((2, 2), int)).astype(np.uint8)
    other = np.kron(generator.integers(0, 190, (16, 16)), np.ones((2, 2), int)).astype(np.uint8)
    changed = np.round(gain * image + offset).astype(np.uint8)
    found = search(np.stack([image, other, changed]), [0, 0, 1])
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(2, 0)]
    assert found.score[0] > 0.97


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), parts=st.lists(st.integers(-1, 3), min_size=2, max_size=60))
def test_pairs_obey_the_rules(seed: int, parts: list[int]) -> None:
    generator = np.random.default_rng(seed)
    motifs = generator.integers(0, 256, (5, near.SIDE, near.SIDE))
    which = generator.integers(0, 5, len(parts))
    noise = generator.integers(-40, 41, (len(parts), near.SIDE, near.SIDE))
    thumbnails = np.clip(motifs[which] + noise, 0, 255).astype(np.uint8)
    same = np.arange(len(parts)) // 2
    found = near.find(thumbnails, np.array(parts), same)
    rank = np.array(parts)
    assert (rank[found.first] > rank[found.second]).all()
    assert (rank[found.second] >= 0).all()
    assert (same[found.first] != same[found.second]).all()
    assert (found.score >= found.limit).all()
    assert (np.diff(found.score) <= 0).all()
    assert len(set(zip(found.first, found.second, strict=True))) == len(found.first)
    assert (which[found.first] == which[found.second]).all()
