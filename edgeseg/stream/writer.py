"""Writer: one sink in its own thread, so that encoding overlaps inference and one slow sink delays no other."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.stream.channel import Channel, Closed
from edgeseg.stream.clock import Clock
from edgeseg.stream.events.watch import MOST_WAITING, Event, Observation
from edgeseg.stream.sinks import Sink
from edgeseg.stream.timings import StageTimings

FILE_DEPTH = 4
LIVE_DEPTH = 2


class RenderedResult:
    """A result and its image with the overlay, drawn once: by the first writer that needs it; the others wait.

    `observation`: what the rules say of it, where there are any.
    """

    def __init__(self, result: Result, draw: Callable[[Result], Image]):
        self.result = result
        self.observation: Observation | None = None
        self._draw = draw
        self._image: Image | None = None
        self._lock = threading.Lock()

    def image(self) -> Image:
        with self._lock:
            if self._image is None:
                self._image = self._draw(self.result)
            return self._image


class Writer:
    """Feeds one sink. A live stream's full queue drops its oldest result; a file's makes put() wait.

    The events of a result that is dropped come with the next one.
    """

    def __init__(self, sink: Sink, stream: str, live: bool, timings: StageTimings, clock: Clock):
        self.sink = sink
        self.error: BaseException | None = None
        self._stream = stream
        self._timings = timings
        self._clock = clock
        self._inbox: Channel[RenderedResult] = Channel(LIVE_DEPTH if live else FILE_DEPTH, drop=live)
        self._events: deque[Event] = deque(maxlen=MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="edgeseg-writer", daemon=True)

    @property
    def name(self) -> str:
        return self.sink.name or type(self.sink).__name__

    @property
    def dropped(self) -> int:
        """Results that this sink did not get or could not keep."""
        return self._inbox.dropped + self.sink.lost

    def start(self) -> None:
        self._thread.start()

    def put(self, rendered: RenderedResult) -> None:
        """Raises what broke the sink."""
        if self.sink.needs_events and rendered.observation:
            self._events.extend(rendered.observation.events)
        if not self._inbox.put(rendered) and self.error:
            raise self.error

    def finish(self, last: tuple[Event, ...] = ()) -> None:
        """No more results; `last` are the ends of the events that this cuts off."""
        if self.sink.needs_events:
            self._events.extend(last)
        self._inbox.finish()

    def join(self, timeout: float) -> bool:
        """Wait until the sink has written everything and closed; False if it has not within `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            with self.sink:
                self._write_all()
        except BaseException as error:
            self.error = error
        finally:
            self._inbox.abandon()

    def _write_all(self) -> None:
        while True:
            try:
                rendered = self._inbox.get(None)
            except Closed:
                self.sink.conclude(tuple(self._events))
                return
            assert rendered is not None
            if rendered.observation and self.sink.needs_events:
                events = self._events_until(rendered.result.frame.index)
                self.sink.observe(replace(rendered.observation, events=events))
            image = rendered.image() if self.sink.needs_image else None
            begin = time.perf_counter()
            self.sink.write(rendered.result, image)
            self._timings.add(self._stream, "sink", time.perf_counter() - begin)
            self._timings.add(self._stream, "age", self._clock.monotonic() - rendered.result.frame.captured)

    def _events_until(self, frame: int) -> tuple[Event, ...]:
        taken = []
        while self._events and self._events[0].frame <= frame:
            taken.append(self._events.popleft())
        return tuple(taken)
