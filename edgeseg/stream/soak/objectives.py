"""What a soak measured, as a report, and which objectives it missed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from edgeseg.errors import EdgesegError
from edgeseg.stream.summary import RunSummary

SCHEMA = 2
RECOVER_SECONDS = 15.0
CAMERAS = ("front", "back")  # the one with faults, and the one that must not notice


class ObjectivesMissed(EdgesegError):
    """A soak that missed a service level objective."""

    exit_code = 1


@dataclass(frozen=True)
class Objectives:
    """Limits of a soak. Uptime is the share of samples in which the newest result is younger than a second."""

    uptime_untouched: float = 0.99
    reconnect_p95_s: float = 6.0
    age_p99_ms: float = 500.0
    growth_mib_per_min: float = 8.0
    growth_mib: float = 24.0  # growth below this is no leak, however short the run was
    threads: int = 8


@dataclass(frozen=True)
class MemorySample:
    """`at` in seconds of any steady clock."""

    at: float
    mib: float
    threads: int


@dataclass
class Measurements:
    """What is recorded during a soak; bounded, however long it runs.

    `faults`: kind -> seconds to recover (None: it did not). `fresh`: in how many of `samples` the newest result of each
    of CAMERAS was younger than a second.
    """

    faults: dict[str, list[float | None]] = field(default_factory=dict)
    samples: int = 0
    fresh: list[int] = field(default_factory=lambda: [0, 0])
    memory: list[MemorySample] = field(default_factory=list)


@dataclass(frozen=True)
class Recoveries:
    """From one kind of fault: how often it came, how often the run recovered, and in how many seconds (None: never)."""

    count: int
    recovered: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True)
class MemoryGrowth:
    """MiB. `growth` and `per_minute` are of the least-squares line, which a single peak does not bend much."""

    after_warm_up: float = 0.0
    end: float = 0.0
    growth: float = 0.0
    per_minute: float = 0.0

    @classmethod
    def of(cls, memory: Sequence[MemorySample]) -> MemoryGrowth:
        """After the first third, which is warm-up; all 0 for fewer than ten samples."""
        settled = memory[len(memory) // 3 :]
        if len(settled) < 10:
            return cls()
        t, mib = np.array([m.at for m in settled]), np.array([m.mib for m in settled])
        slope = float(np.polyfit(t - t[0], mib, 1)[0])
        values = (mib[0], mib[-1], slope * (t[-1] - t[0]), slope * 60)
        return cls(*(round(float(value), 1) for value in values))


@dataclass(frozen=True)
class ThreadGrowth:
    """After warm-up: the most threads at once, and how many more there were at the end than at the start."""

    most: int = 0
    growth: int = 0

    @classmethod
    def of(cls, memory: Sequence[MemorySample]) -> ThreadGrowth:
        settled = [m.threads for m in memory[len(memory) // 3 :]] or [0]
        return cls(max(settled), int(np.median(settled[-10:]) - np.median(settled[:10])))


@dataclass(frozen=True)
class SoakReport:
    """What a soak measured. `uptime`, `reconnects` and `damaged` by camera, `faults` by kind; `breaches`: one line for
    every objective that was missed. `age_ms` is from the camera to the sink.
    """

    minutes: float
    frames: int
    fps: float
    uptime: Mapping[str, float]
    faults: Mapping[str, Recoveries]
    reconnect_s: Mapping[str, float | None]
    age_ms: Mapping[str, float | None]
    drops: Mapping[str, int]
    reconnects: Mapping[str, int]
    damaged: Mapping[str, int]
    memory_mib: MemoryGrowth
    threads: ThreadGrowth
    result: str
    error: str | None = None
    breaches: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.breaches

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self), "breaches": list(self.breaches), "ok": self.ok}

    @classmethod
    def of(
        cls, summary: RunSummary, measured: Measurements, ages: Iterable[float], problems: Iterable[str] = ()
    ) -> SoakReport:
        """The report of a run; `ages` in seconds; `problems` (of the soak itself) count as breaches."""
        recovered = [seconds for kind in measured.faults.values() for seconds in kind if seconds is not None]
        report = cls(
            minutes=round(summary.seconds / 60, 2),
            frames=summary.frames,
            fps=round(summary.fps, 3),
            uptime={n: round(up / max(measured.samples, 1), 4) for n, up in zip(CAMERAS, measured.fresh)},
            faults={kind: _recoveries(times) for kind, times in measured.faults.items()},
            reconnect_s=_percentiles(recovered, 1.0, (50, 95)),
            age_ms=_percentiles(list(ages), 1e3, (50, 99)),
            drops=summary.drops,
            reconnects={s.name: s.reconnects for s in summary.streams},
            damaged={s.name: s.damaged for s in summary.streams},
            memory_mib=MemoryGrowth.of(measured.memory),
            threads=ThreadGrowth.of(measured.memory),
            result=summary.result,
            error=summary.error.what if summary.error else None,
        )
        return replace(report, breaches=(*problems, *breaches(report)))


def breaches(report: SoakReport, objectives: Objectives | None = None) -> list[str]:
    """One line for every objective that was missed."""
    limits = objectives or Objectives()
    missed = [f"the run ended: {report.error}"] if report.error else []
    if report.uptime["back"] < limits.uptime_untouched:
        missed.append(
            f"the untouched camera was up {report.uptime['back']:.2%}; at least {limits.uptime_untouched:.0%}"
        )
    missed += [
        f"{row.count - row.recovered} times no recovery from {kind} within {RECOVER_SECONDS:g} s"
        for kind, row in report.faults.items()
        if row.recovered < row.count
    ]
    p95 = report.reconnect_s["p95"]
    if p95 is not None and p95 > limits.reconnect_p95_s:
        missed.append(f"recovery p95 {p95:.1f} s; at most {limits.reconnect_p95_s:g} s")
    p99 = report.age_ms["p99"]
    if p99 is not None and p99 > limits.age_p99_ms:
        missed.append(f"frame age p99 {p99:.0f} ms; at most {limits.age_p99_ms:g} ms")
    memory = report.memory_mib
    if memory.growth > limits.growth_mib and memory.per_minute > limits.growth_mib_per_min:
        missed.append(f"memory grew by {memory.growth:.0f} MiB, {memory.per_minute:.1f} MiB a minute: a leak")
    if report.threads.growth > limits.threads:
        missed.append(f"{report.threads.growth} more threads than after warm-up")
    return missed


def _recoveries(recovered: Sequence[float | None]) -> Recoveries:
    times = [seconds for seconds in recovered if seconds is not None]
    return Recoveries(len(recovered), len(times), **_percentiles(times, 1.0, (50, 95)))


def _percentiles(values: Sequence[float], scale: float, which: tuple[int, ...]) -> dict[str, float | None]:
    """{p50: ..., ...} of `values` times `scale`; None where there are none."""
    if not values:
        return {f"p{p}": None for p in which}
    points = np.percentile(np.array(values) * scale, which)
    return {f"p{p}": round(float(value), 3) for p, value in zip(which, points)}
