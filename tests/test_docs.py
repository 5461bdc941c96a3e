"""The documents tell the truth: their code runs, their commands parse, their declarations validate."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

import run_all
from bench import declare, matrix, weights_status
from bench.declare import Experiment, Recipe, Table
from bench.method import Context, Spec, Supervised

ROOT = Path(__file__).resolve().parent.parent


def blocks(document: str, language: str) -> list[str]:
    """Fenced code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_method_of_contributing_trains_with_its_example_recipe() -> None:
    (code,), (declared, _) = blocks("CONTRIBUTING.md", "python"), blocks("CONTRIBUTING.md", "yaml")
    namespace: dict[str, object] = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), namespace)
    data = yaml.safe_load(declared)
    recipe = Recipe.model_validate({"id": "mine", **data["recipes"]["mine"]})
    experiment = Experiment.model_validate({"id": "mine", **data["experiments"]["mine"]})
    context = Context(("neutral", "happiness"), 48, 10, torch.device("cpu"))
    spec = Spec(experiment.id, experiment.backbone, experiment.pretraining, experiment.options)
    method = namespace["build"](spec, recipe.values("quick"), context)  # type: ignore[operator]
    assert isinstance(method, Supervised)
    losses = method.update(torch.randn(4, 3, 48, 48), torch.tensor([0, 1, 0, 1]))
    assert torch.isfinite(losses["loss"])
    assert method.predict(torch.randn(4, 3, 48, 48)).shape == (4, 2)


def test_the_example_row_of_contributing_stands_in_its_table() -> None:
    table = declare.load().table("fervt-table11").model_dump()
    added = yaml.safe_load(blocks("CONTRIBUTING.md", "yaml")[1])
    (claim,) = Table.model_validate({**table, **added}).extra_claims()
    assert (claim.cell, claim.experiment, claim.protocol) == (
        "fervt-table11/mine/ferplus",
        "mine",
        "ferplus-8@majority",
    )


def test_the_experiment_on_own_pretraining_makes_its_role_known(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("docs/own-data.md", "yaml") if "experiments:" in block]
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    assert not [one for one in weights_status.standings(declare.installed()) if one.role == "mae-mine"]
    declared = declare.load_from([*declare.table_files(), file], declare.protocol_files())
    (found,) = [one for one in weights_status.standings(declared) if one.role == "mae-mine"]
    assert found.experiments == ("vit-t-mine",)
    entry = declare.Entry(experiment=declared.experiment("vit-t-mine"), protocol=declared.protocol("raf-db-7"))
    (run,) = matrix.runs_of(declared, entry, "short", [0])
    assert (run.pretraining, run.weights) == ("mae-mine", ("mae-mine",))


def commands() -> list[str]:
    """Every run_all.py command line the documents show."""
    found = []
    for document in ("README.md", "CONTRIBUTING.md", "docs/synthfer.md", "docs/pitfalls.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        found += re.findall(r"python run_all\.py ([^\n`#|]+)", text)
    return sorted({line.strip() for line in found})


@pytest.mark.parametrize("line", commands())
def test_commands_in_the_documents_parse(line: str) -> None:
    words = shlex.split(line)
    if words[0].startswith("-"):
        words.insert(0, "run")
    assert words[0] in run_all.COMMANDS
    run_all._parser(words[0]).parse_args(words)
