"""The one error users see: what happened, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A problem the user can act on.

    Args:
        message: what is wrong, naming the file, row or key.
        hint: the next thing to do; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message


class UnfitWeights(UserError):
    """A method takes files of this kind, but this one was made for another network than the run's."""


def unknown(kind: str, name: str, known: Iterable[str], told: Iterable[str] = ()) -> UserError:
    """An unknown `name`, with its nearest matches among `known`; where nothing is near, with those `told` of them."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if near:
        return UserError(f"unknown {kind} '{name}'", f"did you mean {', '.join(near)}?")
    names = list(told) or names
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return UserError(f"unknown {kind} '{name}'", f"known: {shown or 'none'}")
