"""The loop: sources -> Segmenter -> sinks, every part in its own thread, every fault with its cause.

    reader (one per source) -> newest-frame slot or queue -> feeder (round-robin; fills the free slots)
        -> Segmenter -> collector (takes results in order as they finish) -> writer (one per sink)

The feeder takes a frame only when a slot is free, so a live frame is never older than need be; the collector waits for
the oldest slot and for nothing else, so no result is held back until the next frame comes. The calling thread is the
watchdog.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from edgeseg.errors import EdgesegError, StreamError
from edgeseg.images import Image
from edgeseg.overlay import Overlay, mark_undecided
from edgeseg.result import Frame, Result
from edgeseg.reuse.segmenter import ReuseSummary, ReusingSegmenter
from edgeseg.segmenter import Segmenter
from edgeseg.stream.channel import Closed
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock
from edgeseg.stream.fallback import FallbackPolicy
from edgeseg.stream.pipeline import POLL_SECONDS, Stream, StreamPipeline
from edgeseg.stream.progress import OnProgress, Progress
from edgeseg.stream.redact import redact
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import Source
from edgeseg.stream.summary import RunSummary, StreamSummary
from edgeseg.stream.timings import LATENCY, OnStage, StageTimings
from edgeseg.stream.writer import RenderedResult

log = logging.getLogger(__name__)
GRACE_SECONDS = 10.0
ALIVE_SECONDS = 5.0
HELD_UP_SECONDS = 1.0  # by which the thread that watches must be late for all others to have been held up as well


def run(
    segmenter: Segmenter,
    source: Source,
    sinks: Sequence[Sink],
    on_progress: OnProgress | None = None,
    *,
    max_frames: int | None = None,
    overlay: bool = True,
    stop: threading.Event | None = None,
) -> RunSummary:
    """Run one source to its end, or until `stop`; closes the source and the sinks.

    Never raises for what a source, the engine or a sink does: the summary's `error` says what ended the run.
    """
    return Run(segmenter, [Stream(source, sinks)], max_frames=max_frames, overlay=overlay, stop=stop).go(on_progress)


class Run:
    """Several streams on one Segmenter, served round-robin. The module's docstring says which thread does what.

    `watchdog`: seconds an inference may take; `grace`: seconds that sinks get to finish; the rest as in Settings.
    """

    def __init__(
        self,
        segmenter: Segmenter | FallbackPolicy | ReusingSegmenter,
        streams: Sequence[Stream],
        *,
        max_frames: int | None = None,
        overlay: bool = True,
        queue_depth: int | None = None,
        stop: threading.Event | None = None,
        watchdog: float = 30.0,
        grace: float = GRACE_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
    ):
        self._segmenter = segmenter
        self.bundle = segmenter.bundle
        self._fallback = segmenter if isinstance(segmenter, FallbackPolicy) else None
        self._reusing = segmenter if isinstance(segmenter, ReusingSegmenter) else None
        if any(sink.needs_detail for stream in streams for sink in stream.sinks):
            segmenter.keep_detail()
        self._max_frames = max_frames
        self._overlay = Overlay(segmenter.spec) if overlay else None
        self._stop = stop or threading.Event()
        self._watchdog = watchdog
        self._grace = grace
        self._clock = clock
        self._timings = StageTimings()
        self._wake_up = threading.Event()
        self._pipelines = [StreamPipeline(s, self._wake_up, self._timings, queue_depth, clock) for s in streams]
        self._free = threading.Semaphore(segmenter.slots)
        self._in_flight: queue.SimpleQueue[StreamPipeline | None] = queue.SimpleQueue()
        self._halt = threading.Event()
        self._done = threading.Event()
        self._held_up = 0.0  # seconds in which nothing of this process ran
        self._in_engine: dict[str, float] = {}  # thread -> when it entered the engine, as _awake() counts
        self._watched_at = clock.monotonic()
        self._error: EdgesegError | None = None
        self._result = "end of stream"
        self._warnings: list[str] = []
        self._started = clock.monotonic()

    def observe_stages(self, on_stage: OnStage) -> None:
        """Have `on_stage(stream, stage, seconds)` called for each stage of every frame, by the thread that times it."""
        self._timings.on_stage = on_stage

    def go(self, on_progress: OnProgress | None = None) -> RunSummary:
        """Run to the end. `on_progress` is called about ten times a second, and at the end."""
        threads = [threading.Thread(target=t, name="edgeseg-infer", daemon=True) for t in (self._feed, self._collect)]
        self._started = self._clock.monotonic()
        for pipeline in self._pipelines:
            pipeline.start()
        for thread in threads:
            thread.start()
        try:
            self._watch(on_progress)
        finally:
            self._shut_down()
        if on_progress:
            on_progress(self._progress())
        return self.summary()

    def summary(self) -> RunSummary:
        """How the run stands, with percentiles; may be called at any time, by any thread."""
        progress = self._progress()
        finished = self._done.is_set()
        return RunSummary(
            frames=progress.frames,
            seconds=progress.seconds,
            count=progress.count,
            latency=self._timings.percentiles(LATENCY),
            stages=self._timings.stages(),
            streams=self.streams(),
            warnings=(*(w for pipeline in self._pipelines for w in pipeline.warnings()), *self._warnings),
            fallback=self._fallback.summary() if self._fallback else None,
            reuse=self.reuse,
            result=("failed" if self._error else self._result) if finished else "running",
            error=self._error,
        )

    def streams(self) -> tuple[StreamSummary, ...]:
        """How each stream stands: the cheap part of summary()."""
        return tuple(pipeline.summary() for pipeline in self._pipelines)

    def pipelines(self) -> tuple[StreamPipeline, ...]:
        """Each stream with its newest result and what its sinks say of it, in the order of streams()."""
        return tuple(self._pipelines)

    def files(self) -> list[Path]:
        """The files and folders that the sinks have written, each once."""
        return list(dict.fromkeys(f for p in self._pipelines for sink in p.stream.sinks for f in sink.files))

    def rescue(self) -> None:
        """Have every sink keep what it has: the process is about to end."""
        for pipeline in self._pipelines:
            for sink in pipeline.stream.sinks:
                sink.rescue()

    @property
    def seconds(self) -> float:
        """Since the run started."""
        return self._clock.monotonic() - self._started

    @property
    def fallback(self) -> FallbackPolicy | None:
        return self._fallback

    @property
    def reuse(self) -> ReuseSummary | None:
        """What reuse did so far; None where every frame goes through the network."""
        return self._reusing.summary() if self._reusing else None

    def alive(self) -> bool:
        """Whether the thread that watches over the others still does."""
        return self._done.is_set() or self._clock.monotonic() - self._watched_at < ALIVE_SECONDS

    def _progress(self) -> Progress:
        frames = sum(pipeline.frames for pipeline in self._pipelines)
        counts = [pipeline.stream.source.count for pipeline in self._pipelines]
        total = sum(c for c in counts if c) if all(counts) else None
        if self._max_frames:
            total = min(total or self._max_frames, self._max_frames)
        return Progress(frames, self.seconds, total)

    def _awake(self) -> float:
        """The clock without the time in which nothing of this process ran: a machine that was suspended, or that gave
        it no CPU, says nothing of the engine."""
        return self._clock.monotonic() - self._held_up

    def _watch(self, on_progress: OnProgress | None) -> None:
        stop_at: float | None = None
        self._watched_at = self._clock.monotonic()
        while not self._done.wait(POLL_SECONDS):
            now = self._clock.monotonic()
            late = now - self._watched_at - POLL_SECONDS
            self._watched_at = now
            if late > HELD_UP_SECONDS:
                self._held_up += late
                log.warning(
                    "This process stood still for %.1f s: the machine was suspended, or had no CPU for it.", late
                )
            if on_progress:
                on_progress(self._progress())
            if any(now - self._held_up - since > self._watchdog for since in list(self._in_engine.values())):
                self._fail(StreamError(f"Inference gave no answer for {self._watchdog:g} s.", "Restart the program."))
                return
            if self._stop.is_set() and stop_at is None:
                self._result = "stopped"
                self._halt.set()
                stop_at = now + self._grace
            if stop_at and now > stop_at:  # a sink that takes nothing holds the collector
                return

    def _shut_down(self) -> None:
        self._halt.set()
        self._wake_up.set()
        for pipeline in self._pipelines:
            pipeline.halt()
        until = time.monotonic() + self._grace
        for pipeline in self._pipelines:
            unfinished = pipeline.join(max(0.0, until - time.monotonic()))
            self._warnings += [f"Sink {name} did not finish within {self._grace:g} s." for name in unfinished]
            broken = pipeline.error or next((w.error for w in pipeline.writers if w.error), None)
            self._error = self._error or (as_edgeseg_error(broken) if broken else None)
        self._done.set()

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or as_edgeseg_error(error)
        self._halt.set()
        self._wake_up.set()

    def _feed(self) -> None:
        waiting = deque(self._pipelines)
        submitted = 0
        try:
            while not self._halt.is_set() and submitted != self._max_frames:
                if not self._free.acquire(timeout=POLL_SECONDS):
                    continue
                upcoming = self._next_frame(waiting)
                if upcoming is None:
                    break
                pipeline, frame = upcoming
                if self._fallback and not self._fallback.accepts_frame():
                    pipeline.skipped += 1
                    self._free.release()
                    continue
                self._in_engine["feeder"] = self._awake()
                self._segmenter.submit(frame)
                del self._in_engine["feeder"]
                self._in_flight.put(pipeline)
                submitted += 1
            if submitted == self._max_frames:
                self._result = f"stopped after {submitted} frames, as asked"
        except BaseException as error:
            self._fail(error)
        finally:
            self._in_flight.put(None)

    def _next_frame(self, waiting: deque[StreamPipeline]) -> tuple[StreamPipeline, Frame] | None:
        """The next frame, the streams in rotation; None when every stream has ended or the run is over."""
        while waiting and not self._halt.is_set():
            self._wake_up.clear()
            for pipeline in tuple(waiting):
                waiting.rotate(-1)
                try:
                    frame = pipeline.inbox.get(0)
                except BaseException as end:
                    waiting.remove(pipeline)
                    pipeline.error = None if isinstance(end, Closed) else end
                    continue
                if frame is not None:
                    return pipeline, frame
            if waiting:
                self._wake_up.wait(POLL_SECONDS)
        return None

    def _collect(self) -> None:
        try:
            while (pipeline := self._in_flight.get()) is not None:
                self._in_engine["collector"] = self._awake()
                result = self._segmenter.collect()
                del self._in_engine["collector"]
                self._free.release()
                self._deliver(pipeline, result)
        except BaseException as error:
            self._fail(error)
        finally:
            self._done.set()

    def _deliver(self, pipeline: StreamPipeline, result: Result) -> None:
        name = pipeline.stream.name
        latency = sum(result.times.values())
        for stage, seconds in result.times.items():
            self._timings.add(name, stage, seconds)
        self._timings.add(name, LATENCY, latency)
        fps = pipeline.rate.tick()
        pipeline.deliver(RenderedResult(result, lambda r: self._draw(name, r, fps, latency)))

    def _draw(self, stream: str, result: Result, fps: float, latency: float) -> Image:
        image = self._drawn(stream, result, fps, latency)
        if result.decision and result.decision.undecided:
            return mark_undecided(image, str(result.decision))
        return image

    def _drawn(self, stream: str, result: Result, fps: float, latency: float) -> Image:
        if self._overlay is None:
            return result.frame.image
        begin = time.perf_counter()
        caption = f"{fps:.1f} FPS   {latency * 1e3:.1f} ms"
        if self._fallback and self._fallback.level:
            caption += f"   reduced: {self._fallback.name}"
        if reuse := self.reuse:
            caption += f"   key frames {reuse.share:.0%}"
        image = self._overlay.draw(result.frame.image, result.classmap, caption)
        self._timings.add(stream, "overlay", time.perf_counter() - begin)
        return image


def as_edgeseg_error(error: BaseException) -> EdgesegError:
    """`error` itself, or a StreamError that was caused by it."""
    if isinstance(error, EdgesegError):
        return error
    wrapped = StreamError(f"{type(error).__name__}: {redact(str(error))}", "With --debug the traceback shows where.")
    wrapped.__cause__ = error
    return wrapped
