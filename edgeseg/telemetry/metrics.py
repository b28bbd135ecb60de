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

from edgeseg.errors import MissingPackage

if TYPE_CHECKING:
    from prometheus_client.core import Metric

STAGE_BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.033, 0.066, 0.125, 0.25, 0.5, 1.0, 2.0)
AGE_BUCKETS = (0.016, 0.033, 0.066, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
AGE, LATENCY = "age", "latency"  # stages that have a histogram of their own, per stream
# name -> (kind, help, labels), for what is read at scrape time
FAMILIES = {
    "edgeseg_uptime_seconds": ("gauge", "Seconds since the run started.", ()),
    "edgeseg_resident_bytes": ("gauge", "Memory of the process.", ()),
    "edgeseg_frames": ("counter", "Results delivered to the sinks.", ("stream",)),
    "edgeseg_fps": ("gauge", "Results per second over the latest 30.", ("stream",)),
    "edgeseg_dropped": ("counter", "Frames lost, by the stage that lost them.", ("stream", "stage")),
    "edgeseg_damaged": ("counter", "Packets that did not decode.", ("stream",)),
    "edgeseg_reconnects": ("counter", "Connections after the first.", ("stream",)),
    "edgeseg_silent_seconds": ("gauge", "Seconds since the latest result.", ("stream",)),
    "edgeseg_state": ("gauge", "1 for the state the source is in, 0 for the others.", ("stream", "state")),
    "edgeseg_frame_age_from": (
        "gauge",
        "1: ages of this stream start at the capture, the arrival of the data, or when it was read.",
        ("stream", "origin"),
    ),
    "edgeseg_fallback_level": ("gauge", "0 at full quality, else how many steps down the deadline forced.", ()),
    "edgeseg_late": ("counter", "Results older than the deadline.", ()),
    "edgeseg_key_frames": ("counter", "With --reuse: frames that went through the network.", ()),
    "edgeseg_reuse_estimated_drop": ("gauge", "With --reuse auto: the estimated loss in points of mIoU.", ()),
}


@dataclass(frozen=True)
class BuildInfo:
    """Labels of edgeseg_build_info."""

    version: str
    bundle: str
    digest: str
    target: str
    precision: str


@dataclass(frozen=True)
class StreamSample:
    """One stream at the time of a scrape. `states`: every state its source can be in; `dropped`: stage -> frames."""

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
        self._stage = self._histogram("stage", "Time that each stage of a frame took.", "stage", STAGE_BUCKETS)
        self._per_stream = {
            LATENCY: self._histogram("latency", "Time of the model's own stages together.", "stream", STAGE_BUCKETS),
            AGE: self._histogram("frame_age", "Age of a frame when a sink has written it.", "stream", AGE_BUCKETS),
        }
        info = client.Info("edgeseg_build", "The version of edgeseg and the bundle that runs.", registry=self._registry)
        info.info(vars(build))
        # Looking up a labeled histogram takes a lock and builds a key, which costs more than counting the value.
        self._labeled: dict[tuple[str, str], Any] = {}
        self._registry.register(_SampleCollector(sample))

    def observe(self, stream: str, stage: str, seconds: float) -> None:
        """Count one frame's time in a stage, its age or its latency; may be called by any thread."""
        histogram = self._labeled.get((stream, stage))
        if histogram is None:
            per_stream = self._per_stream.get(stage)
            histogram = per_stream.labels(stream=stream) if per_stream else self._stage.labels(stage=stage)
            self._labeled[stream, stage] = histogram
        histogram.observe(seconds)

    def _histogram(self, name: str, text: str, label: str, buckets: Sequence[float]) -> Any:
        return self._client.Histogram(
            f"edgeseg_{name}_seconds", text, [label], buckets=buckets, registry=self._registry
        )

    def exposition(self) -> tuple[str, bytes]:
        """(content type, body) in the text format that Prometheus scrapes."""
        return self._client.exposition.CONTENT_TYPE_PLAIN_0_0_4, self._client.generate_latest(self._registry)


class _SampleCollector:
    """Reads counters and gauges at scrape time."""

    def __init__(self, sample: Callable[[], RunSample]):
        self._sample = sample

    def describe(self) -> list[Metric]:
        """Names for the registry's check for duplicates, without taking a sample."""
        return list(_families().values())

    def collect(self) -> Iterator[Metric]:
        families = _families()
        for name, labels, value in rows(self._sample()):
            families[name].add_metric(labels, value)
        yield from families.values()


def rows(sample: RunSample) -> Iterator[tuple[str, list[str], float]]:
    """(name, label values in the order of FAMILIES, value) of every counter and gauge."""
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
    core = require_client().core
    kinds = {"counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily}
    return {name: kinds[kind](name, text, labels=labels) for name, (kind, text, labels) in FAMILIES.items()}


def require_client() -> Any:
    """The module prometheus_client; MissingPackage where it is not installed."""
    try:
        import prometheus_client
        import prometheus_client.core
        import prometheus_client.exposition
    except ImportError as error:
        raise MissingPackage("prometheus-client", "Serving metrics", "metrics") from error
    return prometheus_client
