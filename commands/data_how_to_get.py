"""`data how-to-get`."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data how-to-get`."""


def main(args: argparse.Namespace) -> int:
    """Being built."""
    raise NotImplementedError
