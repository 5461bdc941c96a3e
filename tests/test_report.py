"""Tables of our own: what is declared of them, their numbers from files, and from the command line to the table."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers_engine import ROOT, forget, install, quiet_environment
from pydantic import ValidationError

import run_all
from bench import declare, job, measures, queue, statistics, store
from bench.declare import Declarations, PaperFile
from bench.errors import UserError
from bench.measures import Measures
from bench.report import Line
from bench.yaml_files import read_yaml

pytest_plugins = ("helpers_engine",)

MEASURE = '''
"""How bright images are, and what another network says of them."""
import numpy as np
import torch
from bench.registry import measure

@measure("tinybright", version=1)
def bright(net, faces, title, judges):
    at = np.arange(len(faces))
    pixels = faces.pixels(at).float() / 255
    own = net(faces.inputs(title, at)).argmax(1).numpy()
    other = judges["other"].net(judges["other"].inputs(pixels[:, None].expand(-1, 3, -1, -1))).argmax(1).numpy()
    light = pixels.mean(dim=(1, 2)).numpy()
    return {"bright": light, "twice": 2 * light, "own": own == faces.labels, "agrees": own == other}
'''
REPORTS = """
reports:
  - id: ours-tiny
    title: Brightness
    protocol: tiny-4
    measure: tinybright
    experiments: {First: tiny, Second: tiny-plain}
    judges: {other: "tiny-plain:tiny-4"}
    notes: Made up.
    lines:
      - {id: bright, title: Brightness, of: bright, digits: 4}
      - {id: half, title: Against twice as much, of: bright, per: twice}
      - {id: own, title: Right, of: own, unit: "%", digits: 1}
      - {id: agrees, title: Agrees with the other, of: agrees, unit: "%", digits: 1, without: neutral}
"""


@pytest.fixture(scope="session")
def reporting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outside package of helpers_engine with a measure and a report."""
    folder = install(tmp_path_factory.mktemp("reporting"))
    (folder / "tinyfer" / "measure.py").write_text(MEASURE)
    with (folder / "tinyfer-1.0.dist-info" / "entry_points.txt").open("a") as stream:
        stream.write("\n[ferbench.measures]\ntinybright = tinyfer.measure\n")
    with (folder / "tiny.yaml").open("a") as stream:
        stream.write(REPORTS)
    return folder


@pytest.fixture
def declared(reporting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Declarations]:
    monkeypatch.syspath_prepend(str(reporting))
    monkeypatch.setattr(declare, "table_files", lambda: [reporting / "tiny.yaml"])
    monkeypatch.setattr(declare, "protocol_files", lambda: [reporting / "protocols.yaml"])
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    forget()
    yield declare.load()
    forget()


