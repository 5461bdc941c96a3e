"""Weight files of others: recognised by content, never run, refused with what to do, and loaded to the last tensor."""

from __future__ import annotations

import argparse
import os
import pickle
import shlex
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.errors import UserError
from bench.weight_files import kind, load_strict, read_state

NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]


def net(width: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))


def state() -> dict[str, Tensor]:
    return {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.file}",)


# ---------------------------------------------------------------------------------------------------------------- reads
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before-1.6"])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model_state_dict", "model", "net", "model_state"])
def test_a_trainers_file_gives_the_networks_tensors(tmp_path: Path, new: bool, wrapper: str) -> None:
    parallel = OrderedDict((f"module.{name}", value) for name, value in state().items())
    beside = {
        "epoch": 3, "best": np.float64(91.5), "steps": np.int64(7), "args": argparse.Namespace(lr=0.1, gpu=[0, 1]),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }  # fmt: skip
    path = tmp_path / "mobilefacenet_model_best.pth.tar"
    content = {wrapper: parallel, **beside} if wrapper else parallel
    torch.save(content, path, _use_new_zipfile_serialization=new)
    assert kind(path) == ("zip" if new else "pickle")
    assert same(read_state(path), state())


def test_safetensors_are_known_by_content_not_by_name(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "weights.pth")
    assert kind(tmp_path / "weights.pth") == "safetensors"
    assert same(read_state(tmp_path / "weights.pth"), state())


def test_numpy_scalars_named_as_numpy_1_did_are_read(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": state(), "best": np.float32(1)}, tmp_path / "new.pth", _use_new_zipfile_serialization=False
    )
    data = (tmp_path / "new.pth").read_bytes()
    assert b"cnumpy._core.multiarray\n" in data
    (tmp_path / "old.pth").write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert same(read_state(tmp_path / "old.pth"), state())


def test_a_prefix_of_some_names_is_no_wrapping(tmp_path: Path) -> None:
    mixed = {"module.a": torch.ones(1), "head": torch.ones(2)}
    torch.save(mixed, tmp_path / "mixed.pth")
    assert same(read_state(tmp_path / "mixed.pth"), mixed)


# ------------------------------------------------------------------------------------------------------------- refusals
def web_page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>", encoding="utf-8")


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345678\n", encoding="utf-8")


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "inside.pth")


def torch_script(path: Path) -> None:
    torch.jit.script(nn.Linear(1, 1)).save(str(path))


def arrays(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, a=np.ones(2))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ir50.pth", b"x")


def cut(write: Callable[[Path], object], left: float) -> Callable[[Path], None]:
    """What `write` writes, up to a share of it."""

    def write_cut(path: Path) -> None:
        write(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * left)])

    return write_cut


def new(path: Path) -> None:
    torch.save(state(), path)


