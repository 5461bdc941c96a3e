"""Export to and import from Hugging Face datasets: names, labels and pixels survive; nothing is written by halves."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ferplus_protocol, png, write_csvs, write_official
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import run_all
from bench import declare
from bench.data import hub, hub_export, hub_source, source
from bench.data.base import manifest_hash
from bench.data.ferplus import FERPlus
from bench.data.hub_source import Columns, Opened
from bench.data.own import Own
from bench.declare import Protocol
from bench.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def jpeg(number: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture(number)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Twenty-four images of three classes in JPEG and PNG, own data."""
    root = tmp_path / "data" / "faces"
    for number in range(24):
        place = root / ("train", "train", "val", "test")[number % 4] / ("Happy", "neutral", "cross")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        name, data = (f"{number}.jpg", jpeg(number)) if number % 2 else (f"{number}.png", png(picture(number)))
        (place / name).write_bytes(data)
    (root / "ferbench.yaml").write_text("id: faces\nlabels: {cross: cross, Happy: happiness, neutral: neutral}\n")
    return root


def own(root: Path) -> Own:
    (protocol,) = [p for p in declare.load(root).protocols.values() if p.dataset == "own"]
    found = source.locate(protocol, root)
    assert isinstance(found, Own)
    return found


def loaded(folder: Path, cache: Path) -> Any:
    library = hub_source._library(offline=True)
    return library.load_dataset(str(folder), cache_dir=str(cache))


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def bring(place: Path, to: Path, **options: Any) -> hub.Imported:
    """What `data import` does."""
    opened = hub_source.open_source(str(place))
    columns = hub_source.find_columns(opened.features)
    return hub.import_dataset(opened, columns, to, declare.load().protocols, **options)


# --------------------------------------------------------------------------------------------------------------- export


def test_an_export_loads_with_the_same_names_labels_and_bytes(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_export, "GROUP_ROWS", 4)
    monkeypatch.setattr(hub_export, "SHARD_BYTES", 3000)
    ds = own(faces)
    found = hub_export.export(ds, ds.protocol, tmp_path / "out")
    assert found.counts == {"train": 12, "val": 6, "test": 6}
    shards = [name for name in found.files if "train" in name]
    assert len(shards) > 1
    assert all(name.endswith(f"-of-{len(shards):05d}.parquet") for name in shards)
    assert everything(tmp_path / "out") == {*found.files, "README.md", "ferbench.json"}
    splits = loaded(tmp_path / "out", tmp_path / "hf")
    frame = ds.index(ds.protocol).set_index("name")
    seen = {}
    for split, rows in splits.items():
        assert rows.features["label"].names == ["cross", "happiness", "neutral"]
        for row in rows:
            part = {"validation": "val"}.get(split, split)
            seen[row["name"]] = (rows.features["label"].int2str(row["label"]), part)
            assert np.array_equal(np.asarray(row["image"]), ds.read(row["name"]))
    assert seen == {name: (row["label"], row["split"]) for name, row in frame.iterrows()}
    stored = splits["test"].cast_column("image", hub_source._library(True).Image(decode=False))
    assert all((faces / row["name"]).read_bytes() == row["image"]["bytes"] for row in stored)


def test_the_card_has_a_header_the_hub_reads_and_the_terms(faces: Path, tmp_path: Path) -> None:
    ds = own(faces)
    found = hub_export.export(ds, ds.protocol, tmp_path / "out")
    _, header, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(header)
    (config,) = about["configs"]
    assert [part["split"] for part in config["data_files"]] == ["train", "validation", "test"]
    features = {feature["name"]: feature["dtype"] for feature in about["dataset_info"]["features"]}
    assert features["image"] == "image"
    assert features["label"] == {"class_label": {"names": {"0": "cross", "1": "happiness", "2": "neutral"}}}
    assert {part["name"]: part["num_examples"] for part in about["dataset_info"]["splits"]}["train"] == 12
    assert found.manifest_sha256 == manifest_hash(ds.index(ds.protocol))
    assert found.manifest_sha256 in text
    assert "own images" in text
    for name in ("raf-db-7", "affectnet-7", "ckplus-7@last3", "ferplus-8@majority"):
        protocol = declare.load().protocol(name)
        frame = ds.index(ds.protocol).assign(label=protocol.classes[0])
        assert "Do not upload" in hub_export.card(protocol, frame, found)


