"""The printed numbers of the four papers: complete, with their digits, and refused when misspelt.

Several checks are independent of the text they were typed from: an accuracy must be a whole number of images over the
class sizes of its protocol, a row of prediction shares must add up to 100, a difference must be the one a text prints.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench import declare
from bench.declare import Claim, Declarations, PaperFile, load_from, protocol_files, table_files
from bench.errors import UserError
from bench.yaml_files import parse, read_yaml

COUNTS = {
    "pfvit-table1": 6, "pfvit-table2": 9, "pfvit-table3": 18, "pfvit-table4": 9, "pfvit-table5": 8, "pfvit-table6": 38,
    "pfvit-tableb1": 9,
    "nresizer-table1": 10, "nresizer-table2": 5, "nresizer-table3": 6, "nresizer-table4": 13,
    "fervt-table7": 12, "fervt-table8": 5, "fervt-table9": 14, "fervt-table10": 24, "fervt-table11": 12,
    "fervt-table12": 9, "fervt-table13": 9,
    "poster-table1": 42, "poster-table2": 68, "poster-table3": 42, "poster-table4": 24,
}  # fmt: skip
CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
PAPERS = {"fervt", "nresizer", "pfvit", "poster"}

SPOT = {  # cell: (printed, metric, entry or cited)
    "pfvit-table1/vit-b/decoder": ("25.22", "parameters_millions[decoder]", "mae-vit-b:affectnet-faces@269316"),
    "pfvit-table4/vit-b/raf-db": ("92.07", "accuracy", "pfvit-vit-b:raf-db-7"),
    "pfvit-table4/vit-b/affectnet-8": ("64.10", "accuracy", "pfvit-vit-b:affectnet-8@4000"),
    "pfvit-table6/transfer/affectnet-7": ("66.23", "accuracy", "TransFER [33]"),
    "pfvit-tableb1/train50-test00/raf-db": ("90.32", "accuracy", "multitask-mae-train50-test00:raf-db-7"),
    "nresizer-table2/e/ferplus": ("89.50", "accuracy", "nresizer:ferplus-8@majority"),
    "nresizer-table4/ours/raf-db": ("88.57", "accuracy", "nresizer-swin-l:raf-db-7"),
    "fervt-table7/vit/ckplus-8": ("96.21", "accuracy", "vit-scratch:ckplus-8@last3-random"),
    "fervt-table8/fervt/ferplus": ("90.04", "accuracy", "fervt-pretrained:ferplus-8@majority"),
    "fervt-table9/fervt/average": ("80.63", "mean_class_accuracy", "fervt-pretrained:raf-db-7"),
    "fervt-table10/fervt/raf-db-pose45": ("86.08", "accuracy", "fervt-pretrained:raf-db-pose45"),
    "fervt-table11/resnet-gwa/ferplus": ("89.05", "accuracy", "fervt-gwa:ferplus-8@majority"),
    "fervt-table11/resnet-gwa-vta/ckplus": ("100.00", "accuracy", "fervt:ckplus-7@last3-random"),
    "fervt-table12/inverted-bottleneck/ckplus": ("100", "accuracy", "fervt:ckplus-7@last3-random"),
    "fervt-table13/fc/ferplus": ("89.05", "accuracy", "fervt-gwa:ferplus-8@majority"),
    "poster-table1/poster/raf-db-mean": ("86.03", "mean_class_accuracy", "poster:raf-db-7"),
    "poster-table1/poster/affectnet-8": ("63.34", "accuracy", "poster-affectnet:affectnet-8@3999"),
    "poster-table2/raf-db-poster/fear": ("67.57", "class_accuracy[fear]", "poster:raf-db-7"),
    "poster-table3/poster-fear/happiness": ("2.70", "prediction_share[fear>happiness]", "poster:raf-db-7"),
}  # fmt: skip


@pytest.fixture(scope="module")
def declared() -> Declarations:
    return load_from(table_files(), protocol_files())


def printed(declared: Declarations, cell: str) -> Decimal:
    return Decimal(declared.claim(cell).printed)


def hits(text: str, n: int) -> list[int]:
    """Every count k whose share k / n prints as `text` (rounded half up or truncated, both are in use)."""
    value, half = Decimal(text), Decimal("0.005")
    shares = ((k, Decimal(100 * k) / n) for k in range(n + 1))
    return [k for k, share in shares if value - half <= share < value + 2 * half]


# --- completeness ---------------------------------------------------------------------------------------------------


def test_all_papers_tables_and_cells_are_there(declared: Declarations) -> None:
    assert set(declared.papers) == PAPERS | {"ours"}  # which prints nothing
    assert dict(Counter(claim.table for claim in declared.claims())) == COUNTS
    assert (len(COUNTS), sum(COUNTS.values())) == (22, 392)


def test_addresses_are_unique_and_usable_on_a_command_line(declared: Declarations) -> None:
    cells = [claim.cell for claim in declared.claims()]
    assert len(set(cells)) == len(cells)
    for table in declared.tables.values():
        for ids in ([row.id for row in table.rows], [column.id for column in table.columns]):
            assert len(set(ids)) == len(ids), table.id
            assert all(name == name.lower() and not set(name) & set(" /:>[]") for name in ids), table.id


def test_every_column_and_row_holds_a_number(declared: Declarations) -> None:
    for table in declared.tables.values():
        assert all(row.cells for row in table.rows), table.id
        assert {name for row in table.rows for name in row.cells} == {column.id for column in table.columns}, table.id


@pytest.mark.parametrize("cell", SPOT)
def test_known_cells(declared: Declarations, cell: str) -> None:
    claim = declared.claim(cell)
    assert (claim.printed, claim.metric, claim.entry or claim.cited) == SPOT[cell]


# --- what a claim is about ------------------------------------------------------------------------------------------


def test_own_rows_name_an_entry_and_cited_rows_none(declared: Declarations) -> None:
    claims = declared.claims()
    assert sum(bool(claim.cited) for claim in claims) == 100
    for claim in claims:
        assert bool(claim.cited) != bool(claim.entry), claim.cell
        if claim.entry:
            entry = declared.entry(claim.entry)
            assert entry.id == claim.entry
            declared.recipe(entry.experiment.recipe).values("paper")
        else:
            assert claim.cited.endswith("]"), f"{claim.cell}: a cited row carries the paper's reference number"


def test_metrics_are_known_and_fit_their_protocol(declared: Declarations) -> None:
    for claim in declared.claims():
        name, _, argument = claim.metric.rstrip("]").partition("[")
        assert name in {"accuracy", "mean_class_accuracy", "class_accuracy", "prediction_share", "parameters_millions"}
        if name == "parameters_millions":
            assert argument in {"encoder", "decoder"}
            assert claim.unit == "M"
            continue
        assert claim.unit == "%"
        known = set(declared.protocol(claim.protocol).classes) if claim.entry else set(CLASSES)
        assert set(argument.split(">")) - {""} <= known, claim.cell


def test_tables_say_where_they_stand_and_why_a_selection_is_compared(declared: Declarations) -> None:
    for table in declared.tables.values():
        assert table.where.lower().startswith("table ")
        assert table.title
        assert table.compare in {"last", "last-k", "test-best", "val-best"}
        assert table.compare_why, table.id


def test_protocols_that_are_not_the_papers_say_so(declared: Declarations) -> None:
    own = [claim for claim in declared.claims() if claim.entry]
    for claim in own:
        paper = declared.table(claim.table).paper
        if paper == "fervt" and claim.protocol.startswith(("ferplus", "ckplus")):
            assert claim.differs, claim.cell
        if paper == "pfvit" and claim.protocol.startswith("affectnet-8"):
            assert "287,568" in claim.differs, claim.cell
        if claim.protocol.startswith("raf-db"):
            assert not claim.differs, claim.cell


# --- digits ---------------------------------------------------------------------------------------------------------


def test_numbers_keep_their_digits(declared: Declarations) -> None:
    for claim in declared.claims():
        assert claim.printed == claim.printed.strip(" %M*+")
        assert 0 <= claim.value <= 100
        decimals = -int(Decimal(claim.printed).as_tuple().exponent)
        assert decimals == 2 or claim.printed == "100", claim.cell


def test_source_files_quote_every_number() -> None:
    for path in table_files():
        for table in read_yaml(path).get("tables", ()):
            assert all(isinstance(text, str) for row in table["rows"] for text in row["cells"].values()), path


def test_a_number_in_two_tables_is_the_same(declared: Declarations) -> None:
    """Equal experiment, protocol and metric print equally, except where the paper contradicts itself."""
    known = {  # listed among the contradictions of the papers
        ("poster-baseline:raf-db-7", "mean_class_accuracy"), ("poster:raf-db-7", "mean_class_accuracy"),
    }  # fmt: skip
    seen: dict[tuple[str, str], set[float]] = {}
    for claim in declared.claims():
        if claim.entry:
            seen.setdefault((claim.entry, claim.metric), set()).add(claim.value)
    assert {key for key, values in seen.items() if len(values) > 1} == known


# --- arithmetic that does not come from the typed text --------------------------------------------------------------


def test_class_accuracies_are_counts_of_images(declared: Declarations) -> None:
    checked = 0
    for claim in declared.tables["poster-table2"].claims():
        name, _, expression = claim.metric.rstrip("]").partition("[")
        sizes = declared.protocol(claim.protocol).class_counts.get("test", {})
        if name != "class_accuracy" or claim.protocol.startswith("ferplus") or not sizes:
            continue
        assert hits(claim.printed, sizes[expression]), claim.cell
        checked += 1
    assert checked == 44


@pytest.mark.parametrize("row", ["ferplus-baseline", "ferplus-poster"])
def test_poster_exchanges_two_pairs_of_ferplus_columns(declared: Declarations, row: str) -> None:
    """Table 2's FERPlus rows fit the class sizes only with Sad/Surprise and Fear/Anger exchanged."""
    sizes = declared.protocol("ferplus-8@majority").class_counts["test"]
    swap = {"sadness": "surprise", "surprise": "sadness", "fear": "anger", "anger": "fear"}
    cells = {name: declared.claim(f"poster-table2/{row}/{name}").printed for name in CLASSES}
    assert all(hits(text, sizes[swap.get(name, name)]) for name, text in cells.items())
    assert not all(hits(text, sizes[name]) for name, text in cells.items())
    assert declared.claim(f"poster-table2/{row}/fear").differs


