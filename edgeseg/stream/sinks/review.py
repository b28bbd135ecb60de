"""Undecided frames for a person: `review://DIR?disk=500&every=2s&per_day=2000` keeps them for `edgeseg label review`.

`edgeseg run --review-queue DIR` opens it. At most one frame every `every` seconds is kept, and `per_day` in 24 hours;
beyond `disk` MB those that the model is surest of make room. DIR is a dataset with the model's class maps as pre-labels
(monitoring/ring.py). What was not kept is counted. A full disk or a removed folder stops nothing: it is logged, and
tried again after 30 s.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path

from edgeseg.errors import EdgesegError, OptionError
from edgeseg.images import Image
from edgeseg.monitoring.ring import DAY, Ring
from edgeseg.result import Decision, Result
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock
from edgeseg.stream.disk_fault import DiskFault
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.uri import Convert, Uri, duration, number, whole

log = logging.getLogger(__name__)
FORMS = "review://FOLDER"
QUEUED, LIMITED, LOST = "queued", "limited", "lost"
OPTIONS: dict[str, Convert] = {"disk": number(0.1, 1e8), "per_day": whole(1, 10**7), "every": duration(0, 86400)}


def claims(uri: Uri) -> bool:
    return uri.scheme == "review"


def open(uri: Uri, info: Info) -> Sink:
    path, options = uri.split(OPTIONS)
    if not info.review:
        raise OptionError(f"{uri}, but no result is ever undecided.", "Add --min-confidence or --review-class.")
    return ReviewQueue(Path(path), info, **options)


class ReviewQueue(Sink):
    """`disk` in MB, `every` in seconds. `wall`: Unix seconds."""

    needs_frame = True

    def __init__(
        self,
        folder: Path,
        info: Info,
        disk: float = 500.0,
        per_day: int = 2000,
        every: float = 2.0,
        clock: Clock = SYSTEM_CLOCK,
        wall: Callable[[], float] = time.time,
    ):
        super().__init__()
        self.ring = Ring(folder, info.spec, int(disk * 1e6))
        self._stream = info.name
        self._every = every
        self._clock, self._wall = clock, wall
        self._kept_at: deque[float] = deque(maxlen=per_day)  # monotonic times of this run's frames
        self._fault = DiskFault("undecided frames are not kept", self.warnings)
        self._counts = Counter({QUEUED: 0, LIMITED: 0, LOST: 0})

    @property
    def lost(self) -> int:
        return self._counts[LOST]

    def queued(self) -> Mapping[str, int]:
        return dict(self._counts)

    def write(self, result: Result, image: Image | None) -> None:
        if result.decision is not None and result.decision.undecided:
            now = self._clock.monotonic()
            if self._too_soon(now):
                self._counts[LIMITED] += 1
            else:
                self._keep(result, result.decision, now)

    def _too_soon(self, now: float) -> bool:
        kept = self._kept_at
        full = len(kept) == kept.maxlen and now - kept[0] < DAY
        return full or bool(kept and now - kept[-1] < self._every)

    def _keep(self, result: Result, decision: Decision, now: float) -> None:
        if self._fault.lasts(now):
            self._counts[LOST] += 1
            return
        doubts = {reason: round(1 - level, 4) for reason, level in zip(decision.reasons, decision.levels)}
        try:
            if self.ring.begin_anew():
                log.warning("%s was removed; a new queue begins.", self.ring.folder)
            kept, gone = self.ring.add(result, self._stream, doubts, self._wall())
        except (EdgesegError, OSError) as error:
            self._counts[LOST] += 1
            self._fault.begin(error, now)
            return
        self._fault.end()
        self._counts[LOST] += len(gone) + (kept is None)  # they made room, or there was none
        if kept is not None:
            self._counts[QUEUED] += 1
            self._kept_at.append(now)
            self.files = [self.ring.folder]

    def close(self) -> None:
        counts = self._counts
        if counts[LIMITED] or counts[LOST]:
            text = f"{self.ring.folder}: undecided frames that were kept: {counts[QUEUED]}; not, by the limits"
            warning = f"{text} of every= and per_day=: {counts[LIMITED]}; for want of room: {counts[LOST]}."
            self.warnings += [warning] if warning not in self.warnings else []
