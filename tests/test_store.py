"""Files are written whole or not at all; a damaged result is named."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import provenance, store, weights
from bench.errors import UserError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    store.write_bytes(tmp_path / "deep" / "a", b"\x00\xff")
    store.write_text(tmp_path / "b", "größer\n")
    store.write_json(tmp_path / "c", {"b": 1, "a": "ü"})
    store.write_stream(tmp_path / "d", lambda stream: stream.write(b"x"))
    assert (tmp_path / "deep" / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").read_text(encoding="utf-8") == "größer\n"
    assert (tmp_path / "c").read_text(encoding="utf-8") == '{\n "a": "ü",\n "b": 1\n}\n'
    assert names(tmp_path) == ["b", "c", "d", "deep"]
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    store.write_text(path, "old")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        store.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_writer_that_fails_half_way(tmp_path: Path) -> None:
    def write(stream: Any) -> None:
        stream.write(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        store.write_stream(tmp_path / "file", write)
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("when", ["write", "fsync"])
def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, when: str) -> None:
    """The error comes while writing, or at last when the system has to keep its word (delayed allocation)."""
    path = tmp_path / "result.json"
    store.write_text(path, "old")

    def full(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    if when == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full") as caught:
        store.write_stream(path, full if when == "write" else lambda stream: stream.write(b"new"))
    assert str(path) in caught.value.message
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


PLAIN = st.integers() | st.text() | st.booleans() | st.floats(allow_nan=False)
NESTED = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(st.dictionaries(st.text(), NESTED, max_size=5))
def test_canonical_depends_on_the_value_alone(value: dict[str, Any]) -> None:
    shuffled = dict(reversed(list(value.items())))
    assert store.canonical(value) == store.canonical(shuffled)
    assert json.loads(store.canonical(value)) == json.loads(json.dumps(value))


def result(**more: Any) -> store.Result:
    fields: dict[str, Any] = {
        "run": "0123456789abcdef", "experiment": "tiny", "method": "tinynet", "backbone": "small",
        "pretraining": "none", "augmentation": "none", "options": {"width": 6}, "protocol": "tiny-4",
        "classes": ("a", "b"), "profile": "quick", "synthetic": True, "seed": 0, "fold": 0, "recipe": {"epochs": 1},
        "selections": {}, "history": [], "seconds": 1.0, "images_per_second": 2.0, "peak_memory_mb": 3.0,
        "parameters": 4, "trainable_parameters": 4, "macs": 5, "device": "CPU", "versions": {}, "commit": "c",
        "data_hash": "d", "finished": "now",
    }  # fmt: skip
    return store.Result(**{**fields, **more})


def finished(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "predictions-last.parquet").write_bytes(b"rows")
    selected = store.Selected(
        epochs=(1,), file="predictions-last.parquet", sha256=store.sha256_file(folder / "predictions-last.parquet")
    )
    store.write_text(folder / "result.json", result(selections={"last": selected}).model_dump_json())
    return folder


def test_a_result_is_read_back(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    assert store.read_result(folder, verify=True).selections["last"].epochs == (1,)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: (f / "result.json").write_text("{"), "result.json: damaged result"),
        (lambda f: (f / "result.json").write_text(""), "result.json: damaged result"),
        (lambda f: (f / "result.json").write_bytes(b"\xff\xfe"), "result.json: damaged result"),
        (lambda f: (f / "result.json").unlink(), "result.json: damaged result"),
        (
            lambda f: (f / "result.json").write_text((f / "result.json").read_text().replace('"seed":0', '"sed":0')),
            "damaged",
        ),
        (lambda f: (f / "predictions-last.parquet").unlink(), "predictions-last.parquet: missing"),
        (lambda f: (f / "predictions-last.parquet").write_bytes(b"rowz"), "predictions-last.parquet: damaged"),
    ],
)
def test_a_damaged_result_is_named(tmp_path: Path, harm: Callable[[Path], object], says: str) -> None:
    folder = finished(tmp_path / "run")
    harm(folder)
    with pytest.raises(UserError, match=says) as caught:
        store.read_result(folder, verify=True)
    assert str(folder) in caught.value.message
    assert "run again" in caught.value.hint


def test_a_csv_that_is_no_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes("run,device\n1,größer\n2,größer\n".encode())
    assert [row["device"] for row in store.read_rows(path)] == ["größer", "größer"]
    path.write_bytes("run,device\n1,größer\n".encode() + "2,größer\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"runs\.csv, line 3: not UTF-8 text") as caught:
        store.read_rows(path)
    assert "save it as UTF-8" in caught.value.hint


def test_a_run_is_done_when_its_result_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    results = tmp_path / "results"
    assert store.find_result("k", results) is None
    kept = finished(results / "runs" / "k")
    assert store.find_result("k", results) == kept
    own = store.run_folder("k")
    own.mkdir(parents=True)
    (own / "predictions-last.parquet").write_bytes(b"half")
    assert store.find_result("k", results) == kept  # begun, not done
    (own / "result.json").write_text("{}")
    assert store.find_result("k", results) == own


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERBENCH_CACHE", "~/somewhere")
    assert store.cache_root() == Path.home() / "somewhere"
    monkeypatch.delenv("FERBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert store.cache_root() == Path("/x/ferbench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.cache_root() == Path.home() / ".cache" / "ferbench"


def test_weights_are_found_by_role_and_known_by_their_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="weights 'mae' are not at hand") as caught:
        weights.require(("mae",))
    assert str(tmp_path / "weights" / "mae.pth") in caught.value.hint
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mae.pth").write_bytes(b"w")
    assert weights.require(("mae",)) == {"mae": tmp_path / "weights" / "mae.pth"}
    first = weights.hashes(("mae",))
    (tmp_path / "weights" / "mae.pth").write_bytes(b"v")
    assert weights.hashes(("mae",)) != first
    assert weights.hashes(()) == {}


def test_provenance_names_versions_and_commit() -> None:
    assert set(provenance.versions()) == {"python", *provenance.PACKAGES}
    assert "not installed" not in {provenance.versions()[name] for name in ("torch", "numpy", "pandas")}
    commit = provenance.commit()
    assert commit == "unknown" or len(commit.removesuffix("+dirty")) == 12
    assert provenance.processor()
