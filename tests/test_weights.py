"""The registry of external weight files: every role is declared, found, checked against what is known, and counted."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_engine import ROOT, quiet_environment

import run_all
from bench import declare, store, weights, weights_status
from bench.errors import UserError
from bench.weights import Bundled, Record

BUNDLED = "mtcnn-onet"
ABSENT = "facenet-pytorch is not installed"
needs_facenet = pytest.mark.skipif(importlib.util.find_spec("facenet_pytorch") is None, reason=ABSENT)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))


def record(**known: object) -> Record:
    told = dict.fromkeys(("title", "origin", "licence", "size", "loads_into", "keys"), "made up")
    return Record.model_validate({"role": "made-up", "get": ["no way"], **told, **known})


def only(monkeypatch: pytest.MonkeyPatch, one: Record) -> None:
    monkeypatch.setattr(weights, "records", lambda: {one.role: one})


def place(content: bytes, name: str = "made-up.pth") -> Path:
    path = weights.folder() / name
    store.write_bytes(path, content)
    return path


# --------------------------------------------------------------------------------------------------------- declarations
def test_every_role_that_an_experiment_names_is_declared() -> None:
    declared = declare.load()
    named = {role for experiment in declared.experiments.values() for role in experiment.weights}
    assert named - set(weights.records()) - set(declared.stages) == set()


def test_no_role_is_both_a_file_and_a_stage() -> None:
    assert not set(weights.records()) & set(declare.load().stages)


def test_records_that_nothing_names_say_why_they_are_there() -> None:
    named = {role for experiment in declare.load().experiments.values() for role in experiment.weights}
    assert [role for role, one in weights.records().items() if role not in named and not one.reserved] == []


def test_records_say_what_a_user_asks() -> None:
    for role, one in weights.records().items():
        assert one.get, role
        assert all((one.title, one.origin, one.licence, one.size, one.loads_into, one.keys)), role
        assert len(one.sha256) in (0, 64), role
        assert one.fallback or one.reserved, role


def test_tensor_counts_are_those_of_the_released_files() -> None:
    known = {role: one.tensors for role, one in weights.records().items() if one.tensors}
    assert known == {
        "ir50-ms1m": 304, "mobilefacenet-300w": 333, "mtcnn-onet": 12, "poster-rafdb": 1309, "poster-affectnet7": 1261,
        "poster-affectnet8": 1261,
        "mae-vit-base-imagenet1k": 150, "mae-vit-base-imagenet1k-full": 254, "dic-helen": 296,
    }  # fmt: skip


def test_checkpoints_name_their_classes_in_the_order_of_their_outputs() -> None:
    declared = declare.load()
    protocols = {
        "poster-rafdb": "raf-db-7",
        "poster-affectnet7": "affectnet-7",
        "poster-affectnet8": "affectnet-8@3999",
    }
    for role, protocol in protocols.items():
        # the released loaders number the classes as the publishers do, which is the order of our protocols
        assert weights.records()[role].classes == declared.protocol(protocol).classes
        assert weights.records()[role].dataset == declared.protocol(protocol).dataset
    assert {role for role, one in weights.records().items() if one.classes or one.dataset} == set(protocols)


def test_hub_repositories_are_pretrained_tags_of_timm() -> None:
    spec = importlib.util.find_spec("timm")
    assert spec is not None
    assert spec.origin is not None
    # read, not imported: that takes seconds. timm keeps `name.tag` on the hub as timm/name.tag
    models = "".join(file.read_text("utf-8") for file in sorted((Path(spec.origin).parent / "models").glob("*.py")))
    repositories = [one.hub.repo for one in weights.records().values() if one.hub is not None]
    assert len(repositories) == 14
    for repository in repositories:
        assert f"'{repository.removeprefix('timm/')}':" in models


def test_the_networks_that_are_built_have_the_tensors_that_tell_a_file() -> None:
    import torch

    from methods.poster.ir50 import IR50
    from methods.poster.mobilefacenet import MobileFaceNet

    with torch.device("meta"):
        nets = {"ir50-ms1m": IR50(head_size=112), "mobilefacenet-300w": MobileFaceNet()}
    for role, net in nets.items():
        one, state = weights.records()[role], net.state_dict()
        assert len(state) == one.tensors
        assert sum("num_batches_tracked" in name for name in state) == one.counters
        assert {name: tuple(state[name].shape) for name in one.has} == one.has


def test_a_misspelt_key_and_a_role_given_twice_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "title: t, origin: o, get: [g], licence: l, size: s, loads_into: n, keys: k"
    file = tmp_path / "weights.yaml"
    monkeypatch.setattr(weights, "FILE", file)
    for text, problem in (
        (f"weights: [{{role: a, {told}, sha265: x}}]", "did you mean sha256"),
        (f"weights: [{{role: a, {told}}}, {{role: a, {told}}}]", "role 'a' is given twice"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=problem):
            weights.records.__wrapped__()


# ------------------------------------------------------------------------------------------------- finding and checking
def test_a_missing_file_names_the_command_that_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match="weights 'ir50-ms1m' are not at hand") as missing:
        weights.require(("ir50-ms1m",))
    assert missing.value.hint == "python run_all.py weights show ir50-ms1m"
    with pytest.raises(UserError) as unregistered:
        weights.require(("of-another-package",))
    assert "of-another-package.pth" in unregistered.value.hint


def test_a_file_is_found_and_hashed_by_role() -> None:
    path = place(b"something", "resnet34-imagenet1k.pth")
    assert weights.require(("resnet34-imagenet1k",)) == {"resnet34-imagenet1k": path}
    found = weights.hashes(("resnet34-imagenet1k",))["resnet34-imagenet1k"]
    assert found == store.sha256_file(path)


def test_a_web_page_under_a_weights_name_blocks_before_anything_runs() -> None:
    place(b"<html>quota exceeded</html>", "ir50-ms1m.pth")
    with pytest.raises(UserError, match="web page"):
        weights.require(("ir50-ms1m",))


def test_another_size_or_sha256_than_the_known_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = place(b"the very file")
    right = store.sha256_file(path)
    only(monkeypatch, record(bytes=13, sha256=right))
    assert weights.require(("made-up",)) == {"made-up": path}
    only(monkeypatch, record(bytes=14))
    with pytest.raises(UserError, match="13 bytes, but the file of 'made-up' has 14"):
        weights.require(("made-up",))
    only(monkeypatch, record(sha256="0" * 64))
    with pytest.raises(UserError, match=f"SHA-256 {right[:12]}.*has 000000000000") as other:
        weights.require(("made-up",))
    assert "weights show made-up" in other.value.hint


def test_a_known_sha256_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path = place(b"the very file")
    only(monkeypatch, record(sha256=store.sha256_file(path)))
    weights.require(("made-up",))
    monkeypatch.setattr(store, "sha256_file", lambda path: pytest.fail("read again"))
    weights.require(("made-up",))


def test_a_file_in_the_cache_goes_before_a_bundled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packages" / "bringsweights"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('imported')")
    (package / "data" / "net.pt").write_bytes(b"bundled")
    monkeypatch.syspath_prepend(str(package.parent))
    only(monkeypatch, record(bundled=Bundled(package="bringsweights", file="data/net.pt")))
    assert weights.find("made-up") == package / "data" / "net.pt"
    weights.hashes(("made-up",))
    assert [file.name for file in (package / "data").iterdir()] == ["net.pt"]  # nothing is noted in the package
    path = place(b"our own")
    assert weights.find("made-up") == path


@needs_facenet
def test_o_net_is_found_inside_facenet_pytorch_and_is_the_known_file() -> None:
    path = weights.require((BUNDLED,))[BUNDLED]
    assert path.name == "onet.pt"
    assert path.stat().st_size == 1_559_269


@needs_facenet
def test_o_net_fits_its_record() -> None:
    from bench import weights_add

    added = weights_add.add(BUNDLED, weights.require((BUNDLED,))[BUNDLED])
    assert (added.held, added.used) == (21, 12)


# --------------------------------------------------------------------------------------------------------------- status
def standing(role: str) -> weights_status.Standing:
    return {one.role: one for one in weights_status.standings(declare.load())}[role]


def test_status_counts_who_needs_a_file_and_what_it_alone_unblocks() -> None:
    declared = declare.load()
    needing = {name for name, one in declared.experiments.items() if "dic-helen" in one.weights}
    claims = [claim for claim in declared.claims() if claim.experiment in needing]
    extra = [claim for table in declared.tables_of("nresizer") for claim in table.extra_claims()]
    entries = {claim.entry for claim in (*claims, *extra) if claim.experiment in needing}
    found = standing("dic-helen")
    assert (found.state, found.papers, set(found.experiments)) == ("missing", ("nresizer",), needing)
    assert (found.claims, set(found.entries)) == (len(claims), entries)
    assert found.unblocks == 0  # every row with super-resolution also needs its backbone
    place(b"anything", "swin-small-in1k.pth")
    alone = {"nresizer-swin-s", "nresizer-swin-s-sr-bilinear"}
    assert standing("dic-helen").unblocks == sum(claim.experiment in alone for claim in claims) > 0


def test_states_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert standing("ir50-ms1m").state == "missing"
    path = place(b"<html></html>", "ir50-ms1m.pth")
    wrong = standing("ir50-ms1m")
    assert (wrong.state, wrong.path) == ("wrong", path)
    assert "web page" in wrong.problem
    place(b"something", "ir50-ms1m.pth")
    assert standing("ir50-ms1m").state == "here"
    stages = declare.load().stages
    for role in stages:
        assert (standing(role).state, standing(role).stage) == ("stage", stages[role])


def test_status_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    place(b"<html></html>", "ir50-ms1m.pth")
    assert run_all.main(["weights", "status"]) == 0
    text = capsys.readouterr().out
    assert "ir50-ms1m" in text
    assert "wrong: " in text
    assert max(map(len, text.split("files:")[0].splitlines())) <= 120
    assert run_all.main(["weights", "status", "--json"]) == 0
    found = {one["role"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(weights.records()) <= set(found)
    assert found["ir50-ms1m"]["state"] == "wrong"
    assert found["resnet34-imagenet1k"]["hub"] == "timm/resnet34.tv_in1k"


def test_show_tells_all_and_knows_stages(capsys: pytest.CaptureFixture[str]) -> None:
    for role, one in weights.records().items():
        assert run_all.main(["weights", "show", role]) == 0
        text = capsys.readouterr().out
        plain = " ".join(text.split())
        for fact in (one.title, one.origin, one.licence, one.size, *one.get, *one.classes, one.fallback, one.reserved):
            assert fact in plain, role
        assert f"python run_all.py weights add {role} FILE" in text
        assert (f"weights fetch {role}" in text) == (one.hub is not None)
    for role, entry in declare.load().stages.items():
        assert run_all.main(["weights", "show", role]) == 0
        assert entry in capsys.readouterr().out
    assert run_all.main(["weights", "show", "ir50-ms1n"]) == 2
    assert "did you mean ir50-ms1m" in capsys.readouterr().err


def test_the_document_shows_commands_that_parse_and_roles_that_exist() -> None:
    text = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    commands = re.findall(r"python run_all\.py (weights [^\n`#|]+)", text)
    assert len(commands) >= 4
    for command in commands:
        args = run_all._parser("weights").parse_args(shlex.split(command))
        roles = [*getattr(args, "roles", ()), *([args.role] if "role" in args else ())]
        assert all(weights.record(role) for role in set(roles) - {"ROLE"}), command


@pytest.mark.parametrize("action", [["status"], ["show", "ir50-ms1m"]])
def test_status_and_show_import_nothing_heavy(action: list[str]) -> None:
    code = (
        "import sys, run_all\n"
        f"assert run_all.main(['weights', *{action!r}]) == 0\n"
        "heavy = {'torch', 'timm', 'pandas', 'numpy', 'safetensors', 'huggingface_hub', 'facenet_pytorch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=quiet_environment(), capture_output=True)
