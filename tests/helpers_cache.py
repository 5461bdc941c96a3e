"""A made-up dataset for tests of the decode cache, and processes that open it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.data.base import Dataset
from bench.declare import Protocol
from bench.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
FINISHED = (".digests", ".json", ".u8")
UNFINISHED = (".digests", ".journal", ".partial")
NAMES = [f"{number}.png" for number in range(40)]


class Toy(Dataset):
    """Forty images of 8x8 made from their number; notes every decoding in a file, and may be slow.

    Images listed in the file `spoiled` of its folder cannot be used.
    """

    shape = (8, 8)

    def __init__(
        self, root: Path, pause: float = 0.0, version: str = "1", skip_bad: bool = False, count: int = 40, side: int = 8
    ) -> None:
        super().__init__(root, Protocol(id="toy", dataset="toy"))
        self.folder, self.pause, self.version, self.skip_bad = root, pause, version, skip_bad
        self.count, self.side, self.shape = count, side, (side, side)

    @classmethod
    def detect(cls, root: Path) -> str | None:
        return None

    def fingerprint(self) -> str:
        return self.version

    def index(self, protocol: Protocol) -> object:  # type: ignore[override]
        raise NotImplementedError

    def names(self) -> list[str]:
        return [f"{number}.png" for number in range(self.count)]

    def pixels(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        raise NotImplementedError

    def decoded(self, names: Sequence[str]) -> Iterator[np.ndarray | UserError]:
        spoiled = self.folder / "spoiled"
        bad = spoiled.read_text().split() if spoiled.exists() else []
        with (self.folder / "decoded").open("a", buffering=1) as file:
            for name in names:
                time.sleep(self.pause)
                file.write(f"{name}\n")
                yield UserError(f"{name} is spoiled", "mend it") if name in bad else self.image(name)

    def image(self, name: str) -> np.ndarray:
        """What an image holds."""
        return np.full((self.side, self.side), int(name.split(".")[0]) % 251, dtype=np.uint8)


def decoded(root: Path) -> list[str]:
    """Names of all images decoded so far, in order."""
    path = root / "decoded"
    return path.read_text().split() if path.exists() else []


def files(cache: Path) -> list[str]:
    """Endings of the files of the cache, in order, other than locks."""
    folder = cache / "pixels"
    return sorted(path.suffix for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


def child(root: Path, cache: Path, before: str = "", **arguments: object) -> subprocess.Popen[str]:
    """A process that opens the cache of a `Toy` and prints the hash of its pixels, or the error."""
    given = "".join(f", {name}={value!r}" for name, value in arguments.items())
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
from helpers_cache import Toy
from bench.data import cache_build, cache_check
from bench.data.cache import open_pixels
from bench.errors import UserError
{before}
try:
    print(open_pixels(Toy(Path({str(root)!r}){given}), Path({str(cache)!r})).sha256)
except UserError as error:
    print(error)
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def flip_a_byte(path: Path, at: int = 1000) -> None:
    """Damage one byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def until(condition: object, seconds: float = 60.0) -> None:
    """Wait until a function gives something true."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)
