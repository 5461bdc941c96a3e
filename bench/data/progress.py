"""Progress of long work on images, in plain lines."""

from __future__ import annotations

import sys
import time

QUIET_SECONDS = 2.0  # work shorter than this prints nothing
REPORT_SECONDS = 5.0


class Progress:
    """Lines on stderr with the time left; silent for short work.

    Args:
        what: what is being done.
        total: images to do.
        first: images done before, which say nothing about the time.
    """

    def __init__(self, what: str, total: int, first: int = 0) -> None:
        self.what, self.total, self.first = what, total, first
        self.start = time.monotonic()
        self.next = self.start + QUIET_SECONDS

    def report(self, done: int) -> None:
        """Say so, now and then, that `done` images are done."""
        now = time.monotonic()
        if now >= self.next and self.first < done < self.total:
            self.next = now + REPORT_SECONDS
            left = (now - self.start) / (done - self.first) * (self.total - done)
            text = f"{self.what}: {done:,} of {self.total:,} images, about {left:.0f} s left"
            print(text, file=sys.stderr, flush=True)
