"""Where a number comes from: code, packages, machine and time."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bench.declare import ROOT

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "ferbench")


def commit() -> str:
    """Git commit of this installation, with '+dirty' when files differ from it; 'unknown' outside a checkout."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return "unknown"
    # results/ changes with every run and is no source of the next one
    return head[:12] + ("+dirty" if _git("status", "--porcelain", "--", ".", ":!results") else "")


def _git(*arguments: str) -> str:
    # without optional locks, so that asking never stands in the way of a commit being made
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def versions() -> dict[str, str]:
    """Versions of Python and the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """The processor's model name, as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            names = {line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")}
    except OSError:
        names = set()
    return ", ".join(sorted(names)) or platform.processor() or platform.machine()


def now() -> str:
    """UTC time, to the millisecond: it also tells a run from its repetition."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def machine() -> dict[str, Any]:
    """The machine a run was made on."""
    return {"system": f"{platform.system()} {platform.machine()}", "processor": processor()}
