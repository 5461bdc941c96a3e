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


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An unknown `name`, with its nearest matches among `known`."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if near:
        return UserError(f"unknown {kind} '{name}'", f"did you mean {', '.join(near)}?")
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return UserError(f"unknown {kind} '{name}'", f"known: {shown or 'none'}")
