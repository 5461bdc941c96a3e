"""A user's own folder: ferbench.yaml, class folders or a list, splits dealt out, problems named, and a whole run."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import png
from helpers_engine import Server, forget
from hypothesis import given, settings
from hypothesis import strategies as st

import run_all
from bench import collect, declare, queue
from bench.data import own_file, source
from bench.data.base import Dataset, find_copies, find_dataset
from bench.data.own import Own
from bench.data.own_file import OwnFile, Split
from bench.data.own_split import deal
from bench.errors import UserError

pytest_plugins = ("helpers_engine",)


def image(number: int) -> bytes:
    return png(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def folders(root: Path, counts: dict[str, int], text: str = "id: mine\npreprocessing: own-64\n") -> Path:
    """Class folders such as `train/happy` with so many images, and a ferbench.yaml."""
    number = 0
    for place, count in counts.items():
        (root / place).mkdir(parents=True)
        for _ in range(count):
            (root / place / f"{number:03d}.png").write_bytes(image(number))
            number += 1
    (root / "ferbench.yaml").write_text(text)
    return root


SPLIT = {"train/happy": 4, "train/Sad": 3, "test/happy": 2, "test/Sad": 2}
LIST = "id: mine\nimages: labels.csv\nlabels: {happy: happiness, grumpy: annoyed}\nsplit: {by: image, test: 0.25}\n"


def listed(root: Path, text: str = LIST, header: str = "image,label,subject", rows: Sequence[str] = ()) -> Path:
    """Twelve images in one folder and a list of them."""
    (root / "faces").mkdir(parents=True)
    lines = [header]
    for number in range(12):
        (root / "faces" / f"{number:02d}.png").write_bytes(image(number))
        lines.append(f"faces/{number:02d}.png,{('happy', 'grumpy')[number % 2]},person {number // 3}")
    (root / "labels.csv").write_text("\n".join([*(lines if not rows else [header, *rows]), ""]))
    (root / "ferbench.yaml").write_text(text)
    return root


def opened(root: Path, skip_bad: bool = False) -> Dataset:
    declared = declare.load(root)
    (protocol,) = [p for p in declared.protocols.values() if p.dataset == "own"]
    return source.locate(protocol, root, skip_bad)


def index(root: Path, skip_bad: bool = False) -> Any:
    ds = opened(root, skip_bad)
    return ds.index(ds.protocol)


def counted(frame: Any) -> Counter[tuple[str, str]]:
    return Counter(zip(frame["split"], frame["label"], strict=True))


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
    from bench import registry

    classes = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    root = folders(tmp_path / "faces", {f"{split}/{name}": 2 for split in ("train", "test") for name in classes})
    for name, known in registry.available("dataset").items():
        adapter = known.load()
        for place in (root, tmp_path):
            found = find_dataset(place, adapter)
            assert found == (root if name == "own" else None), name


# ------------------------------------------------------------------------------------------------------- what is wrong


def change(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected keys and values"),
        ("title: x\n", "id: Field required"),
        ("id: 'my faces'\n", "'my faces': letters, digits"),
        ("id: x\nlabel: {}\n", "did you mean labels"),
        ("id: x\ncolumns: {images: path}\n", "did you mean image"),
        ("id: x\nclasses: [a]\n", "at least two classes"),
        ("id: x\nclasses: [a, b, a]\n", "'a' is given twice"),
        ("id: x\nclasses: [a, 'b c']\n", "class 'b c'"),
        ("id: x\nclasses: [a, b]\nlabels: {x: c}\n", "'x' is mapped to 'c', which is not in classes"),
        ("id: x\nlabels: {0: a, '0': b}\n", "given twice"),
        ("id: x\nimages: ../other.csv\n", "must lie in the folder"),
        ("id: x\nsplit: {by: subject}\n", "fractions with test > 0"),
        ("id: x\nsplit: {test: 0.7, val: 0.4}\n", "fractions with test > 0"),
        ("id: x\nsplit: {test: 0.2, folds: 5}\n", "either folds, or test and val"),
        ("id: x\nsplit: {folds: 1}\n", "at least 2"),
        ("id: x\nsplit: {by: person, test: 0.2}\n", "'image' or 'subject'"),
        ("id: [\n", "not valid YAML"),
        ("id: x\nid: y\n", "given twice"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, says: str) -> None:
    folders(tmp_path / "mine", SPLIT, text)
    with pytest.raises(UserError) as caught:
        declare.load(tmp_path)
    assert str(tmp_path / "mine" / "ferbench.yaml") in caught.value.message
    assert says in caught.value.message


def unknown_folder(root: Path) -> None:
    shutil.copytree(root / "train" / "happy", root / "train" / "grumpy")


def nested_folder(root: Path) -> None:
    (root / "train" / "happy" / "more").mkdir()


def strange_name(root: Path) -> None:
    (root / "train" / "happy" / "a\nb.png").write_bytes(image(0))


def both_layouts(root: Path) -> None:
    shutil.copytree(root / "train" / "happy", root / "happy")


def twice_a_split(root: Path) -> None:
    shutil.copytree(root / "train", root / "training")


def no_test_folder(root: Path) -> None:
    shutil.rmtree(root / "test")


def no_split_at_all(root: Path) -> None:
    shutil.rmtree(root / "test")
    for place in ("happy", "Sad"):
        (root / "train" / place).rename(root / place)
    (root / "train").rmdir()


def a_split_asked_for(root: Path) -> None:
    (root / "ferbench.yaml").write_text("id: mine\nsplit: {test: 0.2}\n")


def a_class_that_never_occurs(root: Path) -> None:
    (root / "ferbench.yaml").write_text("id: mine\nclasses: [happiness, sadness, fear]\n")


def a_class_without_train_images(root: Path) -> None:
    shutil.rmtree(root / "train" / "Sad")


def one_expression(root: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(root / split / "Sad")


def an_unknown_preprocessing(root: Path) -> None:
    (root / "ferbench.yaml").write_text("id: mine\npreprocessing: own-46\n")


@pytest.mark.parametrize(
    ("spoil", "says", "hint"),
    [
        (unknown_folder, ["train/grumpy", "'grumpy' is no class"], "labels: {grumpy: CLASS}"),
        (nested_folder, ["train/happy/more is a folder in a class folder"], "move its images up"),
        (strange_name, ["control character", "a\\nb.png"], "rename"),
        (both_layouts, ["class folders of its own (happy) beside split folders (test)"], "keep one"),
        (twice_a_split, ["two folders of the train split: train and training"], "keep one"),
        (no_test_folder, ["there is no test image"], "ferbench.yaml"),
        (no_split_at_all, ["neither the data nor ferbench.yaml says"], "split: {by: image, test: 0.2}"),
        (a_split_asked_for, ["asks for a split, but the data has one"], "remove"),
        (a_class_that_never_occurs, ["class 'fear' has no image"], "classes"),
        (a_class_without_train_images, ["class 'sadness' has no train image"], "add images"),
        (one_expression, ["ferbench.yaml: no classes are named", "found: happy"], "labels: {happy: CLASS}"),
        (an_unknown_preprocessing, ["ferbench.yaml: unknown preprocessing 'own-46'"], "own-64"),
    ],
)
def test_a_wrong_folder_is_named(tmp_path: Path, spoil: Callable[[Path], None], says: list[str], hint: str) -> None:
    spoil(folders(tmp_path / "mine", SPLIT))
    with pytest.raises(UserError) as caught:
        source.open_data(declare.load(tmp_path).protocol("own/mine"), tmp_path)
    for part in (str(tmp_path / "mine"), *says):
        assert part in caught.value.message
    assert hint in caught.value.hint


ROWS = ["faces/00.png,happy,test", "faces/01.png,grumpy,test", "faces/02.png,happy,train", "faces/03.png,grumpy,train"]


@pytest.mark.parametrize(
    ("row", "kind", "says"),
    [
        ("faces/99.png,happy,test", "missing", "labels.csv, row 6: {root}/faces/99.png is missing"),
        ("faces/04.png,hapy,test", "label", "labels.csv, row 6: label 'hapy' of 'faces/04.png' is no class"),
        ("faces/04.png,,test", "label", "row 6: label ''"),
        ("faces/04.png,happy,dev set 2", "row", "row 6: 'dev set 2' is no split"),
        ("faces/04.png,happy,", "row", "row 6: there is no split"),
        ("faces/04.png,happy", "row", "row 6: 2 fields, but the header has 3"),
        ("faces/00.png,happy,test", "twice", "row 6: 'faces/00.png' is named before"),
        ("./faces//00.png,grumpy,train", "twice", "row 6: 'faces/00.png' is named before"),
        ("../faces/00.png,happy,test", "name", "lies outside"),
        (",happy,test", "name", "'' is no image name"),
        ('"faces/a\nb.png",happy,test', "name", "is no image name"),
    ],
)
def test_a_wrong_row_is_named_and_can_be_skipped(tmp_path: Path, row: str, kind: str, says: str) -> None:
    text = change(LIST, "split: {by: image, test: 0.25}\n", "")
    root = listed(tmp_path / "mine", text, "image,label,split", [*ROWS, row])
    ds = opened(root)
    assert [bad.kind for bad in ds.listing.bad] == [kind]  # type: ignore[attr-defined]
    with pytest.raises(UserError) as caught:
        ds.index(ds.protocol)
    assert says.format(root=root) in caught.value.message
    assert str(root / "labels.csv") in caught.value.message
    assert caught.value.hint
    assert len(index(root, skip_bad=True)) == 4


@pytest.mark.parametrize(
    ("text", "header", "says"),
    [
        (LIST, "path,label,subject", "no column 'image' for the image; its header is: path, label, subject"),
        (LIST + "columns: {split: fold}\n", "image,label,subject", "no column 'fold' for the split"),
        (LIST, "image,image,label", "names a column twice"),
        (change(LIST, "by: image", "by: subject"), "image,label,person", "the data names no subjects"),
        (change(LIST, "labels.csv", "other.csv"), "image,label,subject", "other.csv is missing"),
    ],
)
def test_a_wrong_list_is_named(tmp_path: Path, text: str, header: str, says: str) -> None:
    root = listed(tmp_path, text, header)
    with pytest.raises(UserError, match=r"labels\.csv|other\.csv|ferbench\.yaml") as caught:
        index(root)
    assert says in caught.value.message


def test_a_restored_image_is_seen(tmp_path: Path) -> None:
    root = listed(tmp_path)
    (root / "faces" / "03.png").unlink()
    before = opened(root).fingerprint()
    (root / "faces" / "03.png").write_bytes(image(3))
    assert opened(root).fingerprint() != before
    assert len(index(root)) == 12


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


# ------------------------------------------------------------------------------------------------------ a whole run


@pytest.fixture
def own(tiny: Any, job_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs experiments of the tiny declarations on a folder of one's own."""
    monkeypatch.setattr(queue, "subprocess", job_server)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)
    counts = {f"{split}/{name}": n for split, n in (("train", 8), ("val", 3), ("test", 5)) for name in ("joy", "bored")}
    folders(
        tmp_path / "data" / "x", counts, "id: mine\nlabels: {joy: happiness, bored: bored}\npreprocessing: own-64\n"
    )
    folders(tmp_path / "data" / "y", {"joy": 9, "sad": 9}, "id: folds\nsplit: {folds: 3}\npreprocessing: own-64\n")
    forget()

    def run(*words: str) -> int:
        return run_all.main([*words, "--data-root", str(tmp_path / "data"), "--results", str(tmp_path / "results")])

    return run


