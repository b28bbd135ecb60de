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

from edgeseg.errors import EdgesegError, StreamError
from edgeseg.images import Image
from edgeseg.segmenter import Frame, Result, Segmenter
from edgeseg.stream.channel import Closed
from edgeseg.stream.fallback import Ladder
from edgeseg.stream.overlay import Overlay
from edgeseg.stream.pipeline import TICK, Lane, Stream
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import Source
from edgeseg.stream.summary import STAGES, Summary, Timings
from edgeseg.stream.uri import redact
from edgeseg.stream.writer import Drawn

GRACE = 10.0
ALIVE = 5.0
OnProgress = Callable[[Summary], None]


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


class Run:
    """Several streams on one Segmenter, served in turn. See the module's head for who does what."""

    def __init__(
        self,
        segmenter: Segmenter | Ladder,
        streams: Sequence[Stream],
        *,
        max_frames: int | None = None,
        overlay: bool = True,
        queue_depth: int | None = None,
        stop: threading.Event | None = None,
        watchdog: float = 30.0,
    ):
        self._segmenter = segmenter
        self._ladder = segmenter if isinstance(segmenter, Ladder) else None
        self._max_frames = max_frames
        self._overlay = Overlay(segmenter.spec) if overlay else None
        self._asked_to_stop = stop or threading.Event()
        self._watchdog = watchdog
        self._timings = Timings()
        self._bell = threading.Event()
        self._lanes = [Lane(s, self._bell, self._timings, queue_depth) for s in streams]
        self._free = threading.Semaphore(segmenter.slots)
        self._flight: queue.SimpleQueue[Lane | None] = queue.SimpleQueue()
        self._halt = threading.Event()
        self._done = threading.Event()
        self._in_engine: dict[str, float] = {}  # who entered the engine, and when
        self._ticked = time.monotonic()
        self._error: EdgesegError | None = None
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
            now.warnings += lane.warnings()
            now.drops.update(lane.drops())
            now.streams.append(lane.state())
        now.warnings += self._warnings
        now.ladder = self._ladder.state() if self._ladder else None
        return now

    def alive(self) -> bool:
        """Whether the thread that watches over the others still does."""
        return self._done.is_set() or time.monotonic() - self._ticked < ALIVE

    def _progress(self) -> Summary:
        frames = sum(lane.frames for lane in self._lanes)
        counts = [lane.stream.source.count for lane in self._lanes]
        total = sum(c for c in counts if c) if all(counts) else None
        if self._max_frames:
            total = min(total or self._max_frames, self._max_frames)
        result = ("failed" if self._error else self._result) if self._done.is_set() else "running"
        return Summary(frames, time.monotonic() - self._started, total, result=result, error=self._error)

    def _watch(self, on_progress: OnProgress | None) -> None:
        stop_at: float | None = None
        while not self._done.wait(TICK):
            self._ticked = time.monotonic()
            if on_progress:
                on_progress(self._progress())
            if any(time.monotonic() - since > self._watchdog for since in list(self._in_engine.values())):
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
            broken = lane.error or next((w.error for w in lane.writers if w.error), None)
            self._error = self._error or (known(broken) if broken else None)
        self._done.set()

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or known(error)
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
                if self._ladder and not self._ladder.wants():
                    lane.skipped += 1
                    self._free.release()
                    continue
                self._in_engine["feeder"] = time.monotonic()
                self._segmenter.submit(frame)
                del self._in_engine["feeder"]
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
                self._in_engine["collector"] = time.monotonic()
                result = self._segmenter.collect()
                del self._in_engine["collector"]
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
        lane.deliver(drawn)

    def _draw(self, result: Result, fps: float, latency: float) -> Image:
        if self._overlay is None:
            return result.frame.image
        begin = time.perf_counter()
        caption = f"{fps:.1f} FPS   {latency * 1e3:.1f} ms"
        if self._ladder and self._ladder.level:
            caption += f"   reduced: {self._ladder.name}"
        picture = self._overlay.draw(result.frame.image, result.classmap, caption)
        self._timings.add("overlay", time.perf_counter() - begin)
        return picture


def known(error: BaseException) -> EdgesegError:
    """`error`, or one in our words that was caused by it."""
    if isinstance(error, EdgesegError):
        return error
    told = StreamError(f"{type(error).__name__}: {redact(str(error))}", "With --debug the traceback shows where.")
    told.__cause__ = error
    return told
