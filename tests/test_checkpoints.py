"""Two slots in turn, each with its own hash."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.checkpoints import MAGIC, SLOTS, Checkpoints
from bench.errors import UserError


def saved(folder: Path, count: int) -> Checkpoints:
    found = Checkpoints(folder)
    for number in range(1, count + 1):
        found.save({"number": number, "tensor": torch.full((3,), float(number))})
    return found


def newest(folder: Path) -> int | None:
    state = Checkpoints(folder).load()
    return None if state is None else int(state["number"])


def test_nothing_there(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).load() is None


def test_the_newest_wins_and_the_slots_alternate(tmp_path: Path) -> None:
    for count in range(1, 6):
        saved(tmp_path, count)
        assert newest(tmp_path) == count
        assert len(list(tmp_path.iterdir())) == min(count, 2)
        for slot in SLOTS:
            (tmp_path / slot).unlink(missing_ok=True)


def test_a_new_process_goes_on_with_the_older_slot(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    again = Checkpoints(tmp_path)
    state = again.load()
    assert state is not None
    assert torch.equal(state["tensor"], torch.full((3,), 3.0))
    before = {slot: (tmp_path / slot).read_bytes() for slot in SLOTS}
    again.save({"number": 4})
    changed = [slot for slot in SLOTS if (tmp_path / slot).read_bytes() != before[slot]]
    assert len(changed) == 1
    (tmp_path / changed[0]).unlink()
    assert newest(tmp_path) == 3  # the newest good one was not touched


@settings(max_examples=40, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: float, bit: int) -> None:
    folder = tmp_path_factory.mktemp("flip")
    saved(folder, 2)
    last = folder / SLOTS[2 % 2]
    data = bytearray(last.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    last.write_bytes(data)
    assert newest(folder) == 1


@pytest.mark.parametrize("keep", [0, 1, len(MAGIC), len(MAGIC) + 64, len(MAGIC) + 65, 300, -1])
def test_a_truncated_slot_is_named_and_passed_over(
    tmp_path: Path, keep: int, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 2)
    last = tmp_path / SLOTS[0]
    last.write_bytes(last.read_bytes()[:keep])
    assert newest(tmp_path) == 1
    assert f"{last}: damaged checkpoint" in capsys.readouterr().err
    (tmp_path / SLOTS[1]).write_bytes(b"nonsense")
    assert newest(tmp_path) is None
    assert capsys.readouterr().err.count("damaged checkpoint") == 2


def test_a_failed_write_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = saved(tmp_path, 2)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="checkpoint-b: the disk is full"):
            found.save({"number": 3})
    assert newest(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == list(SLOTS)


def test_after_a_failed_write_the_next_one_still_spares_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that survives a full disk and saves again must not write over the only good slot."""
    found = saved(tmp_path, 2)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    good = (tmp_path / SLOTS[0]).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError):
            found.save({"number": 3})
    found.save({"number": 4})
    assert (tmp_path / SLOTS[0]).read_bytes() == good


def test_clear(tmp_path: Path) -> None:
    saved(tmp_path, 2).clear()
    assert list(tmp_path.iterdir()) == []
    Checkpoints(tmp_path).clear()
