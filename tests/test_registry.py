"""Plug-ins are found without being imported, ours and those of outside packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers_engine import ROOT

from bench import matrix, registry
from bench.errors import UserError

pytest_plugins = ("helpers_engine",)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    registry.available.cache_clear()
    yield
    registry.available.cache_clear()


def test_scanning_imports_nothing() -> None:
    code = (
        "import sys; from bench import registry\n"
        "found = {kind: registry.available(kind) for kind in registry.HOMES}\n"
        "assert 'fervt' in found['method'] and 'synthfer' in found['dataset'] and 'flip' in found['augmentation']\n"
        "heavy = {'torch', 'timm', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy and not any(name.startswith('methods.') for name in sys.modules), heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_an_unknown_name_comes_with_its_nearest() -> None:
    with pytest.raises(UserError, match="unknown method 'fervtt'") as caught:
        registry.find("method", "fervtt")
    assert "fervt" in caught.value.hint


def test_what_is_loaded_is_what_was_scanned() -> None:
    for kind in registry.HOMES:
        for name, found in registry.available(kind).items():
            assert found.name == name
            assert found.version >= 1
            if kind in ("dataset", "augmentation"):
                assert found.load().registered == (kind, name, found.version)


def scan(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch, name: str = "plugin_a") -> dict[str, Any]:
    (folder / "methods").mkdir(exist_ok=True)
    (folder / "methods" / f"{name}.py").write_text(source)
    monkeypatch.setattr(registry, "ROOT", folder)
    registry.available.cache_clear()
    return registry.available("method")


BUILD = '@method("mine", version=3)\ndef build(entry, recipe, context):\n    """My own. \n\n    More."""\n'


def test_name_version_and_first_line_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scan(tmp_path, "raise SystemExit  # never imported\n" + BUILD, monkeypatch)["mine"]
    assert (found.version, found.attribute, found.module, found.doc.strip()) == (
        3,
        "build",
        "methods.plugin_a",
        "My own.",
    )


def test_a_duplicate_names_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan(tmp_path, BUILD, monkeypatch)
    with pytest.raises(UserError, match=r"'mine' is registered twice: .*plugin_a\.py and .*plugin_b\.py"):
        scan(tmp_path, BUILD, monkeypatch, "plugin_b")


@pytest.mark.parametrize(
    "arguments", ["NAME, version=1", '"mine", version=VERSION', '"mine"', "version=1", '"mine", version="one"']
)
def test_arguments_must_be_literal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    with pytest.raises(UserError, match=r"plugin_a\.py:1: .*literal name and version"):
        scan(tmp_path, f"@method({arguments})\ndef build(): ...\n", monkeypatch)


def test_the_source_hash_follows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scan(tmp_path, BUILD, monkeypatch)["mine"].source_hash()
    assert scan(tmp_path, BUILD, monkeypatch)["mine"].source_hash() == first
    assert scan(tmp_path, BUILD + "# changed\n", monkeypatch)["mine"].source_hash() != first


@pytest.mark.parametrize("room", [False, True], ids=["file", "folder"])
def test_the_source_hash_follows_what_is_imported_from_other_rooms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    methods = tmp_path / "methods"
    for file, source in {
        "other/__init__.py": "raise SystemExit  # never imported\n",
        "other/net.py": "import methods.third\nfrom methods.mine import build\n",  # a circle
        "other/unused.py": "",
        "third.py": "",
        "fourth.py": "this is no Python",
    }.items():
        (methods / file).parent.mkdir(parents=True, exist_ok=True)
        (methods / file).write_text(source)
    name = "mine/__init__" if room else "mine"
    (methods / "mine").mkdir()

    def hashed(source: str = "from methods.other.net import Net\nfrom methods import fourth\n") -> str:
        return str(scan(tmp_path, source + BUILD, monkeypatch, name)["mine"].source_hash())

    first = hashed()
    for file, counts in (
        ("other/net.py", True), ("third.py", True), ("fourth.py", True), ("other/unused.py", False),
        ("other/__init__.py", False),
    ):  # fmt: skip
        before = (methods / file).read_bytes()
        (methods / file).write_bytes(before + b"# changed\n")
        assert (hashed() != first) == counts, file
        (methods / file).write_bytes(before)
    assert hashed() == first
    alone = hashed("from bench import registry\n")
    assert alone == registry.hash_files([methods / f"{name}.py"])


def test_the_hash_of_an_augmentation_covers_what_it_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "bench" / "data"
    data.mkdir(parents=True)
    (data / "shared.py").write_text("from bench.data.deeper import shade\n")
    (data / "deeper.py").write_text("")
    (data / "other.py").write_text('@augmentation("mine", version=1)\ndef mine(images): ...\n')
    (data / "mine_augment.py").write_text("from bench.data.shared import uniform\n" + (data / "other.py").read_text())
    (data / "other.py").write_text("")
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    registry.available.cache_clear()
    mine = registry.find("augmentation", "mine")
    assert mine.source_hash() == registry.hash_files(
        data / f"{name}.py" for name in ("mine_augment", "shared", "deeper")
    )


def test_our_augmentations_share_the_file_that_they_draw_with() -> None:
    data = ROOT / "bench" / "data"
    for name, files in {
        "fervt-common": ["augment.py"],
        "pfvit-paper": ["augment.py", "nresizer_augment.py", "pfvit_augment.py"],
    }.items():
        found = registry.find("augmentation", name)
        assert found.source_hash() == registry.hash_files(data / file for file in files), name
    assert "parallel.py" in matrix.LOOP


def test_methods_of_one_network_have_their_versions_raised_together() -> None:
    """A key holds the version of its own method alone.

    pfvit and pfvit-baseline are made of the networks of methods/mae: where a change to those changes numbers, each of
    the three versions has to be raised, or cached runs of the other two would still count. Change all three here.
    """
    versions = {"mae": 1, "pfvit": 1, "pfvit-baseline": 1}
    assert {name: registry.find("method", name).version for name in versions} == versions
    shared = (ROOT / "methods" / "mae" / "vit.py").read_bytes()
    for name in versions:
        found = registry.find("method", name)
        own = [found.path] if name == "pfvit-baseline" else list(found.path.parent.glob("*.py"))
        reached = {*own, *registry._imported(own, ("methods.",))}
        assert any(file.read_bytes() == shared for file in reached), f"{name} no longer shares the networks"


def test_our_methods_own_what_their_hash_covers() -> None:
    """A method that imports from its own room alone keeps the hash that committed manifests hold."""
    for name in ("fervt", "poster"):
        room = (ROOT / "methods" / name).glob("*.py")
        assert registry.find("method", name).source_hash() == registry.hash_files(room)
    files = ["landmarks.py", "landmarks_augment.py", "poster/mobilefacenet.py"]
    assert registry.find("method", "landmarks").source_hash() == registry.hash_files(
        [ROOT / "methods" / file for file in files]
    )


def test_a_method_whose_version_changed_after_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, {"stale_methods": BUILD}, "stale = stale_methods", monkeypatch)
    found = registry.find("method", "mine")
    (tmp_path / "stale_methods.py").write_text("from bench.registry import method\n" + BUILD.replace("3", "4"))
    with pytest.raises(UserError, match="is not method 'mine' version 3"):
        found.load()


def install(folder: Path, modules: dict[str, str], points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package: modules and a dist-info with entry points, on sys.path."""
    for name, source in modules.items():
        (folder / f"{name}.py").write_text("from bench.registry import method\n" + source)
    info = folder / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ferbench.methods]\n{points}\n")
    monkeypatch.syspath_prepend(str(folder))
    registry.available.cache_clear()


def test_an_outside_package_brings_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, {"outside_one": BUILD}, "mine = outside_one", monkeypatch)
    assert "outside_one" not in sys.modules
    found = registry.find("method", "mine")
    assert "outside_one" not in sys.modules
    assert found.load().registered == ("method", "mine", 3)
    assert registry.find("method", "fervt").path.is_relative_to(ROOT)


def test_two_entry_points_may_name_one_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = BUILD + BUILD.replace("mine", "other").replace("build", "build_other")
    install(tmp_path, {"outside_two": two}, "mine = outside_two:build\nother = outside_two:build_other", monkeypatch)
    assert {"mine", "other"} <= set(registry.available("method"))


@pytest.mark.parametrize("module", ["outside_absent", "outside_absent.inner"])
def test_an_entry_point_to_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    install(tmp_path, {}, f"mine = {module}", monkeypatch)
    with pytest.raises(UserError, match=f"'mine' names module '{module}', which is not installed"):
        registry.available("method")


def test_an_outside_method_and_dataset_with_our_declarations(tiny: Any) -> None:
    assert registry.find("method", "tinynet").load().registered == ("method", "tinynet", 1)
    assert registry.find("dataset", "tinyfaces").load().registered == ("dataset", "tinyfaces", 1)
