"""Types of command-line arguments: a wrong value is a usage error that says what is right."""

from __future__ import annotations

import argparse
import re


def count(text: str) -> int:
    """A whole number of at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return value


def device(text: str) -> str:
    """auto, cpu, cuda or cuda:N."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text}: one of auto, cpu, cuda, cuda:0, cuda:1, ...")
    return text


def seed(text: str) -> int:
    """A whole number of at least zero."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: at least 0")
    return value
