"""FallbackPolicy: what a run does when frames come out too old. Off unless a deadline is given; every step is reported.

    full --late--> skip (every second frame) --late--> fallback bundle 1 --late--> fallback bundle 2 ...

A step down is taken when more than half of the latest WINDOW results were older than the deadline; a step up after
`patience` results in a row younger than HEADROOM of it. A step up that does not hold doubles the patience, up to
LONGEST_PATIENCE, so that the policy does not swing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeseg.errors import OptionError
from edgeseg.result import Frame, Result
from edgeseg.segmenter import Segmenter
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock
from edgeseg.stream.summary import FallbackSummary

WINDOW = 12
HEADROOM = 0.6
PATIENCE = 60
LONGEST_PATIENCE = 16 * PATIENCE
OnStep = Callable[[str, str], None]


@dataclass(frozen=True)
class Level:
    """One level of quality: a Segmenter that gets every n-th frame."""

    name: str
    segmenter: Segmenter
    every: int = 1


class FallbackPolicy:
    """Stands in for a Segmenter. `levels`: from the best to the cheapest; `deadline` in seconds.

    All have the same classes; their input sizes may differ, so class maps may change size while it runs.
    `on_step(level's name, reason)` is called for every change. OptionError if a level has other classes.
    """

    def __init__(
        self, levels: Sequence[Level], deadline: float, on_step: OnStep | None = None, clock: Clock = SYSTEM_CLOCK
    ):
        self.spec = levels[0].segmenter.spec
        self.bundle = levels[0].segmenter.bundle
        for level in levels:
            if level.segmenter.spec.classes != self.spec.classes:
                raise OptionError(
                    f"Fallback bundle {level.name} has other classes.", f"Expected: {', '.join(self.spec.classes)}."
                )
        self.deadline = deadline
        self.slots = min(level.segmenter.slots for level in levels)
        self.level = 0
        self.late = 0
        self.steps = 0
        self._levels = levels
        self._on_step = on_step
        self._clock = clock
        self._results: Counter[str] = Counter()
        self._in_flight: deque[int] = deque()
        self._latest_late: deque[bool] = deque(maxlen=WINDOW)
        self._young_in_a_row = 0
        self._patience = PATIENCE
        self._offered = 0
        self._stepped_up = False  # the latest step was upwards

    @property
    def name(self) -> str:
        return self._levels[self.level].name

    def accepts_frame(self) -> bool:
        """Whether the next frame is to be submitted at all; called once for every frame."""
        self._offered += 1
        return self._offered % self._levels[self.level].every == 0

    def submit(self, frame: Frame) -> None:
        """As Segmenter.submit, on the current level."""
        level = self.level
        self._levels[level].segmenter.submit(frame)
        self._in_flight.append(level)

    def collect(self) -> Result:
        """As Segmenter.collect, in the order of submission; evaluates the result's age."""
        level = self._in_flight.popleft()
        result = self._levels[level].segmenter.collect()
        self._results[self._levels[level].name] += 1
        if level == self.level:  # what was started on another level says nothing about this one
            self.add_age(self._clock.monotonic() - result.frame.captured)
        return result

    def add_age(self, age: float) -> None:
        """Count one result of `age` seconds since its capture, and step down or up if that is due."""
        late = age > self.deadline
        self.late += late
        self._latest_late.append(late)
        self._young_in_a_row = self._young_in_a_row + 1 if age < HEADROOM * self.deadline else 0
        number_late = sum(self._latest_late)
        if len(self._latest_late) == WINDOW and number_late > WINDOW // 2 and self.level + 1 < len(self._levels):
            if self._stepped_up:
                self._patience = min(2 * self._patience, LONGEST_PATIENCE)
            self._step(1, f"{number_late} of {WINDOW} results older than {1e3 * self.deadline:.0f} ms")
        elif self._young_in_a_row >= self._patience and self.level > 0:
            self._step(-1, f"{self._young_in_a_row} results younger than {1e3 * HEADROOM * self.deadline:.0f} ms")

    def _step(self, by: int, reason: str) -> None:
        self.level += by
        self.steps += 1
        self._stepped_up = by < 0
        self._latest_late.clear()
        self._young_in_a_row = 0
        if self._on_step:
            self._on_step(self.name, reason)

    def summary(self) -> FallbackSummary:
        return FallbackSummary(
            self.level, self.name, self.steps, self.late, dict(self._results), deadline_ms=1e3 * self.deadline
        )

    def keep_detail(self) -> None:
        """As Segmenter.keep_detail."""
        for level in self._levels:
            level.segmenter.keep_detail()

    def close(self) -> None:
        for segmenter in dict.fromkeys(level.segmenter for level in self._levels):
            segmenter.close()
