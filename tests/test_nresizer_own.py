"""The Neural Resizer on images of one's own: classes that its prior does not know are refused ahead of everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers_own import folders

import run_all
from bench import backbones, declare, matrix
from bench.errors import UserError


@pytest.fixture
def planned(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What --plan says of a command line: its status, and everything printed."""
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    for name, classes in (("mine", ("joy", "bored")), ("known", ("joy", "sadness"))):
        counts = {f"{split}/{one}": n for split, n in (("train", 8), ("val", 3), ("test", 5)) for one in classes}
        folders(
            tmp_path / "data" / name,
            counts,
            f"id: {name}\npreprocessing: own-64\nlabels: {{joy: happiness, {classes[1]}: {classes[1]}}}\n",
        )

    def run(*words: str) -> tuple[int, str]:
        data = ("--data-root", str(tmp_path / "data"), "--results", str(tmp_path / "results"))
        status = run_all.main([*words, "--profile", "short", "--plan", *data])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def test_classes_that_ferplus_lacks_are_refused_with_a_way_on(planned: Any) -> None:
    status, said = planned("--method", "nresizer", "--protocol", "own/mine")
    assert status == 2
    assert "nresizer-scratch on own/mine: FERPlus has no class" in said
    assert "bored" in said
    assert "-> give `--experiment nresizer-scratch-uniform --protocol own/mine` instead" in said
    status, said = planned("--experiment", "nresizer-scratch-uniform", "--protocol", "own/mine")
    assert status == 0
    assert "runnable  nresizer-scratch-uniform:own/mine seed 0 [short]" in said


def test_another_backbone_stays_in_what_is_told(planned: Any) -> None:
    status, said = planned("--method", "nresizer", "--backbone", "resnet18", "--protocol", "own/mine")
    assert status == 2
    assert "`--experiment nresizer-scratch-uniform+resnet18 --protocol own/mine`" in said
    words = ("--experiment", "nresizer-scratch-uniform+resnet18", "--protocol", "own/mine")
    assert planned(*words)[0] == 0


@pytest.mark.parametrize(
    ("experiment", "protocol"), [("nresizer-scratch", "own/known"), ("nresizer-scratch-cross-entropy", "own/mine")]
)
def test_others_are_planned(planned: Any, experiment: str, protocol: str) -> None:
    status, said = planned("--experiment", experiment, "--protocol", protocol)
    assert status == 0
    assert f"runnable  {experiment}:{protocol}" in said


@pytest.mark.parametrize("experiment", ["nresizer-scratch", "nresizer-scratch-pdls", "nresizer"])
def test_the_network_is_not_needed_to_know(experiment: str) -> None:
    declared = declare.load()
    protocol = declared.protocol("raf-db-7").model_copy(update={"classes": ("neutral", "pain")})
    entry = declare.Entry(experiment=declared.experiment(experiment), protocol=protocol)
    with pytest.raises(UserError, match="FERPlus has no class pain"):
        backbones.check_classes(matrix.runs_of(declared, entry, "short", [0])[0])
