"""Which runs there are, and their keys: what can change a number changes the key, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import declare, matrix, registry
from bench.declare import RECIPE_FIELDS, Claim, Declarations, Entry, Override
from bench.errors import UserError
from bench.matrix import Run, expand, find_run, runs_of, specification

pytest_plugins = ("helpers_engine",)
HASH, WEIGHTS = "d" * 16, {"backbone": "a" * 64}


@pytest.fixture
def run(tiny: Declarations) -> Run:
    return runs_of(tiny, tiny.entry("tiny:tiny-4"), "paper", [0])[0]


def key(run: Run, data: str = HASH, weights: dict[str, str] = WEIGHTS) -> str:
    return run.key(data, weights)


def changed(run: Run, part: str, **fields: Any) -> Run:
    entry = run.entry.model_copy(update={part: getattr(run.entry, part).model_copy(update=fields)})
    return replace(run, entry=entry)


def test_a_key_is_sixteen_hex_digits_and_stays(run: Run) -> None:
    assert len(key(run)) == 16
    assert int(key(run), 16) >= 0
    assert key(run) == key(replace(run)) == key(replace(run, recipe=dict(reversed(list(run.recipe.items())))))


VALUES = (
    st.integers(-5, 500)
    | st.floats(0, 1, allow_nan=False)
    | st.booleans()
    | st.text(max_size=8)
    | st.lists(st.floats(0, 1, allow_nan=False), max_size=3)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(RECIPE_FIELDS)), value=VALUES)
def test_every_recipe_field_counts(run: Run, name: str, value: Any) -> None:
    other = replace(run, recipe={**run.recipe, name: value})
    assert (key(other) == key(run)) == (value == run.recipe[name])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=st.dictionaries(st.sampled_from(["width", "depth", "gwa"]), VALUES, max_size=3))
def test_every_option_counts(run: Run, options: dict[str, Any]) -> None:
    assert (key(replace(run, options=options)) == key(run)) == (options == run.options)


def test_everything_else_that_can_change_a_number_counts(tiny: Declarations, run: Run) -> None:
    others = [
        replace(run, seed=1),
        replace(run, fold=1),
        replace(run, profile="quick"),
        changed(run, "experiment", backbone="large"),
        changed(run, "experiment", pretraining="imagenet1k"),
        changed(run, "experiment", augmentation="flip"),
        changed(run, "experiment", method="fervt"),
        changed(run, "protocol", id="tiny-5"),
        changed(run, "protocol", classes=("happiness", "neutral", "surprise", "sadness")),
        changed(run, "protocol", folds=3),
        changed(run, "protocol", dataset="synthfer"),
    ]
    keys = [
        key(run),
        *map(key, others),
        key(run, data="e" * 16),
        key(run, weights={}),
        key(run, weights={"backbone": "b" * 64}),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("kind", ["method", "dataset", "augmentation"])
def test_a_version_counts(run: Run, monkeypatch: pytest.MonkeyPatch, kind: registry.Kind) -> None:
    before, find = key(run), registry.find

    def newer(asked: registry.Kind, name: str) -> registry.Registered:
        found = find(asked, name)
        return replace(found, version=found.version + 1) if asked == kind else found

    monkeypatch.setattr(registry, "find", newer)
    assert key(run) != before


def test_the_loop_version_counts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import loop

    assert matrix._loop_version() == loop.LOOP_VERSION
    before = key(run)
    monkeypatch.setattr(matrix, "_loop_version", lambda: loop.LOOP_VERSION + 1)
    assert key(run) != before


def test_what_cannot_change_a_number_does_not_count(tiny: Declarations, run: Run) -> None:
    same = [
        changed(run, "experiment", note="a remark"),
        changed(run, "experiment", paper="another"),
        changed(run, "protocol", title="another", notes="x", access="y", stand_in="z"),
    ]
    assert {key(other) for other in same} == {key(run)}
    specs = [specification(run, key(run), root, device, seconds)
             for root in (None, Path("/data")) for device in ("cpu", "cuda:1") for seconds in (0.0, 60.0)]  # fmt: skip
    assert {key(find_run(tiny, spec)) for spec in specs} == {key(run)}


def test_a_new_recipe_field_at_its_default_keeps_old_results(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(run)
    monkeypatch.setitem(RECIPE_FIELDS, "gradient_clipping", 0.0)
    assert key(replace(run, recipe={**run.recipe, "gradient_clipping": 0.0})) == before
    assert key(replace(run, recipe={**run.recipe, "gradient_clipping": 1.0})) != before


def test_a_specification_finds_its_run_again(tiny: Declarations) -> None:
    for run in runs_of(tiny, tiny.entry("tiny:tiny-folds"), "short", [0, 7]):
        found = find_run(tiny, specification(run, "k", None, "cpu", 1.0))
        assert found == run
        assert found.name == run.name


# ------------------------------------------------------------------------------------------------------- expansion


def test_seeds_and_folds(tiny: Declarations) -> None:
    runs = runs_of(tiny, tiny.entry("tiny:tiny-folds"), "paper", [0, 1])
    assert [(run.seed, run.fold) for run in runs] == [(s, f) for s in (0, 1) for f in (0, 1, 2)]
    assert len({key(run) for run in runs}) == 6
    assert runs[1].name == "tiny:tiny-folds seed 0 fold 2/3 [paper]"


def test_a_run_in_several_tables_is_one_run(tiny: Declarations) -> None:
    runs = expand(tiny, tiny.claims(), "paper", [0])
    assert [run.entry.id for run in runs] == ["tiny:tiny-4", "tiny-fails:tiny-4", "tiny-unbuilt:tiny-4"]


def test_a_subset_is_scored_on_the_run_of_its_whole(tiny: Declarations) -> None:
    claim = tiny.claim("tiny-table3/ours/half")
    assert matrix.running_entry(tiny, claim.experiment, claim.protocol, "paper").id == "tiny:tiny-4"
    assert matrix.scored_protocol(tiny, claim, "paper") == "tiny-half"


def test_quick_runs_on_the_stand_in(tiny: Declarations) -> None:
    entry = matrix.running_entry(tiny, "tiny", "tiny-absent", "quick")
    assert entry.protocol.id == "tiny-4"
    assert matrix.running_entry(tiny, "tiny", "tiny-absent", "paper").protocol.id == "tiny-absent"


def test_options_are_recipe_then_experiment_then_profile(tiny: Declarations) -> None:
    assert matrix.options_of(tiny, tiny.entry("tiny-plain:tiny-4"), "paper") == {"width": 4}
    assert matrix.options_of(tiny, tiny.entry("tiny:tiny-4"), "paper") == {"width": 6}
    run = runs_of(tiny, tiny.entry("tiny:tiny-4"), "short", [0])[0]
    assert run.recipe["epochs"] == 2
    assert not any(name.startswith("method.") for name in run.recipe)


def test_tables_asked_for_come_once_and_unknown_ones_are_named(tiny: Declarations) -> None:
    ids = [t.id for t in matrix.selected_tables(tiny, ["tiny-table2", "tiny-table2"], ["tiny"], False)]
    assert sorted(ids) == ["tiny-table1", "tiny-table2", "tiny-table3"]
    with pytest.raises(UserError, match="unknown table 'tiny-tabel'"):
        matrix.selected_tables(tiny, ["tiny-tabel"], [], False)


def own_claims() -> list[Claim]:
    return [claim for claim in declare.load().claims() if claim.experiment]


@pytest.mark.parametrize("profile", declare.PROFILES)
def test_no_two_declared_runs_share_a_key(profile: declare.ProfileName) -> None:
    """Two experiments of one content would be one run that only one of them gets the result of."""
    declared, keys = declare.load(), {}
    built, data = registry.available("method"), registry.available("dataset")
    for claim in own_claims():
        experiment = declared.experiment(claim.experiment)
        if experiment.method not in built or experiment.augmentation not in registry.available("augmentation"):
            continue
        if profile not in ("paper", *declared.recipe(experiment.recipe).profiles):
            continue
        entry: Entry = matrix.running_entry(declared, claim.experiment, claim.protocol, profile)
        if entry.protocol.dataset not in data:
            continue
        for run in runs_of(declared, entry, profile, [0]):
            keys.setdefault(key(run, weights={}), set()).add(run.identity)
    assert keys
    assert [found for found in keys.values() if len(found) > 1] == []


def test_a_profile_may_change_the_augmentation(tiny: Declarations, run: Run) -> None:
    assert run.augmentation == run.entry.experiment.augmentation
    other = replace(run, other_augmentation="poster-code")
    assert other.augmentation == "poster-code" != run.augmentation
    assert key(other) != key(run)
    assert key(replace(run, other_augmentation=run.augmentation)) == key(run)
    recipe = tiny.recipe(run.entry.experiment.recipe)
    profiles = {"quick": Override(why="small", augmentation="poster-code")}
    tiny.recipes[recipe.id] = recipe.model_copy(update={"profiles": profiles})
    assert runs_of(tiny, run.entry, "quick", [0])[0].augmentation == "poster-code"
