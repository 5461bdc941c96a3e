"""Raters' votes: those of a run's training images, and `data prior`, which prints how they are spread."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Image, ferplus_protocol, write_official
from test_ferplus import real_labels as real_labels

import run_all
from bench import declare
from bench.data.ferplus import labels
from bench.data.ferplus.adapter import FERPlus
from bench.data.ferplus.prior_votes import released_prior_votes
from bench.data.source import locate, splits_of
from bench.data.votes import training_votes
from bench.declare import Protocol
from bench.errors import UserError
from methods.nresizer import ferplus_prior

PAIR = Protocol(id="pair", dataset="made", classes=("happiness", "neutral"))
INDEX = pd.DataFrame(
    {
        "name": ["a", "b", "c", "d"],
        "label": ["neutral", "happiness", "happiness", "neutral"],
        "votes_neutral": [9, 1, 0, 4],
        "votes_happiness": [1, 7, 10, 3],
        "votes_unknown": [0, 2, 0, 3],
    }
)


def test_votes_are_of_the_training_rows_in_the_order_of_the_classes() -> None:
    found = training_votes(INDEX, PAIR, np.array([3, 0, 1]))
    assert found.counts.dtype == np.float64
    assert found.counts.tolist() == [[3, 4], [1, 9], [7, 1]]  # unknown is no class
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [1, 1, 0]


def test_an_index_without_votes_is_an_error_that_says_which() -> None:
    with pytest.raises(UserError, match="pair: its images have no raters' votes") as error:
        training_votes(INDEX[["name", "label"]], PAIR, np.arange(4))
    assert "votes: true" in error.value.hint
    with pytest.raises(UserError, match="no raters' votes for happiness"):
        training_votes(INDEX.drop(columns="votes_happiness"), PAIR, np.arange(4))


def test_votes_of_a_small_ferplus_copy(tmp_path: Path, ferplus_images: list[Image]) -> None:
    protocol = ferplus_protocol()
    index = FERPlus(write_official(tmp_path, ferplus_images), protocol).index(protocol)
    found = training_votes(index, protocol, splits_of(index, protocol, 0)["train"])
    wanted = [image[2][:8] for image in ferplus_images if image[0] == "train"]
    assert found.counts.tolist() == wanted
    assert found.labels.tolist() == [row.index(8) for row in wanted]


def test_votes_of_the_stand_in_agree_with_its_labels() -> None:
    protocol = declare.load().protocol("synth-ferplus-8")
    index = locate(protocol, None).index(protocol)
    found = training_votes(index, protocol, splits_of(index, protocol, 0)["train"])
    assert found.counts.shape == (1600, 8)
    top = found.counts.max(1)
    assert (found.counts[np.arange(1600), found.labels] == top).all()


# --- the images of the released prior ---------------------------------------------------------------------------------
def test_which_rows_the_released_prior_is_made_of() -> None:
    sure, weak, tie = [6, 4, 0, 0, 0, 0, 0, 0, 0, 0], [4, 3, 3, 0, 0, 0, 0, 0, 0, 0], [0, 5, 5, 0, 0, 0, 0, 0, 0, 0]
    rows = labels.Rows(
        ["Training", "Training", "PublicTest", "Training", "Training", "Training", "Training", "Training"],
        ["a", "", "b", "c", "d", "e", "a", "f"],
        np.array(
            [
                [0, 0, 9, 1, 0, 0, 0, 0, 0, 0],  # its name occurs again below
                sure,  # no name
                sure,  # no training row
                weak,  # four votes at most
                tie,  # the first of equals
                [0, 0, 4, 0, 0, 0, 0, 0, 6, 0],  # unknown wins
                sure,
                [0, 0, 0, 5, 0, 0, 0, 0, 5, 0],  # a tie with unknown, which comes later
            ]
        ),
    )
    counts, classes = released_prior_votes(rows)
    assert dict(zip(map(tuple, counts.tolist()), classes.tolist(), strict=True)) == {
        tuple(sure[:8]): 0, tuple(tie[:8]): 1, (0, 0, 0, 5, 0, 0, 0, 0): 3,
    }  # fmt: skip


# --- data prior -------------------------------------------------------------------------------------------------------
def test_data_prior_prints_both_matrices_of_ferplus(real_labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "prior", "ferplus-8@majority", "--data-root", str(real_labels)]
    assert run_all.main(words) == 0
    text = capsys.readouterr().out
    assert "its 25,045 training images" in text
    assert "25,371 images" in text
    assert "  happiness   7,335   0.0428     0.9176" in text
    assert "largest difference from methods/nresizer/ferplus_prior.py: 5.0e-11" in text
    assert run_all.main([*words, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["matrix"] for row in rows] == ["ferplus-8@majority"] * 8 + ["released"] * 8
    shares = [[float(row[name]) for name in ferplus_prior.CLASSES] for row in rows[8:]]
    assert shares == [list(row) for row in ferplus_prior.MEANS]
    assert [int(row["images"]) for row in rows[:8]] == [8733, 7284, 3136, 3022, 2098, 116, 536, 120]


def test_data_prior_of_a_stand_in_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["data", "prior", "synth-rafdb-7", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["class"] for row in rows] == list(declare.load().protocol("synth-rafdb-7").classes)
    for row in rows:
        shares = {name: float(row[name]) for name in declare.load().protocol("synth-rafdb-7").classes}
        assert max(shares, key=lambda name: shares[name]) == row["class"]
        assert sum(shares.values()) == pytest.approx(1, abs=1e-9)


def test_data_prior_without_the_votes_file_says_so(
    tmp_path: Path, ferplus_images: list[Image], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy of official folders alone has the protocol's votes, not those of fer2013new.csv."""
    eight = [(("train", *image[1:]) if at < 8 else image) for at, image in enumerate(ferplus_images)]
    root = write_official(tmp_path / "copy", eight)
    declared = declare.load().adding([ferplus_protocol()])
    monkeypatch.setattr(declare, "load", lambda root=None: declared)
    assert run_all.main(["data", "prior", "small@majority", "--data-root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "its 8 training images" in out
    assert "fer2013new.csv, which is not in" in out


def test_data_prior_of_data_without_votes_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["data", "prior", "synth-faces-unlabelled"]) == 2
    assert "synth-faces-unlabelled: its images have no raters' votes" in capsys.readouterr().err
    assert run_all.main(["data", "prior", "ferplus-8@majority"]) == 2
    assert "no data root" in capsys.readouterr().err
