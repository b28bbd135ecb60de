"""Clock: the time that time-outs, back-off, watchdogs and pacing go by. Tests pass one that they move themselves."""

from __future__ import annotations

import time


class Clock:
    """The system's monotonic clock, the same one that `Frame.captured` uses."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


SYSTEM_CLOCK = Clock()
