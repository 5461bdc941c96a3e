"""YAML files: what they declare, and that a slip in one is named with the nearest right word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers_engine import PROTOCOLS, TABLES

from bench import declare
from bench.declare import PROFILES, RECIPE_FIELDS, REQUIRED, Declarations, Override, Recipe, Sourced
from bench.errors import UserError

pytest_plugins = ("helpers_engine",)


def load(folder: Path, tables: str = TABLES, protocols: str = PROTOCOLS) -> Declarations:
    (folder / "tiny.yaml").write_text(tables)
    (folder / "protocols.yaml").write_text(protocols)
    return declare.load_from([folder / "tiny.yaml"], [folder / "protocols.yaml"])


def slip(text: str, right: str, wrong: str) -> str:
    assert right in text
    return text.replace(right, wrong, 1)


def test_the_tiny_declarations_are_right(tmp_path: Path) -> None:
    declared = load(tmp_path)
    claim = declared.claim("tiny-table1/ours/four")
    assert (claim.printed, claim.value, claim.entry) == ("50.00", 50.0, "tiny:tiny-4")
    assert declared.claim("tiny-table1/theirs/four").entry == ""
    assert [table.id for table in declared.tables_of("tiny")] == ["tiny-table1", "tiny-table2", "tiny-table3"]


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("weight_decay:", "weight_decy:", ["recipe field 'weight_decy'", "weight_decay"]),
        ("title: One row", "titel: One row", ["titel", "title"]),
        ("augmentation: fervt-common", "augmentatoin: fervt-common", ["augmentatoin", "augmentation"]),
        ("source: paper", "source: papr", ["optimizer", "'paper', 'code' or 'choice'"]),
        ("recipe: tiny, options", "recipe: tinny, options", ["unknown recipe 'tinny'", "did you mean tiny"]),
        ("experiment: tiny,", "experiment: tinny,", ["unknown experiment 'tinny'", "did you mean tiny"]),
        ("protocol: tiny-4}", "protocol: tinny-4}", ["unknown protocol 'tinny-4'", "tiny-4"]),
        ('cells: {four: "50.00"}', 'cells: {fuor: "50.00"}', ["column in tiny-table1/ours 'fuor'", "four"]),
        ('four: "50.00"', "four: 50.00", ["cell 'four'", "quoted string"]),
        ('four: "50.00"', 'four: "50,00"', ["cells", "50,00"]),
        ('0.01, source: paper, at: "1"}\n      batch', "0.01, source: paper}\n      batch", ["learning_rate", "'at'"]),
        ("source: choice, why: short}", "source: choice}", ["last_k", "'why'"]),
        ('      epochs: {value: 3, source: paper, at: "1"}\n', "", ["recipe lacks epochs"]),
        ("    experiment: tiny, cells", "    cells", []),
        ("quick: {why", "quik: {why", ["quik"]),
        ("optimizer: {value: adamw", "optimizer: {value: adamm", ["unknown optimizer 'adamm'", "adamw"]),
        ("schedule: {value: cosine", "schedule: {value: cosin", ["unknown schedule 'cosin'", "cosine"]),
        ("where: Table 1", "where: Table 1\n    compare: test-bets", ["unknown selection 'test-bets'", "test-best"]),
        ("where: Table 1", "where: Table 1\n    metric: acuracy", ["acuracy", "accuracy"]),
        ('Theirs, cited: "Theirs [1]"', 'Theirs, cited: "X", experiment: tiny', ["tiny-table1/theirs", "either cited"]),
    ],
)  # fmt: skip
def test_a_slip_is_named(tmp_path: Path, right: str, wrong: str, says: list[str]) -> None:
    if not says:
        right, wrong, says = "title: Ours, experiment: tiny,", "title: Ours,", ["tiny-table1/ours", "either cited"]
    with pytest.raises(UserError) as caught:
        load(tmp_path, slip(TABLES, right, wrong))
    for part in says:
        assert part in str(caught.value)


def test_an_unknown_key_of_a_protocol_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, protocols=slip(PROTOCOLS, "stand_in", "standin"))
    assert str(tmp_path / "protocols.yaml") in caught.value.message
    assert "unknown key 'standin'; did you mean stand_in" in caught.value.message


@pytest.mark.parametrize("text", ["", "[]", "protocol: []", "protocols: [", "protocols: []\nmore: 1"])
def test_a_file_that_is_none_of_ours(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "protocols.yaml"))):
        load(tmp_path, protocols=text)


@pytest.mark.parametrize("text", ["", "[]", "paper: tiny", "tables: ["])
def test_a_paper_file_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "tiny.yaml"))):
        load(tmp_path, tables=text)


def test_a_misspelt_field_of_a_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="epoch"):
        load(tmp_path, slip(TABLES, "fields: {epochs: 2}", "fields: {epoch: 2}"))


@pytest.mark.parametrize(
    ("what", "right", "twice"),
    [
        ("protocol", "", "  - {id: tiny-4, dataset: tinyfaces}\n"),
        ("table", "", "  - {id: tiny-table1, title: x, where: x, columns: [], rows: []}\n"),
        ("experiment", "  tiny-plain:", "  tiny: {method: other, backbone: b, augmentation: none, recipe: tiny}\n"),
        ("row", "      - {id: theirs, title: Theirs, cited: \"Theirs [1]\", cells: {four: \"49.00\"}}\n",
         "      - {id: ours, title: Again, experiment: tiny, cells: {four: \"1.00\"}}\n"),
        ("column", "columns: [{id: four, title: Four, protocol: tiny-4}]",
         "columns: [{id: four, title: Four, protocol: tiny-4}, {id: four, title: Again, protocol: tiny-half}]"),
    ],
)  # fmt: skip
def test_a_duplicate_id_is_refused(tmp_path: Path, what: str, right: str, twice: str) -> None:
    tables, protocols = TABLES, PROTOCOLS
    if what == "protocol":
        protocols += twice
    elif what == "table":
        tables += twice
    else:
        tables = slip(TABLES, right, twice if what == "column" else twice + right)
    with pytest.raises(UserError, match=r"twice|duplicate"):
        load(tmp_path, tables, protocols)


def test_two_experiments_of_one_content_are_refused(tmp_path: Path) -> None:
    """They would be one run, and its result would reach only one of them."""
    twin = "  twin: {method: tinynet, backbone: small, augmentation: none, recipe: tiny}\ntables:"
    with pytest.raises(UserError, match="'tiny-plain' and 'twin' are the same"):
        load(tmp_path, slip(TABLES, "tables:", twin))


def test_two_files_may_not_declare_the_same_paper(tmp_path: Path) -> None:
    load(tmp_path)
    paths = [tmp_path / "tiny.yaml"] * 2
    with pytest.raises(UserError, match="paper 'tiny' is declared twice"):
        declare.load_from(paths, [tmp_path / "protocols.yaml"])


@pytest.mark.parametrize(
    ("lookup", "name", "near"),
    [("table", "tiny-tabel1", "tiny-table1"), ("claim", "tiny-table1/our/four", "tiny-table1/ours/four"),
     ("entry", "tiny:tiny4", "tiny-4"), ("recipe", "tinny", "tiny"), ("tables_of", "tinny", "tiny")],
)  # fmt: skip
def test_lookups_name_the_nearest(tmp_path: Path, lookup: str, name: str, near: str) -> None:
    with pytest.raises(UserError, match="unknown") as caught:
        getattr(load(tmp_path), lookup)(name)
    assert near in caught.value.hint


def recipe(**more: Any) -> Recipe:
    needed = {name: 1 for name, default in RECIPE_FIELDS.items() if default is REQUIRED} | {"optimizer": "adam"}
    fields = {name: Sourced(value=value, source="paper", at="x") for name, value in {**needed, **more}.items()}
    return Recipe(
        id="r", fields=fields, profiles={"quick": Override(why="small", fields={"epochs": 2}, options={"w": 1})}
    )


def test_values_are_defaults_then_fields_then_the_profile() -> None:
    declared = recipe(epochs=100, momentum=0.5, **{"method.depth": 12, "reading.kernel": 3})
    paper, quick = declared.values("paper"), declared.values("quick")
    assert (paper["epochs"], quick["epochs"]) == (100, 2)
    assert (paper["momentum"], paper["label_smoothing"]) == (0.5, 0.0)
    assert paper["method.depth"] == 12
    assert "reading.kernel" not in paper
    assert set(RECIPE_FIELDS) <= set(paper)
    with pytest.raises(UserError, match="declares no profile 'short'"):
        declared.values("short")


def test_every_declared_recipe_gives_every_profile_it_names() -> None:
    declared = declare.load()
    for found in declared.recipes.values():
        for profile in ("paper", *found.profiles):
            assert profile in PROFILES
            values = found.values(profile)
            assert {name for name in values if not name.startswith("method.")} == set(RECIPE_FIELDS), (
                found.id,
                profile,
            )
            for name in ("batch_size", "epochs", "input_size"):
                assert isinstance(values[name], int), (found.id, name)


def test_declarations_do_not_change() -> None:
    table = next(iter(declare.load().tables.values()))
    with pytest.raises(ValueError, match="frozen"):
        table.title = "x"  # type: ignore[misc]
