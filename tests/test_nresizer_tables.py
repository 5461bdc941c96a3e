"""What tables/nresizer.yaml declares: settings (a) to (e), recipes, rows without external files, profiles."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from bench import declare, extra, matrix, weights
from bench.declare import Experiment
from bench.errors import UserError
from commands import chosen

DECLARED = declare.load()
TABLES = DECLARED.tables_of("nresizer")
OURS = {name: one for name, one in DECLARED.experiments.items() if one.method == "nresizer"}
# model, STN, up, down, loss of each row, as the tables print them
TABLE2 = {
    "a": ("swin_small", False, "bilinear", "none", "f-pdls"),
    "b": ("swin_small", False, "bilinear", "ltr", "f-pdls"),
    "c": ("swin_small", False, "sr", "bilinear", "f-pdls"),
    "d": ("swin_small", False, "sr", "ltr", "f-pdls"),
    "e": ("swin_base", True, "sr", "ltr", "f-pdls"),
}
VANILLA = (False, "bilinear", "none")
BEST = (True, "sr", "ltr")
TABLE1 = ("vit_small_patch16", "deit_small_patch16", "convit_small", "xcit_small_12_p16", "swin_small")


def setting(experiment: str, profile: declare.ProfileName = "paper") -> tuple[Any, ...]:
    """What a row of the tables says of a model."""
    found = DECLARED.experiment(experiment)
    options = options_of(found, profile)
    loss = options.get("loss", DECLARED.recipe(found.recipe).values(profile)["loss"])
    return (found.backbone, options["stn"], options["up"], options["down"], loss)


def options_of(found: Experiment, profile: declare.ProfileName = "paper") -> dict[str, Any]:
    entry = declare.Entry(experiment=found, protocol=DECLARED.protocol("ferplus-8@majority"))
    return matrix.options_of(DECLARED, entry, profile)


@pytest.mark.parametrize("profile", declare.PROFILES)
def test_settings_a_to_e_are_declarations(profile: declare.ProfileName) -> None:
    rows = {row.id: row.experiment for row in DECLARED.table("nresizer-table2").rows}
    assert {name: setting(experiment, profile) for name, experiment in rows.items()} == TABLE2


def test_table1_sets_a_vanilla_transformer_against_the_resizer() -> None:
    rows = DECLARED.table("nresizer-table1").rows
    assert [setting(row.experiment) for row in rows] == [(name, *VANILLA, "cross-entropy") for name in TABLE1]
    proposed = [setting(row.experiments["proposed"]) for row in rows]
    assert proposed == [(name, False, "sr", "ltr", "f-pdls") for name in TABLE1]


def test_table3_changes_the_loss_alone() -> None:
    for row in DECLARED.table("nresizer-table3").rows:
        assert setting(row.experiment) == ("swin_base", *VANILLA, row.id)
        assert setting(row.experiments["proposed"]) == ("swin_base", *BEST, row.id)
        alpha = {
            options_of(DECLARED.experiment(name))["alpha"] for name in (row.experiment, row.experiments["proposed"])
        }
        assert alpha == {0.5 if row.id == "pdls" else 0.8}  # cross-entropy does not read it


def test_table4_is_swin_l_on_rafdb() -> None:
    assert setting(DECLARED.claim("nresizer-table4/ours/ferplus").experiment) == TABLE2["e"]
    assert setting(DECLARED.claim("nresizer-table4/ours/raf-db").experiment) == ("swin_large", *BEST, "f-pdls")


def test_every_recipe_has_its_schedule() -> None:
    """A quarter each time: the released code every 15 epochs, the first one early; the text every 10."""
    code, vanilla, votes, paper = (
        DECLARED.recipe(f"nresizer-{name}").values("paper") for name in ("code", "code-vanilla", "code-votes", "paper")
    )
    for recipe in (code, vanilla, votes, paper):
        assert (recipe["schedule"], recipe["schedule_factor"], recipe["epochs"]) == ("step", 0.25, 100)
        assert (recipe["optimizer"], recipe["learning_rate"], recipe["batch_size"]) == ("adam", 1e-4, 64)
    assert code["schedule_epochs"] == vanilla["schedule_epochs"] == [14, 29, 44, 59, 74, 89]
    assert paper["schedule_epochs"] == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert code | {"input_size": 224} == vanilla
    assert code | {"votes": True, "method.prior": "train-votes"} == votes
    assert code | {"schedule_epochs": paper["schedule_epochs"]} == paper


def test_the_two_recipes_differ_in_augmentation_too() -> None:
    assert {one.augmentation for one in OURS.values() if one.recipe == "nresizer-paper"} == {"flip"}
    assert {one.augmentation for one in OURS.values() if one.recipe != "nresizer-paper"} == {"nresizer-code"}
    assert "reading.augmentation" in DECLARED.recipe("nresizer-paper").fields


@pytest.mark.parametrize("profile", declare.PROFILES)
def test_super_resolution_has_one_front_and_nothing_else_has(profile: declare.ProfileName) -> None:
    protocol = DECLARED.protocol("synth-ferplus-8" if profile == "quick" else "ferplus-8@majority")
    for name, found in OURS.items():
        entry = declare.Entry(experiment=found, protocol=protocol)
        run = matrix.runs_of(DECLARED, entry, profile, [0])[0]
        enlarged = run.options["up"] == "sr"
        assert bool(run.front) == bool(found.front) == enlarged, name
        kinds = [role for role in (*run.weights, *run.stages) if role == "dic-helen" or role.startswith("sr-")]
        assert kinds == ([run.front] if enlarged else []), name
        if profile != "paper":
            assert run.pretraining == "none", name
            assert run.weights == (), name


def test_a_profile_keeps_the_chain_of_sizes() -> None:
    """Super-resolution's factor leads from 48 pixels to the input size, the resizer from there to what vanilla sees."""
    inner: dict[declare.ProfileName, int] = {"paper": 224, "short": 56, "quick": 56}
    for profile, pixels in inner.items():
        code, vanilla = (DECLARED.recipe(name).values(profile) for name in ("nresizer-code", "nresizer-code-vanilla"))
        assert int(code["input_size"] * code["method.resize_factor"]) == pixels
        assert vanilla["input_size"] == pixels
        for role in ("sr-synthfer", "sr-real"):
            stage = matrix.stage_run(DECLARED, role, profile)
            side, times = code["method.sr_input"], 0
            while side < code["input_size"]:
                side, times = side * stage.options["scale"], times + 1
            assert side == code["input_size"], (role, profile)
            assert stage.profile == profile


