"""Targets in place of class labels: what SynthFER gives, how they reach a run, what stays as it was without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Image, ferplus_protocol, write_official

from bench import declare
from bench.data import source
from bench.data.synthfer import facts, landmarks, targets, variants
from bench.data.synthfer.adapter import SynthFER
from bench.data.synthfer.sample import Facts
from bench.declare import Protocol
from bench.errors import UserError

LANDMARKS = "synth-landmarks-68"
# protocols that were there before targets were: SHA-256 of their pixels -> data hash, file name of the manifest
BEFORE = {
    "synth-ferplus-8": (
        "49d70907ce704e1587a0752194a610454d0f999a78672bb5c2c5dcc57a563ecd",
        "8bdf4f9a88d2a495",
        "synth-ferplus-8-634430dd9f04.json",
    ),
    "synth-rafdb-7": (
        "4b4580956b5158302b7b17bc21f27f152d2c9783cee2b9b88b79f0b1ddb38a47",
        "be0ab9ecbb053bfb",
        "synth-rafdb-7-8be39ac4c6b2.json",
    ),
}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Protocol:
    """The landmark protocol on twelve images, in a cache of its own."""
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    small = replace(
        variants.VARIANTS["landmarks"], name="few", size=32, persons={"train": 8, "test": 4},
        splits={"train": {"neutral": 4, "happiness": 4}, "test": {"neutral": 4}},
    )  # fmt: skip
    monkeypatch.setitem(variants.VARIANTS, "few", small)
    counts = {"counts": {"train": 8, "test": 4}, "class_counts": {}, "rule": "variant=few seed=0", "id": "few"}
    return declare.load().protocol(LANDMARKS).model_copy(update=counts)


def test_targets_are_the_renderers_landmarks_as_fractions_of_the_side() -> None:
    protocol = declare.load().protocol(LANDMARKS)
    data = SynthFER(None, protocol)
    names = [data.names()[k] for k in (5, 4100, 0)]
    found = data.targets(protocol.targets, names)
    assert found.dtype == np.float32
    assert found.shape == (3, 68, 2)
    known = landmarks(facts("landmarks", 0, [5, 4100, 0]))
    assert np.allclose(found * 112 - 0.5, known, atol=1e-4)


def test_a_dataset_without_targets_says_so(tmp_path: Path, ferplus_images: list[Image]) -> None:
    write_official(tmp_path, ferplus_images)
    real = source.locate(ferplus_protocol("majority"), tmp_path)
    with pytest.raises(UserError, match="ferplus has no targets 'landmarks-68'"):
        real.targets("landmarks-68", real.names()[:1])
    with pytest.raises(UserError, match="landmarks-68"):
        SynthFER(None, declare.load().protocol(LANDMARKS)).targets("landmarks-5", [])


def test_targets_follow_the_rows_of_the_index(few: Protocol) -> None:
    data = source.open_data(few, None)
    assert data.targets is not None
    asked = SynthFER(None, few).targets("landmarks-68", data.index["name"].tolist())
    assert np.array_equal(data.targets, asked)
    assert set(data.index["split"]) == {"train", "test"}


def test_a_protocol_of_classes_has_no_targets(few: Protocol) -> None:
    assert source.open_data(few.model_copy(update={"targets": ""}), None).targets is None


def test_the_hash_holds_the_targets(few: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    with_targets = source.open_data(few, None).hash
    assert source.open_data(few, None).hash == with_targets
    assert source.open_data(few.model_copy(update={"targets": ""}), None).hash != with_targets
    points = targets.landmarks

    def moved(known: Facts) -> np.ndarray:
        found = points(known)
        found[3, 20, 1] += 0.5
        return found

    monkeypatch.setattr(targets, "landmarks", moved)
    assert source.open_data(few, None).hash != with_targets


def test_the_hash_does_not_depend_on_the_order_of_rows(few: Protocol) -> None:
    data = source.open_data(few, None)
    order = np.random.default_rng(0).permutation(len(data.index))
    shuffled = data.index.iloc[order].reset_index(drop=True)
    assert source._hash(shuffled, "p", (), data.targets[order]) == source._hash(data.index, "p", (), data.targets)
    assert source._hash(shuffled, "p", (), data.targets) != source._hash(data.index, "p", (), data.targets)


@pytest.mark.parametrize("name", sorted(BEFORE))
def test_hashes_and_manifests_of_other_protocols_are_what_they_were(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Committed results and caches keep their keys; the pixels are not rendered here, their hash is known."""
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path))
    pixels, digest, manifest = BEFORE[name]
    known = SimpleNamespace(bad={}, sha256=pixels, array=None, rows=lambda names: None)
    monkeypatch.setattr("bench.data.cache.open_pixels", lambda dataset, cache: known)
    assert source.open_data(declare.load().protocol(name), None).hash == digest
    assert [file.name for file in (tmp_path / "manifests").iterdir()] == [manifest]


def test_the_landmark_protocol_trains_and_tests_without_classes() -> None:
    protocol = declare.load().protocol(LANDMARKS)
    frame = SynthFER(None, protocol).index(protocol)
    rows = source.splits_of(frame, protocol, 0)
    assert {name: len(at) for name, at in rows.items()} == {"train": 4000, "test": 400}
    assert protocol.classes == ()
