"""Any backbone in a declared experiment: its id, its files, and the words that ask for it on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_engine import ROOT, Server, forget, quiet_environment
from safetensors.torch import save_file

import run_all
from bench import backbones, collect, declare, matrix, queue, weights
from bench.errors import UserError

pytest_plugins = ("helpers_engine",)

# An experiment with the method's name that needs two files, and the fallback row that does without one of them.
MORE = """
paper: {id: more, title: More, venue: Nowhere, year: 2024}
recipes:
  more:
    fields:
      optimizer: {value: adamw, source: paper, at: "1"}
      learning_rate: {value: 0.01, source: paper, at: "1"}
      batch_size: {value: 16, source: paper, at: "1"}
      epochs: {value: 1, source: paper, at: "1"}
      input_size: {value: 12, source: paper, at: "1"}
    profiles:
      short: {why: without files, without_pretraining: true, instead: {made: made}}
      quick: {why: without files, without_pretraining: true, instead: {made: made}}
stages: {made: "tiny:tiny-4"}
experiments:
  tinynet: {method: tinynet, backbone: large, pretraining: big, augmentation: none, recipe: more,
            weights: [large-file, front-file], front: front-file}
  tinynet-stage: {method: tinynet, backbone: large, augmentation: none, recipe: more, weights: [made], front: made}
tables:
  - id: more-table
    title: One row
    where: Table 1
    columns: [{id: four, title: Four, protocol: tiny-4}]
    rows: [{id: ours, title: Ours, experiment: tinynet, cells: {four: "50.00"}}]
    extra:
      - {id: stage, title: Ours with a stage, experiment: tinynet-stage, instead_of: ours, run: fallback, why: no file}
"""


@pytest.fixture
def door(tiny: Any, outside: Path, tmp_path: Path, job_server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line on the tiny declarations and those above."""
    (tmp_path / "more.yaml").write_text(MORE)
    monkeypatch.setattr(declare, "table_files", lambda: [outside / "tiny.yaml", tmp_path / "more.yaml"])
    monkeypatch.setattr(queue, "subprocess", job_server)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)
    forget()

    def run(*words: str) -> int:
        return run_all.main([*words, "--results", str(tmp_path / "results")])

    return run


def place(role: str, number: float = 1.0) -> Path:
    """A weights file where runs look for it."""
    path = weights.folder() / f"{role}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"conv.weight": torch.full((2, 2), number), "fc.weight": torch.ones(3, 2)}, path)
    return path


# ------------------------------------------------------------------------------------------------------------------ ids
def test_a_backbone_takes_the_place_of_the_experiments_own(door: Any) -> None:
    declared = declare.load()
    base, scratch = declared.experiment("tinynet"), declared.experiment("tinynet+resnet18")
    assert (scratch.id, scratch.backbone, scratch.pretraining) == ("tinynet+resnet18", "resnet18", "none")
    assert scratch.weights == ("front-file",), "the backbone's file goes, what prepares the images stays"
    assert (scratch.method, scratch.recipe, scratch.front) == (base.method, base.recipe, base.front)
    tagged = declared.experiment("tinynet+resnet18.a1_in1k@timm")
    assert (tagged.pretraining, tagged.weights) == ("timm", ("front-file", "timm-resnet18.a1_in1k"))
    entry = declared.entry("tinynet+resnet18:tiny-4")
    assert (entry.id, entry.experiment) == ("tinynet+resnet18:tiny-4", scratch)
    assert declared.experiment("tiny-plain+resnet18").weights == ()


def test_one_run_has_one_name(door: Any) -> None:
    declared = declare.load()
    assert declared.experiment("tiny+small").id == "tiny", "it is declared"
    assert declared.experiment("tinynet-stage+large").id == "tinynet-stage"


