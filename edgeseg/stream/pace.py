"""Pace: hands out ticks at a fixed rate, for sources that play like a camera."""

from __future__ import annotations

import time


class Pace:
    def __init__(self, fps: float):
        self._period = 1.0 / fps
        self._due = time.monotonic()

    def wait(self, timeout: float) -> bool:
        """True once the next tick is due, False if that is more than `timeout` seconds away (slept that long)."""
        left = self._due - time.monotonic()
        if left > timeout:
            time.sleep(max(timeout, 0))
            return False
        if left > 0:
            time.sleep(left)
        # After a pause the rate goes on from now; ticks that were missed are not made up for.
        self._due = max(self._due, time.monotonic() - self._period) + self._period
        return True