def test_prediction_shares_add_up(declared: Declarations) -> None:
    for row in declared.tables["poster-table3"].rows:
        assert abs(sum(map(Decimal, row.cells.values())) - 100) <= Decimal("0.02"), row.id


def test_poster_affectnet_8_was_tested_on_3999_images(declared: Declarations) -> None:
    for cell in ("poster-table1/baseline/affectnet-8", "poster-table1/poster/affectnet-8"):
        text = declared.claim(cell).printed
        assert hits(text, 3999)
        assert not hits(text, 4000)


def test_nresizer_ferplus_accuracies_are_means_of_50_batches(declared: Declarations) -> None:
    """3,137 images in batches of 64 are 50 batches, the last of one image: steps of 100 / (50 x 64) = 1/32 point."""
    for claim in declared.claims():
        if claim.entry and claim.table.startswith("nresizer") and claim.protocol.startswith("ferplus"):
            assert hits(claim.printed, 3200), claim.cell


@pytest.mark.parametrize(
    ("better", "worse", "gains", "texts"),
    [
        ("resnet-gwa", "resnet", ("2.20", "2.31", "7.48"), ("4.01", "2.66", "9.61")),
        ("resnet-vta", "resnet", ("3.30", "2.44", "7.82"), ("4.16", "2.81", "10.18")),
        ("resnet-gwa-vta", "resnet", ("4.40", "2.54", "7.48"), ("4.35", "2.93", "10.78")),
    ],
)
def test_fervt_text_and_table_disagree_as_listed(
    declared: Declarations, better: str, worse: str, gains: tuple[str, ...], texts: tuple[str, ...]
) -> None:
    columns = ("ckplus", "ferplus", "raf-db")
    table = "fervt-table11"
    ours = [printed(declared, f"{table}/{better}/{c}") - printed(declared, f"{table}/{worse}/{c}") for c in columns]
    assert ours == [Decimal(gain) for gain in gains]
    listed = " / ".join(gains), " / ".join(texts)
    assert any(all(part in line for part in listed) for line in declared.papers["fervt"].contradictions)