def test_experiments_that_differ_in_their_backbones_alone_become_one() -> None:
    declared = declare.load()
    for how in ("", "@timm"):
        names = ("nresizer-vit", "nresizer-deit", "nresizer-swin-s")
        assert len({declared.experiment(f"{name}+resnet18{how}").id for name in names}) == 1
    assert declared.experiment("nresizer-scratch+resnet18").id == "nresizer-scratch+resnet18"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tinny+resnet18", "unknown experiment 'tinny'\n  -> did you mean tiny"),
        ("tiny+resnet18@tim", "unknown pretraining of a backbone 'tim'\n  -> did you mean timm"),
        ("tiny+", "'' is no name of a backbone\n  -> write tiny+resnet18"),
        ("tiny+../resnet18", "'../resnet18' is no name"),
    ],
)
def test_an_id_that_says_nothing_is_refused(tiny: Any, name: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        tiny.experiment(name)
    assert says in str(error.value)


# --------------------------------------------------------------------------------------------------------- command line
def test_a_backbone_is_trained_shown_and_compared(
    door: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--experiment", "tiny", "--protocol", "tiny-4", "--backbone", "wide", "--profile", "quick")
    assert door(*words) == 0
    out = capsys.readouterr().out
    assert (
        "tiny+wide: wide from random weights; from pretrained ones: `python run_all.py weights fetch timm-wide`" in out
    )
    assert "## tiny+wide on tiny-4, profile quick" in out
    results = tmp_path / "results"
    rows = collect.read_rows(next(results.rglob("runs.csv")))
    assert {(row["experiment"], row["backbone"], row["pretraining"]) for row in rows} == {("tiny+wide", "wide", "none")}

    file = place("timm-wide")
    assert door(*words) == 0
    out = capsys.readouterr().out
    assert f"tiny+wide@timm: wide from {file}" in out
    assert "1 runnable" in out
    rows = collect.read_rows(next(results.rglob("runs.csv")))
    assert {(row["experiment"], row["pretraining"]) for row in rows} == {
        ("tiny+wide", "none"),
        ("tiny+wide@timm", "timm"),
    }
    two = ("compare", "tiny+wide:tiny-4", "tiny+wide@timm:tiny-4", "--profile", "quick")
    assert door(*two) == 0
    assert "on 30 images" in capsys.readouterr().out
    assert door("show", "tiny+wide@timm:tiny-4", "--profile", "quick") == 0
    out = capsys.readouterr().out
    assert "cached" in out
    assert '["timm-wide"]' in out

    assert door(*words, "--plan") == 0
    assert "1 cached" in capsys.readouterr().out
    place("timm-wide", 2.0)
    assert door(*words, "--plan") == 0
    assert "1 runnable" in capsys.readouterr().out, "another file is another run"


def test_several_backbones_are_several_runs_and_the_own_one_is_the_experiment(
    door: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--experiment", "tiny", "--protocol", "tiny-4", "--profile", "quick", "--plan")
    assert door(*words, "--backbone", "small", "wide", "deep", "wide") == 0
    out = capsys.readouterr().out
    named = [line.split()[1] for line in out.splitlines() if line.startswith("  runnable")]
    assert named == ["tiny:tiny-4", "tiny+wide:tiny-4", "tiny+deep:tiny-4"]


def test_a_method_is_the_experiment_of_its_name_or_the_row_that_does_without_its_files(
    door: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--method", "tinynet", "--protocol", "tiny-4", "--profile", "paper", "--seeds", "0", "--plan")
    assert door(*words) == 0
    out = capsys.readouterr().out
    assert (
        "tinynet-stage in place of tinynet, which needs large-file, front-file (python run_all.py weights show" in out
    )
    assert "runnable  tinynet-stage:tiny-4" in out
    assert door(*words, "--backbone", "resnet18") == 0
    out = capsys.readouterr().out
    assert "tinynet-stage in place of tinynet, which needs front-file (" in out, "the backbone's file is not needed"
    assert "runnable  tinynet-stage+resnet18:tiny-4" in out

    place("front-file")
    assert door(*words, "--backbone", "resnet18") == 0
    out = capsys.readouterr().out
    assert "in place of" not in out
    assert "runnable  tinynet+resnet18:tiny-4" in out
    assert "tinynet-stage:tiny-4" not in out
    assert door(*words) == 0
    assert "which needs large-file (" in capsys.readouterr().out


def test_a_profile_without_files_is_said_so(door: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place("timm-resnet18")
    place("front-file")
    words = ("--method", "tinynet", "--protocol", "tiny-4", "--backbone", "resnet18", "--plan", "--profile")
    assert door(*words, "short") == 0
    out = capsys.readouterr().out
    assert "tinynet-stage in place of tinynet, as profile short goes without front-file\n" in out, "it is at hand"
    assert "tinynet-stage+resnet18: resnet18 from random weights, as profile short goes without pretrained files" in out
    assert door(*words, "paper", "--seeds", "0") == 0
    assert "runnable  tinynet+resnet18@timm:tiny-4" in capsys.readouterr().out


def test_a_declared_pretrained_experiment_is_named(door: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--protocol", "tiny-4", "--backbone", "large", "--plan", "--profile", "quick")
    assert door("--experiment", "tiny", *words) == 0
    assert "from pretrained ones: `python run_all.py --experiment tinynet`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "tinynet"], "--method needs --protocol"),
        (["--method", "tinnet", "--protocol", "tiny-4"], "unknown method 'tinnet'\n  -> did you mean tinynet"),
        (["--method", "nowherenet", "--protocol", "tiny-4"], "give one with --experiment: tiny-unbuilt"),
        (["--method", "tinynet", "--experiment", "tiny", "--protocol", "tiny-4"], "--method is for tables"),
        (["--experiment", "tiny+wide", "--backbone", "deep", "--protocol", "tiny-4"], "has a backbone already"),
        (["--backbone", "wide", "--protocol", "tiny-4"], "nothing asked for"),
        (["--experiment", "tiny", "--backbone", "wide", "--protocol", "own/x"], "synthetic faces, not on your own"),
        (["--method", "tinynet", "--checkpoint", "x.pth"], "nothing asked for"),
        (["--table", "tiny-table1", "--backbone", "wide"], "unknown backbone 'wide'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    door: Any, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert door(*words) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--experiment", "fervt", "--backbone", "resnet19"], "unknown backbone of fervt 'resnet19'"),
        (["--experiment", "fervt+resnet19"], "unknown backbone of fervt 'resnet19'"),
        (["--method", "poster", "--backbone", "resnet50"], "unknown backbone of poster"),
        (["--experiment", "vit-scratch", "--backbone", "resnet50"], "unknown backbone of vit 'resnet50'"),
    ],
)
def test_a_method_says_before_anything_is_read_which_backbones_it_takes(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert run_all.main([*words, "--protocol", "ferplus-8@majority", "--profile", "quick", "--plan"]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("id", [False, True])
def test_a_miniature_is_told_and_has_the_tables_name(id: bool, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["nresizer+deit_small_patch16_224"] if id else ["nresizer", "--backbone", "deit_small_patch16_224"]
    words = ["--protocol", "ferplus-8@majority", "--profile", "quick", "--plan"]
    assert run_all.main(["--experiment", *asked, *words]) == 0
    out = capsys.readouterr().out
    assert "profile quick builds a miniature of deit_small_patch16_224: " in out
    assert "runnable  nresizer+deit_small_patch16:synth-ferplus-8" in out


@pytest.mark.usefixtures("own_cache")
def test_a_file_for_images_of_another_size_is_refused_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--protocol", "ferplus-8@majority", "--profile", "paper", "--plan"]
    asked = ["--experiment", "nresizer-scratch", "--backbone", "vit_tiny_patch16_384"]
    says = "timm's weights of 'vit_tiny_patch16_384' are for images of 384 pixels, and the backbone gets 224 here"
    run_all.main([*asked, *words])
    assert f"nresizer-scratch+vit_tiny_patch16_384: vit_tiny_patch16_384 from random weights: {says}" in (
        capsys.readouterr().out
    )
    place("timm-vit_tiny_patch16_384")
    assert run_all.main([*asked, *words]) == 2
    told = capsys.readouterr().err
    assert f"{says}\n  -> take a backbone whose weights are for 224 pixels, such as vit_tiny_patch16_224, or" in told
    assert run_all.main(["--experiment", "nresizer-scratch+vit_tiny_patch16_384@timm", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_method_that_takes_no_file_of_timm_is_not_given_one() -> None:
    """A file that is there for another method must not stop this one."""
    declared = declare.load()
    entry = matrix.running_entry(declared, "fervt+resnet18", "ferplus-8@majority", "quick")
    assert not backbones.tried(matrix.runs_of(declared, entry, "quick", [0])[0]).takes_timm


# -------------------------------------------------------------------------------------------------------------- weights
@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.mark.usefixtures("own_cache")
def test_a_file_of_timm_needs_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert run_all.main(["weights", *words]) == 0
        return " ".join(capsys.readouterr().out.split())

    shown = said("show", "timm-resnet18")
    assert "missing" in shown
    assert "wants the TAG of one set of weights, as in resnet18.a1_in1k" in shown
    assert "python run_all.py weights fetch timm-resnet18 " in shown
    assert "hub timm/resnet18.a1_in1k, model.safetensors" in said("show", "timm-resnet18.a1_in1k")
    assert "timm-" not in said("status")
    path = tmp_path / "model.safetensors"
    save_file({"conv1.weight": torch.ones(2), "fc.weight": torch.ones(2), "fc.bias": torch.ones(2)}, path)
    assert "timm-resnet18.a1_in1k: 1 tensors to load, 3 in the file" in said("add", "timm-resnet18.a1_in1k", str(path))
    assert "timm-resnet18.a1_in1k here" in said("status")
    assert run_all.main(["weights", "show", "timm-../x"]) == 2
    for word, role, says in (
        ("show", "timm-resnet81", "unknown backbone 'resnet81'\n  -> did you mean resnet18"),
        ("show", "timm-resnet18.a1_in2k", "unknown backbone 'resnet18.a1_in2k'\n  -> did you mean resnet18.a1_in1k"),
        ("add", "timm-qqqqqqqq", "unknown backbone 'qqqqqqqq'\n  -> known: convit_small"),
    ):
        capsys.readouterr()
        assert run_all.main(["weights", word, role, *([str(path)] if word == "add" else [])]) == 2
        assert says in capsys.readouterr().err
    assert "timm-swin_base" in said("show", "timm-swin_base"), "a name of the tables"


@pytest.mark.usefixtures("own_cache")
def test_fetching_takes_the_tag_or_timms_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def download(repo: str, file: str, revision: str, local_files_only: bool) -> str:
        asked.append((repo, file))
        path = tmp_path / "model.safetensors"
        save_file({"conv1.weight": torch.ones(2)}, path)
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert run_all.main(["weights", "fetch", "timm-resnet18", "timm-resnet18.tv_in1k"]) == 0
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors"), ("timm/resnet18.tv_in1k", "model.safetensors")]
    assert ", of timm/resnet18.a1_in1k on the hub" in capsys.readouterr().out
    assert weights.find("timm-resnet18") is not None
    assert run_all.main(["weights", "fetch", "timm-resnet19"]) == 1
    assert "unknown pretrained network of timm 'resnet19'\n  -> did you mean resnet18" in capsys.readouterr().err


def test_planning_tables_still_imports_no_torch() -> None:
    code = (
        "import sys, run_all\n"
        "words = ['--table', 'fervt-table11', '--backbone', 'resnet34', '--profile', 'quick', '--plan']\n"
        "assert run_all.main(words) == 0\n"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=quiet_environment(), capture_output=True)