def test_rows_without_files_differ_from_the_printed_ones_in_nothing_else() -> None:
    kept = {"id", "note", "weights", "front", "pretraining"}
    for table in TABLES:
        fallback = {row.id for row in table.extra if row.run == "fallback"}
        assert {name.rpartition("-own-sr")[1] or name.rpartition("-scratch")[1] for name in fallback} == {
            "-own-sr", "-scratch",
        }  # fmt: skip
        for claim in table.extra_claims():
            if claim.row not in fallback or claim.row.endswith("-own-sr"):
                continue
            ours = DECLARED.experiment(claim.experiment).model_dump(exclude=kept)
            printed = DECLARED.experiment(
                DECLARED.claim(f"{claim.table}/{claim.instead_of}/{claim.column}").experiment
            ).model_dump(exclude=kept)
            if printed["backbone"] == "deit_small_patch16":  # another training of the same network
                printed["backbone"] = "vit_small_patch16"
            assert ours == printed, claim.cell
            scratch = DECLARED.experiment(claim.experiment)
            assert scratch.pretraining == "none"
            assert set(scratch.weights) <= {"sr-synthfer"}, claim.cell


def test_every_printed_row_has_one_without_files() -> None:
    for table in TABLES:
        stood_for = {
            (claim.instead_of, claim.column) for claim in table.extra_claims() if claim.row.endswith("-scratch")
        }
        assert {(claim.row, claim.column) for claim in table.claims() if claim.experiment} <= stood_for


def test_deit_without_its_weights_is_vit() -> None:
    timm = pytest.importorskip("timm")
    nets = [timm.create_model(f"{name}_small_patch16_224", num_classes=8, depth=1) for name in ("vit", "deit")]
    assert str(nets[0]) == str(nets[1])


