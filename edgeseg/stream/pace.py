"""Pace: hands out ticks at a fixed rate, for files that are played like a camera."""

from __future__ import annotations

from edgeseg.stream.clock import SYSTEM_CLOCK, Clock


class Pace:
    def __init__(self, fps: float, clock: Clock = SYSTEM_CLOCK):
        self._period = 1.0 / fps
        self._clock = clock
        self._due = clock.monotonic()

    def wait(self, timeout: float) -> bool:
        """Sleep until the next tick and return True, or for `timeout` seconds and return False if it is further off."""
        remaining = self._due - self._clock.monotonic()
        if remaining > timeout:
            self._clock.sleep(max(timeout, 0))
            return False
        if remaining > 0:
            self._clock.sleep(remaining)
        # After a pause the rate goes on from now; ticks that were missed are not made up for.
        self._due = max(self._due, self._clock.monotonic() - self._period) + self._period
        return True
