"""Progress of a run: a value for drawing, and a logger where there is no terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edgeseg.stream.clock import SYSTEM_CLOCK, Clock

log = logging.getLogger(__name__)
LOG_SECONDS = 30.0


@dataclass(frozen=True)
class Progress:
    """`count`: how many frames there will be, None where nobody knows; `fps` since the start."""

    frames: int
    seconds: float
    count: int | None = None

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0


OnProgress = Callable[[Progress], None]


class ProgressLog:
    """Called with every Progress; logs one every `interval` seconds, and the last one on close()."""

    def __init__(self, what: str, interval: float = LOG_SECONDS, clock: Clock = SYSTEM_CLOCK):
        self._what = what
        self._interval = interval
        self._clock = clock
        self._logged_at = clock.monotonic()
        self._latest: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self._latest = progress
        if self._clock.monotonic() - self._logged_at >= self._interval:
            self._logged_at = self._clock.monotonic()
            self._write(progress)

    def close(self) -> None:
        if self._latest is not None:
            self._write(self._latest)

    def _write(self, progress: Progress) -> None:
        total = f" of {progress.count}" if progress.count else ""
        log.info(
            "%s: %d%s frames in %.0f s, %.1f FPS", self._what, progress.frames, total, progress.seconds, progress.fps
        )
