"""ReconnectingSink: a sink that is opened again after a failure: a full disk or a lost network stops no camera."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from edgeseg.errors import EdgesegError
from edgeseg.images import Image
from edgeseg.segmenter import Result
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock
from edgeseg.stream.sinks import Sink

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0


class ReconnectingSink(Sink):
    """Writes to what `reopen(part)` opens; part 1 after the first failure, so that finished files are not replaced.

    The delay before it is opened again doubles from `first_delay` to LONGEST_DELAY seconds. While it is broken,
    results are lost, and counted in `lost`.
    """

    def __init__(
        self,
        sink: Sink,
        reopen: Callable[[int], Sink],
        first_delay: float = FIRST_DELAY,
        clock: Clock = SYSTEM_CLOCK,
    ):
        super().__init__()
        self.name = sink.name
        self.needs_image = sink.needs_image
        self.lost = 0
        self.failures = 0
        self._sink: Sink | None = sink
        self._reopen = reopen
        self._first_delay = first_delay
        self._clock = clock
        self._failures_in_a_row = 0
        self._retry_at = 0.0
        self._reasons: Counter[str] = Counter()

    def write(self, result: Result, image: Image | None) -> None:
        try:
            if self._sink is None:
                if self._clock.monotonic() < self._retry_at:
                    self.lost += 1
                    return
                self._sink = self._reopen(self.failures)
            self._sink.write(result, image)
            self._failures_in_a_row = 0
        except EdgesegError as error:
            self.lost += 1
            self._fail(error)

    def _fail(self, error: EdgesegError) -> None:
        self.failures += 1
        self._reasons[error.what] += 1
        delay = min(self._first_delay * 2.0 ** min(self._failures_in_a_row, 30), LONGEST_DELAY)
        self._retry_at = self._clock.monotonic() + delay
        self._failures_in_a_row += 1
        self._close_sink()

    def _close_sink(self) -> None:
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            sink.close()
        except EdgesegError as error:
            self._reasons[error.what] += 1
        self.warnings += [w for w in sink.warnings if w not in self.warnings]
        self.files += [path for path in sink.files if path not in self.files]

    def close(self) -> None:
        self._close_sink()
        if self._reasons:
            reasons = "; ".join(f"{n}x {reason}" for reason, n in self._reasons.most_common(3))
            self.warnings.append(f"{self.name} failed {self.failures} times and lost {self.lost} results ({reasons}).")
            self._reasons.clear()
