"""Writer: one sink in its own thread, so that encoding overlaps inference and one slow sink delays no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edgeseg.images import Image
from edgeseg.segmenter import Result
from edgeseg.stream.channel import Channel, Closed
from edgeseg.stream.sinks import Sink
from edgeseg.stream.summary import Timings

FILE_DEPTH = 4
LIVE_DEPTH = 2


class Drawn:
    """A result and its picture, drawn once: by the first writer that asks, while the others wait for it."""

    def __init__(self, result: Result, draw: Callable[[Result], Image]):
        self.result = result
        self._draw = draw
        self._picture: Image | None = None
        self._lock = threading.Lock()

    def picture(self) -> Image:
        with self._lock:
            if self._picture is None:
                self._picture = self._draw(self.result)
            return self._picture


class Writer:
    """Feeds one sink. A live stream's full queue drops its oldest result; a file's makes the putter wait."""

    def __init__(self, sink: Sink, live: bool, timings: Timings):
        self.sink = sink
        self.error: BaseException | None = None
        self._timings = timings
        self._inbox: Channel[Drawn] = Channel(LIVE_DEPTH if live else FILE_DEPTH, drop=live)
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

    def put(self, drawn: Drawn) -> None:
        """Raises what broke the sink."""
        if not self._inbox.put(drawn) and self.error:
            raise self.error

    def finish(self) -> None:
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
                drawn = self._inbox.get(None)
            except Closed:
                return
            assert drawn is not None
            picture = drawn.picture() if self.sink.wants_picture else None
            begin = time.perf_counter()
            self.sink.write(drawn.result, picture)
            self._timings.add("sink", time.perf_counter() - begin)
            self._timings.add("age", time.monotonic() - drawn.result.frame.captured)
