"""A user's own folder: ferbench.yaml, class folders or a list, splits dealt out, several folders under one root."""

from __future__ import annotations

import csv
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers_own import LIST, SPLIT, counted, folders, image, index, listed, opened
from hypothesis import given, settings
from hypothesis import strategies as st

import run_all
from bench import declare, registry
from bench.data import source
from bench.data.base import find_copies, find_dataset
from bench.data.own import file as own_file
from bench.data.own.adapter import Own
from bench.data.own.file import OwnFile, Split
from bench.data.own.split import deal
from bench.errors import UserError

# --------------------------------------------------------------------------------------------------- what is read right


def test_class_folders_in_split_folders_need_two_lines(tmp_path: Path) -> None:
    frame = index(folders(tmp_path, SPLIT))
    expected = {("train", "happiness"): 4, ("train", "sadness"): 3, ("test", "happiness"): 2, ("test", "sadness"): 2}
    assert counted(frame) == expected
    assert frame["name"].iloc[0].startswith("train/")


def test_classes_are_in_the_usual_order_unless_they_are_listed(tmp_path: Path) -> None:
    folders(tmp_path / "a", {**SPLIT, "train/neutral": 2, "test/neutral": 1}, "id: a\n")
    folders(tmp_path / "b", SPLIT, "id: b\nclasses: [sadness, happiness]\n")
    folders(tmp_path / "c", SPLIT, "id: c\nlabels: {Sad: gloomy, happy: merry}\n")
    protocols = declare.load(tmp_path).protocols
    assert protocols["own/a"].classes == ("neutral", "happiness", "sadness")
    assert protocols["own/b"].classes == ("sadness", "happiness")
    assert protocols["own/c"].classes == ("gloomy", "merry")


def test_a_list_with_its_own_columns_and_words(tmp_path: Path) -> None:
    columns = "columns: {image: path, label: emotion, split: part}\n"
    text = "id: mine\nimages: lists/all.csv\nlabels: {0: neutral, 1: grumpy, 2: null}\n" + columns
    root = listed(tmp_path, text)
    rows = [(f"faces/{k:02d}.png", k % 3, ("Training", "test")[k > 5]) for k in range(12)]
    (root / "lists").mkdir()
    with (root / "lists" / "all.csv").open("w", newline="") as stream:
        stream.write("\ufeff")
        writer = csv.writer(stream, delimiter=";")
        writer.writerows([("path", "emotion", "part"), *rows])
    ds = opened(root)
    frame = ds.index(ds.protocol)
    assert counted(frame) == {(s, c): 2 for s in ("train", "test") for c in ("neutral", "grumpy")}
    assert "4 images of '2' are left out" in " ".join(ds.remarks())
    assert set(ds.label_files()) == {"ferbench.yaml", "lists/all.csv"}


def test_absolute_paths_and_backslashes_below_the_folder_are_fine(tmp_path: Path) -> None:
    rows = [f"{tmp_path}/faces/00.png,happy", r"faces\02.png,happy", "./faces/01.png,grumpy", "faces/03.png,grumpy"]
    frame = index(listed(tmp_path, LIST.replace("0.25", "0.5"), "image,label", rows))
    assert sorted(frame["name"]) == [f"faces/0{k}.png" for k in range(4)]


def test_a_split_by_subject_shares_no_subject_and_stays(tmp_path: Path) -> None:
    text = LIST.replace("by: image, test: 0.25", "by: subject, test: 0.25, val: 0.25")
    frame = index(listed(tmp_path / "a", text))
    assert set(frame["split"]) == {"train", "val", "test"}
    assert (frame.groupby("subject")["split"].nunique() == 1).all()
    assert frame.equals(index(listed(tmp_path / "b", text)))  # nothing of the place or the machine is in it
    other = index(listed(tmp_path / "c", text.replace("val: 0.25", "val: 0.25, seed: 5")))
    assert frame["name"].tolist() != other["name"].tolist() or frame["split"].tolist() != other["split"].tolist()


