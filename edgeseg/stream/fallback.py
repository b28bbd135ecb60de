"""Ladder: what a run does when frames come out too old. Off unless a deadline is given; every step is told.

    full --late--> skip (every second frame) --late--> fallback bundle 1 --late--> fallback bundle 2 ...

A step down is taken when more than half of the latest WINDOW results were older than the deadline; a step up after
`patience` results in a row younger than HEADROOM of it. A step up that does not hold doubles the patience, up to
LONGEST, so that the ladder does not swing.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from edgeseg.errors import OptionError
from edgeseg.segmenter import Frame, Result, Segmenter

WINDOW = 12
HEADROOM = 0.6
PATIENCE = 60
LONGEST = 16 * PATIENCE
OnStep = Callable[[str, str], None]


class Ladder:
    """Stands in for a Segmenter. `rungs`: (name, Segmenter, take every n-th frame), from the best to the cheapest.

    All have the same classes; their input sizes may differ, so class maps may change size while it runs.
    """

    def __init__(self, rungs: Sequence[tuple[str, Segmenter, int]], deadline: float, on_step: OnStep | None = None):
        self.spec = rungs[0][1].spec
        for name, segmenter, _ in rungs:
            if segmenter.spec.classes != self.spec.classes:
                raise OptionError(
                    f"Fallback bundle {name} has other classes.", f"Expected: {', '.join(self.spec.classes)}."
                )
        self.deadline = deadline
        self.slots = min(segmenter.slots for _, segmenter, _ in rungs)
        self.level = 0
        self.late = 0
        self.steps = 0
        self._rungs = rungs
        self._on_step = on_step
        self._results: Counter[str] = Counter()
        self._flight: deque[int] = deque()
        self._ages: deque[bool] = deque(maxlen=WINDOW)
        self._good = 0
        self._patience = PATIENCE
        self._offered = 0
        self._fresh_from_below = False  # the latest step was upwards

    @property
    def name(self) -> str:
        return self._rungs[self.level][0]

    def wants(self) -> bool:
        """Whether the next frame is to be taken at all."""
        self._offered += 1
        return self._offered % self._rungs[self.level][2] == 0

    def submit(self, frame: Frame) -> None:
        """As Segmenter.submit, on the rung of the moment."""
        level = self.level
        self._rungs[level][1].submit(frame)
        self._flight.append(level)

    def collect(self) -> Result:
        """As Segmenter.collect, in the order of submission; judges the result's age (seconds since its capture)."""
        level = self._flight.popleft()
        result = self._rungs[level][1].collect()
        self._results[self._rungs[level][0]] += 1
        if level == self.level:  # what was started on another rung says nothing about this one
            self.judge(time.monotonic() - result.frame.captured)
        return result

    def judge(self, age: float) -> None:
        """Count one result of `age` seconds and step down or up if that is due."""
        late = age > self.deadline
        self.late += late
        self._ages.append(late)
        self._good = self._good + 1 if age < HEADROOM * self.deadline else 0
        if len(self._ages) == WINDOW and sum(self._ages) > WINDOW // 2 and self.level + 1 < len(self._rungs):
            if self._fresh_from_below:
                self._patience = min(2 * self._patience, LONGEST)
            self._step(1, f"{sum(self._ages)} of {WINDOW} results older than {1e3 * self.deadline:.0f} ms")
        elif self._good >= self._patience and self.level > 0:
            self._step(-1, f"{self._good} results younger than {1e3 * HEADROOM * self.deadline:.0f} ms")

    def _step(self, by: int, why: str) -> None:
        self.level += by
        self.steps += 1
        self._fresh_from_below = by < 0
        self._ages.clear()
        self._good = 0
        if self._on_step:
            self._on_step(self.name, why)

    def state(self) -> dict[str, Any]:
        """For summaries and metrics: the rung, how often it changed, results per rung, results over the deadline."""
        return {
            "level": self.level,
            "name": self.name,
            "steps": self.steps,
            "late": self.late,
            "results": dict(self._results),
            "deadline_ms": 1e3 * self.deadline,
        }

    def close(self) -> None:
        for segmenter in dict.fromkeys(segmenter for _, segmenter, _ in self._rungs):
            segmenter.close()
