"""Copies and preprocessing that are not the published ones: told by the copy, kept with a run, marked in tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import helpers_affectnet as affectnet
import helpers_ckplus as ckplus
import helpers_own as own
import helpers_rafdb as raf
import pandas as pd
import pytest
import yaml
from helpers_engine import TABLES, forget
from test_collect import finished, rows
from test_render import FERPLUS, REAL, TABLE

import run_all
from bench import collect, declare, job, matrix, store, variants
from bench.data import order, verify
from bench.data.ckplus.adapter import CKPlus
from bench.data.preprocess import by_dataset
from bench.data.rafdb.adapter import RAFDB
from bench.declare import Declarations
from bench.errors import UserError
from bench.plan import Planned
from bench.statistics import Kind
from commands import run as command
from tables.render import markdown
from tables.render.compare import Settings, compare
from tables.render.results import Results

pytest_plugins = ("helpers_engine",)


@pytest.fixture(autouse=True)
def small_raf(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAF-DB's published counts are those of the small copies."""
    known = {**order.published(), "raf-db-7": raf.COUNTS}
    monkeypatch.setattr(order, "published", lambda: known)


# -------------------------------------------------------------------------------------------------- what a copy says
def write_original(root: Path, side: int = 100) -> Path:
    raf.put(root / raf.LIST, raf.official_list())
    raf.write_images(root / "Image" / "original", ".jpg", side)
    return root


def write_aligned_here(root: Path) -> Path:
    raf.write_official(root)
    (root / "alignment.json").write_text(json.dumps({"name": "mtcnn-100", "complete": True}))
    return root


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (raf.write_official, []),
        (raf.write_nr, []),
        (raf.write_scn, []),
        (raf.write_kaggle, []),
        (write_original, ["images are the originals of Image/original: not aligned, of many sizes"]),
        (raf.write_apvit, [
            "Image/aligned_224 is aligned by others than RAF-DB's authors",
            "a re-aligned or re-distributed copy: train_00001.jpg is 112x112, not 100x100",
        ]),
        (raf.write_resemotenet, ["59 images do not have official names: labels cannot be compared one by one"]),
        (write_aligned_here, ["aligned here by `data align` (mtcnn-100): not the published pixels"]),
    ],
)  # fmt: skip
def test_rafdb(tmp_path: Path, write: Callable[[Path], Path], says: list[str]) -> None:
    assert RAFDB(write(tmp_path), raf.PROTOCOL).departures() == says


def test_ck48_is_not_the_published_frames(tmp_path: Path) -> None:
    wanted = ckplus.protocol("last3")
    (told,) = CKPlus(ckplus.write_ck48(tmp_path), wanted).departures()
    assert "is 48x48, not 640x480 or 640x490" in told


def test_affectnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    affectnet.publish_small_counts(monkeypatch)
    some = affectnet.faces()
    assert affectnet.opened(affectnet.write_2017(tmp_path / "a", some)).departures() == []
    (told,) = affectnet.opened(affectnet.write_2021(tmp_path / "b", some)).departures()
    assert told.endswith("not 224x224")
    renamed = affectnet.write_folders(tmp_path / "c", some, name_of=lambda face: f"face-{face.number}")
    (told,) = affectnet.opened(renamed).departures()
    assert "do not have official names" in told


def test_own_data_departs_from_nothing(tmp_path: Path) -> None:
    assert own.opened(own.folders(tmp_path / "x", own.SPLIT)).departures() == []


