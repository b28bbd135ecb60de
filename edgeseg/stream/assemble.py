"""From Settings to a Run: open everything that can fail before the first frame, and wrap what is to reconnect."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from edgeseg.bundle import REFERENCE, Bundle
from edgeseg.errors import OptionError
from edgeseg.monitoring.undecided import ReviewPolicy
from edgeseg.reuse.policy import parse as parse_reuse
from edgeseg.reuse.segmenter import AHEAD, ReusingSegmenter
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.signature import Required
from edgeseg.spec import Spec
from edgeseg.stream import sinks, sources
from edgeseg.stream.config import Settings, StreamSettings
from edgeseg.stream.events.rules import Rules
from edgeseg.stream.events.rules import load as load_rules
from edgeseg.stream.events.watch import Watch
from edgeseg.stream.events.zones import FRAME
from edgeseg.stream.fallback import FallbackPolicy, Level
from edgeseg.stream.loop import Run
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.privacy import Privacy
from edgeseg.stream.reconnect import ReconnectingSink
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.sources import Source
from edgeseg.stream.supervise import ReconnectPolicy, SupervisedSource, Transition

log = logging.getLogger(__name__)
CLOSE_SECONDS = 5.0
FAULT_STATES = ("STALLED", "BROKEN", "BACKING_OFF")


@contextmanager
def opened(settings: Settings, stop: threading.Event | None = None) -> Iterator[Run]:
    """A Run that is ready to go(). Every change of a camera's state and of the fallback level is logged."""
    with ExitStack() as opening:
        opened_sources = [
            opening.enter_context(open_source(stream.source, stream.name, settings.policy, settings.reconnect))
            for stream in settings.streams
        ]
        if settings.reuse or settings.stabilize:
            for source in opened_sources:
                source.use_motion()
        mode = settings.mode or ("latency" if any(source.live for source in opened_sources) else "throughput")
        bundle = Bundle.load(settings.bundle)
        segmenter = _segmenter(bundle, settings, mode, opened_sources)
        about = Info(
            segmenter.spec,
            reference=bundle.files.get(REFERENCE),
            golden=lambda: next((frame for frame, _ in bundle.golden()), None),
            margin_every=_margin_every(settings),
        )
        opening.callback(_close_within, segmenter, CLOSE_SECONDS)
        rules = _rules(settings, segmenter.spec)
        privacy = Privacy.of(segmenter.spec, settings.blur, settings.fill)
        review = ReviewPolicy.of(segmenter.spec, settings.min_confidence, settings.review_class)
        streams = []
        for stream, source, own in zip(settings.streams, opened_sources, rules):
            info = dataclasses.replace(about, fps=source.fps, live=source.live, name=stream.name, rules=own)
            info = dataclasses.replace(info, review=review is not None)
            uris = (*stream.sinks, *_review_queue(settings, stream.name))
            outputs = [opening.enter_context(_sink(uri, info, stream, settings)) for uri in uris]
            streams.append(Stream(source, outputs, stream.name, _watch(info, outputs), privacy, review))
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
) -> Segmenter | FallbackPolicy | ReusingSegmenter:
    """One Segmenter, or what stands in for it: with reuse, or with a fallback policy where a deadline is given.

    Each bundle has the signature required.
    """
    required = settings.required
    threads = settings.threads or 0
    margin = _margin_every(settings)
    full = open_segmenter(bundle, mode, margin, required=required, threads=threads)
    if settings.reuse or settings.stabilize:
        calibration = bundle.manifest.reuse
        policy = parse_reuse(settings.reuse or "1", settings.max_drop, calibration.points if calibration else None)
        ahead = 0 if any(source.live for source in opened_sources) else AHEAD
        return ReusingSegmenter(full, policy, settings.stabilize, ahead, calibration)
    if settings.deadline_ms is None:
        return full
    if not any(source.live for source in opened_sources):
        raise OptionError("A deadline is for cameras; frames of files do not age.", "Leave --deadline out.")
    levels = [Level("full", full), Level("skip", full, every=2)]
    owner = Required(required.key) if required else None  # a fallback has another name and versions of its own
    levels += [
        Level(path.name, open_segmenter(path, mode, margin, required=owner, threads=threads))
        for path in settings.fallback
    ]
    return FallbackPolicy(
        levels, settings.deadline_ms / 1e3, lambda name, reason: log.warning("fallback level: %s (%s)", name, reason)
    )


def _margin_every(settings: Settings) -> int:
    """Of how many frames one is measured with its margin: of all where results may be undecided."""
    if settings.min_confidence is not None or settings.review_class:
        return 1
    return sinks.margin_every(uri for stream in settings.streams for uri in stream.sinks)


def _review_queue(settings: Settings, stream: str) -> list[str]:
    """The sink for undecided frames, where they are kept: a folder for each of several streams."""
    queue = settings.review_queue
    if queue is None:
        return []
    return [f"review://{queue / stream if len(settings.streams) > 1 else queue}"]


def open_source(uri: str, name: str = "", policy: ReconnectPolicy | None = None, reconnect: bool = True) -> Source:
    """The source at `uri`; a camera is connected again whenever it fails, unless `reconnect` is false. `name`: in the
    log, for its URI."""
    source = sources.open(uri)
    if not (reconnect and sources.is_camera(uri)):
        return source
    source.close()  # opening it has checked its options; each connection opens it again
    shown = name or source.name
    return SupervisedSource(
        lambda: sources.open(uri), source.name, policy, lambda change: log_transition(shown, change)
    )


def _rules(settings: Settings, spec: Spec) -> list[Rules | None]:
    """Those of each stream, every file read and checked once."""
    paths = [stream.rules or settings.rules for stream in settings.streams]
    names = [stream.name for stream in settings.streams]
    files = {path: load_rules(path) for path in dict.fromkeys(paths) if path}
    for path, rules in files.items():
        rules.check(spec.classes, [name for name, own in zip(names, paths) if own == path and name])
    return [files[path].of(name) if path else None for path, name in zip(paths, names)]


def _watch(info: sinks.Info, outputs: Sequence[Sink]) -> Watch | None:
    """What evaluates the rules, where a sink takes events; without rules it measures the whole frame."""
    if not any(sink.needs_events for sink in outputs):
        if info.rules and info.rules.rules:
            hint = "Add a sink such as events://events.jsonl, webhook+http://HOST/PATH#on=change or mqtt://HOST/TOPIC."
            raise OptionError(f"No sink takes the events of {info.rules.path}.", hint)
        return None
    rules = info.rules or Rules(zones={FRAME.name: FRAME})
    return Watch(rules, info.spec, info.name, info.live, info.fps)


def _sink(uri: str, info: sinks.Info, stream: StreamSettings, settings: Settings) -> Sink:
    sink = sinks.open(uri, info)
    if not (settings.reconnect and sources.is_camera(stream.source)):
        return sink
    return ReconnectingSink(sink, lambda part: sinks.open(uri, dataclasses.replace(info, part=part)))


def log_transition(name: str, change: Transition) -> None:
    """One line for every change of a camera's state: a warning where it is a fault."""
    reason = f" ({change.reason})" if change.reason else ""
    log.log(logging.WARNING if change.state in FAULT_STATES else logging.INFO, "%s: %s%s", name, change.state, reason)


def _close_within(segmenter: Segmenter | FallbackPolicy | ReusingSegmenter, seconds: float) -> None:
    """Close, but do not wait for ever for an accelerator that hangs."""
    thread = threading.Thread(target=segmenter.close, name="edgeseg-close", daemon=True)
    thread.start()
    thread.join(seconds)