def test_rows_with_own_super_resolution_keep_the_backbones_file() -> None:
    rows = [claim for table in TABLES for claim in table.extra_claims() if claim.row.endswith("-own-sr")]
    assert len({claim.experiment for claim in rows}) == 10
    for claim in rows:
        own = DECLARED.experiment(claim.experiment)
        printed = DECLARED.experiment(DECLARED.claim(f"{claim.table}/{claim.instead_of}/{claim.column}").experiment)
        assert own.weights == (printed.weights[0], "sr-synthfer"), claim.cell
        assert setting(own.id) == setting(printed.id)


ONE_THING: dict[str, dict[str, Any]] = {
    "nresizer-scratch-sr-real": {"weights": ("sr-real",), "front": "sr-real"},
    "nresizer-scratch-bicubic": {"weights": (), "front": "", "up": "bicubic"},
    "nresizer-scratch-sigmoid": {"probability": "sigmoid"},
    "nresizer-scratch-uniform": {"prior": "uniform"},
    "nresizer-scratch-votes": {"prior": "train-votes", "recipe": "nresizer-code-votes"},
    "nresizer-as-printed-scratch": {"recipe": "nresizer-paper", "augmentation": "flip"},
}


@pytest.mark.parametrize("name", ONE_THING)
def test_rows_of_ours_change_what_they_say(name: str) -> None:
    def flat(experiment: str) -> dict[str, Any]:
        found = DECLARED.experiment(experiment)
        return {**found.model_dump(exclude={"id", "note", "options"}), **options_of(found)}

    assert flat(name) == flat("nresizer-scratch") | ONE_THING[name]


@pytest.mark.parametrize("profile", declare.PROFILES)
def test_no_two_rows_share_a_run(profile: declare.ProfileName) -> None:
    """A profile that shrinks two networks to the same one would leave one of the two rows without its result."""
    claims = [claim for table in TABLES for claim in table.claims() if claim.experiment]
    claims += extra.asked(DECLARED, TABLES, profile, "all")
    keys: dict[str, set[Any]] = {}
    for run in matrix.expand(DECLARED, claims, profile, [0]):
        stages = {role: stage.key("d" * 16, {}) for role, stage in run.stages.items()}
        keys.setdefault(run.key("d" * 16, dict.fromkeys(run.weights, "f" * 64), stages), set()).add(run.identity)
    assert len(keys) > 20
    assert [found for found in keys.values() if len(found) > 1] == []


def test_under_short_every_row_is_its_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "require", lambda roles: {})
    printed = [claim for table in TABLES for claim in table.claims() if claim.experiment]
    assert matrix.expand(DECLARED, printed, "short", [0]) == []
    stood_for = {
        (claim.table, claim.instead_of, claim.column) for claim in extra.asked(DECLARED, TABLES, "short", "auto")
    }
    assert stood_for == {(claim.table, claim.row, claim.column) for claim in printed}
    assert extra.asked(DECLARED, TABLES, "paper", "auto") == []


def only_at_hand(monkeypatch: pytest.MonkeyPatch, roles: set[str]) -> None:
    def require(wanted: tuple[str, ...]) -> dict[str, Any]:
        if set(wanted) - roles:
            raise UserError(f"weights {sorted(set(wanted) - roles)} are not at hand")
        return {}

    monkeypatch.setattr(weights, "require", require)


BACKBONES = {"swin-small-in1k", "swin-base-in22k"}


