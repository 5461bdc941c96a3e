"""What an experiment may choose of a method's network: plain declared values, checked against a dataclass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from bench.errors import UserError, unknown

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
_COUNTS = {2: "two", 3: "three"}


@dataclass(frozen=True)
class MethodOptions:
    """Base of a method's options: a frozen dataclass every field of which has a default.

    A value has to be of its default's kind: a whole number may stand for a number, true and false may not, and a tuple
    holds as many whole numbers as its default.
    """

    of: ClassVar[str]
    """The method's name, for messages."""
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """The words a field may be."""
    least: ClassVar[Mapping[str, float]] = {}
    """The smallest value of a number, of each where there are several."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _refuse_other_kinds(f"{field.name} of {self.of}", getattr(self, field.name), field.default)
        for name, known in self.choices.items():
            if getattr(self, name) not in known:
                raise unknown(f"{name} of {self.of}", getattr(self, name), known)
        for name, least in self.least.items():
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) < least:
                raise UserError(f"{name} of {self.of} is {shown(value)}, less than {least}")

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Self:
        """Options from declared plain values; an unknown name lists the nearest ones.

        Raises:
            UserError: an unknown name, a value of another kind, a word that is none of the choices, a number too small.
        """
        known = {field.name for field in fields(cls)}
        for name in options:
            if name not in known:
                raise unknown(f"option of {cls.of}", name, known)
        lists = {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
        return cls(**{**options, **lists})


def shown(value: Any) -> str:
    """A value as YAML would have it, more or less."""
    return f"[{', '.join(map(repr, value))}]" if isinstance(value, tuple) else repr(value)


def _refuse_other_kinds(what: str, value: Any, default: Any) -> None:
    """Raise unless a value is of its default's kind."""
    kind = type(default)
    if kind is tuple:
        right = isinstance(value, tuple) and len(value) == len(default) and all(type(part) is int for part in value)
        wanted = f"{_COUNTS.get(len(default), len(default))} whole numbers"
    elif kind is float:
        right, wanted = type(value) in (int, float) and math.isfinite(value), _KINDS[kind]
    else:
        right, wanted = type(value) is kind, _KINDS[kind]
    if not right:
        raise UserError(f"{what} is {shown(value)}, not {wanted}", f"the default is {shown(default)}")
