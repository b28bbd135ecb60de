"""The loop: sources -> Segmenter -> sinks, every part in its own thread, every fault with its cause.

    reader (one per source) -> newest-frame slot or queue -> feeder (round-robin; fills the free slots)
        -> Segmenter -> collector (takes results in order as they finish) -> writer (one per sink)

The feeder takes a frame only when a slot is free, so a live frame is never older than need be; the collector waits for
the oldest slot and for nothing else, so no result is held back until the next frame comes. The calling thread watches.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeseg.data.images import Image
from edgeseg.errors import StreamError
from edgeseg.segmenter import Frame, Result, Segmenter
from edgeseg.stream.channel import Channel, Closed
from edgeseg.stream.overlay import Overlay
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import EndOfStream, Source
from edgeseg.stream.summary import STAGES, Summary, Timings
from edgeseg.stream.writer import Drawn, Writer

READ_AHEAD = 4
TICK = 0.1
GRACE = 10.0
OnProgress = Callable[[Summary], None]


@dataclass(frozen=True)
class Stream:
    """A source and the sinks of its results. `name` tells several streams apart."""

    source: Source
    sinks: Sequence[Sink]
    name: str = ""


def run(
    segmenter: Segmenter,
    source: Source,
    sinks: Sequence[Sink],
    on_progress: OnProgress | None = None,
    *,
    max_frames: int | None = None,
    overlay: bool = True,
    stop: threading.Event | None = None,
) -> Summary:
    """Run one source to its end, or until `stop`; closes the source and the sinks.

    Never raises for what a source, the engine or a sink does: the Summary's `error` says what ended the run.
    """
    return Run(segmenter, [Stream(source, sinks)], max_frames=max_frames, overlay=overlay, stop=stop).go(on_progress)


class Lane:
    """One stream's way in and out: its reader thread, the frames that wait, and its writers."""

    def __init__(self, stream: Stream, bell: threading.Event, timings: Timings, depth: int | None):
        source = stream.source
        self.stream = stream
        self.error: BaseException | None = None
        self.rate = Rate()
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

    def join(self, deadline: float) -> list[str]:
        """Wait for the threads; the names of the parts that did not end by `deadline` (time.monotonic)."""
        stuck = [
            f"sink {type(w.sink).__name__}" for w in self.writers if not w.join(max(0.0, deadline - time.monotonic()))
        ]
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
        span = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / span if span > 0 else 0.0


