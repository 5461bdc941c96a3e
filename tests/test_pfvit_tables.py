"""What tables/pfvit.yaml declares: recipes, the authors' files and what takes their place, stages, profiles."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import declare, extra, matrix, plan, registry, weights
from bench.data import source
from bench.declare import Experiment, Protocol
from bench.errors import UserError
from bench.method import Context, Spec
from methods.mae.sizes import size_of
from methods.pfvit.constraint import ROLES
from methods.pfvit.options import Options

DECLARED = declare.load()
TABLES = DECLARED.tables_of("pfvit")
OURS = {name: one for name, one in DECLARED.experiments.items() if one.paper == "pfvit"}
PFVIT = {name: one for name, one in OURS.items() if one.method == "pfvit"}
SIZES = {"vit_tiny_patch16": "t", "vit_small_patch16": "s", "vit_base_patch16": "b"}
PRINTED = [claim for table in TABLES for claim in table.claims() if claim.experiment]
TRAINED = [claim for claim in PRINTED if claim.table != "pfvit-table1"]


def options_of(found: Experiment, profile: declare.ProfileName = "paper") -> dict[str, Any]:
    entry = declare.Entry(experiment=found, protocol=DECLARED.protocol("raf-db-7"))
    return matrix.options_of(DECLARED, entry, profile)


def run_of(found: Experiment, profile: declare.ProfileName, protocol: str = "ferplus-8@majority") -> matrix.Run:
    entry = matrix.running_entry(DECLARED, found.id, protocol, profile)
    return matrix.runs_of(DECLARED, entry, profile, [0])[0]


def stages_behind(run: matrix.Run) -> list[matrix.Run]:
    found = list(run.stages.values())
    for stage in found:
        found += stage.stages.values()
    return found


# ---------------------------------------------------------------------------------------------------------- the numbers
def test_no_printed_number_has_changed() -> None:
    claims = [claim for table in TABLES for claim in table.claims()]
    assert (len(claims), len(TABLES)) == (97, 7)
    lines = "\n".join(f"{c.cell} {c.metric} {c.printed} {c.cited} {c.entry}" for c in claims)
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "66255553d6bacb89"


# -------------------------------------------------------------------------------------------------------------- recipes
def test_what_the_paper_prints_is_in_the_recipes() -> None:
    baseline, pfvit, mae = (
        DECLARED.recipe(name).values("paper") for name in ("pfvit-baseline-paper", "pfvit-paper", "mae-code")
    )
    for recipe in (baseline, pfvit):
        assert (recipe["optimizer"], recipe["batch_size"], recipe["epochs"], recipe["input_size"]) == (
            "adam",
            32,
            100,
            224,
        )
        assert (recipe["schedule"], recipe["schedule_factor"], recipe["schedule_patience"]) == ("plateau", 0.1, 30)
    assert (baseline["learning_rate"], pfvit["learning_rate"]) == (1e-4, 2e-5)
    options = Options.parse(options_of(OURS["pfvit-vit-b"]))
    betas = (options.discriminator_beta1, options.discriminator_beta2)
    assert (options.discriminator_learning_rate, betas) == (1e-4, (0.5, 0.999))
    assert (mae["epochs"], options_of(OURS["mae-vit-b"])["mask_ratio"]) == (300, 0.75)
    assert mae["learning_rate"] == pytest.approx(1.5e-4 * mae["batch_size"] / 256)


@pytest.mark.parametrize("profile", declare.PROFILES)
def test_every_option_is_read_by_its_method(profile: declare.ProfileName) -> None:
    """Networks of the miniatures are built; of those at full size only the shapes are looked up."""
    built: set[str] = set()
    for name, found in OURS.items():
        run = run_of(found, profile)
        recipe = {**run.recipe, "channels_last": False}
        spec = Spec(name, found.backbone, run.pretraining, run.options)
        if profile == "paper":
            made_of(found.method).parse(run.options)
            if found.backbone in SIZES:
                size_of(found.backbone, "full", recipe["input_size"])
            continue
        place = repr((found.method, found.backbone, run.options, found.recipe))
        if place not in built:
            context = Context(("neutral", "anger"), recipe["input_size"], 10, torch.device("cpu"), restoring=True)
            method = registry.find("method", found.method).load()(spec, recipe, context)
            if found.backbone in SIZES:
                assert sum(p.numel() for p in method.net.parameters()) < 8e6, name
        built.add(place)


def made_of(method: str) -> Any:
    """The options of a method."""
    module = registry.find("method", method).load().__globals__
    return module["Options"]


def test_every_choice_of_pfvit_is_declared_with_its_reason() -> None:
    fields = DECLARED.recipe("pfvit-paper").fields
    declared = {name.removeprefix("method."): field.value for name, field in fields.items() if name[:7] == "method."}
    defaults = dataclasses.asdict(Options())
    per_row = {"constraint_network", "multitask", "train_mask", "test_mask", "scale_down"}
    told = {"fusion_start"}  # by a reading: a field of the method would be part of every key
    assert declared == {name: value for name, value in defaults.items() if name not in per_row | told}
    for name in told:
        assert str(fields[f"reading.{name}"].value).startswith(f"{defaults[name]}: ")


def test_a_generator_never_starts_from_a_decoder_that_learnt_normalised_targets() -> None:
    for role in DECLARED.stages:
        if role.startswith("mae-"):
            for profile in declare.PROFILES:
                assert matrix.stage_run(DECLARED, role, profile).options["normalised_targets"] is False, role


# -------------------------------------------------------------------------------------------------- files and stand-ins
def test_printed_rows_start_from_the_authors_files() -> None:
    for claim in TRAINED:
        found = DECLARED.experiment(claim.experiment)
        assert set(found.weights) <= set(weights.records()), claim.cell
        size = {"t": "tiny", "s": "small", "b": "base"}[SIZES[found.backbone]]
        start = {
            "imagenet21k-supervised": f"vit-{size}-patch16-augreg",
            "mae-imagenet1k": f"mae-vit-{size}-imagenet1k",
            "mae-affectnet": f"mae-vit-{size}-affectnet",
        }[found.pretraining]
        network = found.options.get("constraint_network", "none")
        assert found.weights == (start, *ROLES[network][:1]), claim.cell


@pytest.mark.parametrize("profile", declare.PROFILES)
def test_every_run_gets_networks_of_its_own_size_and_kind(profile: declare.ProfileName) -> None:
    for name, found in OURS.items():
        if found.method not in ("pfvit", "pfvit-baseline"):
            continue
        run = run_of(found, profile)
        started = [role for role in (*run.weights, *run.stages) if role.startswith("mae-")]
        assert len(started) == run.pretraining.startswith("mae-"), name
        for role in started:
            backbone = run.stages[role].entry.experiment.backbone if role in run.stages else found.backbone
            assert backbone == found.backbone, (name, role)
        rest = set(run.weights) | set(run.stages)
        networks = rest & set(ROLES[run.options.get("constraint_network", "none")])
        assert len(networks) == bool(ROLES[run.options.get("constraint_network", "none")]), name
        if profile != "paper" and "-affectnet-own" not in name:
            assert run.weights == (), name
        for stage in stages_behind(run):
            assert stage.profile == profile, name
            if found.method != "face-network" and stage.entry.experiment.method == "mae":
                sides = (stage.recipe["input_size"], run.recipe["input_size"])
                assert (sides[0], stage.options.get("scale_down")) == (sides[1], run.options.get("scale_down")), name


def test_quick_plans_every_row_with_nothing_missing(tmp_path: Path) -> None:
    claims = [*PRINTED, *extra.asked(DECLARED, TABLES, "quick", "all")]
    planned = plan.plan(matrix.expand(DECLARED, claims, "quick", [0]), None, tmp_path)
    assert [(p.run.name, p.reason) for p in planned if p.status == "blocked"] == []
    asked = [p for p in planned if not p.only_stage]
    assert len({(c.experiment, c.protocol) for c in claims if c.table != "pfvit-table1"}) == len(asked)
    table4 = plan.plan(matrix.expand(DECLARED, DECLARED.table("pfvit-table4").claims(), "quick", [0]), None, tmp_path)
    assert len([p for p in table4 if p.only_stage]) == 4  # three masked autoencoders and one face network
    assert len(table4) == 13


@pytest.mark.parametrize("profile", declare.PROFILES)
def test_no_two_rows_share_a_run(profile: declare.ProfileName) -> None:
    claims = [*PRINTED, *extra.asked(DECLARED, TABLES, profile, "all")]
    keys: dict[str, set[Any]] = {}
    for run in matrix.expand(DECLARED, claims, profile, [0]):
        stages = {role: stage.key("d" * 16, {}) for role, stage in run.stages.items()}
        keys.setdefault(run.key("d" * 16, dict.fromkeys(run.weights, "f" * 64), stages), set()).add(run.identity)
    assert len(keys) > 20
    assert [found for found in keys.values() if len(found) > 1] == []


def test_quick_tells_imagenets_masked_pretraining_from_affectnets() -> None:
    stages = [
        run_of(OURS[name], "quick").stages.popitem()[1].entry.id
        for name in ("vit-b-mae-imagenet-plain", "vit-b-mae-plain")
    ]
    assert stages[0] != stages[1]


# ----------------------------------------------------------------------------------------------- rows without the files
def test_every_printed_row_has_one_that_needs_no_file() -> None:
    free = {
        (claim.table, claim.instead_of, claim.column)
        for table in TABLES
        for claim in table.extra_claims()
        if claim.row in {row.id for row in table.extra if row.run == "fallback"}
        and not set(DECLARED.experiment(claim.experiment).weights) & set(weights.records())
    }
    assert {(claim.table, claim.row, claim.column) for claim in TRAINED} == free


def test_rows_without_files_differ_from_the_printed_ones_in_nothing_else() -> None:
    kept = {"id", "note", "weights", "pretraining"}
    for table in TABLES:
        fallback = {row.id: row for row in table.extra if row.run == "fallback"}
        for claim in table.extra_claims():
            if claim.row in fallback:
                ours = DECLARED.experiment(claim.experiment)
                printed = DECLARED.experiment(
                    DECLARED.claim(f"{claim.table}/{claim.instead_of}/{claim.column}").experiment
                )
                assert ours.model_dump(exclude=kept) == printed.model_dump(exclude=kept), claim.cell
                assert ours.pretraining not in (printed.pretraining, "mae-affectnet"), claim.cell


def test_masked_pretraining_is_on_the_faces_that_a_row_names() -> None:
    own = {"ferplus": "ferplus-8@majority", "raf-db": "raf-db-7"}
    for table in TABLES:
        for claim in table.extra_claims():
            found = DECLARED.experiment(claim.experiment)
            for role in found.weights:
                on = DECLARED.stages.get(role, "").partition(":")[2]
                if not role.startswith("mae-") or not on or claim.row.endswith("-synthfer"):
                    continue
                same = claim.row.endswith(("-same-faces", "-no-files"))
                assert on == (own.get(claim.column, "affectnet-faces@287651") if same else "affectnet-faces@287651")


@pytest.fixture
def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def require(roles: tuple[str, ...]) -> dict[str, Any]:
        if roles:
            raise UserError(f"weights {roles} are not at hand")
        return {}

    monkeypatch.setattr(weights, "require", require)


def only_there(monkeypatch: pytest.MonkeyPatch, datasets: set[str]) -> None:
    def check(self: Any, protocol: Protocol, skip_bad: bool = False, preprocessing: str = "") -> None:
        if protocol.dataset not in datasets and not protocol.synthetic:
            raise UserError(f"{protocol.dataset}: not found")

    monkeypatch.setattr(source.Copies, "check", check)


@pytest.mark.parametrize(
    ("datasets", "suffixes"),
    [
        ({"ferplus"}, {"ferplus": {"-scratch", "-same-faces"}}),
        ({"ferplus", "affectnet"}, {"ferplus": {"-scratch", "-own"}, "affectnet-8": {"-scratch", "-own"}}),
    ],
)
def test_the_row_runs_whose_images_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_files: None, datasets: set[str],
    suffixes: dict[str, set[str]],
) -> None:  # fmt: skip
    only_there(monkeypatch, datasets)
    found = extra.asked(DECLARED, [DECLARED.table("pfvit-table3")], "paper", "auto", tmp_path)
    for column, ends in suffixes.items():
        rows = [claim.row for claim in found if claim.column == column]
        assert len(rows) == 6
        assert {end for row in rows for end in ends if row.endswith(end)} == ends
        assert all(row.endswith(tuple(ends)) for row in rows), rows
    found = extra.asked(DECLARED, [DECLARED.table("pfvit-table4")], "paper", "auto", tmp_path)
    assert {claim.row.partition("-")[2][2:] for claim in found} == {
        "no-files"
    }  # the face network's file is missing too


def test_short_on_ferplus_needs_ferplus_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_files: None
) -> None:
    only_there(monkeypatch, {"ferplus"})
    tables = [DECLARED.table(f"pfvit-table{number}") for number in (2, 3, 4, 6)]
    assert matrix.expand(DECLARED, [c for table in tables for c in table.claims()], "short", [0]) == []
    claims = [c for c in extra.asked(DECLARED, tables, "short", "auto", tmp_path) if c.column == "ferplus"]
    assert len(claims) == 3 + 6 + 3 + 4
    for run in matrix.expand(DECLARED, claims, "short", [0]):
        assert run.weights == ()
        for stage in stages_behind(run):
            assert stage.weights == ()
            assert stage.entry.protocol.synthetic or stage.entry.protocol.id == "ferplus-8@majority", run.name


def test_a_reader_is_sent_to_rows_that_the_profile_can_run() -> None:
    for claim in TRAINED:
        stop = extra.unanswerable(DECLARED, DECLARED.table(claim.table), claim, "short")
        assert stop is not None
        assert stop.hint.endswith("below the table"), claim.cell


# ------------------------------------------------------------------------------------------------------- other readings
SWITCHES: dict[str, dict[str, Any]] = {
    "literal-sign": {"adversarial_sign": "literal"},
    "real-emotions": {"discriminator_emotions": "real-faces"},
    "remains": {"discriminator_emotions": "remains"},
    "norm": {"reconstruction": "norm"},
    "token-separator": {"separator": "token"},
    "self-fusion": {"fusion": "self"},
    "random-fusion": {"fusion_start": "random"},
    "encoder-stem": {"discriminator_stem": "encoder"},
    "same-identity": {"constraint_goal": "same-identity"},
    "no-direct": {"direct_constraint": False},
    "fixed-weights": {"loss_weights": "fixed"},
    "encoder-constraint": {"constraint_network": "mae-encoder"},
}


def test_other_readings_change_what_they_say() -> None:
    rows = {row.id: row for row in DECLARED.table("pfvit-table4").extra if row.run == "asked"}
    assert set(rows) == set(SWITCHES)
    base = OURS["pfvit-vit-b"]
    for name, changed in SWITCHES.items():
        found = DECLARED.experiment(rows[name].experiment)
        assert rows[name].instead_of == "vit-b"
        assert options_of(found) == options_of(base) | changed
        kept = {"id", "note", "options", *(["weights"] if name == "encoder-constraint" else [])}
        assert found.model_dump(exclude=kept) == base.model_dump(exclude=kept)


@pytest.mark.parametrize("profile", declare.PROFILES)
def test_miniatures_have_no_row_with_the_encoders_stem(profile: declare.ProfileName) -> None:
    """They embed patches by convolutions, and the method refuses the switch."""
    claims = extra.asked(DECLARED, TABLES, profile, "all")
    runs = [run_of(DECLARED.experiment(c.experiment), profile) for c in claims if c.table == "pfvit-table4"]
    with_stem = [run for run in runs if run.options.get("discriminator_stem") == "encoder"]
    assert {run.options.get("scale_down", "full") for run in with_stem} == ({"full"} if profile == "paper" else set())


def test_every_choice_among_words_has_an_experiment() -> None:
    options = [Options.parse(options_of(found)) for found in PFVIT.values()]
    tried = {(name, getattr(found, name)) for found in options for name in Options.choices if name != "scale_down"}
    assert tried == {
        (name, word) for name, words in Options.choices.items() if name != "scale_down" for word in words
    } - {
        ("orthogonality", "absolute-cosine")  # the same minimum by another slope
    }


def test_table_b1_masks_what_its_rows_say() -> None:
    for row in DECLARED.table("pfvit-tableb1").rows:
        options = Options.parse(options_of(OURS[row.experiment]))
        ratios = tuple(float(part) for part in row.title.split("/"))
        assert (options.multitask, options.train_mask, options.test_mask) == (True, *ratios)


def test_table5_changes_the_network_alone() -> None:
    networks = [
        (options_of(OURS[row.experiment])["direct_constraint"], options_of(OURS[row.experiment])["constraint_network"])
        for row in DECLARED.table("pfvit-table5").rows
    ]
    assert networks == [(True, name) for name in ("none", "resnet18", "resnet50", "inception-resnet-v1")]