def test_folds_dealt_out_or_given(tmp_path: Path) -> None:
    text = LIST.replace("by: image, test: 0.25", "folds: 3")
    dealt = opened(listed(tmp_path / "a", text))
    frame = dealt.index(dealt.protocol)
    assert dealt.protocol.folds == 3
    assert Counter(frame["fold"]) == {0: 4, 1: 4, 2: 4}
    assert set(frame["split"]) == {"test"}
    rows = [f"faces/{k:02d}.png,{('happy', 'grumpy')[k % 2]},{k // 4}" for k in range(12)]
    given = index(listed(tmp_path / "b", text, "image,label,fold", rows))
    assert given.set_index("name")["fold"].to_dict() == {f"faces/{k:02d}.png": k // 4 for k in range(12)}


def test_pixels_are_of_the_size_asked_for(tmp_path: Path) -> None:
    ds = opened(folders(tmp_path, SPLIT))
    (first,) = ds.pixels(ds.names()[:1])
    assert first.shape == (64, 64, 3)


def test_unlisted_images_and_other_files_are_extra(tmp_path: Path) -> None:
    root = folders(tmp_path, SPLIT)
    (root / "train" / "happy" / "notes.txt").write_text("x")
    (root / "train" / "loose.png").write_bytes(image(0))
    assert opened(root).extra() == ["train/loose.png", "train/happy/notes.txt"]
    rows = ["faces/00.png,happy", "faces/01.png,grumpy", "faces/02.png,happy", "faces/03.png,grumpy"]
    assert len(opened(listed(tmp_path / "list", LIST, "image,label", rows)).extra()) == 8


# --------------------------------------------------------------------------------------- several, and the right one


def test_each_protocol_finds_its_own_folder(tmp_path: Path) -> None:
    folders(tmp_path / "b", SPLIT, "id: first\n")
    folders(tmp_path / "a", {"train/happy": 1, "train/fear": 1, "test/fear": 1}, "id: second\n")
    declared = declare.load(tmp_path)
    roots = {name: source.locate(declared.protocol(f"own/{name}"), tmp_path).root for name in ("first", "second")}
    assert roots == {"first": tmp_path / "b", "second": tmp_path / "a"}
    assert [p for p in declare.load().protocols if p.startswith("own/")] == []
    assert find_copies(tmp_path, Own) == [tmp_path / "a", tmp_path / "b"]


def test_the_same_id_twice_names_both_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folders(tmp_path / name, SPLIT)
    with pytest.raises(UserError, match="both have the id 'mine'") as caught:
        declare.load(tmp_path)
    assert all(str(tmp_path / name / "ferbench.yaml") in caught.value.message for name in ("a", "b"))


def test_a_folder_of_ones_own_is_no_copy_of_a_published_dataset(tmp_path: Path) -> None:
    classes = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    root = folders(tmp_path / "faces", {f"{split}/{name}": 2 for split in ("train", "test") for name in classes})
    for name, known in registry.available("dataset").items():
        adapter = known.load()
        for place in (root, tmp_path):
            found = find_dataset(place, adapter)
            assert found == (root if name == "own" else None), name


# ------------------------------------------------------------------------------------------------------- dealing out

WORDS = st.lists(
    st.tuples(st.text("abcdefgh", min_size=1, max_size=6), st.sampled_from("xyz")), min_size=1, unique=True
)


@settings(max_examples=80, deadline=None)
@given(
    images=WORDS, test=st.floats(0.05, 0.6), val=st.sampled_from([0.0, 0.1, 0.3]), seed=st.integers(0, 3),
    shuffled=st.randoms(use_true_random=False),
)  # fmt: skip
def test_every_image_gets_one_part_whatever_the_order(
    images: list[tuple[str, str]], test: float, val: float, seed: int, shuffled: Any
) -> None:
    labels = {f"{label}/{name}": label for name, label in images}
    split = Split(test=test, val=val, seed=seed)
    names = list(labels)
    parts = dict(zip(names, deal(names, [labels[n] for n in names], names, split), strict=True))
    other = shuffled.sample(names, len(names))
    assert (
        parts == dict(zip(other, deal(other, [labels[n] for n in other], other, split), strict=True)) or names == other
    )
    for label in set(labels.values()):
        found = Counter(part for name, part in parts.items() if labels[name] == label)
        total = found.total()
        assert found["train"] >= 1
        assert found["test"] >= (total > 1)
        assert abs(found["test"] - test * total) <= 1
        assert found["val"] == 0 or val


@settings(max_examples=60, deadline=None)
@given(subjects=st.lists(st.integers(0, 8), min_size=9, max_size=60), folds=st.integers(2, 5))
def test_folds_by_subject_are_level_and_share_nobody(subjects: list[int], folds: int) -> None:
    people = [f"person {number}" for number in [*range(9), *subjects]]
    names = [f"{k}.png" for k in range(len(people))]
    parts = deal(names, ["a"] * len(names), people, Split(by="subject", folds=folds))
    of_person = {person: {p for q, p in zip(people, parts, strict=True) if q == person} for person in people}
    assert all(len(found) == 1 for found in of_person.values())
    sizes = Counter(next(iter(found)) for found in of_person.values())
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert set(sizes) == set(range(folds))


def test_too_few_subjects_are_an_error() -> None:
    with pytest.raises(UserError, match="more than 2 subjects"):
        deal(["1", "2"], ["a", "b"], ["x", "y"], Split(by="subject", test=0.2, val=0.2))


@given(st.text(max_size=8))
def test_a_label_is_a_class_by_map_then_name_then_usual_word(word: str) -> None:
    own = OwnFile.model_validate({"id": "x", "labels": {"happy": "sadness", "cross": "anger", "blurred": None}})
    classes = ("sadness", "anger")
    expected = {"happy": "sadness", "blurred": own_file.LEFT_OUT, "sadness": "sadness", "Sad": "sadness"}
    for written, name in {**expected, "angry": "anger", "fear": None, "Happy": None}.items():
        assert own.class_of(written, classes) == name
    if own.class_of(word, classes) is None:
        assert word not in classes


def test_the_examples_of_the_document_are_valid() -> None:
    text = (declare.ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    examples = [OwnFile.model_validate(block) for block in blocks if "experiments" not in block]  # see test_docs.py
    assert [own.protocol_id for own in examples] == ["own/my-faces", "own/my-faces", "own/my-crawl"]
    assert set(examples[1].model_fields_set) >= {"columns", "labels", "classes", "split", "preprocessing"}
    for line in re.findall(r"python run_all\.py ([^\n`]+)", text):
        words = shlex.split(line)
        words = words if words[0] in run_all.COMMANDS else ["run", *words]
        run_all._parser(words[0]).parse_args(words)