class Run:
    """Several streams on one Segmenter, served in turn. See the module's head for who does what."""

    def __init__(
        self,
        segmenter: Segmenter,
        streams: Sequence[Stream],
        *,
        max_frames: int | None = None,
        overlay: bool = True,
        queue_depth: int | None = None,
        stop: threading.Event | None = None,
        watchdog: float = 30.0,
    ):
        self._segmenter = segmenter
        self._max_frames = max_frames
        self._overlay = Overlay(segmenter.spec) if overlay else None
        self._asked_to_stop = stop or threading.Event()
        self._watchdog = watchdog
        self._timings = Timings()
        self._bell = threading.Event()
        self._lanes = [Lane(s, self._bell, self._timings, queue_depth) for s in streams]
        self._free = threading.Semaphore(segmenter.engine.slots)
        self._flight: queue.SimpleQueue[Lane | None] = queue.SimpleQueue()
        self._halt = threading.Event()
        self._done = threading.Event()
        self._busy_since: float | None = None
        self._frames = 0
        self._error: BaseException | None = None
        self._result = "end of stream"
        self._warnings: list[str] = []
        self._started = time.monotonic()

    def go(self, on_progress: OnProgress | None = None) -> Summary:
        threads = [threading.Thread(target=t, name="edgeseg-infer", daemon=True) for t in (self._feed, self._collect)]
        self._started = time.monotonic()
        for lane in self._lanes:
            lane.start()
        for thread in threads:
            thread.start()
        try:
            self._watch(on_progress)
        finally:
            self._shut()
        return self.summary()

    def summary(self) -> Summary:
        """How the run stands, with percentiles; may be asked for at any time."""
        now = self._progress()
        for stage in STAGES:
            if values := self._timings.percentiles(stage):
                now.stages[stage] = values
        now.latency_ms = self._timings.percentiles("latency")
        for lane in self._lanes:
            now.warnings += [*lane.stream.source.warnings, *(w for s in lane.stream.sinks for w in s.warnings)]
            _count(now.drops, f"{lane.stream.name} source".strip(), lane.inbox.dropped)
            for writer in lane.writers:
                _count(now.drops, f"{lane.stream.name} sink {type(writer.sink).__name__}".strip(), writer.dropped)
        now.warnings += self._warnings
        return now

    def _progress(self) -> Summary:
        counts = [lane.stream.source.count for lane in self._lanes]
        total = sum(c for c in counts if c) if all(counts) else None
        if self._max_frames:
            total = min(total or self._max_frames, self._max_frames)
        result = ("failed" if self._error else self._result) if self._done.is_set() else "running"
        return Summary(self._frames, time.monotonic() - self._started, total, result=result, error=self._error)

    def _watch(self, on_progress: OnProgress | None) -> None:
        stop_at: float | None = None
        while not self._done.wait(TICK):
            if on_progress:
                on_progress(self._progress())
            since = self._busy_since
            if since and time.monotonic() - since > self._watchdog:
                self._fail(StreamError(f"Inference gave no answer for {self._watchdog:g} s.", "Restart the program."))
                return
            if self._asked_to_stop.is_set() and stop_at is None:
                self._result = "stopped"
                self._halt.set()
                stop_at = time.monotonic() + GRACE
            if stop_at and time.monotonic() > stop_at:  # a sink that takes nothing holds the collector
                return

    def _shut(self) -> None:
        self._halt.set()
        self._bell.set()
        for lane in self._lanes:
            lane.halt()
        deadline = time.monotonic() + GRACE
        for lane in self._lanes:
            self._warnings += [f"{part} did not finish within {GRACE:g} s." for part in lane.join(deadline)]
            self._error = self._error or lane.error or next((w.error for w in lane.writers if w.error), None)
        self._done.set()

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._halt.set()
        self._bell.set()

    def _feed(self) -> None:
        waiting = deque(self._lanes)
        fed = 0
        try:
            while not self._halt.is_set() and fed != self._max_frames:
                if not self._free.acquire(timeout=TICK):
                    continue
                found = self._next(waiting)
                if found is None:
                    break
                lane, frame = found
                self._segmenter.submit(frame)
                self._flight.put(lane)
                fed += 1
            if fed == self._max_frames:
                self._result = f"stopped after {fed} frames, as asked"
        except BaseException as error:
            self._fail(error)
        finally:
            self._flight.put(None)

    def _next(self, waiting: deque[Lane]) -> tuple[Lane, Frame] | None:
        """The next frame, the lanes in turn; None when every lane has ended or the run is over."""
        while waiting and not self._halt.is_set():
            self._bell.clear()
            for lane in tuple(waiting):
                waiting.rotate(-1)
                try:
                    frame = lane.inbox.get(0)
                except BaseException as end:
                    waiting.remove(lane)
                    lane.error = None if isinstance(end, Closed) else end
                    continue
                if frame is not None:
                    return lane, frame
            if waiting:
                self._bell.wait(TICK)
        return None

    def _collect(self) -> None:
        try:
            while (lane := self._flight.get()) is not None:
                self._busy_since = time.monotonic()
                result = self._segmenter.collect()
                self._busy_since = None
                self._free.release()
                self._deliver(lane, result)
        except BaseException as error:
            self._fail(error)
        finally:
            self._done.set()

    def _deliver(self, lane: Lane, result: Result) -> None:
        latency = sum(result.times.values())
        for stage, seconds in result.times.items():
            self._timings.add(stage, seconds)
        self._timings.add("latency", latency)
        fps = lane.rate.tick()
        drawn = Drawn(result, lambda r: self._draw(r, fps, latency))
        for writer in lane.writers:
            writer.put(drawn)
        self._frames += 1

    def _draw(self, result: Result, fps: float, latency: float) -> Image:
        if self._overlay is None:
            return result.frame.image
        begin = time.perf_counter()
        caption = f"{fps:.1f} FPS   {latency * 1e3:.1f} ms"
        picture = self._overlay.draw(result.frame.image, result.classmap, caption)
        self._timings.add("overlay", time.perf_counter() - begin)
        return picture


def _count(drops: dict[str, int], place: str, number: int) -> None:
    if number:
        drops[place] = drops.get(place, 0) + number
