"""`weights add` and `fetch`: a file is held against its role, copied whole or not at all, never over another."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import run_all
from bench import store, weights, weights_add
from bench.errors import UserError
from bench.weight_files import read_state

ROLE = "vit-tiny-patch16-augreg"
REPOSITORY = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
LANDMARKS = "mobilefacenet-300w"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def tensors(role: str = ROLE, filled: float = 0.5) -> dict[str, Tensor]:
    """The tensors by which a role's file is told, and as many more as its record counts."""
    record = weights.records()[role]
    found = {name: torch.full(shape, filled) for name, shape in record.has.items()}
    counters = {f"norm.{number}.num_batches_tracked": torch.tensor(7) for number in range(record.counters)}
    count = record.tensors - len(found) - len(counters)
    return found | counters | {f"more.{number}": torch.ones(1) for number in range(count)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "downloads" / "model.safetensors"
    path.parent.mkdir()
    save_file(tensors(), path)
    return path


def door(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = run_all.main(["weights", *words])
    return status, *capsys.readouterr()


def kept() -> list[str]:
    return sorted(path.name for path in weights.folder().glob("*") if not path.name.endswith(".json"))


# ------------------------------------------------------------------------------------------------------------------ add
@pytest.mark.parametrize(("role", "near"), [("mae-mine", "did you mean mae-"), ("zzz", "known: ")])
def test_a_role_of_ones_own_needs_an_experiment(
    role: str, near: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, said = door(capsys, "add", role, str(file))
    assert status == 2
    assert near in said
    assert f"a role of your own needs an experiment that says `weights: [{role}]` first (docs/own-data.md)" in said
    assert kept() == []


def test_a_file_is_added_under_its_role_and_used(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = door(capsys, "add", ROLE, str(file))
    added = weights.folder() / f"{ROLE}.safetensors"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert status == 0
    assert "2 tensors to load, 3 in the file" in out  # the classifier is left out
    assert sha256 in out
    assert str(added) in out
    assert added.read_bytes() == file.read_bytes()
    assert weights.hashes((ROLE,)) == {ROLE: sha256}
    status, out, _ = door(capsys, "add", ROLE, str(file))
    assert (status, "there already" in out) == (0, True)


def test_the_suffix_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "mobilefacenet_model_best.pth.tar"
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors(LANDMARKS).items()}}, path)
    added = weights_add.add(LANDMARKS, path)
    assert added.path.name == f"{LANDMARKS}.pth"
    assert (added.used, added.held) == (333, 333)
    assert read_state(added.path).keys() == tensors(LANDMARKS).keys()


def test_another_file_is_replaced_only_when_asked(tmp_path: Path, file: Path, capsys: Any) -> None:
    assert door(capsys, "add", ROLE, str(file))[0] == 0
    other = tmp_path / "other.pth"
    torch.save(tensors(filled=0.25), other)
    before = (weights.folder() / f"{ROLE}.safetensors").read_bytes()
    status, _, err = door(capsys, "add", ROLE, str(other))
    assert status == 2
    assert "--replace" in err
    assert (weights.folder() / f"{ROLE}.safetensors").read_bytes() == before
    assert door(capsys, "add", ROLE, str(other), "--replace")[0] == 0
    assert kept() == [f"{ROLE}.pth"]  # of both, only the new one is left to be found
    assert weights.hashes((ROLE,))[ROLE] == store.sha256_file(other)


def test_a_replaced_file_of_another_suffix_never_stays_beside_the_new_one(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_add.add(ROLE, file)
    other = tmp_path / "other.pth"
    torch.save(tensors(filled=0.25), other)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # whatever would come after the copy
        patch.setattr(Path, "unlink", killed)
        weights_add.add(ROLE, other, replace=True)
    assert kept() == [f"{ROLE}.pth"]
    with monkeypatch.context() as patch:
        patch.setattr(weights_add.shutil, "copyfileobj", killed)
        with pytest.raises(KeyboardInterrupt):
            weights_add.add(ROLE, file, replace=True)
    assert kept() == [f"{ROLE}.safetensors"]  # the old file, whole; its content, not its name, says what it is
    assert read_state(weights.folder() / f"{ROLE}.safetensors").keys() == tensors().keys()
    (weights.folder() / f"{ROLE}.bin").write_bytes(b"left by an older version")
    weights_add.add(ROLE, other)
    assert kept() == [f"{ROLE}.safetensors"]


def test_another_roles_file_is_refused_and_recognised(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "model.pth"
    torch.save(tensors(LANDMARKS), path)
    status, _, err = door(capsys, "add", ROLE, str(path))
    assert status == 2
    assert f"not the file of '{ROLE}': 'patch_embed.proj.weight' of shape (192, 3, 16, 16) is not in it" in err
    assert f"it looks like {LANDMARKS}" in err
    assert kept() == []


def test_another_size_of_the_same_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(tensors("vit-small-patch16-augreg"), path)
    with pytest.raises(UserError, match=r"\(192, 3, 16, 16\) has shape \(384, 3, 16, 16\)") as refused:
        weights_add.add(ROLE, path)
    assert "vit-small-patch16-augreg" in refused.value.hint


@pytest.mark.parametrize("change", [lambda s: s.pop("more.1"), lambda s: s.update(one_more=torch.ones(1))])
def test_another_number_of_tensors_is_refused(tmp_path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path, state = tmp_path / "model.pth", tensors(LANDMARKS)
    change(state)
    torch.save(state, path)
    with pytest.raises(UserError, match=rf"33[24] tensors for '{LANDMARKS}', which loads 333"):
        weights_add.add(LANDMARKS, path)


def test_a_file_without_batch_counters_lacks_nothing_else(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "model.pth"
    old = {name: v for name, v in tensors(LANDMARKS).items() if "num_batches" not in name}
    torch.save({name: v for name, v in old.items() if name != "more.1"}, path)
    with pytest.raises(UserError, match=r"282 tensors for .*, which loads 283 without batch counters"):
        weights_add.add(LANDMARKS, path)
    torch.save(old, path)
    status, out, _ = door(capsys, "add", LANDMARKS, str(path))
    assert status == 0
    assert "283 tensors to load, 283 in the file; without 50 batch counters of BatchNorm, which nothing reads" in out


def test_a_file_of_the_same_names_is_told_by_its_number_of_tensors(tmp_path: Path) -> None:
    path = tmp_path / "affectnet7.pth"
    torch.save(tensors("poster-affectnet7"), path)
    with pytest.raises(UserError, match="1261 tensors for 'poster-rafdb', which loads 1309") as refused:
        weights_add.add("poster-rafdb", path)
    assert refused.value.hint == "it looks like poster-affectnet7"
    mixing = {f"mixing.{number}": torch.ones(1) for number in range(48)}
    torch.save(tensors("poster-affectnet8") | mixing, path)  # eight classes, the variant for RAF-DB: ours for FERPlus
    with pytest.raises(UserError, match="1309 tensors for 'poster-affectnet8', which loads 1261") as refused:
        weights_add.add("poster-affectnet8", path)
    assert refused.value.hint == "no record of the registry fits it"


def test_damaged_and_diverged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(tensors(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="the file is damaged"):
        weights_add.add(ROLE, path)
    torch.save(tensors(filled=float("nan")), path)
    with pytest.raises(UserError, match=r"tensor 'patch_embed\.proj\.weight' holds NaN or infinity"):
        weights_add.add(ROLE, path)
    assert kept() == []


def test_a_file_of_another_sha256_than_the_known_one_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = weights.records()[ROLE].model_copy(update={"sha256": "0" * 64})
    monkeypatch.setattr(weights, "records", lambda: {ROLE: record})
    with pytest.raises(UserError, match="SHA-256"):
        weights_add.add(ROLE, file)
    assert kept() == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = weights_add.add(ROLE, file).path
    before = added.read_bytes()
    other = tmp_path / "other.safetensors"
    save_file(tensors(filled=0.25), other)

    def full(source: Any, target: Any, length: int) -> None:
        target.write(source.read(100))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(weights_add.shutil, "copyfileobj", full)
    with pytest.raises(store.DiskFull, match="disk is full"):
        weights_add.add(ROLE, other, replace=True)
    assert added.read_bytes() == before
    assert kept() == [added.name]


def test_stages_and_unknown_roles_take_no_file(file: Path, capsys: Any) -> None:
    from bench import declare

    for role in declare.load().stages:
        status, _, err = door(capsys, "add", role, str(file))
        assert (status, "trained first" in err) == (2, True)
    status, _, err = door(capsys, "add", "ir50", str(file))
    assert (status, "did you mean ir50-ms1m" in err) == (2, True)


# ---------------------------------------------------------------------------------------------------------------- fetch
def hub_cache(root: Path, source: Path) -> Path:
    """A hub cache that holds one file, laid out as huggingface_hub does."""
    place = root / f"models--{REPOSITORY.replace('/', '--')}"
    commit = "0123456789012345678901234567890123456789"
    (place / "snapshots" / commit).mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots" / commit / "model.safetensors").write_bytes(source.read_bytes())
    return root


def test_the_hub_is_asked_for_the_declared_file(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked = []

    def download(repo: str, name: str, **options: Any) -> str:
        asked.append((repo, name, options))
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert door(capsys, "fetch", ROLE)[0] == 0
    assert asked == [(REPOSITORY, "model.safetensors", {"revision": "main", "local_files_only": False})]
    assert kept() == [f"{ROLE}.safetensors"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert door(capsys, "fetch", ROLE)[0] == 0
    assert door(capsys, "fetch", ROLE, "--offline")[0] == 0
    assert [options["local_files_only"] for _, _, options in asked] == [False, True, True]


def test_offline_takes_what_the_hubs_local_cache_holds(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache(tmp_path / "hub", file)))
    status, out, err = door(capsys, "fetch", "vit-small-patch16-augreg", ROLE, "--offline")
    assert status == 1  # one of the two is not there, the other still comes
    assert "vit_small_patch16_224.augreg_in21k_ft_in1k/model.safetensors is not in the local cache of the hub" in err
    assert "weights show vit-small-patch16-augreg" in err
    assert ROLE in out
    assert kept() == [f"{ROLE}.safetensors"]


def test_an_unreachable_hub_names_the_other_way(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise ConnectionError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    status, _, err = door(capsys, "fetch", ROLE)
    assert status == 1
    assert "not to be had from the hub: [Errno -3] Temporary failure" in err
    assert f"python run_all.py weights show {ROLE}" in err


def test_what_the_hub_does_not_host_is_got_by_hand(capsys: Any) -> None:
    status, _, err = door(capsys, "fetch", "ir50-ms1m")
    assert status == 1
    assert "not on the hub" in err
    assert "weights show ir50-ms1m" in err
