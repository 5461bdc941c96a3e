"""`data synth`."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `data synth`."""


def main(args: argparse.Namespace) -> int:
    """Being built."""
    raise NotImplementedError
