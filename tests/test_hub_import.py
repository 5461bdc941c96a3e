"""Import of a Hugging Face dataset: columns, splits, labels and names of any kind; wrong rows are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import png
from helpers_hub import bring, everything, loaded, own, picture
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.data import source
from bench.data.base import manifest_hash
from bench.data.hub import exporting as hub_export
from bench.data.hub import importing as hub
from bench.data.hub import source as hub_source
from bench.data.hub.source import Columns, Opened
from bench.declare import Protocol
from bench.errors import UserError

pytest_plugins = ("helpers_hub",)


def test_there_and_back_is_the_same_data(faces: Path, tmp_path: Path) -> None:
    ds = own(faces)
    hub_export.export(ds, ds.protocol, tmp_path / "out")
    found = bring(tmp_path / "out", tmp_path / "back")
    assert found.exported_as == "own/faces"
    assert found.protocol == "own/back"
    assert found.alike == []
    back = own(tmp_path / "back")
    frame = back.index(back.protocol)
    assert back.protocol.classes == ds.protocol.classes
    assert len(frame) == 24
    first, listed = ds.index(ds.protocol).set_index("name"), pd.read_csv(tmp_path / "back" / "labels.csv")
    original = dict(zip(listed["image"], listed["name"], strict=True))
    for name, label, split in frame[["name", "label", "split"]].itertuples(index=False):
        assert back.path(name).read_bytes() == ds.path(original[name]).read_bytes()
        assert (label, split) == tuple(first.loc[original[name], ["label", "split"]])
    about = json.loads((tmp_path / "back" / "source.json").read_text())
    assert about["rows"] == {"train": 12, "val": 6, "test": 6}
    assert about["manifest_sha256"] == manifest_hash(ds.index(ds.protocol))


def test_an_export_that_was_changed_is_refused(faces: Path, tmp_path: Path) -> None:
    ds = own(faces)
    hub_export.export(ds, ds.protocol, tmp_path / "out")
    shard = next((tmp_path / "out" / "data").glob("test*"))
    shard.write_bytes(next((tmp_path / "out" / "data").glob("validation*")).read_bytes())
    with pytest.raises(UserError, match="says it is own/faces, but its names, labels or splits are others"):
        bring(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    (tmp_path / "out" / "ferbench.json").unlink()
    assert bring(tmp_path / "out", tmp_path / "back").exported_as == ""


def test_folders_of_images_and_saved_datasets_are_read(faces: Path, tmp_path: Path) -> None:
    (faces / "ferbench.yaml").unlink()
    found = bring(faces, tmp_path / "one")
    assert found.counts["test"] == {"happiness": 2, "cross": 2, "neutral": 2}
    loaded(faces, tmp_path / "hf").save_to_disk(str(tmp_path / "saved"))
    again = bring(tmp_path / "saved", tmp_path / "two")
    assert again.counts == found.counts
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    frame = own(tmp_path / "two").index(own(tmp_path / "two").protocol)
    assert (tmp_path / "two" / frame["name"].iloc[0]).read_bytes() == (
        tmp_path / "one" / frame["name"].iloc[0]
    ).read_bytes()


def rows(*labels: Any, **more: Any) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": png(picture(k)), "path": None}, "label": label, **{c: v[k] for c, v in more.items()}}
        for k, label in enumerate(labels)
    ]


def made(splits: dict[str, list[dict[str, Any]]]) -> Opened:
    return Opened(splits, {}, {"source": "made"}, {})


WORDS = Columns("image", "label", (), "", ())


def test_words_for_classes_are_ordered_and_one_split_is_dealt_out(tmp_path: Path) -> None:
    labels = ["Sad", "happy", "very odd", "happy", "Sad", "very odd"] * 4
    found = hub.import_dataset(made({"train": rows(*labels)}), WORDS, tmp_path / "x", {})
    assert found.counts == {"": {"happiness": 8, "sadness": 8, "very-odd": 8}}
    assert "only the split 'train'" in found.remarks[0]
    ds = own(tmp_path / "x")
    assert set(ds.index(ds.protocol)["split"]) == {"train", "val", "test"}
    assert ds.protocol.classes == ("happiness", "sadness", "very-odd")


def test_without_a_test_split_the_validation_split_is_tested(tmp_path: Path) -> None:
    splits = {"train": rows("happy", "sad"), "validation": rows("happy", "sad")}
    found = hub.import_dataset(made(splits), WORDS, tmp_path / "x", {})
    assert list(found.counts) == ["train", "test"]
    assert "'validation' becomes the test split" in found.remarks[0]


def test_splits_can_be_said_and_left_out(tmp_path: Path) -> None:
    splits = {"one": rows("happy", "sad"), "two": rows("sad", "happy"), "three": rows(None)}
    with pytest.raises(UserError, match=r"one \(unknown\), two \(unknown\)"):
        hub.import_dataset(made(splits), WORDS, tmp_path / "x", {})
    parts = {"one": "train", "two": "test", "three": "none"}
    found = hub.import_dataset(made(splits), WORDS, tmp_path / "x", {}, parts=parts)
    assert list(found.counts) == ["train", "test"]
    with pytest.raises(UserError, match="unknown part 'rest'"):
        hub.import_dataset(made(splits), WORDS, tmp_path / "y", {}, parts={**parts, "three": "rest"})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"image": None, "label": 0}, "made, test, row 3: there is no image"),
        ({"image": {"bytes": b"", "path": None}, "label": 0}, "row 3: there is no image"),
        ({"image": {"bytes": b"<html>", "path": "a.png"}, "label": 0}, "row 3: its bytes are no image"),
        ({"image": {"bytes": None, "path": "/nowhere/a.png"}, "label": 0}, "row 3: /nowhere/a.png cannot be read"),
        ({"image": {"bytes": png(picture(0)), "path": None}, "label": -1}, "row 3: the label is -1"),
        ({"image": {"bytes": png(picture(0)), "path": None}, "label": None}, "row 3: the label is None"),
        ({"image": {"bytes": png(picture(0)), "path": None}, "label": 2}, "row 3: the label is 2"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_left(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    columns = Columns("image", "label", ("happy", "sad"), "", ())
    splits = {"train": rows(0, 1), "test": [*rows(0, 1), row]}
    with pytest.raises(UserError) as caught:
        hub.import_dataset(made(splits), columns, tmp_path / "x", {})
    assert says in caught.value.message
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text(max_size=12) | st.sampled_from(["../../a.png", "A.png", "a.png", "/etc/x", "", ".", "a/b"]))
)
@example(names=["\r0", "a\nb", 'say "x"', "a,b"])
def test_any_name_becomes_a_file_of_its_own_inside(tmp_path_factory: Any, names: list[str]) -> None:
    place = tmp_path_factory.mktemp("any") / "x"
    columns = Columns("image", "label", (), "name", ())
    labels = ["happy" if k % 2 else "sad" for k in range(len(names) + 2)]
    splits = {"train": rows(*labels, name=[*names, "x", "y"]), "test": rows("happy", "sad", name=["x", "x"])}
    hub.import_dataset(made(splits), columns, place, {})
    inside = everything(place) - {"ferbench.yaml", "labels.csv", "source.json"}
    assert len({path.lower() for path in inside}) == len(names) + 4
    ds = own(place)
    frame = ds.index(ds.protocol)
    assert len(frame) == len(names) + 4
    assert not ds.extra()


def feature(kind: str) -> Any:
    library = hub_source._library(offline=True)
    special = {
        "image": library.Image(), "label": library.ClassLabel(names=["happy", "sad"]),
        "list": library.List(library.Value("int32")),
    }  # fmt: skip
    return special.get(kind) or library.Value(kind)


@pytest.mark.parametrize(
    ("features", "options", "says"),
    [
        ({"a": "image", "b": "label"}, {}, Columns("a", "b", ("happy", "sad"), "", ())),
        ({"a": "image", "emotion": "string", "name": "string"}, {}, Columns("a", "emotion", (), "name", ())),
        (
            {"a": "image", "label": "label", "votes": "list", "votes_fear": "int16", "emotion": "string"},
            {},
            Columns("a", "label", ("happy", "sad"), "", ("votes_fear", "emotion")),
        ),
        ({"a": "image", "label": "int64"}, {"classes": ["x", "y"]}, Columns("a", "label", ("x", "y"), "", ())),
        ({"a": "image", "label": "int64"}, {}, "column 'label' holds numbers without names"),
        ({"a": "image", "label": "int64"}, {"classes": ["rafdb"]}, "unknown class order 'rafdb'"),
        ({"a": "image", "b": "image", "label": "label"}, {}, "several image columns: a, b"),
        ({"a": "image", "b": "label", "c": "label"}, {}, "several label columns: b, c; the columns are a (Image), b"),
        ({"a": "image", "word": "string"}, {}, "no label column"),
        ({"a": "image", "word": "string"}, {"label": "word"}, Columns("a", "word", (), "", ())),
        ({"a": "string", "label": "label"}, {}, "no image column"),
        ({"a": "image", "label": "label"}, {"image": "b"}, "unknown column 'b'"),
    ],
)
def test_columns_are_found_by_their_features(
    features: dict[str, str], options: dict[str, Any], says: Columns | str
) -> None:
    known = {name: feature(kind) for name, kind in features.items()}
    if isinstance(says, Columns):
        assert hub_source.find_columns(known, **options) == says
        return
    with pytest.raises(UserError) as caught:
        hub_source.find_columns(known, **options)
    assert says in str(caught.value)


# ------------------------------------------------------------------------------------------- as a published dataset


@pytest.fixture
def raf() -> tuple[Protocol, dict[str, list[dict[str, Any]]]]:
    """A small protocol of RAF-DB and a dataset that is exactly it."""
    classes = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    counts = {"train": 14, "test": 7}
    of_class = {split: dict.fromkeys(classes, n // 7) for split, n in counts.items()}
    protocol = Protocol(
        id="small-raf", dataset="rafdb", classes=classes, rule="official", counts=counts, class_counts=of_class
    )
    splits = {
        split: rows(*[k % 7 for k in range(n)], name=[f"{split}_{k + 1:0{digits}d}.jpg" for k in range(n)])
        for (split, n), digits in zip(counts.items(), (5, 4), strict=True)
    }
    return protocol, splits


def test_a_copy_of_a_published_dataset_is_recognised_and_laid_out(raf: Any, tmp_path: Path) -> None:
    protocol, splits = raf
    columns = Columns("image", "label", protocol.classes, "name", ())
    found = hub.import_dataset(made(splits), columns, tmp_path / "a", {"small-raf": protocol})
    assert found.alike == ["small-raf"]
    assert found.protocol == "own/a"
    again = hub.import_dataset(made(splits), columns, tmp_path / "b", {"small-raf": protocol}, as_dataset="rafdb")
    assert again.protocol == "small-raf"
    assert not (tmp_path / "b" / "ferbench.yaml").exists()
    ds = source.locate(protocol, tmp_path / "b")
    frame = ds.index(protocol)
    assert sorted(frame["name"]) == sorted(row["name"] for part in splits.values() for row in part)


def test_what_is_not_the_dataset_is_not_laid_out_as_it(raf: Any, tmp_path: Path) -> None:
    protocol, splits = raf
    columns = Columns("image", "label", protocol.classes, "name", ())
    splits["test"][0]["label"] = 1
    with pytest.raises(UserError, match="not the images of any protocol of rafdb"):
        hub.import_dataset(made(splits), columns, tmp_path / "a", {"small-raf": protocol}, as_dataset="rafdb")
    with pytest.raises(UserError, match="unknown dataset 'rafbd'"):
        hub.import_dataset(made(splits), columns, tmp_path / "a", {"small-raf": protocol}, as_dataset="rafbd")
    ferplus = protocol.model_copy(update={"dataset": "ferplus"})
    splits["test"][0]["label"] = 0
    with pytest.raises(UserError, match="the adapter of ferplus cannot read class folders"):
        hub.import_dataset(made(splits), columns, tmp_path / "a", {"small-raf": ferplus}, as_dataset="ferplus")
    assert list(tmp_path.iterdir()) == []


def test_boxes_are_not_forgotten_silently(raf: Any, tmp_path: Path) -> None:
    protocol, splits = raf
    for row in [row for part in splits.values() for row in part]:
        row["box_x"] = 3.0
    columns = Columns("image", "label", protocol.classes, "name", ("box_x",))
    with pytest.raises(UserError, match="its images are not cropped"):
        hub.import_dataset(made(splits), columns, tmp_path / "a", {"small-raf": protocol}, as_dataset="rafdb")
    found = hub.import_dataset(made(splits), columns, tmp_path / "a", {"small-raf": protocol})
    assert "nothing crops by them" in found.remarks[0]
    assert "box_x" in (tmp_path / "a" / "labels.csv").read_text()


def test_a_damaged_or_cut_shard_is_named_and_nothing_is_left(faces: Path, tmp_path: Path) -> None:
    ds = own(faces)
    hub_export.export(ds, ds.protocol, tmp_path / "out")
    shard = next((tmp_path / "out" / "data").glob("test*"))
    data = bytearray(shard.read_bytes())
    data[200:400] = bytes(200)
    shard.write_bytes(data)
    with pytest.raises(UserError, match="says it is own/faces, but its images are others"):
        bring(tmp_path / "out", tmp_path / "back")
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="out"):
        bring(tmp_path / "out", tmp_path / "back")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}