@pytest.mark.parametrize("layout", ["folders", "csv"])
def test_ferplus_keeps_its_votes_and_rows_of_a_table_become_png(
    ferplus_images: Any, tmp_path: Path, layout: str
) -> None:
    protocol = ferplus_protocol("majority" if layout == "folders" else "majority/fer2013new")
    root = (write_official if layout == "folders" else write_csvs)(tmp_path / "ferplus", ferplus_images)
    ds = FERPlus(root, protocol)
    hub_export.export(ds, protocol, tmp_path / "out")
    frame = ds.index(protocol).set_index("name")
    pixels = {name: image for _, name, _, image in ferplus_images}
    count = 0
    for rows in loaded(tmp_path / "out", tmp_path / "hf").values():
        assert rows.features["votes_fear"].dtype == "int16"
        for row in rows:
            assert np.array_equal(np.asarray(row["image"]), pixels[row["name"]])
            assert row["votes_fear"] == frame.loc[row["name"], "votes_fear"]
            count += 1
    assert count == len(frame)


def test_folds_and_subjects_go_with_it_and_come_back(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    (root / "all").mkdir(parents=True)
    lines = ["image,label,subject"]
    for number in range(12):
        (root / "all" / f"{number}.png").write_bytes(png(picture(number)))
        lines.append(f"all/{number}.png,{('happy', 'sad')[number % 2]},p{number // 2}")
    (root / "labels.csv").write_text("\n".join(lines))
    (root / "ferbench.yaml").write_text("id: mine\nimages: labels.csv\nsplit: {folds: 3, by: subject}\n")
    ds = own(root)
    hub_export.export(ds, ds.protocol, tmp_path / "out")
    found = bring(tmp_path / "out", tmp_path / "back")
    assert found.exported_as == "own/mine"
    back = own(tmp_path / "back")
    assert back.protocol.folds == 3
    first, second = ds.index(ds.protocol), back.index(back.protocol)
    assert dict(zip(first["subject"], first["fold"], strict=True)) == dict(
        zip(second["subject"], second["fold"], strict=True)
    )


def test_a_synthetic_protocol_can_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = declare.load().protocol("synth-own-7")
    ds = source.locate(protocol, None)
    frame = ds.index(protocol).groupby("split").head(7)
    monkeypatch.setattr(type(ds), "index", lambda self, protocol: frame)
    hub_export.export(ds, protocol, tmp_path / "out")
    rows = loaded(tmp_path / "out", tmp_path / "hf")["train"]
    assert np.array_equal(np.asarray(rows[0]["image"]), ds.read(rows[0]["name"]))
    assert "no person is shown" in (tmp_path / "out" / "README.md").read_text()


def wrong_counts(root: Path) -> Protocol:
    return own(root).protocol.model_copy(update={"counts": {"train": 13, "val": 6, "test": 6}})


def damaged(root: Path) -> Protocol:
    next(root.glob("test/*/*.jpg")).write_bytes(b"\xff\xd8\xff nothing")
    return own(root).protocol


def unmapped(root: Path) -> Protocol:
    (root / "train" / "cross").rename(root / "train" / "other")
    return own(root).protocol


def occupied(root: Path) -> Protocol:
    (root.parent.parent / "out").mkdir()
    (root.parent.parent / "out" / "mine").write_text("mine")
    return own(root).protocol


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (wrong_counts, "train: expected 13, found 12"),
        (damaged, "is not a readable image"),
        (unmapped, "'other' is no class"),
        (occupied, "exists and is not empty"),
    ],
)
def test_what_is_not_exact_is_not_exported(
    faces: Path, tmp_path: Path, spoil: Callable[[Path], Protocol], says: str
) -> None:
    protocol = spoil(faces)
    before = everything(tmp_path)
    with pytest.raises(UserError, match=says):
        hub_export.export(own(faces), protocol, tmp_path / "out")
    assert everything(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "out"}