@pytest.fixture
def command(declared: Declarations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """run_all.py; jobs run in this process."""
    monkeypatch.setattr("commands.run.Local", Here)
    return lambda *words: run_all.main([*words, "--results", str(tmp_path / "results")])


class Here:
    """Stands in for the queue."""

    def __init__(self, *_: Any) -> None:
        pass

    def run(self, tasks: list[queue.Task]) -> list[Any]:
        for task in tasks:
            store.run_folder(task.key).mkdir(parents=True)
            job.execute(json.loads(json.dumps(task.specification)), store.run_folder(task.key))
        return []


# ------------------------------------------------------------------------------------------ from the command to the end
def test_a_report_from_nothing_then_from_its_files(
    command: Any, reporting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--table", "ours-tiny", "tiny-table1") == 0
    first = capsys.readouterr().out
    assert "plan: 2 runs" in first  # the judge is one of them, the table's row the other
    assert first.count("ours-tiny: measuring") == 2
    table = first[first.index("## ours-tiny") :]
    rows = [line for line in table.splitlines() if line.startswith("|") and not line.startswith("|--")]
    assert len(rows) == 5
    assert all("SYNTHETIC, not comparable" in row for row in rows)

    folder = tmp_path / "results" / "quick"
    kept = {name: measures.read(folder / "measures" / "ours-tiny" / f"{name}-quick-seed0.parquet")
            for name in ("tiny", "tiny-plain")}  # fmt: skip
    assert all(one is not None and list(one.frame.columns[:2]) == ["name", "label"] for one in kept.values())
    frame = kept["tiny-plain"].frame  # type: ignore[union-attr]
    assert frame["name"].tolist() == [f"tiny-{i:03d}" for i in range(90, 120)]
    assert frame["agrees"].tolist() == [1] * 30  # its own judge: the network it is, seen through its own recipe
    # noise from 0 to 169 everywhere, 60 more on 36 of 144 pixels
    assert frame["bright"].mean() == pytest.approx((84.5 + 60 * 36 / 144) / 255, abs=0.01)
    drawn = csv_rows(folder / "tables" / "ours-tiny.csv")
    numbers = {(row["line"], row["network"]): row for row in drawn}
    assert float(numbers["half", "First"]["mean"]) == pytest.approx(0.5)
    assert float(numbers["bright", "First"]["mean"]) == pytest.approx(frame["bright"].mean(), rel=1e-5)
    assert numbers["agrees", "Second"]["images"] == str((frame["label"] != "neutral").sum())
    last = [row for row in csv_rows(folder / "runs.csv") if row["selection"] == "last" and row["protocol"] == "tiny-4"]
    scored = {row["experiment"]: row for row in last}
    assert float(numbers["own", "First"]["mean"]) == pytest.approx(100 * float(scored["tiny"]["accuracy"]), abs=0.01)
    for suffix in ("md", "tex", "html"):
        text = (folder / "tables" / f"ours-tiny.{suffix}").read_text()
        assert "Brightness" in text
        assert "SYNTHETIC, not comparable" in text

    assert command("--table", "ours-tiny") == 0
    again = capsys.readouterr().out
    assert "measuring" not in again
    assert again[again.index("## ours-tiny") :].split("\n\n")[:-1] == table.split("\n\n")[:-1]
    _drawn_without_torch(reporting, tmp_path, table)


def csv_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def _drawn_without_torch(reporting: Path, tmp_path: Path, table: str) -> None:
    words = ["render", "--table", "ours-tiny", "--profile", "quick", "--results", str(tmp_path / "results")]
    code = (
        "import sys, pathlib, run_all\n"
        "from bench import declare\n"
        f"folder = pathlib.Path({str(reporting)!r})\n"
        "declare.table_files = lambda: [folder / 'tiny.yaml']\n"
        "declare.protocol_files = lambda: [folder / 'protocols.yaml']\n"
        f"status = run_all.main({words!r})\n"
        "sys.exit(9 if 'torch' in sys.modules else status)"
    )
    environment = quiet_environment(PYTHONPATH=f"{ROOT}:{reporting}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n\n")[:-1] == table.split("\n\n")[:-1]


def test_what_was_measured_of_another_network_or_is_damaged_is_measured_again(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--table", "ours-tiny", "--seeds", "1") == 0
    folder = tmp_path / "results" / "quick" / "measures" / "ours-tiny"
    first, second = folder / "tiny-quick-seed1.parquet", folder / "tiny-plain-quick-seed1.parquet"
    whole = measures.read(first)
    assert whole is not None
    older = {**whole.about, "network": "0" * 64}
    columns = {name: whole.frame[name].to_numpy() for name in whole.frame.columns[2:]}
    measures.write(first, whole.frame["name"], whole.frame["label"], {**columns, "bright": columns["twice"]}, older)
    second.write_bytes(second.read_bytes()[:-40])
    capsys.readouterr()
    assert command("--table", "ours-tiny", "--seeds", "1") == 0
    said = capsys.readouterr()
    assert said.out.count("measuring") == 2
    assert f"{second}: damaged" in said.err
    assert measures.read(first).frame.equals(whole.frame)  # type: ignore[union-attr]


def test_measures_of_other_runs_judges_images_or_versions_are_left_out(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--table", "ours-tiny") == 0
    folder = tmp_path / "results" / "quick" / "measures" / "ours-tiny"
    whole = measures.read(folder / "tiny-quick-seed0.parquet")
    assert whole is not None
    other = {"other": {**whole.about["judges"]["other"], "run": "0" * 16}}

    def kept_as(seed: int, names: str = "", **about: Any) -> None:
        frame = whole.frame  # type: ignore[union-attr]
        columns = {name: frame[name].to_numpy() for name in frame.columns[2:]}
        path = folder / f"tiny-quick-seed{seed}.parquet"
        measures.write(path, names + frame["name"], frame["label"], columns, {**whole.about, "seed": seed, **about})  # type: ignore[union-attr]

    kept_as(1, measure=["tinybright", 0])
    kept_as(2, judges=other)
    kept_as(3, names="x")
    capsys.readouterr()
    assert command("render", "--table", "ours-tiny", "--profile", "quick") == 0
    said = capsys.readouterr()
    assert "left out First seed 1 (another version of the measure); `python run_all.py --table ours-tiny" in said.err
    assert "left out First seed 2 (other judges)" in said.err
    assert "left out First seed 3 (other test images)" in said.err
    assert said.out.count("First: run") == 1
    for seed in (1, 2, 3):
        kept_as(seed)  # under today's name, of the run of seed 0
    assert command("--table", "ours-tiny") == 0
    said = capsys.readouterr()
    assert "left out First seed 1, First seed 2, First seed 3 (another run than today's)" in said.err
    assert said.out.count("First: run") == 1


def test_what_was_measured_needs_no_network_any_more(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--table", "ours-tiny") == 0
    for network in store.cache_root().glob("runs/*/model.safetensors"):
        network.unlink()
    capsys.readouterr()
    assert command("--table", "ours-tiny") == 0
    said = capsys.readouterr()
    assert "not measured" not in said.err
    assert "left out" not in said.err
    assert said.out.count("First: run") == 1


def test_words_of_the_command_line(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--table", "ours-tiny", "--plan") == 0
    assert "plan: 2 runs: 0 cached, 2 runnable" in capsys.readouterr().out
    assert command("--all", "--plan") in (0, 3)
    assert "tiny-plain:tiny-4" in capsys.readouterr().out
    assert command("--table", "ours-tiny", "--variant", "leak-free", "--plan") == 2
    assert "ours-tiny has no variants" in capsys.readouterr().err
    assert command("--table", "ours-tyni", "--plan") == 2
    assert "did you mean ours-tiny" in capsys.readouterr().err
    assert run_all.main(["claims", "--table", "ours-tiny"]) == 2
    assert "a table of our own" in capsys.readouterr().err
    assert run_all.main(["list", "tables"]) == 0
    assert "ours-tiny          4 measures of 2 networks" in capsys.readouterr().out
    assert command("render", "--table", "ours-tiny", "--profile", "quick", "--format", "csv") == 0
    drawn = capsys.readouterr().out.splitlines()
    assert drawn[1].startswith("ours-tiny,bright,First,bright,,,,,,,,tiny-4,tiny")  # nothing measured: no numbers
    (tmp_path / "results" / "quick" / "tables" / "ours-tiny.md").unlink()
    assert command("render", "--profile", "quick", "--quiet") == 0  # nothing measured, nobody asked for it
    assert not (tmp_path / "results" / "quick" / "tables" / "ours-tiny.md").exists()


# ------------------------------------------------------------------------------------------------------- declarations
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"protocol": "tiny-5"}, "unknown protocol 'tiny-5'"),
        ({"protocol": "tiny-folds"}, "tiny-folds has folds"),
        ({"experiments": {"A": "tinny"}}, "unknown experiment 'tinny'"),
        ({"judges": {"other": "tiny:tiny-5"}}, "unknown protocol"),
        ({"judges": {"other": "tiny:tiny-folds"}}, "has folds"),
        ({"id": "tiny-table1"}, "both a table and a report"),
        ({"lines": [{"id": "a", "title": "A", "of": "a", "without": "joy"}]}, "unknown class in ours-tiny/a"),
        ({"lines": [{"id": "a", "title": "A", "of": "a"}] * 2}, "declared twice"),
    ],
)
def test_a_wrong_declaration_is_refused(reporting: Path, change: dict[str, Any], says: str) -> None:
    file = PaperFile.model_validate(read_yaml(reporting / "tiny.yaml"))
    protocols = [declare.Protocol.model_validate(one) for one in read_yaml(reporting / "protocols.yaml")["protocols"]]
    wrong = declare.Report.model_validate({**file.reports[0].model_dump(), **change})
    with pytest.raises(UserError, match=says):
        Declarations([file.model_copy(update={"reports": [wrong]})], protocols)
    with pytest.raises(ValidationError):
        declare.Report.model_validate({**file.reports[0].model_dump(), "where": "Table 1"})


def test_ours_is_measured_by_networks_that_took_no_part() -> None:
    installed = declare.load()
    report = installed.reports["ours-pokerface"]
    roles = {role for name in report.experiments.values() for role in installed.experiment(name).weights}
    judges = {entry.partition(":")[0] for entry in report.judges.values()}
    assert not judges & {installed.stages[role].partition(":")[0] for role in roles}
    counts = installed.protocol(report.protocol).class_counts
    assert all(counts[split]["neutral"] >= 0.25 * sum(counts[split].values()) for split in ("train", "test"))


# ------------------------------------------------------------------------------------------------------------ numbers
def made(labels: str = "aabb", **columns: list[float]) -> Measures:
    return Measures(pd.DataFrame({"name": list(labels), "label": list(labels), **columns}), {})


def test_a_line_is_a_mean_a_ratio_of_means_or_a_share() -> None:
    first = made(x=[1, 2, 3, 6], y=[2, 2, 2, 10], z=[1, 0, 1, 1])
    seeds = [first, made(x=[3, 4, 5, 6], y=[2, 2, 2, 10], z=[1, 0, 0, 1])]
    mean = measures.value(Line(id="l", title="L", of="x"), seeds)
    assert mean is not None
    assert (mean.mean, mean.images) == (3.75, 4)
    assert mean.low < 3.75 < mean.high
    ratio = measures.value(Line(id="l", title="L", of="x", per="y"), seeds)
    assert ratio is not None
    assert ratio.mean == 15 / 16
    assert ratio.low <= 15 / 16 <= ratio.high
    share = measures.value(Line(id="l", title="L", of="z", unit="%"), seeds)
    assert share is not None
    assert share.mean == 62.5
    assert (share.low, share.high) == pytest.approx([100 * bound for bound in statistics.wilson(2.5, 4)])


def test_left_out_and_missing_images_do_not_count() -> None:
    one = made(x=[1, 2, 3, 6], y=[np.nan, 2, 2, 10])
    assert measures.value(Line(id="l", title="L", of="x", without="b"), [one]).mean == 1.5  # type: ignore[union-attr]
    found = measures.value(Line(id="l", title="L", of="x", per="y"), [one])
    assert found is not None
    assert (found.mean, found.images) == (pytest.approx(11 / 14), 3)
    assert measures.value(Line(id="l", title="L", of="x"), []) is None
    assert measures.value(Line(id="l", title="L", of="y"), [made("a", y=[np.nan])]) is None
    with pytest.raises(UserError, match="unknown measure in line 'l'"):
        measures.value(Line(id="l", title="L", of="w"), [one])


def test_seeds_of_other_images_have_no_mean() -> None:
    for other in ("bbaa", "aab"):
        with pytest.raises(UserError, match="measured on different images"):
            measures.value(Line(id="l", title="L", of="x"), [made(x=[1, 2, 3, 6]), made(other, x=[1] * len(other))])


def test_the_bootstrap_covers_a_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    drawn = generator.normal(3.0, 2.0, (200, 60))
    hits = [low <= 3.0 <= high for low, high in (statistics.bootstrap(values, draws=200) for values in drawn)]
    assert 0.88 <= np.mean(hits) <= 0.99
    assert statistics.bootstrap(drawn[0]) == statistics.bootstrap(drawn[0])
    assert statistics.bootstrap(drawn[0], drawn[0]) == pytest.approx((1, 1))


def test_measures_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = measures.path_of(tmp_path, "ours", "mine", "paper", 2)
    assert measures.read(path) is None
    columns = {"x": np.array([1.0, np.nan]), "right": np.array([True, False])}
    measures.write(path, ["a", "b"], ["k", "l"], columns, {"run": "0"})
    found = measures.read(path)
    assert found is not None
    assert json.dumps(found.about) == '{"run": "0"}'
    assert found.frame["right"].tolist() == [1.0, 0.0]
    assert np.isnan(found.frame["x"][1])
    with pytest.raises(ValueError, match="'x' has shape"):
        measures.write(path, ["a"], ["k"], {"x": np.zeros(2)}, {})
    assert not list(store.cache_root().glob("*.tmp"))
