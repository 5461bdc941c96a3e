"""Names of methods, datasets, augmentations, figures and measures, found without importing them.

A plug-in is a function or class under a decorator with literal arguments:

    @method("fervt", version=1)
    def build(entry, recipe, context): ...

The registry reads those decorators from the source with `ast`, so that listing and planning never import torch, and
imports the module only when the plug-in is used. Packages outside this one add theirs through the entry-point groups
`ferbench.methods`, `ferbench.datasets`, `ferbench.augmentations`, `ferbench.figures` and `ferbench.measures`, each
naming a module.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar

from bench.declare import ROOT
from bench.errors import UserError, unknown

Kind = Literal["method", "dataset", "augmentation", "figure", "measure"]
Plugin = TypeVar("Plugin", bound=Callable[..., Any])
# Where this package keeps its own plug-ins of each kind.
HOMES: dict[Kind, str] = {
    "method": "methods",
    "dataset": "bench/data",
    "augmentation": "bench/data",
    "figure": "methods",
    "measure": "methods",
}


def _decorator(kind: Kind) -> Callable[..., Callable[[Plugin], Plugin]]:
    def named(name: str, *, version: int) -> Callable[[Plugin], Plugin]:
        def mark(plugin: Plugin) -> Plugin:
            plugin.registered = (kind, name, version)  # type: ignore[attr-defined]
            return plugin

        return mark

    return named


def method(name: str, *, version: int, parallel: bool = False) -> Callable[[Plugin], Plugin]:
    """Register a method.

    Args:
        parallel: several processes may share a run, a part of every batch each, to the same numbers: the loss is a mean
            over images, nothing looks at the batch as a whole, and `update` averages gradients (bench/parallel.py).
    """
    return _decorator("method")(name, version=version)


dataset = _decorator("dataset")
augmentation = _decorator("augmentation")
figure = _decorator("figure")
measure = _decorator("measure")


@dataclass(frozen=True)
class Registered:
    """A plug-in that is known but not yet imported."""

    kind: Kind
    name: str
    version: int
    module: str
    attribute: str
    path: Path
    doc: str
    parallel: bool = False

    def load(self) -> Any:
        """Import and return the plug-in."""
        plugin = getattr(importlib.import_module(self.module), self.attribute)
        if getattr(plugin, "registered", None) != (self.kind, self.name, self.version):
            raise UserError(f"{self.path}: '{self.attribute}' is not {self.kind} '{self.name}' version {self.version}")
        return plugin

    def source_hash(self) -> str:
        """Hash of the plug-in's Python files: its folder where it has one, else its file and those named after it.

        With them go the modules of methods/ that they import, for augmentations also those of bench/data/, and those
        that these import.
        """
        folder = self.path.parent
        alone = folder == ROOT / HOMES[self.kind]
        own = [self.path, *folder.glob(f"{self.path.stem}_*.py")] if alone else list(folder.glob("*.py"))
        followed = ("methods.", "bench.data.") if self.kind == "augmentation" else ("methods.",)
        return hash_files([*own, *_imported(own, followed)])


def hash_files(files: Iterable[Path]) -> str:
    """16 hex digits over the contents of files, in name order."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(set(files)))).hexdigest()[:16]


def _imported(files: Iterable[Path], followed: tuple[str, ...]) -> set[Path]:
    """Modules whose names begin with one of `followed` that files import, and those that these import in turn.

    They are read from their source, never imported.
    """
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        for name in _imports(waiting.pop().read_bytes()):
            if not name.startswith(followed):
                continue
            path = ROOT.joinpath(*name.split("."))
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.is_file() and file not in found:
                    found.add(file)
                    waiting.append(file)
    return found


@lru_cache(maxsize=256)
def _imports(source: bytes) -> tuple[str, ...]:
    """Dotted names that a source imports; `from a import b` may name the module a.b."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return ()  # whoever runs it is told
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


def find(kind: Kind, name: str) -> Registered:
    """The plug-in called `name`; an unknown name lists the nearest ones."""
    known = available(kind)
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


@lru_cache(maxsize=8)
def available(kind: Kind) -> dict[str, Registered]:
    """Every plug-in of one kind, ours and those of installed packages."""
    found: dict[str, Registered] = {}
    for module, path in [*_own_modules(kind), *_outside_modules(kind)]:
        for registered in _scan(kind, module, path):
            if registered.name in found:
                other = found[registered.name].path
                raise UserError(f"{kind} '{registered.name}' is registered twice: {other} and {path}")
            found[registered.name] = registered
    return found


def _own_modules(kind: Kind) -> Iterable[tuple[str, Path]]:
    home = ROOT / HOMES[kind]
    for path in sorted(home.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _outside_modules(kind: Kind) -> Iterable[tuple[str, Path]]:
    modules = {point.module: point.name for point in entry_points(group=f"ferbench.{kind}s")}
    for module, name in modules.items():
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            spec = None
        if spec is None or spec.origin is None:
            raise UserError(f"entry point '{name}' names module '{module}', which is not installed")
        yield module, Path(spec.origin)


def _scan(kind: Kind, module: str, path: Path) -> Iterable[Registered]:
    source = path.read_text(encoding="utf-8")
    if f"@{kind}(" not in source:
        return
    for node in ast.parse(source, str(path)).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == kind:
                name, version, parallel = _literal_arguments(decorator, path)
                doc = (ast.get_docstring(node) or "").split("\n")[0]
                yield Registered(kind, name, version, module, node.name, path, doc, parallel)


def _literal_arguments(call: ast.Call, path: Path) -> tuple[str, int, bool]:
    try:
        (name,) = [ast.literal_eval(argument) for argument in call.args]
        more = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        return str(name), int(more["version"]), bool(more.get("parallel", False))
    except (ValueError, KeyError):
        message = f"{path}:{call.lineno}: a registration needs a literal name and version"
        raise UserError(message, 'write @method("name", version=1)') from None
