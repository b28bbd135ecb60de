"""From Settings to a Run: open everything that can fail before the first frame, and wrap what has to heal."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from edgeseg import signature
from edgeseg.errors import OptionError
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.stream import sinks, sources
from edgeseg.stream.config import Settings, StreamSettings
from edgeseg.stream.fallback import Ladder
from edgeseg.stream.loop import Run
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.reconnect import Healing
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import Source
from edgeseg.stream.supervise import Supervised, Transition

CLOSE_SECONDS = 5.0
OnChange = Callable[[str, Transition], None]


@contextmanager
def opened(settings: Settings, stop: threading.Event | None = None, on_change: OnChange | None = None) -> Iterator[Run]:
    """A Run that is ready to go(). `on_change(stream name, transition)` hears of every change of a camera's state."""
    with ExitStack() as opening:
        found = [opening.enter_context(_source(s, settings, on_change)) for s in settings.streams]
        mode = settings.mode or ("latency" if any(source.live for source in found) else "throughput")
        segmenter = _segmenter(settings, mode, found, on_change)
        opening.callback(_close_within, segmenter, CLOSE_SECONDS)
        streams = [
            Stream(
                source, [opening.enter_context(_sink(uri, s, source, segmenter, settings)) for uri in s.sinks], s.name
            )
            for s, source in zip(settings.streams, found)
        ]
        run = Run(
            segmenter,
            streams,
            max_frames=settings.max_frames,
            overlay=settings.overlay,
            queue_depth=settings.queue,
            stop=stop,
            watchdog=settings.watchdog,
        )
        opening.pop_all()  # from here the run closes its sources and sinks, each in the thread that uses it
    try:
        yield run
    finally:
        _close_within(segmenter, CLOSE_SECONDS)


def _segmenter(settings: Settings, mode: str, found: list[Source], on_change: OnChange | None) -> Segmenter | Ladder:
    """One Segmenter, or a ladder of them where a deadline is given; unsigned ones only where that is allowed."""
    if settings.require_signature:
        for path in (settings.bundle, *settings.fallback):
            signature.require(path, settings.require_signature)
    full = open_segmenter(settings.bundle, mode)
    if settings.deadline_ms is None:
        return full
    if not any(source.live for source in found):
        raise OptionError("A deadline is for cameras: files have all the time.", "Leave --deadline out.")
    rungs = [("full", full, 1), ("skip", full, 2)]
    rungs += [(path.name, open_segmenter(path, mode), 1) for path in settings.fallback]

    def told(name: str, why: str) -> None:
        if on_change:
            on_change("ladder", Transition(name, time.monotonic(), why))

    return Ladder(rungs, settings.deadline_ms / 1e3, told)


def _source(stream: StreamSettings, settings: Settings, on_change: OnChange | None) -> Source:
    source = sources.open(stream.source)
    if not (settings.heal and sources.is_camera(stream.source)):
        return source
    told = (lambda change: on_change(stream.name or source.name, change)) if on_change else None
    supervised = Supervised(lambda: sources.open(stream.source), source.name, settings.policy, told)
    source.close()
    return supervised


def _sink(uri: str, stream: StreamSettings, source: Source, segmenter: Segmenter | Ladder, settings: Settings) -> Sink:
    info = sinks.Info(segmenter.spec, source.fps, source.live, stream.name)
    sink = sinks.open(uri, info)
    if not (settings.heal and sources.is_camera(stream.source)):
        return sink
    return Healing(sink, lambda part: sinks.open(uri, dataclasses.replace(info, part=part)))


def _close_within(segmenter: Segmenter | Ladder, seconds: float) -> None:
    """Close, but do not wait for ever for an accelerator that hangs."""
    thread = threading.Thread(target=segmenter.close, name="edgeseg-close", daemon=True)
    thread.start()
    thread.join(seconds)