def test_every_paper_lists_contradictions(declared: Declarations) -> None:
    for name in PAPERS:
        paper = declared.papers[name]
        assert len(paper.contradictions) >= 5
        assert all(line.endswith(".") for line in paper.contradictions)


# --- recipes --------------------------------------------------------------------------------------------------------


def test_every_choice_has_a_reason_and_every_source_a_place(declared: Declarations) -> None:
    for recipe in declared.recipes.values():
        for name, field in recipe.fields.items():
            assert field.why if field.source == "choice" else field.at, f"{recipe.id}: {name}"
        assert recipe.values("quick")["epochs"] <= 10, f"{recipe.id}: quick has to take minutes"
        assert all(override.why for override in recipe.profiles.values())


def test_profiles_override_known_fields_only(declared: Declarations) -> None:
    for recipe in declared.recipes.values():
        for override in recipe.profiles.values():
            fields = {name for name in override.fields if not name.startswith("method.")}
            assert fields <= set(declare.RECIPE_FIELDS), recipe.id


def test_every_recipe_and_experiment_is_used(declared: Declarations) -> None:
    assert {experiment.recipe for experiment in declared.experiments.values()} == set(declared.recipes)
    named = {claim.experiment for claim in declared.claims()} - {""}
    spare = set(declared.experiments) - named  # variants to run without a printed number of their own
    assert all(declared.experiments[name].note for name in spare)


