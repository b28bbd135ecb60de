"""StreamPipeline: one stream of a run: its reader thread, the frames that wait, and its writers."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeseg.monitoring.undecided import ReviewPolicy
from edgeseg.result import Decision, Frame, Result
from edgeseg.results.drift import DriftState
from edgeseg.stream.channel import Channel
from edgeseg.stream.clock import Clock
from edgeseg.stream.events.watch import Watch
from edgeseg.stream.privacy import Privacy
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import EndOfStream, Source
from edgeseg.stream.summary import Drops, StreamSummary
from edgeseg.stream.timings import StageTimings
from edgeseg.stream.writer import RenderedResult, Writer

READ_AHEAD = 4
POLL_SECONDS = 0.1
RATE_WINDOW = 30
READER_CLOSE_SECONDS = 2.0


@dataclass(frozen=True)
class Stream:
    """A source and the sinks of its results. `name` tells several streams apart; `watch` evaluates its rules, `privacy`
    hides classes from the sinks; `review` says which results a person has to look at.
    """

    source: Source
    sinks: Sequence[Sink]
    name: str = ""
    watch: Watch | None = None
    privacy: Privacy | None = None
    review: ReviewPolicy | None = None


class StreamPipeline:
    """`depth` frames may wait; by default one of a live source (the newest) and a few of a file.

    `wake_up` is set when a frame has come or the source has ended.
    """

    def __init__(
        self, stream: Stream, wake_up: threading.Event, timings: StageTimings, depth: int | None, clock: Clock
    ):
        source = stream.source
        self.stream = stream
        self.error: BaseException | None = None
        self.rate = FrameRate(clock)
        self.frames = 0
        self.age_from = ""
        self.latest: Result | None = None
        self.margin: float | None = None  # mean of the latest result for which it was measured
        self.decision: Decision | None = None  # on the latest result
        self.undecided: Counter[str] = Counter()  # results, by the first reason
        self._reasons = stream.review.reasons() if stream.review else ()
        self.skipped = 0  # by the fallback policy, on purpose
        self.inbox: Channel[Frame] = Channel(
            depth or (1 if source.live else READ_AHEAD),
            source.live,
            wake_up,
            lambda dropped, frame: frame.after(dropped),
        )
        self.writers = [Writer(sink, stream.name, source.live, timings, clock) for sink in stream.sinks]
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
        last = self.stream.watch.stop() if self.stream.watch else ()
        for writer in self.writers:
            writer.finish(last)

    def deliver(self, rendered: RenderedResult) -> None:
        """Hand a result to every sink. Raises what broke one."""
        if self.stream.review:
            self._decide(rendered, self.stream.review)
        if self.stream.watch:
            rendered.observation = self.stream.watch.update(rendered.result)
        if self.stream.privacy:
            shown = any(writer.sink.needs_image or writer.sink.needs_frame for writer in self.writers)
            rendered.result = self.stream.privacy.applied(rendered.result, shown)
        for writer in self.writers:
            writer.put(rendered)
        self.frames += 1
        self.age_from = rendered.result.frame.age_from
        self.latest = rendered.result
        if rendered.result.margin is not None:
            self.margin = float(rendered.result.margin.mean())

    def _decide(self, rendered: RenderedResult, review: ReviewPolicy) -> None:
        self.decision = review.decide(rendered.result, self.decision)
        rendered.result = replace(rendered.result, decision=self.decision)
        if self.decision.undecided:
            self.undecided[self.decision.reasons[0]] += 1

    def drops(self) -> Drops:
        sinks: Counter[str] = Counter()
        for writer in self.writers:
            sinks[writer.name] += writer.dropped
        return Drops(self.inbox.dropped + self.stream.source.dropped, self.skipped, dict(sinks))

    def summary(self) -> StreamSummary:
        source = self.stream.source
        return StreamSummary(
            name=self.stream.name,
            source=source.name,
            state=source.state or ("STREAMING" if self._reader.is_alive() else "STOPPED"),
            frames=self.frames,
            fps=round(self.rate.now(), 2),
            silent_s=self.rate.silent(),
            reconnects=source.reconnects,
            damaged=source.damaged,
            drops=self.drops(),
            age_from=self.age_from,
            undecided=self.undecided.total(),
        )

    def drift(self) -> DriftState | None:
        """Of the first sink that watches for it."""
        return next((state for sink in self.stream.sinks if (state := sink.drift())), None)

    def undecided_by_reason(self) -> dict[str, int]:
        """Every reason that there may be, also at 0; none where nothing is to be reviewed."""
        return {reason: self.undecided[reason] for reason in self._reasons}

    def queued(self) -> Mapping[str, int]:
        """What became of the undecided results, of the first sink that keeps them for review."""
        return next((found for sink in self.stream.sinks if (found := sink.queued())), {})

    def warnings(self) -> list[str]:
        source = self.stream.source
        damaged = [f"{source.name}: {source.damaged} damaged packets were skipped."] if source.damaged else []
        return [*source.warnings, *damaged, *(w for s in self.stream.sinks for w in s.warnings)]

    def join(self, seconds: float) -> list[str]:
        """Wait for the threads, `seconds` at most; the names of the sinks that did not end in time."""
        until = time.monotonic() + seconds
        unfinished = [w.name for w in self.writers if not w.join(max(0.0, until - time.monotonic()))]
        self._reader.join(max(0.0, min(until - time.monotonic(), READER_CLOSE_SECONDS)))
        return unfinished

    def _read(self) -> None:
        # The thread that reads a source also closes it: a capture must not be closed under a running read.
        try:
            with self.stream.source as source:
                while not self._halt.is_set():
                    begin = time.perf_counter()
                    frame = source.read(POLL_SECONDS)
                    if frame is not None:
                        self._timings.add(self.stream.name, "read", time.perf_counter() - begin)
                        self.inbox.put(replace(frame, stream=self.stream.name))
            self.inbox.finish()
        except EndOfStream:
            self.inbox.finish()
        except BaseException as error:
            self.inbox.finish(error)


class FrameRate:
    """Frames per second over the latest RATE_WINDOW."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=RATE_WINDOW)

    def tick(self) -> float:
        """Count one frame; the rate with it."""
        self._times.append(self._clock.monotonic())
        return self.now()

    def now(self) -> float:
        times, now = self._times.copy(), self._clock.monotonic()
        if not times:
            return 0.0
        until = now if now - times[-1] > 1 else times[-1]  # a stream that fell silent has no rate any more
        span = until - times[0]
        return (len(times) - 1) / span if span > 0 else 0.0

    def silent(self) -> float | None:
        """Seconds since the latest frame; None before the first."""
        return round(self._clock.monotonic() - self._times[-1], 3) if self._times else None