def flipped(path: Path) -> None:
    torch.save({"a": torch.ones(5000)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # in the tensor
    path.write_bytes(data)


def deep(path: Path) -> None:
    table = b'{"a":' + b"[" * 100_000
    path.write_bytes(len(table).to_bytes(8, "little") + table)


def old(path: Path) -> None:
    torch.save(state(), path, _use_new_zipfile_serialization=False)


REFUSED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "web page": (web_page, "web page", "in a browser"),
    "page after a comment": (lambda path: path.write_text("<!-- x --><html>"), "web page", "in a browser"),
    "page in UTF-16": (lambda path: path.write_text("<html><body>", encoding="utf-16"), "web page", "in a browser"),
    "empty": (lambda path: path.write_bytes(b""), "is empty", "weights show"),
    "pointer": (pointer, "Git-LFS pointer of a file of 12,345,678 bytes", "git lfs pull"),
    "tar": (tar, "tar archive", "unpack it"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08 and more"), "gzip archive", "unpack it"),
    "zip": (zipped, "zip archive of ir50.pth", "unpack it"),
    "numpy": (arrays, "NumPy arrays", "unpack it"),
    "TorchScript": (torch_script, "holds code", "whoever trusts it"),
    "cut zip": (cut(new, 0.9), "cut off", "weights show"),
    "flipped bit": (flipped, "is damaged (its CRC does not fit", "weights show"),
    "endless table": (deep, "cut off or damaged", "weights show"),
    "not a number": (
        lambda path: torch.save({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}, path), "'b' holds NaN",
        "weights show",
    ),
    "infinity": (lambda path: save_file({"c": torch.tensor([float("inf")])}, path), "'c' holds NaN", "weights show"),
    "sparse": (lambda path: torch.save({"d": torch.ones(2).to_sparse()}, path), "'d' holds no plain", "weights show"),
    "cut old": (cut(old, 0.9), "cut off or damaged", "weights show"),
    "cut old early": (cut(old, 0.2), "cut off or damaged", "weights show"),
    "cut safetensors": (cut(lambda path: save_file(state(), path), 0.95), "cut off or damaged", "weights show"),
    "cut table": (cut(lambda path: save_file(state(), path), 0.3), "cut off or damaged", "weights show"),
    "text": (lambda path: path.write_text('{"error": "not found"}'), "neither", "weights show"),
    "one byte": (lambda path: path.write_bytes(b"\x80"), "cut off or damaged", "weights show"),
    "plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "without running code", "trusts it"),
    "numpy pickle": (
        lambda path: path.write_bytes(pickle.dumps({"a": np.ones(2)}, protocol=2)), "_reconstruct'", "trusts it",
    ),
    "module": (lambda path: torch.save(net(), path), "'torch.nn.modules.container.Sequential'", "whoever trusts it"),
    "no tensors": (lambda path: torch.save({"epoch": 1}, path), "no tensors by name (it holds epoch)", "state_dict"),
    "a list": (lambda path: torch.save([torch.ones(1)], path), "it holds a list", "state_dict"),
    "two networks": (
        lambda path: torch.save({"generator": state(), "critic": state()}, path), "generator, critic", "state_dict",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_weights_file_is_refused_with_what_to_do(tmp_path: Path, case: str) -> None:
    write, message, hint = REFUSED[case]
    path = tmp_path / "ir50-ms1m.pth"
    write(path)
    with pytest.raises(UserError) as refused:
        read_state(path)
    assert str(path) in refused.value.message
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_a_file_written_without_check_sums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state(), tmp_path / "weights.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_state(tmp_path / "weights.pth"), state())


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(UserError, match="no such weights file"):
            read_state(path)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before-1.6"])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, new: bool) -> None:
    ran, path = tmp_path / "ran", tmp_path / "evil.pth"
    torch.save({"state_dict": state(), "args": Attack(ran)}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(UserError, match=r"would call '\w+\.system'.*nothing of it was run") as refused:
        read_state(path)
    assert "delete it" in refused.value.hint
    assert "torch.load" not in refused.value.hint
    assert not ran.exists()
    torch.load(path, weights_only=False)  # so the file would have run it
    assert ran.exists()


def test_the_conversion_it_offers_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "whole network.pth"
    torch.save(net(), path)
    with pytest.raises(UserError) as refused:
        read_state(path)
    python, _, code, *files = shlex.split(refused.value.hint.splitlines()[1])
    assert python == "python"
    monkeypatch.setattr(sys, "argv", ["-c", *files])
    exec(code, {})
    assert set(read_state(tmp_path / "whole network.safetensors")) == set(NAMES)


# -------------------------------------------------------------------------------------------------------------- loading
def test_every_tensor_is_loaded_and_counted() -> None:
    torch.manual_seed(0)
    source, target = net(), net()
    assert load_strict(target, source.state_dict(), "x") == len(NAMES)
    assert same(target.state_dict(), source.state_dict())


def test_files_without_batch_counters_load() -> None:
    source, target = net(), net()
    older = {name: value for name, value in source.state_dict().items() if "num_batches" not in name}
    assert load_strict(target, older, "x") == len(NAMES) - 1


def test_ignored_names_are_neither_loaded_nor_missed() -> None:
    source, target = net(), net()
    before = target.state_dict()["1.bias"].clone()
    given = source.state_dict() | {"fc.weight": torch.ones(1), "1.bias": torch.full((2,), 5.0)}
    assert load_strict(target, given, "x", ignore=("fc.", "1.bias")) == len(NAMES) - 1
    assert torch.equal(target.state_dict()["1.bias"], before)


def test_what_does_not_fit_is_listed_with_counts_and_nothing_is_loaded() -> None:
    target = net()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    given = {name: value + 1 for name, value in net(3).state_dict().items() if not name.startswith("1.running")}
    given |= {f"extra.{number}": torch.ones(1) for number in range(6)}
    with pytest.raises(UserError) as refused:
        load_strict(target, given, "ir50-ms1m (ir50.pth)")
    message = refused.value.message
    assert message.startswith("ir50-ms1m (ir50.pth): does not fit the network, 7 tensors.")
    assert "2 missing: 1.running_mean, 1.running_var;" in message
    assert "6 left over: extra.0, extra.1, extra.2, extra.3, ...;" in message
    assert "4 of another shape: 0.weight (3, 1, 3, 3) instead of (2, 1, 3, 3), " in message
    assert same(target.state_dict(), before)


def test_another_networks_file_is_told_as_such() -> None:
    with pytest.raises(
        UserError, match=r"no tensor has a name of the network; it has a\.weight, a\.bias, .* 0\.weight"
    ):
        load_strict(net(), state(), "x")
