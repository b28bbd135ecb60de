"""BenchResult: a bundle's speed on one machine."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.records import Record
from edgeseg.results.common import BundleIdentity, Machine
from edgeseg.timing import Percentiles


@dataclass(frozen=True)
class Speed:
    """`latency_ms`: one frame at a time; `fps`: several in flight; both resize + infer + mask. `rounds_p50_ms`: the
    median of each round, to compare bundles within a round."""

    latency_ms: Percentiles
    fps: float
    rounds_p50_ms: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """Frames by latency in equal steps."""

    from_ms: float
    to_ms: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """A sensor over a run."""

    first: float
    mean: float
    last: float
    max: float


@dataclass(frozen=True)
class DeviceLog:
    """None for what the machine does not tell. `throttled`: why the figures are not the device's best, or ""."""

    celsius: Reading | None
    cpu_mhz: Reading | None
    gpu_mhz: Reading | None
    watts: Reading | None
    joules_per_frame: float | None
    throttled: str


@dataclass(frozen=True)
class ColdStart:
    """Seconds from the start of a process to its first mask: the median, and each run."""

    first_mask_s: float
    runs_s: tuple[float, ...]
    peak_memory_mb: float


@dataclass(frozen=True)
class Sustained:
    """Full load minute by minute; `last_over_first`: the rate of the last minute by that of the first."""

    minutes_fps: tuple[float, ...]
    last_over_first: float
    device: DeviceLog


@dataclass(frozen=True, kw_only=True)
class BenchResult(Record):
    """Modes after MLPerf Inference. Latencies pool all rounds, rates are medians over rounds.

    `latency_ms`: single stream. `multi_stream_ms`: `streams` frames at once, until the last is done. `fps`: offline,
    several in flight. `pure_*`: the engine alone. `spread`: how far the rounds of a figure differ, as a share of their
    median; `unstable` names those over 5 %. `mlperf_length`: enough samples and seconds for MLPerf's single stream.
    """

    KIND = "bench"

    latency_ms: Percentiles
    multi_stream_ms: Percentiles
    streams: int
    fps: float
    pure_latency_ms: Percentiles
    pure_fps: float
    stages_ms: dict[str, Percentiles]
    histogram: Histogram
    samples: int
    seconds: float
    mlperf_length: bool
    rounds_fps: tuple[float, ...]
    spread: dict[str, float]
    unstable: tuple[str, ...]
    device: DeviceLog
    advice: str = ""
    cold_start: ColdStart | None = None
    waterfall: dict[str, Percentiles] | None = None
    sustained: Sustained | None = None
    miou: float | None = None
    pixel_accuracy: float | None = None
    bundle: BundleIdentity | None = None
    machine: Machine | None = None
    host: str = ""


@dataclass(frozen=True, kw_only=True)
class HostsResult(Record):
    """Benches of one bundle on several hosts."""

    KIND = "benches"

    hosts: tuple[BenchResult, ...]
