"""Frames worth labeling: `collect://DIR?disk=2000&per_day=200&every=10s` keeps uncertain, drifted, novel and diverse
ones.

The best of every `every` seconds is kept, if there is a reason to (monitoring/worth.py), at most `per_day` in 24 hours
and `disk` MB; the least worthy make room. `random=20` of the `per_day` (by default a tenth) are drawn at random instead
(monitoring/random_draw.py): they estimate how good the model is on the stream. DIR is a dataset with the model's class
maps as pre-labels (monitoring/ring.py). `?reference=FILE.json` in place of the bundle's statistics. A full disk or a
removed folder stops nothing: it is logged, and tried again after 30 s.
"""

from __future__ import annotations

import logging
import random as chance
import time
from collections.abc import Callable
from pathlib import Path

from edgeseg.errors import EdgesegError, OptionError
from edgeseg.images import Image
from edgeseg.monitoring.random_draw import RANDOM, Drawn, RandomDraw
from edgeseg.monitoring.reference import given
from edgeseg.monitoring.ring import DAY, Ring
from edgeseg.monitoring.worth import Features, Judge, Worth, describe
from edgeseg.result import Result
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock
from edgeseg.stream.disk_fault import DiskFault
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.uri import Convert, Uri, duration, number, whole

log = logging.getLogger(__name__)
FORMS = "collect://FOLDER"
MARGIN_EVERY = 15
OPTIONS: dict[str, Convert] = {
    "disk": number(0.1, 1e8),
    "per_day": whole(1, 10**7),
    "random": whole(0, 10**7),
    "every": duration(0, 86400),
    "reference": str,
}


def claims(uri: Uri) -> bool:
    return uri.scheme == "collect"


def open(uri: Uri, info: Info) -> Sink:
    path, options = uri.split(OPTIONS)
    return Collect(Path(path), info, **options)


class Collect(Sink):
    """`disk` in MB, `every` in seconds. `wall`: Unix seconds. OptionError where more are to be `random` than kept."""

    needs_frame = True

    def __init__(
        self,
        folder: Path,
        info: Info,
        disk: float = 2000.0,
        per_day: int = 200,
        every: float = 10.0,
        reference: str = "",
        random: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
        wall: Callable[[], float] = time.time,
        source: chance.Random | None = None,
    ):
        super().__init__()
        drawn = round(per_day / 10) if random is None else random
        if drawn > per_day:
            raise OptionError(f"random={drawn} of per_day={per_day} frames.", "Lower random=, or raise per_day=.")
        self.ring = Ring(folder, info.spec, int(disk * 1e6))
        self._classes = len(info.spec.classes)
        self._judge = Judge(self._classes, given(reference, info.reference, info.spec.classes))
        self._measured = 0  # results with a margin
        self._rate_every = -(-MARGIN_EVERY // info.margin_every) if info.margin_every else 1
        self._before = len(self.ring.kept)  # of earlier runs, which the judge has not seen
        self._stream = info.name
        self._per_day, self._every = per_day - drawn, every
        self._clock, self._wall = clock, wall
        start = clock.monotonic()
        self._draw = RandomDraw(DAY / drawn, start, source or chance.Random()) if drawn else None
        self._window_ends = start + every
        self._best: tuple[Worth, Result] | None = None
        self._own: list[float] = []  # monotonic times of this run's frames
        self._fault = DiskFault("frames are not collected", self.warnings)
        self._lost = 0

    @property
    def lost(self) -> int:
        return self._lost

    def write(self, result: Result, image: Image | None) -> None:
        if result.margin is not None and self._is_due():
            worth = self._judge.rate(result)
            if worth.why and (self._best is None or worth.score > self._best[0].score):
                self._best = worth, result
        now = self._clock.monotonic()
        if self._draw:
            self._keep_drawn(self._draw.offer(result, now))
        if now >= self._window_ends:
            self._window_ends = now + self._every
            self._keep_best()

    def _is_due(self) -> bool:
        """Where margins come more often than this sink needs them, it leaves some of them out."""
        self._measured += 1
        return (self._measured - 1) % self._rate_every == 0

    def close(self) -> None:
        if self._draw:
            self._keep_drawn(self._draw.finish(self._clock.monotonic()))
        self._keep_best()

    def _keep_drawn(self, drawn: Drawn | None) -> None:
        if drawn is not None:
            self._keep(drawn.result, {RANDOM: 1.0}, describe(drawn.result, self._classes), drawn.at)

    def _keep_best(self) -> None:
        best, self._best = self._best, None
        now = self._clock.monotonic()
        if best is None or self._today(now) >= self._per_day:
            return
        worth, result = best
        if self._keep(result, worth.why, worth.features, now):
            self._own.append(now)

    def _keep(self, result: Result, why: dict[str, float], features: Features, at: float) -> bool:
        """Whether it was kept. `at`: its time, in monotonic seconds."""
        now = self._clock.monotonic()
        if self._fault.lasts(now):
            self._lost += RANDOM in why  # another one of the others is as good
            return False
        try:
            self._notice_removal()
            kept, gone = self.ring.add(result, self._stream, why, self._wall() - (now - at))
        except (EdgesegError, OSError) as error:
            self._lost += 1
            self._fault.begin(error, now)
            return False
        self._fault.end()
        self._forget(gone)
        if kept:
            self._judge.keep(features)
            self.files = [self.ring.folder]
        return kept is not None

    def _notice_removal(self) -> None:
        """Somebody took the collection away: what was kept says nothing about what is new."""
        if self.ring.begin_anew():
            log.warning("%s was removed; a new collection begins.", self.ring.folder)
            self._judge.clear()
            self._before = 0

    def _forget(self, gone: list[int]) -> None:
        """The judge compares new frames with those that are still there."""
        for place in gone:
            if place < self._before:
                self._before -= 1
            else:
                self._judge.forget(place - self._before)

    def _today(self, now: float) -> int:
        """Frames that were chosen in the latest 24 hours: this run's by a clock that cannot jump, others by the wall
        clock."""
        self._own = [at for at in self._own if now - at < DAY]
        earlier = [row for row in self.ring.kept[: self._before] if RANDOM not in row.why]
        return len(self._own) + sum(abs(self._wall() - row.time) < DAY for row in earlier)
