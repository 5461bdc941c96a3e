#!/usr/bin/env python3
"""The door: `python run_all.py --table fervt-table11` runs a paper's table and prints it beside our numbers.

Without a subcommand it plans, runs what is missing and renders; subcommands look at one thing. Torch and pandas are
imported only once a run or a rendering needs them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from bench.errors import UserError, unknown

# subcommand -> one line of help; each is a module of commands/ with configure(parser) and main(args)
COMMANDS = {
    "run": "plan, run what is missing and render (the default: the word may be left out)",
    "list": "tables, methods, datasets and what can be run here",
    "show": "everything about one cell or entry",
    "claims": "every number the papers print",
    "render": "draw the tables again from the results",
    "check": "compare results with the baseline; exit 1 on a regression",
    "compare": "two entries on the same images, with a paired test",
    "audit": "contradictions inside and between the papers, computed where they can be",
    "data": "verify a dataset: layout, counts, duplicates, is it the benchmark",
    "weights": "external weight files: which are here, how to get one, taking one in",
    "doctor": "versions, devices, folders: what this installation can do",
}
DONE, FAILED, USAGE, BLOCKED = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit status (0 done, 1 some failed, 2 usage, 3 some blocked)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # jobs write a checkpoint when the queue stops, so every polite signal stops it (a background shell ignores SIGINT)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if words and words[0] not in COMMANDS and words[0].startswith("-") and words[0] not in ("-h", "--help"):
        words.insert(0, "run")
    if words and words[0] not in COMMANDS and not words[0].startswith("-"):
        hint = unknown("command", words[0], COMMANDS)
        hint = UserError(hint.message, f"a table is run with --table {words[0]}") if "-table" in words[0] else hint
        print(f"error: {hint}", file=sys.stderr)
        return USAGE
    parser = _parser(words[0] if words else "")
    try:
        args = parser.parse_args(words)
        if not args.command:
            parser.print_help()
            return USAGE
        status: int = importlib.import_module(f"commands.{args.command}").main(args)
        sys.stdout.flush()  # here, where a reader that has left is expected
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("\ninterrupted; the same command (without --force) continues from the last checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader (head, less) has left; keep Python from complaining when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _parser(command: str) -> argparse.ArgumentParser:
    """The parser; only the chosen subcommand's module is imported."""
    parser = argparse.ArgumentParser(
        prog="run_all.py",
        description="Reproduce the tables of facial-expression-recognition papers.",
        epilog="example: python run_all.py --table fervt-table11",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, help_text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help_text, description=help_text)
        if name == command:
            importlib.import_module(f"commands.{name}").configure(subparser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
