"""Export to Hugging Face's form, and both commands: names, labels and pixels survive; nothing is written by halves."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ferplus_protocol, png, write_csvs, write_official
from helpers_hub import bring, everything, loaded, own, picture

import run_all
from bench import declare
from bench.data import source
from bench.data.base import manifest_hash
from bench.data.ferplus.adapter import FERPlus
from bench.data.hub import exporting as hub_export
from bench.data.hub import source as hub_source
from bench.declare import Protocol
from bench.errors import UserError

pytest_plugins = ("helpers_hub",)
ROOT = Path(__file__).resolve().parent.parent


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


# ------------------------------------------------------------------------------------------------------------- commands


def test_the_commands_say_what_comes_next(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, back = str(tmp_path / "out"), str(tmp_path / "back")
    assert run_all.main(["data", "export", "own/faces", out, "--data-root", str(faces.parent)]) == 0
    said = capsys.readouterr().out
    assert "own/faces: train 12, val 6, test 6" in said
    assert f"datasets.load_dataset({out!r})" in said
    assert run_all.main(["data", "import", out, back]) == 0
    said = capsys.readouterr().out
    assert "exported by ferbench from own/faces: names, labels, splits and images are unchanged" in said
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
