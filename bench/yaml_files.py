"""YAML files read strictly: a key given twice, a misspelt key or a wrong value is an error that names file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from bench.errors import UserError, unknown
from bench.recipe import Declared


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Refuses a key that a mapping has twice; YAML's own loader would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1} if len(set(map(str, keys))) < len(keys) else set()
        if twice:
            problem = f"key '{sorted(map(str, twice))[0]}' is given twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Parse one YAML file with libyaml where it is built in (8x faster than the Python parser)."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None


def parse(model: type[Declared], data: Any, path: Path) -> Any:
    """Validate `data` read from `path`; every problem names the key, and a misspelt key its nearest match."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors()[:5]]
        raise UserError(f"{path}: " + "; ".join(lines), "correct the key or value named above") from None


def _explain(model: type[BaseModel], problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        kinds = [model] if len(problem["loc"]) == 1 else _models(model)
        known = {name for kind in kinds for name in kind.model_fields}
        return f"{where}: {unknown('key', str(problem['loc'][-1]), known)}".replace("\n  -> ", "; ")
    return f"{where}: {problem['msg']}"


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The model and those its fields hold."""
    found = [model]
    for field in model.model_fields.values():
        found += [kind for part in _parts(field.annotation) for kind in _models(part)]
    return found


def _parts(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [part for inner in get_args(annotation) for part in _parts(inner)]
