"""ReconnectingSink: a sink that is opened again after a failure: a full disk or a lost network stops no camera."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping

from edgeseg.errors import EdgesegError, StreamError
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.results.drift import DriftState
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock
from edgeseg.stream.events.watch import MOST_WAITING, Event, Observation
from edgeseg.stream.redact import redact
from edgeseg.stream.sinks import Sink

log = logging.getLogger(__name__)
FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0


class ReconnectingSink(Sink):
    """Writes to what `reopen(part)` opens; part 1 after the first failure, so that finished files are not replaced.

    The delay before it is opened again doubles from `first_delay` to LONGEST_DELAY seconds. While it is broken,
    results are lost, and counted in `lost`. Whatever a sink raises is its own fault alone; the first failure in a row
    is logged, and so is the recovery. Events are not lost: they wait, MOST_WAITING at most, until it works again.
    """

    def __init__(
        self,
        sink: Sink,
        reopen: Callable[[int], Sink],
        first_delay: float = FIRST_DELAY,
        clock: Clock = SYSTEM_CLOCK,
    ):
        super().__init__()
        self.name = sink.name or type(sink).__name__
        self.needs_image = sink.needs_image
        self.needs_frame = sink.needs_frame
        self.needs_detail = sink.needs_detail
        self.needs_events = sink.needs_events
        self.failures = 0
        self._lost = 0  # while it was broken, and by the sinks that are closed
        self._sink: Sink | None = sink
        self._reopen = reopen
        self._first_delay = first_delay
        self._clock = clock
        self._failures_in_a_row = 0
        self._retry_at = 0.0
        self._reasons: Counter[str] = Counter()
        self._observation: Observation | None = None
        self._events: deque[Event] = deque(maxlen=MOST_WAITING)  # that no sink has written

    @property
    def lost(self) -> int:
        sink = self._sink
        return self._lost + (sink.lost if sink else 0)

    def observe(self, observation: Observation) -> None:
        self._observation = observation
        self._events.extend(observation.events)

    def conclude(self, events: tuple[Event, ...]) -> None:
        self._events.extend(events)
        try:
            if self._sink is not None:
                self._sink.conclude(tuple(self._events))
                self._events.clear()
        except Exception as error:
            self._fail(_described(error))

    def drift(self) -> DriftState | None:
        sink = self._sink
        return sink.drift() if sink else None

    def queued(self) -> Mapping[str, int]:
        sink = self._sink
        return sink.queued() if sink else {}

    def write(self, result: Result, image: Image | None) -> None:
        try:
            if self._sink is None:
                if self._clock.monotonic() < self._retry_at:
                    self._lost += 1
                    return
                self._sink = self._reopen(self.failures)
            if self._observation:
                self._sink.observe(dataclasses.replace(self._observation, events=tuple(self._events)))
            self._sink.write(result, image)
            self._events.clear()
            if self._failures_in_a_row:
                log.info("%s works again; results lost so far: %d.", self.name, self.lost)
            self._failures_in_a_row = 0
        except Exception as error:
            self._lost += 1
            self._fail(_described(error))

    def _fail(self, error: EdgesegError) -> None:
        self.failures += 1
        self._reasons[error.what] += 1
        delay = min(self._first_delay * 2.0 ** min(self._failures_in_a_row, 30), LONGEST_DELAY)
        if not self._failures_in_a_row:
            log.warning("%s failed and is tried again: %s", self.name, error.what, extra={"hint": error.hint})
        self._retry_at = self._clock.monotonic() + delay
        self._failures_in_a_row += 1
        self._close_sink()

    def _close_sink(self) -> None:
        sink = self._sink
        if sink is None:
            return
        try:
            sink.close()
        except Exception as error:
            self.failures += not self._failures_in_a_row
            self._reasons[_described(error).what] += 1
        self._sink = None
        self._lost += sink.lost
        self.warnings += [w for w in sink.warnings if w not in self.warnings]
        self.files += [path for path in sink.files if path not in self.files]

    def rescue(self) -> None:
        sink = self._sink
        if sink is not None:
            sink.rescue()

    def close(self) -> None:
        self._close_sink()
        if self._reasons:
            reasons = "; ".join(f"{n}x {reason}" for reason, n in self._reasons.most_common(3))
            self.warnings.append(f"{self.name} failed {self.failures} times and lost {self.lost} results ({reasons}).")
            self._reasons.clear()


def _described(error: Exception) -> EdgesegError:
    if isinstance(error, EdgesegError):
        return error
    if isinstance(error, OSError) and error.strerror:
        return StreamError(f"{error.strerror}: {error.filename}." if error.filename else f"{error.strerror}.")
    return StreamError(f"{type(error).__name__}: {redact(str(error))}")
