"""`run --checkpoint`: weights that were trained elsewhere, evaluated on the tables' own rows."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import helpers_engine
import numpy as np
import pytest
import safetensors.torch
import torch
from helpers_checkpoint import folder_of, network, permuted, probabilities, right, rows_of, save
from helpers_engine import CLASSES

import run_all
from bench import collect, declare, matrix, released, store, weights
from bench.data.classes import ORDERS
from bench.method import Method
from methods.poster.released import to_released

pytest_plugins = ("helpers_engine", "helpers_checkpoint")

REVERSED = ",".join(reversed(CLASSES))


# ------------------------------------------------------------------------------------------------------- POSTER's files
def test_a_released_poster_is_evaluated_as_it_is(door: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method = network("poster")
    file = save(tmp_path / "rafdb_best.pth", to_released(method.net.state_dict()))
    assert door("--checkpoint", str(file), "--table", "poster-table") == 0
    out = capsys.readouterr().out
    sha = store.sha256_file(file)
    assert f"checkpoint rafdb_best.pth: {len(method.net.state_dict())} tensors, SHA-256 {sha[:12]}" in out
    assert "the file does not say what it was trained on" in out
    assert f"answers poster on tiny-4 (1 number): outputs {', '.join(CLASSES)} (the numbering of" in out
    assert "colours bgr (recipe poster)" in out
    assert "left out (1 number): poster on tiny-two: needs 2 classes, it has 4" in out
    assert "left out (1 number): poster-affectnet on tiny-4: of another POSTER: has token-mixing convolutions" in out
    assert f"## poster-table: POSTER, by rafdb\\_best.pth ({sha[:12]})".replace("\\", "") in out
    assert "its epochs and how they were chosen are not known" in out
    assert "SYNTHETIC, not comparable" in out
    assert "was read with colours" not in out  # they are grey
    folder = folder_of(tmp_path / "results", file)
    row = rows_of(folder)["tiny-4"]
    assert (row["selection"], row["epoch"], row["seed"], row["n"]) == ("released", "0", "0", "30")
    assert int(row["correct"]) == right(method)
    assert {path.name for path in (folder / "tables").iterdir()} == {
        f"poster-table.{s}" for s in ("md", "csv", "tex", "html")
    }
    assert (folder / "confusion" / f"{row['run']}-released.png").is_file()

    before = (folder / "runs.csv").read_bytes()
    assert door("--checkpoint", str(file), "--table", "poster-table") == 0
    assert "1 cached, 0 runnable" in capsys.readouterr().out
    assert (folder / "runs.csv").read_bytes() == before


def test_the_whole_poster_paper_is_compared_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare.load()
    runs = {
        name: matrix.runs_of(declared, declared.entry(name), "paper", [0])[0]
        for name in (
            "poster:raf-db-7", "poster:ferplus-8@majority", "poster-affectnet:affectnet-7", "poster-baseline:raf-db-7",
            "poster-landmark-only:raf-db-7", "poster-pyramid:raf-db-7",
        )
    }  # fmt: skip
    with torch.device("meta"):
        state = released._build(runs["poster:raf-db-7"], 7, "meta").net.state_dict()
    names = released.Released(Path("x.pth"), "0", to_released(state))
    networks = released.Networks(names, (7, 8))
    mixing = "token-mixing convolutions (RAF-DB's released file has, AffectNet's not)"
    vanilla = f"has cross-fusion encoders, has {mixing}"
    assert {name: networks.why_not(run) for name, run in runs.items()} == {
        "poster:raf-db-7": "",
        "poster:ferplus-8@majority": "needs 8 classes, it has 7",
        "poster-affectnet:affectnet-7": f"of another POSTER: has {mixing}",
        "poster-baseline:raf-db-7": f"of another POSTER: {vanilla}, has the pyramid",
        "poster-landmark-only:raf-db-7": f"of another POSTER: has an image stream, {vanilla}, has the pyramid",
        "poster-pyramid:raf-db-7": f"of another POSTER: {vanilla}",
    }
    other = replace(names, outputs=ORDERS["affectnet"][:7], outputs_from="a record")
    assert released.Networks(other, (7,)).why_not(runs["poster:raf-db-7"]) == ""
    eight = replace(names, outputs=ORDERS["ferplus"], outputs_from="a record")
    assert (
        released.Networks(eight, (7,)).why_not(runs["poster:raf-db-7"]) == "its classes, after a record, have contempt"
    )
    base = {**to_released(state), "pyramid_fuse.blocks.8.norm1.weight": torch.zeros(1)}
    why = released.Networks(released.Released(Path("x"), "0", base), (7,)).why_not(runs["poster:raf-db-7"])
    assert why == "of another POSTER: has 9 blocks, not 8"


# ----------------------------------------------------------------------------------------------------- order of classes
def test_outputs_in_another_order_are_named_right_or_the_doctor_speaks_up(
    door: Any, trained: tuple[Path, Method], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    correct = right(trained[1])
    assert correct >= 27
    state = permuted(trained[1].net.state_dict(), [3, 2, 1, 0], "6.weight", "6.bias")
    file = save(tmp_path / "reversed.pth", state)
    words = ("--checkpoint", str(file), "--table", "tiny-table1", "--protocol", "tiny-4")
    results = folder_of(tmp_path / "results", file)

    assert door(*words) == 0
    out = capsys.readouterr().out
    assert int(rows_of(results)["tiny-4"]["correct"]) < 8
    assert "warning: tiny:tiny-4: another class order explains the predictions better: " in out
    assert f"{100 * correct / 30:.2f} %, not" in out
    assert f"-> --checkpoint-classes {REVERSED}" in out

    assert door(*words, "--checkpoint-classes", "Sad, suprise,happy,neutral") == 0
    out = capsys.readouterr().out
    assert f"outputs {REVERSED.replace(',', ', ')} (--checkpoint-classes)" in out
    assert "1 runnable" in out
    assert "another class order" not in out
    rows = rows_of(results)
    assert int(rows["tiny-4"]["correct"]) == correct
    half = [i % 4 for i in range(90, 120, 2)]
    assert int(rows["tiny-half"]["n"]) == len(half)
    manifest = (store.run_folder(rows["tiny-4"]["run"]) / "manifest.json").read_text()
    assert '"neutral"' in manifest.replace("\n", "")

    assert door(*words, "--checkpoint-classes", "neutral,happiness,fear,sadness") == 2
    captured = capsys.readouterr()
    assert "its classes, after --checkpoint-classes, lack surprise and have fear" in captured.out
    assert door(*words, "--checkpoint-classes", "neutral,happy,happiness,sadness") == 2
    assert "names a class twice" in capsys.readouterr().err


def test_the_evaluated_network_says_which_classes_it_has(
    door: Any, trained: tuple[Path, Method], tmp_path: Path
) -> None:
    state = permuted(trained[1].net.state_dict(), [3, 2, 1, 0], "6.weight", "6.bias")
    file = save(tmp_path / "reversed.pth", state)
    words = ("--table", "tiny-table1", "--protocol", "tiny-4")
    assert door("--checkpoint", str(file), *words, "--checkpoint-classes", REVERSED) == 0
    first = rows_of(folder_of(tmp_path / "results", file))["tiny-4"]
    kept = store.run_folder(first["run"]) / "model.safetensors"
    assert door("--checkpoint", str(kept), *words) == 0
    again = rows_of(folder_of(tmp_path / "results", kept))["tiny-4"]
    assert again["departures"].startswith(f"the copy of {store.sha256_file(file)[:12]} that an evaluation left")
    assert again["correct"] == first["correct"]
    assert int(again["correct"]) >= 27


def test_a_registered_file_brings_its_order(
    door: Any, trained: tuple[Path, Method], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    text = dict.fromkeys(("origin", "licence", "size", "loads_into", "keys"), "x")
    record = weights.Record(
        role="tiny-released", title="Tiny on tiny faces", get=("x",), classes=tuple(reversed(CLASSES)), **text
    )
    monkeypatch.setattr(weights, "records", lambda: {"tiny-released": record})
    words = ("--table", "tiny-table1", "--protocol", "tiny-4")
    assert door("--checkpoint", "tiny-released", *words) == 2
    assert "tiny-released" in capsys.readouterr().err
    state = permuted(trained[1].net.state_dict(), [3, 2, 1, 0], "6.weight", "6.bias")
    added = store.cache_root() / "weights" / "tiny-released.pth"
    added.parent.mkdir(parents=True)
    file = save(tmp_path / "copy.pth", state)
    added.write_bytes(file.read_bytes())
    for name in ("tiny-released", str(file)):  # by its role, and a copy elsewhere by its content
        assert door("--checkpoint", name, *words) == 0
        out = capsys.readouterr().out
        assert "Tiny on tiny faces" in out
        assert f"outputs {REVERSED.replace(',', ', ')} (weights.yaml, tiny-released)" in out
        assert int(rows_of(folder_of(tmp_path / "results", file))["tiny-4"]["correct"]) >= 27
    assert "1 cached" in out


def test_a_network_of_ours_gets_no_verdict(
    door: Any, trained: tuple[Path, Method], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors_of(trained[1], "tiny:tiny-4"))
    for table, row, other in (
        ("tiny-table2", "wide", ", another configuration than wide"),
        ("tiny-table1", "tiny", ""),
    ):
        assert door("--checkpoint", str(file), "--table", table, "--protocol", "tiny-4") == 0
        told = f"trained by this project as tiny{other}: not a released file"
        out = capsys.readouterr().out
        assert f"answers {row} on tiny-4" in out
        assert f"without a verdict: {told}" in out
        rows = collect.read_rows(folder_of(tmp_path / "results", file) / "runs.csv")
        assert {line["departures"] for line in rows if line["experiment"] == row} == {told}


def test_another_dataset_than_the_records_gets_no_verdict(
    door: Any, trained: tuple[Path, Method], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    text = dict.fromkeys(("origin", "licence", "size", "loads_into", "keys"), "x")
    record = weights.Record(
        role="tiny-released", title="Tiny on RAF-DB", get=("x",), classes=CLASSES, dataset="rafdb", **text
    )
    words = ("--checkpoint", str(trained[0]), "--table", "tiny-table1", "--protocol", "tiny-4")
    results = folder_of(tmp_path / "results", trained[0])
    assert door(*words) == 0  # of a file that nothing is known of
    assert rows_of(results)["tiny-4"]["departures"] == ""
    sha256 = store.sha256_file(trained[0])
    monkeypatch.setattr(weights, "records", lambda: {record.role: record.model_copy(update={"sha256": sha256})})
    capsys.readouterr()
    assert door(*words) == 0
    out = capsys.readouterr().out
    assert "(weights.yaml, tiny-released, the order of RAF-DB, applied to tinyfaces)" in out
    assert "without a verdict: trained on RAF-DB, tested on tinyfaces: a cross-dataset test" in out
    assert rows_of(results)["tiny-4"]["departures"] == "trained on RAF-DB, tested on tinyfaces: a cross-dataset test"
    assert door(*words, "--checkpoint-classes", ",".join(CLASSES)) == 0
    out = capsys.readouterr().out
    assert "applied to" not in out
    assert "a cross-dataset test" in out
    same = record.model_copy(update={"sha256": sha256, "dataset": "tinyfaces"})
    monkeypatch.setattr(weights, "records", lambda: {record.role: same})
    assert door(*words, "--plan") == 0
    assert "without a verdict" not in capsys.readouterr().out


def test_another_file_under_a_roles_name_brings_no_order(
    door: Any, trained: tuple[Path, Method], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = store.cache_root() / "weights" / "poster-affectnet8.pth"
    added.parent.mkdir(parents=True)
    added.write_bytes(trained[0].read_bytes())  # by hand, past `weights add`
    assert door("--checkpoint", "poster-affectnet8", "--table", "tiny-table1") == 2
    assert "not the file of 'poster-affectnet8'" in capsys.readouterr().err


def safetensors_of(method: Method, entry: str) -> bytes:
    """As a run of ours leaves its network."""
    notes = json.dumps({"run": "0" * 16, "entry": entry, "classes": CLASSES})
    return safetensors.torch.save(method.net.state_dict(), {"ferbench": notes})


def test_every_protocol_numbers_its_classes_as_its_publishers() -> None:
    orders = {"rafdb": "raf", "affectnet": "affectnet", "ferplus": "ferplus", "ckplus": "ckplus"}
    checked = 0
    for protocol in declare.load().protocols.values():
        if protocol.dataset in orders and protocol.classes:
            order = [name for name in ORDERS[orders[protocol.dataset]] if name in protocol.classes]
            checked += list(protocol.classes) == order or protocol.classes == ORDERS["ckplus-7"]
            assert list(protocol.classes) == order or protocol.dataset == "ckplus", protocol.id
    assert checked > 40


# ----------------------------------------------------------------------------------------------- beside trained results
def test_results_of_trained_runs_stay_and_their_networks_can_be_evaluated(
    door: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door("--table", "tiny-table1", "--seeds", "0") in (0, 3)
    results = tmp_path / "results" / "quick"
    runs = {row["protocol"]: row for row in collect.read_rows(results / "runs.csv") if row["selection"] == "last"}
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    file = store.run_folder(runs["tiny-4"]["run"]) / "model.safetensors"
    capsys.readouterr()
    assert door("--checkpoint", str(file), "--table", "tiny-table1") == 0
    out = capsys.readouterr().out
    assert "tiny:tiny-4, by us" in out
    assert "(the file's own notes)" in out
    assert "left out (1 number): unbuilt on tiny-4: method 'nowherenet' is not built yet" in out
    assert {path: path.read_bytes() for path in before} == before
    found = rows_of(folder_of(tmp_path / "results", file))
    assert set(found) == {"tiny-4", "tiny-half", "tiny-folds/0", "tiny-folds/1", "tiny-folds/2"}
    assert all(found[name]["correct"] == runs[name]["correct"] for name in ("tiny-4", "tiny-half"))
    assert sum(int(found[f"tiny-folds/{fold}"]["n"]) for fold in range(3)) == 120
    ours, theirs = predictions(found["tiny-4"]["run"], "released"), predictions(runs["tiny-4"]["run"], "last")
    assert ours.drop(columns="epoch").equals(theirs.drop(columns="epoch"))


def predictions(run: str, selection: str) -> Any:
    import pandas as pd

    return pd.read_parquet(store.run_folder(run) / f"predictions-{selection}.parquet")


def test_an_interrupted_evaluation_leaves_nothing_half_done(
    door: Any, trained: tuple[Path, Method], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ("--checkpoint", str(trained[0]), "--table", "tiny-table1", "--protocol", "tiny-4")
    monkeypatch.setenv("TINYFER_KILL", "predict:1:SIGKILL")
    assert door(*words) == 1
    out = capsys.readouterr().out
    assert "FAILED: tiny:tiny-4" in out
    assert "its evaluation failed" in out
    results = folder_of(tmp_path / "results", trained[0])
    assert not rows_of(results)
    monkeypatch.delenv("TINYFER_KILL")
    assert door(*words) == 0
    assert int(rows_of(results)["tiny-4"]["correct"]) == right(trained[1])


def test_the_colour_order_is_another_run_and_said(
    door: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = network("poster")
    file = save(tmp_path / "x.pth", to_released(method.net.state_dict()))
    for words, used, runnable in (((), "bgr", 1), (("--colour", "rgb"), "rgb", 1), (("--colour", "bgr"), "bgr", 0)):
        assert door("--checkpoint", str(file), "--table", "colours", *words) == 0
        out = capsys.readouterr().out
        assert f"{1 - runnable} cached, {runnable} runnable" in out
        assert ("colours rgb (--colour)" in out) == (used == "rgb")
        assert ("--colour rgb in place of the recipe's order" in out) == (used == "rgb")
        other = "rgb" if used == "bgr" else "bgr"
        assert f"poster:tiny-colours was read with colours {used}; --colour {other} evaluates" in out
        run = rows_of(folder_of(tmp_path / "results", file))["tiny-colours"]["run"]
        found = predictions(run, "released")[[f"p_{name}" for name in CLASSES]].to_numpy()
        assert np.allclose(found, probabilities(method, used).numpy(), atol=1e-6)
        assert not np.allclose(found, probabilities(method, other).numpy(), atol=1e-4)


# -------------------------------------------------------------------------------------------------------- refused words
def test_what_cannot_be_answered_is_refused_with_the_way_out(
    door: Any, trained: tuple[Path, Method], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, wrong, other = (tmp_path / name for name in ("page.pth", "wrong.pth", "other.pth"))
    page.write_text("<!DOCTYPE html><html><body>Google Drive - Virus scan warning</body></html>")
    save(wrong, {"conv.weight": torch.zeros(3, 3)})
    save(other, network("wide", profile="paper").net.state_dict())
    file = str(trained[0])
    table = ("--table", "tiny-table1")
    cases: list[tuple[tuple[str, ...], str, str]] = [
        (("--checkpoint", str(page), *table), "this is a web page", ""),
        (("--checkpoint", str(tmp_path / "none.pth"), *table), "no such file", ""),
        (("--checkpoint", "poster-rafd", *table), "did you mean poster-rafdb", ""),
        (("--checkpoint", str(tmp_path), *table), "is a folder", ""),
        (("--checkpoint", str(wrong), *table), "wrong.pth fits no network of these tables", "no tensor has a name"),
        (("--checkpoint", str(other), "--table", "tiny-table2"), "it fits wide on tiny-4", "of another shape"),
        (("--checkpoint", str(other), "--table", "tiny-table2"), "set FERBENCH_DATA or --data-root", ""),
        (("--checkpoint", file, "--table", "tiny-table2", "--profile", "paper"), "--profile quick evaluates it", ""),
        (("--checkpoint", file, *table, "--profile", "short"), "nothing can be shortened", ""),
        (("--checkpoint", file, *table, "--seeds", "1"), "--seeds is for runs that train", ""),
        (("--checkpoint", file, "--experiment", "tiny", "--protocol", "tiny-4"), "--experiment is for runs", ""),
        (("--checkpoint", file, *table, "--protocol", "tiny-two"), "filters leave nothing", "would answer: tiny on"),
        (("--checkpoint", file, *table, "--extra", "all"), "the papers' own rows alone", ""),
        (("--checkpoint", file), "nothing asked for", ""),
        ((*table, "--checkpoint-classes", "a,b"), "are for --checkpoint", ""),
    ]  # fmt: skip
    for words, said, shown in cases:
        assert door(*words) == 2, words
        captured = capsys.readouterr()
        assert said in captured.err, words
        assert shown in captured.out, words
    assert not (tmp_path / "results").exists()


def test_planning_evaluates_nothing(
    door: Any, trained: tuple[Path, Method], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door("--checkpoint", str(trained[0]), "--table", "tiny-table1", "--plan") == 0
    out = capsys.readouterr().out
    assert "plan: 4 runs: 0 cached, 4 runnable" in out
    assert "tiny:tiny-4 seed 0 [quick]" in out
    assert not (tmp_path / "results").exists()


def test_commands_in_the_document_parse() -> None:
    text = (helpers_engine.ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    lines = re.findall(r"^python run_all\.py ([^\n#|]+)", text, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)
        words = ["run", *words] if words[0].startswith("-") else words
        run_all._parser(words[0]).parse_args(words)
    for role in re.findall(r"--checkpoint ([\w-]+) ", text):
        assert weights.records()[role].classes
