"""Stages: runs whose network other runs need, in place of a released file. Here: what is declared of them.

`stages:` at the top of a paper's YAML maps a role to an entry; a run that needs the role waits for the entry's network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from bench.declare import Declarations


def check_stages(declared: Declarations) -> None:
    """Every stage names an entry that can be trained once, none waits for itself, and none is a file as well.

    Raises:
        UserError: names the role.
    """
    for role, entry_id in declared.stages.items():
        if ":" not in entry_id:
            raise UserError(f"stage '{role}': '{entry_id}' is no entry", "write experiment:protocol")
        if declared.entry(entry_id).protocol.folds:
            raise UserError(f"stage '{role}': {entry_id} has folds", "a stage is one run: use a protocol without folds")
    if declared.stages:
        from bench import weights  # it imports the declarations

        for role in declared.stages.keys() & weights.records().keys():
            raise UserError(f"role '{role}' is both a stage and a file of bench/weights.yaml", "rename the stage")
    needed = {role for experiment in declared.experiments.values() for role in experiment.weights}
    for recipe in declared.recipes.values():
        for override in recipe.profiles.values():
            for role, other in override.instead.items():
                if role not in needed:
                    raise unknown(f"role in recipe '{recipe.id}'", role, needed)
                if other not in (role, *declared.stages):  # a file that stays is named in its own place
                    raise unknown(f"stage in recipe '{recipe.id}'", other, declared.stages)
    for role in declared.stages:
        _refuse_cycle(declared, role, ())


def _refuse_cycle(declared: Declarations, role: str, before: tuple[str, ...]) -> None:
    if role in before:
        raise UserError(f"stages wait for each other: {' -> '.join((*before, role))}")
    experiment = declared.entry(declared.stages[role]).experiment
    recipe = declared.recipe(experiment.recipe)
    overrides = [recipe.override("paper"), *recipe.profiles.values()]
    for needed in dict.fromkeys(role for override in overrides for role in override.roles(experiment.weights)):
        if needed in declared.stages:
            _refuse_cycle(declared, needed, (*before, role))
