"""A folder that cannot be written for a while: said once, and tried again after RETRY_SECONDS."""

from __future__ import annotations

import logging

from edgeseg.errors import EdgesegError

log = logging.getLogger(__name__)
RETRY_SECONDS = 30.0


class DiskFault:
    """`what` does not happen meanwhile, as the log has it; `warnings`: of the sink. Times in monotonic seconds."""

    def __init__(self, what: str, warnings: list[str]):
        self._what, self._warnings = what, warnings
        self._retry_at = 0.0
        self._failing = False

    def lasts(self, now: float) -> bool:
        """Whether it is too early to try again."""
        return now < self._retry_at

    def begin(self, error: EdgesegError | OSError, now: float) -> None:
        self._retry_at = now + RETRY_SECONDS
        if not self._failing:
            text = error.what if isinstance(error, EdgesegError) else str(error)
            self._warnings.append(text)
            log.warning("%s: %s", self._what, text)
        self._failing = True

    def end(self) -> None:
        self._failing = False