# --- refusals -------------------------------------------------------------------------------------------------------


def fervt() -> dict:
    return read_yaml(declare.ROOT / "tables" / "fervt.yaml")


def refused(data: dict, tmp_path: Path) -> str:
    """The error of loading `data` as the only paper file."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_from([path], protocol_files())
    return str(caught.value)


def test_a_misspelt_key_names_the_file_and_the_nearest_match(tmp_path: Path) -> None:
    data = fervt()
    data["tables"][0]["colums"] = data["tables"][0].pop("columns")
    text = refused(data, tmp_path)
    assert "mine.yaml" in text
    assert "'colums'" in text
    assert "columns" in text


def test_a_misspelt_recipe_field_is_refused(tmp_path: Path) -> None:
    data = fervt()
    fields = data["recipes"]["fervt-paper"]["fields"]
    fields["label_smoothin"] = fields.pop("label_smoothing")
    text = refused(data, tmp_path)
    assert "label_smoothin" in text
    assert "label_smoothing" in text


def test_a_choice_without_a_reason_is_refused(tmp_path: Path) -> None:
    data = fervt()
    del data["recipes"]["fervt-paper"]["fields"]["epochs"]["why"]
    assert "'epochs' is a choice and needs a 'why'" in refused(data, tmp_path)


def test_an_unquoted_number_is_refused(tmp_path: Path) -> None:
    data = fervt()
    data["tables"][0]["rows"][0]["cells"]["ckplus-6"] = 98.27
    assert "quoted string" in refused(data, tmp_path)


def test_a_cell_that_is_no_number_is_refused(tmp_path: Path) -> None:
    data = fervt()
    data["tables"][0]["rows"][0]["cells"]["ckplus-6"] = "98.27%"
    assert "98.27%" in refused(data, tmp_path)


@pytest.mark.parametrize(
    ("path", "wrong", "near"),
    [
        (("experiments", "fervt", "recipe"), "fervt-papr", "fervt-paper"),
        (("tables", 4, "rows", 0, "experiment"), "fervt-resnet43", "fervt-resnet34"),
        (("tables", 4, "columns", 1, "protocol"), "ferplus-8@majorty", "ferplus-8@majority"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(tmp_path: Path, path: tuple, wrong: str, near: str) -> None:
    data = fervt()
    node = data
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = wrong
    text = refused(data, tmp_path)
    assert wrong in text
    assert near in text


def test_a_cell_of_an_unknown_column_is_refused(tmp_path: Path) -> None:
    data = fervt()
    data["tables"][4]["rows"][0]["cells"]["raf_db"] = "76.83"
    text = refused(data, tmp_path)
    assert "raf_db" in text
    assert "raf-db" in text


def test_a_row_is_cited_or_ours_never_both(tmp_path: Path) -> None:
    data = fervt()
    data["tables"][4]["rows"][0]["cited"] = "ResNet [14]"
    assert "fervt-table11/resnet" in refused(data, tmp_path)


def test_an_unknown_cell_names_its_neighbours(declared: Declarations) -> None:
    with pytest.raises(UserError, match="pfvit-table4/vit-b/raf-db"):
        declared.claim("pfvit-table4/vit-b/raf_db")


@given(st.decimals(min_value=0, max_value=100, places=2))
def test_any_two_decimal_number_survives_the_round_trip(value: Decimal) -> None:
    text = f"{value:.2f}"
    table = {
        "id": "t", "title": "t", "where": "Table 1", "columns": [{"id": "c", "title": "c"}],
        "rows": [{"id": "r", "title": "r", "cited": "X [1]", "cells": {"c": text}}],
    }  # fmt: skip
    file = {"paper": {"id": "p", "title": "p", "venue": "v", "year": 2021}, "tables": [table]}
    again = yaml.safe_load(yaml.safe_dump(file))
    claims: list[Claim] = parse(PaperFile, again, Path("p.yaml")).tables[0].claims()
    assert [claim.printed for claim in claims] == [text]
