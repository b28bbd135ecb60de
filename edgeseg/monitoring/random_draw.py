"""RandomDraw: one frame of every so many seconds, drawn at random: a fair sample of what a stream shows.

Frames that are kept because they are uncertain or rare say nothing of how good a model is on all the others. Of these,
every frame of a window of time is as likely as any other (reservoir sampling: Vitter, "Random sampling with a
reservoir", ACM Transactions on Mathematical Software 11, 1985, for one item), whatever it shows. Every stretch of time
counts alike, also where a camera gives fewer frames.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from edgeseg.result import Result

RANDOM = "random"  # the reason for which such a frame is kept


@dataclass(frozen=True)
class Drawn:
    """A result, and when it came, in monotonic seconds."""

    result: Result
    at: float


class RandomDraw:
    """`seconds`: the length of a window. `now`: monotonic seconds when the stream begins."""

    def __init__(self, seconds: float, now: float, source: random.Random):
        self._seconds = seconds
        self._begin = now
        self._random = source
        self._seen = 0
        self._drawn: Drawn | None = None

    def offer(self, result: Result, now: float) -> Drawn | None:
        """Let a result take part. With the first one of a new window comes what was drawn from the one before."""
        complete = None
        if now - self._begin >= self._seconds:
            self._begin += (now - self._begin) // self._seconds * self._seconds
            complete, self._drawn, self._seen = self._drawn, None, 0
        self._seen += 1
        if self._random.random() * self._seen < 1:
            self._drawn = Drawn(result, now)
        return complete

    def finish(self, now: float) -> Drawn | None:
        """What is drawn from the window that the end cuts off: nothing, as often as it is short."""
        drawn, self._drawn = self._drawn, None
        share = min(1.0, (now - self._begin) / self._seconds)
        return drawn if self._random.random() < share else None