def test_a_full_disk_leaves_nothing(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    ds = own(faces)
    with pytest.raises(UserError, match="the disk is full"):
        hub_export.export(ds, ds.protocol, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


# --------------------------------------------------------------------------------------------------------------- import


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


# ------------------------------------------------------------------------------------------------------------- commands


def test_the_commands_say_what_comes_next(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, back = str(tmp_path / "out"), str(tmp_path / "back")
    assert run_all.main(["data", "export", "own/faces", out, "--data-root", str(faces.parent)]) == 0
    said = capsys.readouterr().out
    assert "own/faces: train 12, val 6, test 6" in said
    assert f"datasets.load_dataset({out!r})" in said
    assert run_all.main(["data", "import", out, back]) == 0
    said = capsys.readouterr().out
    assert "exported by ferbench from own/faces: names, labels and splits are unchanged" in said
    assert "those of no declared protocol" in said
    assert f"data verify {back}" in said
    assert "--protocol own/back" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["import", "{tmp}/nothing", "{tmp}/x"], "neither a folder nor owner/name"),
        (["import", "{tmp}/empty", "{tmp}/x"], "expected parquet files, or folders of images"),
        (["import", "{tmp}/saved", "{tmp}/x"], "save it again"),
        (["import", "{tmp}/data/faces", "{tmp}/x", "--splits", "test"], "write NAME=train"),
        (["import", "{tmp}/data/faces", "{tmp}/x", "--splits", "tset=test"], "unknown split 'tset'"),
        (["import", "{tmp}/data/faces", "{tmp}/data"], "exists and is not empty"),
        (["export", "own/faecs", "{tmp}/x", "--data-root", "{tmp}/data"], "did you mean own/faces"),
        (["export", "raf-db-7", "{tmp}/x", "--data-root", "{tmp}/data"], "rafdb: not found under"),
    ],
)
def test_what_is_wrong_is_2(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("{}")
    assert run_all.main(["data", *[word.format(tmp=tmp_path) for word in words]]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_hub_out_of_reach_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'owner/faces' on the Hub (ConnectError)")

    monkeypatch.setattr(hub_source._library(offline=True), "load_dataset", unreachable)
    assert run_all.main(["data", "import", "owner/faces", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert "owner/faces cannot be fetched: Couldn't reach 'owner/faces' on the Hub" in said
    assert "hf download --repo-type dataset owner/faces --local-dir DIR" in said


def test_a_local_import_leaves_nothing_in_the_users_caches(faces: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (faces / "ferbench.yaml").unlink()
    names = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"HOME": str(home), "FERBENCH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "run_all.py", "data", "import", str(faces), str(tmp_path / "x")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert everything(home) == set()
    assert everything(tmp_path / "x")


@pytest.mark.slow
def test_real_ferplus_there_and_back(ferplus_official: Path, tmp_path: Path) -> None:
    protocol = declare.load().protocol("ferplus-8@majority")
    found = hub_export.export(source.locate(protocol, ferplus_official), protocol, tmp_path / "out")
    assert found.published is True
    splits = loaded(tmp_path / "out", tmp_path / "hf")
    assert {split: len(part) for split, part in splits.items()} == {"train": 25045, "validation": 3191, "test": 3137}
    back = bring(tmp_path / "out", tmp_path / "back")
    assert back.exported_as == "ferplus-8@majority"
    assert back.alike == ["ferplus-8@majority"]
    ds = own(tmp_path / "back")
    assert len(ds.index(ds.protocol)) == 31373
