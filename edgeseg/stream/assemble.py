"""From Settings to a Run: open everything that can fail before the first frame, and wrap what is to reconnect."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from edgeseg.bundle import REFERENCE, Bundle
from edgeseg.errors import OptionError
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.signature import Required
from edgeseg.stream import sinks, sources
from edgeseg.stream.config import Settings, StreamSettings
from edgeseg.stream.fallback import FallbackPolicy, Level
from edgeseg.stream.loop import Run
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.reconnect import ReconnectingSink
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.sources import Source
from edgeseg.stream.supervise import SupervisedSource, Transition

log = logging.getLogger(__name__)
CLOSE_SECONDS = 5.0
FAULT_STATES = ("STALLED", "BROKEN", "BACKING_OFF")


@contextmanager
def opened(settings: Settings, stop: threading.Event | None = None) -> Iterator[Run]:
    """A Run that is ready to go(). Every change of a camera's state and of the fallback level is logged."""
    with ExitStack() as opening:
        opened_sources = [opening.enter_context(_source(stream, settings)) for stream in settings.streams]
        mode = settings.mode or ("latency" if any(source.live for source in opened_sources) else "throughput")
        bundle = Bundle.load(settings.bundle)
        segmenter = _segmenter(bundle, settings, mode, opened_sources)
        about = Info(
            segmenter.spec, reference=bundle.files.get(REFERENCE), golden=next((f for f, _ in bundle.golden()), None)
        )
        opening.callback(_close_within, segmenter, CLOSE_SECONDS)
        streams = [
            Stream(
                source,
                [opening.enter_context(_sink(uri, stream, source, about, settings)) for uri in stream.sinks],
                stream.name,
            )
            for stream, source in zip(settings.streams, opened_sources)
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


def _segmenter(
    bundle: Bundle, settings: Settings, mode: str, opened_sources: list[Source]
) -> Segmenter | FallbackPolicy:
    """One Segmenter, or a fallback policy over several where a deadline is given; each has the signature required."""
    required = settings.required
    threads = settings.threads or 0
    margin = sinks.margin_every(uri for stream in settings.streams for uri in stream.sinks)
    full = open_segmenter(bundle, mode, margin, required=required, threads=threads)
    if settings.deadline_ms is None:
        return full
    if not any(source.live for source in opened_sources):
        raise OptionError("A deadline is for cameras; frames of files do not age.", "Leave --deadline out.")
    levels = [Level("full", full), Level("skip", full, every=2)]
    owner = Required(required.key) if required else None  # a fallback has another name and versions of its own
    levels += [
        Level(path.name, open_segmenter(path, mode, required=owner, threads=threads)) for path in settings.fallback
    ]
    return FallbackPolicy(
        levels, settings.deadline_ms / 1e3, lambda name, reason: log.warning("fallback level: %s (%s)", name, reason)
    )


def _source(stream: StreamSettings, settings: Settings) -> Source:
    source = sources.open(stream.source)
    if not (settings.reconnect and sources.is_camera(stream.source)):
        return source
    source.close()  # opening it has checked its options; each connection opens it again
    name = stream.name or source.name
    return SupervisedSource(
        lambda: sources.open(stream.source), source.name, settings.policy, lambda change: log_transition(name, change)
    )


def _sink(uri: str, stream: StreamSettings, source: Source, about: Info, settings: Settings) -> Sink:
    info = dataclasses.replace(about, fps=source.fps, live=source.live, name=stream.name)
    sink = sinks.open(uri, info)
    if not (settings.reconnect and sources.is_camera(stream.source)):
        return sink
    return ReconnectingSink(sink, lambda part: sinks.open(uri, dataclasses.replace(info, part=part)))


def log_transition(name: str, change: Transition) -> None:
    """One line for every change of a camera's state: a warning where it is a fault."""
    reason = f" ({change.reason})" if change.reason else ""
    log.log(logging.WARNING if change.state in FAULT_STATES else logging.INFO, "%s: %s%s", name, change.state, reason)


def _close_within(segmenter: Segmenter | FallbackPolicy, seconds: float) -> None:
    """Close, but do not wait for ever for an accelerator that hangs."""
    thread = threading.Thread(target=segmenter.close, name="edgeseg-close", daemon=True)
    thread.start()
    thread.join(seconds)
