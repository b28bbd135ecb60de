"""DriftMonitor: watches the results of one stream and says what has changed, with pictures.

Every EVERY-th frame is measured, and the confidence of every MARGIN_EVERY-th (Segmenter.margin), which keeps the cost
below 2 % of a frame's time even of a network of 2 ms. Frames that are half a second apart say as much as all of them:
they are correlated far longer than that.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np

from edgeseg.errors import FileError
from edgeseg.images import Image, write_image
from edgeseg.monitoring import statistics
from edgeseg.monitoring.detector import Change, ChangeDetector
from edgeseg.monitoring.ranges import SHORTEST, Ranges
from edgeseg.monitoring.reference import picture_of
from edgeseg.monitoring.then_and_now import then_and_now
from edgeseg.result import Result
from edgeseg.results.drift import Alarm, DriftState, ReferenceStatistics

EVERY = 15
MARGIN_EVERY = 59  # prime: streams that take turns on one engine all get their share
PATIENCE = 180  # frames of evidence that an alarm takes at least
DAYS = 7.0
USUAL_FPS = 30.0


class DriftMonitor:
    """`days`: how far false alarms are apart at least, on average. `pictures`: a folder for then-and-now pictures;
    `then`: the reference's picture where it holds none itself. `failed`: why the latest picture was not written."""

    def __init__(
        self,
        reference: ReferenceStatistics,
        *,
        fps: float | None = None,
        days: float = DAYS,
        patience: int = PATIENCE,
        pictures: Path | None = None,
        then: Image | None = None,
    ):
        self.bound = days * 86400 * (fps or USUAL_FPS)
        self.failed: FileError | None = None
        self._reference = reference
        blocks = max(2.0, self.bound / (SHORTEST * EVERY))
        self._ranges = Ranges.of(reference, blocks)
        self._detector = ChangeDetector(self._ranges, blocks, -(-patience // EVERY))
        self._pictures = pictures
        own = picture_of(reference)
        self._then = then if own is None else own
        self.seconds = 0.0  # that watching took, the pictures of alarms left out
        self._frames = 0
        self._margin = float("nan")
        self._alarms: Counter[str] = Counter()

    @property
    def block(self) -> int:
        """Frames in the block that is being filled."""
        return self._detector.length * EVERY

    def state(self) -> DriftState:
        """Scores and alarms so far; may be called by any thread."""
        scores = {name: round(float(score), 4) for name, score in zip(self._ranges.names, self._detector.scores)}
        return DriftState(scores, dict(self._alarms))

    def observe(self, result: Result) -> list[Alarm]:
        """Count one result; the alarms that it raises."""
        begin = time.perf_counter()
        changes = self._changes(result)
        self.seconds += time.perf_counter() - begin
        return [self._alarm(change, result) for change in changes]

    def _changes(self, result: Result) -> list[Change]:
        self._frames += 1
        if result.margin is not None:
            self._margin = float(result.margin.mean())
        if (self._frames - 1) % EVERY:
            return []
        row = statistics.measure(result, len(self._reference.classes))
        row[-1] = self._margin
        self._margin = float("nan")
        return self._detector.add(row)

    def _alarm(self, change: Change, result: Result) -> Alarm:
        name = self._ranges.names[change.index]
        low, high = float(self._ranges.low[change.index]), float(self._ranges.high[change.index])
        what = describe(name, change.value, low, high)
        self._alarms[name] += 1
        return Alarm(
            frame=self._frames - 1,
            since=change.since * EVERY,
            statistic=name,
            value=round(change.value, 4),
            low=round(low, 4),
            high=round(high, 4),
            bound=round(change.evidence * SHORTEST * EVERY),
            what=what,
            picture=self._draw(name, what, result),
        )

    def _draw(self, name: str, what: str, result: Result) -> str:
        """The name of the picture; "" where none is wanted or it cannot be written, which stops no watching."""
        if self._pictures is None:
            return ""
        file = f"{self._frames - 1:08d}-{name.replace(' ', '-').replace('/', '-')}.jpg"
        try:
            write_image(self._pictures / file, then_and_now(self._then, result.frame.image, what))
        except FileError as error:
            self.failed = error
            return ""
        return file


def describe(name: str, value: float, low: float, high: float) -> str:
    """A change in words."""
    if name.startswith(statistics.AREA):
        share, least, most = (100 * np.square(max(0.0, v)) for v in (value, low, high))
        label = name.removeprefix(statistics.AREA)
        return f"{label} covers {share:.1f} % of the frame; in the reference {least:.1f} to {most:.1f} %"
    return f"{statistics.WORDS[name]} is {value:.2f}; in the reference {low:.2f} to {high:.2f}"