def test_experiments_on_own_data_are_run_reported_and_cached(
    own: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--experiment", "tiny", "tiny-plain", "--protocol", "own/mine", "--profile", "short")
    assert own(*words) == 0
    out = capsys.readouterr().out
    assert "2 runnable" in out
    assert "## tiny on own/mine, profile short, val-best, 1 seed" in out
    assert "test images           10" in out
    assert "95 % interval" in out
    assert "macro-F1" in out
    assert "bored" in out
    assert "test-best" in out
    assert "(chosen on the test images)" in out
    assert "tiny (val-best) and tiny-plain (val-best) on own/mine" in out
    assert "p = " in out
    rows = collect.read_rows(tmp_path / "results" / "runs.csv")
    assert {(row["experiment"], row["protocol"]) for row in rows} == {("tiny", "own/mine"), ("tiny-plain", "own/mine")}
    assert {row["class"] for row in collect.read_rows(tmp_path / "results" / "per_class.csv")} == {"happiness", "bored"}
    shown = out[out.index("##") :]
    for line in shown.splitlines():
        if "confusion matrix: " in line:
            table = Path(line.split(": ")[1].split(" and ")[0])
            assert table.is_file()
            assert table.with_suffix(".png").is_file()
    assert own(*words) == 0
    again = capsys.readouterr().out
    assert "2 cached, 0 runnable" in again
    assert again[again.index("##") :] == shown


def test_folds_of_own_data_are_pooled(own: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--experiment", "tiny", "--protocol", "own/folds", "--profile", "short", "--selection", "last")
    assert own(*words) == 0
    out = capsys.readouterr().out
    assert "3 runs" in out
    assert "## tiny on own/folds, profile short, last, 1 seed\n" in out
    assert "test images           18" in out


def test_experiments_run_on_declared_protocols_too(
    own: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own("--experiment", "tiny", "--protocol", "tiny-absent", "tiny-half", "--profile", "quick") == 0
    out = capsys.readouterr().out
    assert "1 runnable" in out  # the stand-in of one is the parent of the other
    assert "## tiny on tiny-4, profile quick, val-best, 1 seed · SYNTHETIC" in out
    assert "## tiny on tiny-half, profile quick, val-best, 1 seed · SYNTHETIC" in out
    assert "test images           15" in out
    assert not (tmp_path / "results" / "runs.csv").exists()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--protocol", "own/mine", "--profile", "short", "--plan"], 0, "runnable  tiny:own/mine seed 0 [short]"),
        ([], 2, "--experiment needs --protocol\n  -> here are own/mine, own/folds"),
        (["--protocol", "own/mien"], 2, "did you mean own/mine"),
        (["--protocol", "own/mine", "--profile", "quick"], 2, "--profile short or paper"),
        (["--protocol", "own/mine", "--table", "tiny-table1"], 2, "runs without a table"),
        (["--protocol", "tiny-absent", "--profile", "short", "--plan"], 3, "no adapter for dataset 'nowhere'"),
    ],
)
def test_what_is_asked_is_answered(
    own: Any, capsys: pytest.CaptureFixture[str], words: list[str], status: int, says: str
) -> None:
    assert own("--experiment", "tiny", *words) == status
    said = capsys.readouterr()
    assert says in said.out + said.err


def test_an_unknown_experiment_has_a_nearest(own: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert own("--experiment", "tinny", "--protocol", "own/mine") == 2
    assert "did you mean tiny" in capsys.readouterr().err


def test_an_entry_on_own_data_is_shown_and_listed(own: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "data")
    assert run_all.main(["show", "tiny:own/mine", "--profile", "short", "--data-root", root]) == 0
    assert '["happiness", "bored"]' in capsys.readouterr().out
    assert run_all.main(["list", "datasets", "--data-root", root]) == 0
    assert "own/mine" in capsys.readouterr().out
