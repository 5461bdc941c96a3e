"""Checkpoints that survive anything: two slots written in turn, each carrying its own hash.

A write never touches the newest good slot, so a kill, a full disk or a damaged file costs at most one interval.
"""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import Any

import torch

from bench.store import CHECKPOINT_SLOTS as SLOTS
from bench.store import write_stream

MAGIC = b"ferbench checkpoint 1\n"


class Checkpoints:
    """The checkpoint slots of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.serial = 0

    def save(self, state: dict[str, Any]) -> None:
        """Write `state` (tensors and plain values) to the older slot."""
        buffer = io.BytesIO()
        serial = self.serial + 1
        torch.save({"serial": serial, "state": state}, buffer)
        payload = buffer.getbuffer()
        digest = hashlib.sha256(payload).hexdigest().encode()

        def write(stream: Any) -> None:
            stream.write(MAGIC + digest + b"\n")
            stream.write(payload)

        write_stream(self.folder / SLOTS[serial % 2], write)
        self.serial = serial  # only now: after a failed write the next one must take the same slot again

    def load(self) -> dict[str, Any] | None:
        """The newest intact state, or None. A damaged slot is named on stderr and passed over."""
        found: dict[str, Any] | None = None
        for slot in SLOTS:
            loaded = self._read(self.folder / slot)
            if loaded is not None and loaded["serial"] > self.serial:
                self.serial, found = loaded["serial"], loaded["state"]
        return found

    def clear(self) -> None:
        """Remove the slots of a finished run."""
        for slot in SLOTS:
            (self.folder / slot).unlink(missing_ok=True)

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        data = path.read_bytes()
        header = len(MAGIC) + 65
        intact = data[: len(MAGIC)] == MAGIC
        intact = (
            intact and hashlib.sha256(memoryview(data)[header:]).hexdigest().encode() == data[len(MAGIC) : header - 1]
        )
        if not intact:
            print(
                f"{path}: damaged checkpoint, ignored (continuing from the other slot or from the start)",
                file=sys.stderr,
            )
            return None
        loaded: dict[str, Any] = torch.load(io.BytesIO(data[header:]), map_location="cpu", weights_only=True)
        return loaded
