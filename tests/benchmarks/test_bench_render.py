"""How long the tables take: every declared table, three seeds and four selections of every entry in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import declare
from bench.metrics import from_predictions
from bench.store import SELECTIONS
from tables.render.compare import Settings, compare
from tables.render.results import Results
from tables.render.write import text

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[declare.Table], Path]:
    """runs.csv and per_class.csv as a full campaign leaves them (10 folds on CK+)."""
    declared = declare.load()
    entries = sorted({(c.experiment, c.protocol) for c in declared.claims() if c.experiment})
    rng = np.random.default_rng(0)
    runs, classes = [], []
    for number, (experiment, protocol) in enumerate(entries):
        for seed in range(3):
            for fold in range(max(declared.protocols[protocol].folds, 1)):
                for selection in SELECTIONS:
                    right = rng.integers(200, 400, len(CLASSES))
                    base = {"run": f"{number:04x}{seed}{fold}", "experiment": experiment, "protocol": protocol,
                            "profile": "paper", "seed": seed, "fold": fold, "selection": selection}  # fmt: skip
                    runs.append({**base, "n": 3200, "correct": right.sum(), "accuracy": right.sum() / 3200,
                                 "data_hash": "d", "commit": "c", "device": "cpu"})  # fmt: skip
                    classes += [
                        {**base, "class": c, "n": 400, "correct": k} for c, k in zip(CLASSES, right, strict=True)
                    ]
    folder = tmp_path_factory.mktemp("results")
    pd.DataFrame(runs).to_csv(folder / "runs.csv", index=False)
    pd.DataFrame(classes).to_csv(folder / "per_class.csv", index=False)
    return list(declared.tables.values()), folder


@pytest.mark.parametrize("format", ["md", "latex", "html", "csv"])
def test_every_table_from_csv(
    benchmark: Callable[..., list[str]], stored: tuple[list[declare.Table], Path], format: str
) -> None:
    tables, folder = stored

    def render() -> list[str]:
        results = Results(pd.read_csv(folder / "runs.csv"), pd.read_csv(folder / "per_class.csv"))
        return [text(compare(table, results, Settings(seeds=3)), format) for table in tables]

    rendered = benchmark(render)
    assert len(rendered) == len(tables)
    assert all(rendered)


def test_score_a_predictions_file(benchmark: Callable[..., object], tmp_path: Path) -> None:
    n, rng = 3137, np.random.default_rng(0)
    frame = pd.DataFrame({"name": [f"im{i}" for i in range(n)], "label": rng.choice(CLASSES, n), "epoch": np.int32(1)})
    frame = pd.concat(
        [frame, pd.DataFrame(rng.random((n, 8), np.float32), columns=[f"p_{c}" for c in CLASSES])], axis=1
    )
    path = tmp_path / "predictions-last.parquet"
    frame.to_parquet(path)
    assert benchmark(from_predictions, path).n == n  # type: ignore[attr-defined]