@pytest.mark.parametrize(
    ("files", "rows", "stands_in"),
    [
        (set(), ["a-scratch", "b-scratch", "c-scratch", "d-scratch", "e-scratch"], "nresizer-scratch"),
        ({"dic-helen"}, ["a-scratch", "b-scratch", "c-scratch", "d-scratch", "e-scratch"], "nresizer-scratch"),
        (BACKBONES, ["c-own-sr", "d-own-sr", "e-own-sr"], "nresizer-sr-synthfer"),
        ({"swin-base-in22k"}, ["e-own-sr", "a-scratch", "b-scratch", "c-scratch", "d-scratch"], "nresizer-sr-synthfer"),
        (BACKBONES | {"dic-helen"}, [], "nresizer"),
    ],
)
def test_the_row_nearest_to_the_printed_one_runs_in_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: set[str], rows: list[str],
    stands_in: str,
) -> None:  # fmt: skip
    only_at_hand(monkeypatch, files)
    assert [claim.row for claim in extra.asked(DECLARED, [DECLARED.table("nresizer-table2")], "paper", "auto")] == rows
    scratch = [claim.row for claim in extra.asked(DECLARED, [DECLARED.table("nresizer-table2")], "short", "auto")]
    assert scratch == ["a-scratch", "b-scratch", "c-scratch", "d-scratch", "e-scratch"]
    words = argparse.Namespace(method=["nresizer"], experiment=[], backbone=[], protocol=["ferplus-8@majority"])
    assert list(chosen.experiments(DECLARED, words, "paper")) == [stands_in]
    assert list(chosen.experiments(DECLARED, words, "short")) == ["nresizer-scratch"]
    # with another backbone the file of its own plays no part
    words.backbone = ["resnet18"]
    front = "dic-helen" in files
    assert list(chosen.experiments(DECLARED, words, "paper")) == [
        f"{'nresizer' if front else 'nresizer-scratch'}+resnet18"
    ]
    assert "is the same as" not in capsys.readouterr().out


def test_a_reader_is_sent_to_a_row_that_the_profile_can_run() -> None:
    for table in TABLES:
        for claim in (claim for claim in table.claims() if claim.experiment):
            stop = extra.unanswerable(DECLARED, table, claim, "short")
            assert stop is not None
            assert stop.hint.endswith(", from scratch' below the table"), claim.cell


def test_rows_about_the_augmentation_need_a_profile_that_leaves_it() -> None:
    """Mirroring alone is then what every row trains with, so that these would be copies of the one they stand for."""
    table = DECLARED.table("nresizer-table4")
    printed = {"ours-as-printed", "ours-as-printed-scratch"}
    rows = {
        profile: {claim.row for claim in extra.asked(DECLARED, [table], profile, "all")} for profile in declare.PROFILES
    }
    assert printed <= rows["paper"]
    assert not printed & (rows["short"] | rows["quick"])
    assert rows["quick"] == {"ours-own-sr", "ours-scratch"}
    left = extra.left_out(DECLARED, table, "quick")
    assert left == {
        "profile quick sets augmentation for all rows alike": ["ours as printed", "ours as printed, from scratch"]
    }
    left = extra.left_out(DECLARED, table, "short")
    assert left["profile short sets augmentation for all rows alike"] == ["ours as printed, from scratch"]


def test_quick_takes_the_prior_of_the_drawn_faces() -> None:
    """Their raters confuse other classes than FERPlus's do. Rows about the prior are then not what they say."""
    for name in ("nresizer-code", "nresizer-code-vanilla", "nresizer-paper"):
        values = DECLARED.recipe(name).values("quick")
        assert (values["votes"], values["method.prior"]) == (True, "train-votes")
    left = extra.left_out(DECLARED, DECLARED.table("nresizer-table3"), "quick")
    assert list(left) == ["profile quick sets prior for all rows alike"]
    assert len(left["profile quick sets prior for all rows alike"]) == 2


def test_figure_2_is_drawn_from_the_best_setting() -> None:
    figure = DECLARED.figures["nresizer-figure2"]
    assert list(figure.experiments.values()) == ["nresizer"]
    assert list(figure.fallback.values()) == ["nresizer-scratch"]
    assert (figure.draw, figure.faces, figure.protocol) == ("resizer-output", "each-class", "ferplus-8@majority")


def test_what_the_released_evaluation_does_can_be_measured() -> None:
    variants = DECLARED.protocol("ferplus-8@majority").variants
    assert DECLARED.protocol(variants["augmented-test"]).test_transform == "nresizer-code"
    assert DECLARED.protocol(variants["swapped-splits"]).counts == {"train": 25045, "val": 3137, "test": 3191}
