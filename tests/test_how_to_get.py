"""How to get a dataset: every name is understood, every fact is marked, every command printed exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import run_all
from bench import declare
from bench.data import access
from bench.data.official import LAYOUTS
from bench.errors import UserError

KNOWN = access.read()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rafdb", ["rafdb"]), ("RAF-DB", ["rafdb"]), ("raf db", ["rafdb"]), ("raf-db-7", ["rafdb"]),
        ("AffectNet", ["affectnet"]), ("affectnet-8@3999", ["affectnet"]),
        ("FER+", ["ferplus"]), ("FERPlus", ["ferplus"]), ("FER2013", ["ferplus"]), ("FERPLUS-8@majority", ["ferplus"]),
        ("CK+", ["ckplus"]), ("ck", ["ckplus"]), ("Cohn-Kanade", ["ckplus"]),
        ("RAN", ["ran"]), ("raf-db-occlusion", ["rafdb", "ran"]), ("ferplus-pose45", ["ferplus", "ran"]),
        ("raf-db-7-leak-free", ["rafdb"]),
    ],
)  # fmt: skip
def test_spellings_and_protocols(name: str, expected: list[str]) -> None:
    assert [one.id for one in access.find(name, KNOWN)] == expected


def test_every_real_protocol_has_an_answer() -> None:
    for protocol in declare.load().protocols.values():
        if not protocol.synthetic:
            assert access.find(protocol.id, KNOWN)[0].id == protocol.dataset


def test_spellings_are_unique() -> None:
    spelt = [spelling for one in KNOWN.values() for spelling in {access._plain(name) for name in (one.id, *one.names)}]
    assert len(set(spelt)) == len(spelt)


def test_a_misspelt_name_gets_the_nearest_and_a_synthetic_one_an_answer() -> None:
    with pytest.raises(UserError, match=r"did you mean .*affectnet"):
        access.find("afectnet", KNOWN)
    with pytest.raises(UserError, match="nothing to get"):
        access.find("synth-rafdb-7", KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_the_text_is_whole_and_narrow(name: str) -> None:
    one = KNOWN[name]
    text = access.render(one)
    assert max(map(len, text.splitlines())) <= access.WIDTH
    flat = " ".join(text.split())
    for part in ("ask", "where", "sign", "terms", "arrives"):
        for statement in getattr(one, part):
            assert " ".join(statement.marked.split()) in flat


@pytest.mark.parametrize("name", KNOWN)
def test_every_command_printed_exists(name: str) -> None:
    one = KNOWN[name]
    used = {declare.load().protocols[claim.protocol].dataset for claim in declare.load().table(one.table).claims()}
    assert one.id in used or one.id == "ran"
    assert set(one.layouts) <= set(LAYOUTS)
    commands = [line.split("run_all.py ")[1] for line in access.render(one).splitlines() if "python run_all" in line]
    assert len(commands) >= 3
    for line in commands:
        words = shlex.split(line)
        command = words[0] if words[0] == "data" else "run"
        run_all._parser(command).parse_args(words if command == "data" else [command, *words])  # exits where it cannot


@pytest.mark.parametrize("name", KNOWN)
def test_the_quick_run_can_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = access.render(KNOWN[name]).splitlines()[-1]
    words = shlex.split(line.split("run_all.py ")[1])
    run_all.main([*words, "--plan", "--results", str(tmp_path)])
    assert re.search(r"[1-9]\d* (runnable|cached)", capsys.readouterr().out)


def test_numbers_in_the_text_are_those_of_the_protocols() -> None:
    protocols = declare.load().protocols
    for name, protocol, splits in (
        ("rafdb", "raf-db-7", ("train", "test")),
        ("ferplus", "ferplus-8@majority", ("train", "val", "test")),
        ("affectnet", "affectnet-8@4000", ("train", "test")),
        ("affectnet", "affectnet-8@3999", ("train", "test")),
        ("ran", "ferplus-occlusion", ("test",)), ("ran", "ferplus-pose30", ("test",)),
        ("ran", "ferplus-pose45", ("test",)), ("ran", "raf-db-occlusion", ("test",)),
        ("ran", "raf-db-pose30", ("test",)), ("ran", "raf-db-pose45", ("test",)),
        ("ran", "affectnet-occlusion", ("test",)), ("ran", "affectnet-pose30", ("test",)),
        ("ran", "affectnet-pose45", ("test",)),
    ):  # fmt: skip
        text = " ".join(access.render(KNOWN[name]).split())
        for split in splits:
            assert f"{protocols[protocol].counts[split]:,}" in text, (protocol, split)
    ck = " ".join(access.render(KNOWN["ckplus"]).split())
    for label, images in protocols["ckplus-7@last1"].class_counts["test"].items():
        assert f"{label} {images}" in ck


def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "access.yaml"
    text = access.FILE.read_text(encoding="utf-8")
    path.write_text(text.replace("    put: ", "    putt: ", 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"putt.*did you mean put"):
        access.read(path)
    path.write_text(text.replace("known: reported}", "known: heard}", 1), encoding="utf-8")
    with pytest.raises(UserError, match="known"):
        access.read(path)


def test_at_the_door(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["data", "how-to-get"]) == 0
    text = capsys.readouterr().out
    assert all(one.title in text for one in KNOWN.values())
    assert max(map(len, text.splitlines())) <= access.WIDTH
    assert run_all.main(["data", "how-to-get", "RAF-DB"]) == 0
    assert "data verify PATH" in capsys.readouterr().out
    assert run_all.main(["data", "how-to-get", "rafbd"]) == 2
    assert "did you mean" in capsys.readouterr().err