@pytest.mark.parametrize("write", [write_original, write_aligned_here])
def test_verify_agrees(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """Files of the right size and number, and yet not the benchmark."""
    (report,) = verify.verify(write(tmp_path), {"rafdb": RAFDB}, [raf.PROTOCOL])
    assert (report.counts, report.benchmark) == ("exact, as published", False)
    assert report.why == RAFDB(tmp_path, raf.PROTOCOL).departures()[0]


# ------------------------------------------------------------------------------------------------ --preprocessing
def test_profiles_by_dataset() -> None:
    assert by_dataset(["rafdb-any-100", "affectnet-112", "rafdb-any-100"]) == {
        "rafdb": "rafdb-any-100", "affectnet": "affectnet-112",
    }  # fmt: skip
    with pytest.raises(UserError, match="unknown preprocessing 'rafdb-any-10'") as error:
        by_dataset(["rafdb-any-10"])
    assert "rafdb-any-100" in error.value.hint
    with pytest.raises(UserError, match="'own-64' and 'own-112' are both of own"):
        by_dataset(["own-64", "own-112"])


def test_runs_on_that_dataset_change_their_key_and_no_others(tiny: Declarations) -> None:
    plain = matrix.runs_of(tiny, tiny.entry("tiny:tiny-4"), "paper", [0])
    (other,) = matrix.with_preprocessing(plain, {"tinyfaces": "tiny-small"})
    assert (other.preprocessing, other.asked_preprocessing) == ("tiny-small", "tiny-small")
    assert other.key("d", {}) != plain[0].key("d", {})
    spec = matrix.specification(other, other.key("d", {}), None, "cpu", 0.0)
    assert matrix.find_run(tiny, json.loads(json.dumps(spec))) == other
    with pytest.raises(UserError, match="preprocessing 'rafdb-any-100' is of rafdb, which no run here reads"):
        matrix.with_preprocessing(plain, {"tinyfaces": "tiny-small", "rafdb": "rafdb-any-100"})


def test_what_the_recipe_declares_was_not_asked_for(tiny: Declarations) -> None:
    (plain,) = matrix.runs_of(tiny, tiny.entry("tiny:tiny-4"), "paper", [0])
    declared = replace(plain, recipe={**plain.recipe, "preprocessing": {"tinyfaces": "tiny-small", "rafdb": "x"}})
    assert matrix.with_preprocessing([declared], {"tinyfaces": "tiny-small"}) == [declared]
    (other,) = matrix.with_preprocessing([declared], {"tinyfaces": "tiny-large"})
    assert other.recipe["preprocessing"] == {"tinyfaces": "tiny-large", "rafdb": "x"}


# -------------------------------------------------------------------------------------- from the command to the table
@pytest.fixture
def small(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """`run_all.py --table tiny-table1` on RAF-DB, its jobs in this process."""
    tables = yaml.safe_load(TABLES.replace("tiny-4", "raf-db-7"))
    tables["tables"] = tables["tables"][:1]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tables))
    (tmp_path / "protocols.yaml").write_text(yaml.safe_dump({"protocols": [raf.PROTOCOL.model_dump(mode="json")]}))
    monkeypatch.setattr(declare, "table_files", lambda: [tmp_path / "tiny.yaml"])
    monkeypatch.setattr(declare, "protocol_files", lambda: [tmp_path / "protocols.yaml"])

    def execute(planned: list[Planned], root: Path, results: Path, args: Any) -> list[Any]:
        for p in planned:
            if p.status == "runnable":
                spec = matrix.specification(p.run, p.key, root, "cpu", 60.0, args.skip_bad)
                job.execute(json.loads(json.dumps(spec)), store.run_folder(p.key))
        return []

    monkeypatch.setattr(command, "execute", execute)
    forget()

    def run(*words: str) -> int:
        place = ["--data-root", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
        return run_all.main(["--table", "tiny-table1", "--seeds", "0", *place, *words])

    yield run
    forget()


def kept(tmp_path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The row of the run's last epoch, and what its manifest says of the data."""
    (row,) = rows(tmp_path / "results", selection="last", protocol="raf-db-7")
    manifest = json.loads((tmp_path / "results" / "runs" / row["run"] / "manifest.json").read_text())
    return row, manifest["data"]


def test_a_published_copy_gets_a_verdict(
    small: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used, other = tmp_path / "data" / "a", tmp_path / "data" / "b"
    raf.write_official(used)
    raf.write_kaggle(other)
    assert small() == 0
    out = capsys.readouterr().out
    assert f"reading raf-db-7 from {used} (1 more copy there: {other}) ..." in out
    assert "†protocol" not in out
    row, data = kept(tmp_path)
    assert (row["departures"], data["departures"], data["folder"]) == ("", [], "a")
    assert small("--force") == 0
    assert f"using raf-db-7 from {used} (1 more copy there: {other})\n" in capsys.readouterr().out


def test_originals_through_another_preprocessing_get_none(
    small: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_original(tmp_path / "data" / "raf", 130)
    assert small() == 1
    assert "--preprocessing rafdb-any-100" in capsys.readouterr().err
    assert small("--preprocessing", "rafdb-any-100") == 0
    said = capsys.readouterr()
    why = "images are the originals of Image/original: not aligned, of many sizes"
    assert f"not the benchmark: raf-db-7: {why}" in said.err
    assert "different protocol" in said.out
    assert "--preprocessing rafdb-any-100 in place of rafdb-aligned-100" in said.out
    row, data = kept(tmp_path)
    assert row["departures"].split("; ") == data["departures"] == [
        why, "a re-aligned or re-distributed copy: train_00001.jpg is 130x130, not 100x100",
        "--preprocessing rafdb-any-100 in place of rafdb-aligned-100",
    ]  # fmt: skip


def test_published_images_through_another_preprocessing_get_none(
    small: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raf.write_official(tmp_path / "data" / "raf")
    assert small() == 0
    capsys.readouterr()
    assert small("--preprocessing", "rafdb-any-100") == 0
    assert "1 runnable" in capsys.readouterr().out  # not the run of before
    assert kept(tmp_path)[0]["departures"] == "--preprocessing rafdb-any-100 in place of rafdb-aligned-100"


def test_an_experiment_says_what_departs(
    small: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_original(tmp_path / "data" / "raf", 130)
    place = ["--data-root", str(tmp_path / "data"), "--results", str(tmp_path / "results"), "--profile", "short"]
    words = ["--experiment", "tiny", "--protocol", "raf-db-7", *place, "--preprocessing"]
    assert run_all.main([*words, "rafdb-any-100"]) == 0
    assert "  not the benchmark: images are the originals of Image/original" in capsys.readouterr().out
    assert run_all.main([*words, "own-64"]) == 2
    assert "preprocessing 'own-64' is of own, which no run here reads" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- in a table
def with_departures(*told: Any) -> Results:
    """The results of tests/test_render.py, exp-a's runs on FERPlus with what each seed's run says of its data."""
    of_a = [(row["experiment"], row["protocol"]) == ("exp-a", FERPLUS) for row in REAL]
    made = [{**row, "departures": told[row["seed"]] if a else float("nan")} for a, row in zip(of_a, REAL, strict=True)]
    return Results(pd.DataFrame(made))


def test_a_cell_is_marked_and_not_judged() -> None:
    cell = compare(TABLE, with_departures("other names", "other names", ""), Settings(seeds=3)).cells["a", "ferplus"]
    assert (cell.judgement.kind, cell.claim.differs, cell.marks[0]) == (Kind.DIFFERENT, "other names", "†protocol")
    cells = compare(TABLE, with_departures("x", "y; z", "x"), Settings(seeds=3)).cells
    assert cells["a", "ferplus"].claim.differs == "x; y; z"
    assert cells["b", "ferplus"].claim.differs == ""
    assert "] x; y; z" in markdown.render(compare(TABLE, with_departures("x", "y; z", "x"), Settings(seeds=3)))
    published = compare(TABLE, with_departures("", float("nan"), ""), Settings(seeds=3))
    assert published.cells["a", "ferplus"].marks == ()


def test_files_of_earlier_versions_are_read(tiny: Declarations, tmp_path: Path) -> None:
    results = tmp_path / "results"
    first = finished(tmp_path / "a1", {"last": [(3, 12)]})
    fields = json.loads((first / "result.json").read_text())
    del fields["departures"]
    (first / "result.json").write_text(json.dumps(fields))
    assert collect.collect([first], results, tiny) == []
    pd.read_csv(results / "runs.csv", dtype=str).drop(columns="departures").to_csv(results / "runs.csv", index=False)
    second = finished(tmp_path / "b1", {"last": [(3, 12)]}, seed=1, departures=("x", "y"))
    assert collect.collect([second], results, tiny) == []
    assert {(row["run"], row["departures"]) for row in rows(results)} == {("a1", ""), ("b1", "x; y")}


def test_quick_says_that_a_variant_is_not_reported_on() -> None:
    """The stand-in of a leak-free protocol is the whole stand-in: it must not be called a subset."""
    declared = declare.load()
    (table,) = variants.reported_on(declared, [declared.table("fervt-table11")], "leak-free", "quick")
    told = {claim.protocol: claim.differs for claim in table.claims()}
    assert told["raf-db-7-leak-free"] == (
        "--variant leak-free: the synthetic stand-in has no copies: its whole test set"
    )
    (real,) = variants.reported_on(declared, [declared.table("fervt-table11")], "leak-free")
    assert {claim.differs for claim in real.claims() if claim.protocol == "raf-db-7-leak-free"} == {
        "reported on RAF-DB, test images without an identical copy in train (--variant leak-free)"
    }
