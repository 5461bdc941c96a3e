"""What users read when something is wrong."""

from __future__ import annotations

from bench.errors import UserError, unknown


def test_a_message_and_what_to_do() -> None:
    assert str(UserError("x.csv, row 3: no label", "add one")) == "x.csv, row 3: no label\n  -> add one"
    assert str(UserError("x.csv, row 3: no label")) == "x.csv, row 3: no label"


def test_an_unknown_name_comes_with_its_nearest() -> None:
    error = unknown("table", "fervt-tabel11", ["fervt-table11", "fervt-table12", "poster-table1"])
    assert error.message == "unknown table 'fervt-tabel11'"
    assert error.hint.startswith("did you mean fervt-table11")


def test_without_a_near_name_the_known_are_listed() -> None:
    assert unknown("sampler", "zzz", ["shuffle", "balanced"]).hint == "known: balanced, shuffle"
    assert unknown("sampler", "zzz", []).hint == "known: none"
    many = unknown("table", "zzz", [f"paper-{i:02d}" for i in range(30)]).hint
    assert many.endswith("paper-11, ...")
