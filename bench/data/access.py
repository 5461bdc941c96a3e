"""How datasets are got, read from access.yaml: who may ask, where, what is signed, what arrives and where it goes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from bench import declare
from bench.errors import UserError, unknown
from bench.recipe import Declared
from bench.yaml_files import parse, read_yaml

FILE = Path(__file__).with_name("access.yaml")
WIDTH = 100  # columns
_MARK = {"checked": "", "reported": " (reported by users)", "unverified": " (not verified)"}
_PARTS = {"ask": "who may ask", "where": "where", "sign": "to sign", "terms": "terms", "arrives": "what arrives"}


class Statement(Declared):
    """One fact, and how it is known."""

    text: str
    known: Literal["checked", "reported", "unverified"] = "checked"

    @property
    def marked(self) -> str:
        """The text; what was not checked says so."""
        return self.text + _MARK[self.known]


class Access(Declared):
    """How one dataset is got.

    Attributes:
        names: other spellings of `id`; capitals, hyphens, blanks and "+" for "plus" need no spelling of their own.
        put: where it goes under the data root.
        verify: whether `data verify` takes it; lists without images are checked when a subset is opened.
        table: a table that uses it.
        quick: what runs on synthetic faces meanwhile, where it is not that table.
        layouts: of `data synth`, to try things with meanwhile.
    """

    id: str
    title: str
    names: tuple[str, ...]
    ask: tuple[Statement, ...]
    where: tuple[Statement, ...]
    sign: tuple[Statement, ...]
    terms: tuple[Statement, ...]
    arrives: tuple[Statement, ...]
    put: str
    verify: bool = True
    table: str
    quick: str = ""
    layouts: tuple[str, ...]


class _File(Declared):
    datasets: tuple[Access, ...]


def read(path: Path = FILE) -> dict[str, Access]:
    """Id -> how it is got; UserError names a key that is misspelt or missing."""
    found: _File = parse(_File, read_yaml(path), path)
    return {one.id: one for one in found.datasets}


def find(name: str, known: dict[str, Access]) -> list[Access]:
    """What to get for a dataset or protocol: the dataset, and RAN's lists where the protocol is one of its subsets.

    Raises:
        UserError: no such dataset or protocol (the nearest are named), or one that needs nothing from outside.
    """
    spelt = {_plain(spelling): one for one in known.values() for spelling in (one.id, *one.names)}
    if _plain(name) in spelt:
        return [spelt[_plain(name)]]
    protocols = {protocol.id.lower(): protocol for protocol in declare.load().protocols.values()}
    protocol = protocols.get(name.strip().lower())
    if protocol is None:
        spellings = [spelling for one in known.values() for spelling in (one.id, *one.names)]
        raise unknown("dataset or protocol", name.lower(), [*spellings, *protocols])
    if protocol.dataset not in known:
        run = f"python run_all.py --experiment vit-scratch --protocol {protocol.id} --profile quick"
        raise UserError(f"{protocol.id} is made here, there is nothing to get", f"run it: {run}")
    lists = [known["ran"]] if protocol.rule.startswith("ran-") and "ran" in known else []
    return [known[protocol.dataset], *lists]


def overview(known: dict[str, Access]) -> str:
    """All in a short table."""
    first = max(len(name) for name in known) + 2
    lines = []
    for one in known.values():
        lines += [f"{one.id:<{first}}{one.title}"]
        for statement in (one.ask[0], one.where[0]):
            lines += _wrapped(statement.marked, " " * first)
    lines += ["", "more: python run_all.py data how-to-get NAME"]
    return "\n".join(lines)


def render(one: Access) -> str:
    """All about one, as text of at most 100 columns."""
    lines = [one.title, "=" * len(one.title)]
    for part, title in _PARTS.items():
        lines += _part(title, [statement.marked for statement in getattr(one, part)])
    lines += _part("where to put it", [one.put])
    # never wrapped: commands are copied
    lines += ["", "next"]
    lines += ["  python run_all.py data verify PATH"] if one.verify else []
    lines += [f"  python run_all.py --table {one.table} --data-root ROOT --plan"]
    lines += ["", "meanwhile: synthetic faces in the same layout, and a quick run that needs no data"]
    lines += [f"  python run_all.py data synth --layout {layout} DEST" for layout in one.layouts]
    lines += [f"  python run_all.py {one.quick or f'--table {one.table}'} --profile quick"]
    return "\n".join(lines)


def _part(title: str, texts: Sequence[str]) -> list[str]:
    return ["", title, *(line for text in texts for line in _wrapped(text, "  "))]


def _wrapped(text: str, indent: str) -> Iterable[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _plain(name: str) -> str:
    """A spelling without capitals, blanks and hyphens: "FER+" -> "ferplus"."""
    return re.sub(r"[\s_-]", "", name.lower()).replace("+", "plus")
