"""Lane: one stream's way through the run: its reader thread, the frames that wait, and its writers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.segmenter import Frame
from edgeseg.stream.channel import Channel
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import EndOfStream, Source
from edgeseg.stream.summary import Timings
from edgeseg.stream.writer import Drawn, Writer

READ_AHEAD = 4
TICK = 0.1


@dataclass(frozen=True)
class Stream:
    """A source and the sinks of its results. `name` tells several streams apart."""

    source: Source
    sinks: Sequence[Sink]
    name: str = ""


class Lane:
    """`depth` frames may wait; by default one of a live source (the newest) and a few of a file."""

    def __init__(self, stream: Stream, bell: threading.Event, timings: Timings, depth: int | None):
        source = stream.source
        self.stream = stream
        self.error: BaseException | None = None
        self.rate = Rate()
        self.frames = 0
        self.skipped = 0  # by the ladder, on purpose
        self.inbox: Channel[Frame] = Channel(depth or (1 if source.live else READ_AHEAD), source.live, bell)
        self.writers = [Writer(sink, source.live, timings) for sink in stream.sinks]
        self._timings = timings
        self._halt = threading.Event()
        self._reader = threading.Thread(target=self._read, name="edgeseg-reader", daemon=True)

    def start(self) -> None:
        for writer in self.writers:
            writer.start()
        self._reader.start()

    def halt(self) -> None:
        """No more frames; the writers finish what they have."""
        self._halt.set()
        self.inbox.abandon()
        for writer in self.writers:
            writer.finish()

    def deliver(self, drawn: Drawn) -> None:
        """Hand a result to every sink. Raises what broke one."""
        for writer in self.writers:
            writer.put(drawn)
        self.frames += 1

    def drops(self) -> dict[str, int]:
        """Frames lost on the way, per place."""
        name = f"{self.stream.name} " if self.stream.name else ""
        lost = {f"{name}source": self.inbox.dropped + self.stream.source.dropped}
        lost[f"{name}ladder"] = self.skipped
        for writer in self.writers:
            place = f"{name}sink {writer.name}"
            lost[place] = lost.get(place, 0) + writer.dropped
        return {place: number for place, number in lost.items() if number}

    def state(self) -> dict[str, Any]:
        """How the stream stands. `silent_s`: seconds since its latest result, None before the first."""
        source = self.stream.source
        return {
            "name": self.stream.name,
            "source": source.name,
            "state": getattr(source, "state", "STREAMING" if self._reader.is_alive() else "STOPPED"),
            "frames": self.frames,
            "fps": round(self.rate.now(), 2),
            "silent_s": self.rate.silent(),
            "reconnects": getattr(source, "reconnects", 0),
            "damaged": source.damaged,
            "drops": self.drops(),
        }

    def warnings(self) -> list[str]:
        source = self.stream.source
        damaged = [f"{source.name}: {source.damaged} damaged packets were skipped."] if source.damaged else []
        return [*source.warnings, *damaged, *(w for s in self.stream.sinks for w in s.warnings)]

    def join(self, deadline: float) -> list[str]:
        """Wait for the threads; the names of the parts that did not end by `deadline` (time.monotonic)."""
        stuck = [f"Sink {w.name}" for w in self.writers if not w.join(max(0.0, deadline - time.monotonic()))]
        self._reader.join(max(0.0, min(deadline - time.monotonic(), 2.0)))
        return stuck

    def _read(self) -> None:
        # The thread that reads a source also closes it: a capture must not be closed under a running read.
        try:
            with self.stream.source as source:
                while not self._halt.is_set():
                    begin = time.perf_counter()
                    frame = source.read(TICK)
                    if frame is not None:
                        self._timings.add("read", time.perf_counter() - begin)
                        self.inbox.put(frame)
            self.inbox.finish()
        except EndOfStream:
            self.inbox.finish()
        except BaseException as error:
            self.inbox.finish(error)


class Rate:
    """Frames per second over the latest 30."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=30)

    def tick(self) -> float:
        self._times.append(time.monotonic())
        return self.now()

    def now(self) -> float:
        times, now = self._times.copy(), time.monotonic()
        if not times:
            return 0.0
        until = now if now - times[-1] > 1 else times[-1]  # a stream that fell silent has no rate any more
        span = until - times[0]
        return (len(times) - 1) / span if span > 0 else 0.0

    def silent(self) -> float | None:
        return round(time.monotonic() - self._times[-1], 3) if self._times else None
