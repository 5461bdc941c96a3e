"""`run_all.py data ACTION`: what a dataset copy is, how to get one, and how to make, align, export and import one."""

from __future__ import annotations

import argparse
import importlib

# action -> one line of help; each is a module commands/data_<action>.py with configure(parser) and main(args)
ACTIONS = {
    "verify": "layout, counts, missing and extra files, duplicates; exit 0 when it is the benchmark, 1 when it is not",
    "how-to-get": "who may ask for a dataset, where, what arrives, and the next command",
    "synth": "write synthetic faces in the official layout of a dataset",
    "align": "detect and align faces of raw images, with a contact sheet to look at",
    "prior": "how raters' votes are spread within each class of a protocol: the prior matrix of PDLS",
    "order-doctor": "whether another class order explains a result better",
    "export": "write a verified protocol as a Hugging Face dataset (parquet)",
    "import": "read a Hugging Face dataset, local or from the hub, into a folder that can be verified and run",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data`: each action has its own."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, help_text in ACTIONS.items():
        module = importlib.import_module(_module(name))
        module.configure(actions.add_parser(name, help=help_text, description=help_text))


def main(args: argparse.Namespace) -> int:
    """Exit status of the action."""
    status: int = importlib.import_module(_module(args.action)).main(args)
    return status


def _module(action: str) -> str:
    return f"commands.data_{action.replace('-', '_')}"
