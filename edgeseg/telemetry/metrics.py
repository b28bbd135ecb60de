"""RunMetrics: the Prometheus metrics of one run, in a registry of its own. Needs the package prometheus-client.

Histograms are fed frame by frame (observe); counters and gauges are read from the run when a server scrapes, through
`sample`, so that a run keeps each count in one place.

Buckets. Each edge is about twice the one before, so that a quantile interpolated between them is off by less than a
factor of two, and mostly far less. 33 and 66 ms are edges because they are the time per frame at 30 and 15 frames per
second. Stages go from 0.5 ms (a resize) to 2 s (a large network on a small CPU); frame ages from 16 ms to 8 s (an
overloaded run). A stage costs 16 time series. Histograms of many devices add up, as percentiles do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeseg.results.drift import DriftState
from edgeseg.telemetry.catalog import BY_NAME, HISTOGRAM, METRICS, RUN
from edgeseg.telemetry.device import DeviceCollector
from edgeseg.telemetry.families import BuildInfo, build_info, family, require_client

if TYPE_CHECKING:
    from prometheus_client.core import Metric

STAGE_BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.033, 0.066, 0.125, 0.25, 0.5, 1.0, 2.0)
AGE_BUCKETS = (0.016, 0.033, 0.066, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
AGE, LATENCY = "age", "latency"  # stages that have a histogram of their own, per stream


@dataclass(frozen=True)
class StreamSample:
    """One stream at the time of a scrape. `states`: every state its source can be in; `dropped`: stage -> frames;
    `areas`: class -> share of its latest frame; `margin`: mean of the latest frame for which it was measured. `drift`:
    None where nothing watches for it. `undecided`: first reason -> results; `queued`: what became of them -> results.
    """

    name: str
    frames: int
    fps: float
    silent: float | None
    state: str
    states: Sequence[str]
    reconnects: int
    damaged: int
    dropped: Mapping[str, int]
    age_from: str = ""
    areas: Mapping[str, float] = field(default_factory=dict)
    margin: float | None = None
    drift: DriftState | None = None
    undecided: Mapping[str, int] = field(default_factory=dict)
    queued: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSample:
    """A run at the time of a scrape. `fallback_level` and `late` are None without a deadline, the last two without
    reuse."""

    uptime: float
    resident_bytes: int
    streams: Sequence[StreamSample] = field(default_factory=tuple)
    fallback_level: int | None = None
    late: int | None = None
    key_frames: int | None = None
    estimated_drop: float | None = None


class RunMetrics:
    """`sample` is called at every scrape, by the thread that serves it. MissingPackage without prometheus-client."""

    def __init__(self, sample: Callable[[], RunSample], build: BuildInfo):
        client = require_client()
        self._client = client
        self._registry = client.CollectorRegistry()
        self._stage = self._histogram("edgeseg_stage_seconds", STAGE_BUCKETS)
        self._per_stream = {
            LATENCY: self._histogram("edgeseg_latency_seconds", STAGE_BUCKETS),
            AGE: self._histogram("edgeseg_frame_age_seconds", AGE_BUCKETS),
        }
        # Looking up a labeled histogram takes a lock and builds a key, which costs more than counting the value.
        self._labeled: dict[tuple[str, str], Any] = {}
        self._registry.register(_SampleCollector(sample, build))
        self._registry.register(DeviceCollector())

    def observe(self, stream: str, stage: str, seconds: float) -> None:
        """Count one frame's time in a stage, its age or its latency; may be called by any thread."""
        histogram = self._labeled.get((stream, stage))
        if histogram is None:
            per_stream = self._per_stream.get(stage)
            histogram = per_stream.labels(stream=stream) if per_stream else self._stage.labels(stage=stage)
            self._labeled[stream, stage] = histogram
        histogram.observe(seconds)

    def _histogram(self, name: str, buckets: Sequence[float]) -> Any:
        metric = BY_NAME[name]
        return self._client.Histogram(name, metric.help, metric.labels, buckets=buckets, registry=self._registry)

    def exposition(self) -> tuple[str, bytes]:
        """(content type, body) in the text format that Prometheus scrapes."""
        return self._client.exposition.CONTENT_TYPE_PLAIN_0_0_4, self._client.generate_latest(self._registry)


class _SampleCollector:
    """Reads counters and gauges at scrape time."""

    def __init__(self, sample: Callable[[], RunSample], build: BuildInfo):
        self._sample = sample
        self._build = build

    def describe(self) -> list[Metric]:
        """Names for the registry's check for duplicates, without taking a sample."""
        return list(_families().values())

    def collect(self) -> Iterator[Metric]:
        families = _families()
        for name, labels, value in rows(self._sample()):
            families[name].add_metric(labels, value)
        yield from families.values()
        yield build_info([self._build])


def rows(sample: RunSample) -> Iterator[tuple[str, list[str], float]]:
    """(name, label values in the order of the catalog, value) of every counter and gauge."""
    yield "edgeseg_uptime_seconds", [], sample.uptime
    yield "edgeseg_resident_bytes", [], sample.resident_bytes
    for stream in sample.streams:
        name = stream.name
        yield "edgeseg_frames", [name], stream.frames
        yield "edgeseg_fps", [name], stream.fps
        yield "edgeseg_damaged", [name], stream.damaged
        yield "edgeseg_reconnects", [name], stream.reconnects
        yield from (("edgeseg_state", [name, state], float(state == stream.state)) for state in stream.states)
        yield from (("edgeseg_dropped", [name, stage], number) for stage, number in stream.dropped.items())
        if stream.age_from:
            yield "edgeseg_frame_age_from", [name, stream.age_from], 1.0
        yield from (("edgeseg_class_area_ratio", [name, c], share) for c, share in stream.areas.items())
        yield from (("edgeseg_undecided_frames", [name, reason], n) for reason, n in stream.undecided.items())
        yield from (("edgeseg_review_frames", [name, outcome], n) for outcome, n in stream.queued.items())
        if stream.drift is not None:
            yield from (("edgeseg_drift_score", [name, which], value) for which, value in stream.drift.scores.items())
            counts = {which: stream.drift.alarms.get(which, 0) for which in stream.drift.scores}
            yield from (("edgeseg_drift_alarms", [name, which], number) for which, number in counts.items())
        if stream.margin is not None:
            yield "edgeseg_margin", [name], stream.margin
        if stream.silent is not None:
            yield "edgeseg_silent_seconds", [name], stream.silent
    if sample.fallback_level is not None:
        yield "edgeseg_fallback_level", [], sample.fallback_level
    if sample.late is not None:
        yield "edgeseg_late", [], sample.late
    if sample.key_frames is not None:
        yield "edgeseg_key_frames", [], sample.key_frames
    if sample.estimated_drop is not None:
        yield "edgeseg_reuse_estimated_drop", [], sample.estimated_drop


def _families() -> dict[str, Any]:
    """Those of a run that its sample fills, by name."""
    filled = [m.name for m in METRICS if m.where == RUN and m.kind != HISTOGRAM]
    return {name: family(name) for name in (*filled, "edgeseg_class_area_ratio", "edgeseg_resident_bytes")}
