"""Summary: what a run did, as numbers first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError

STAGES = ("read", "resize", "infer", "mask", "overlay", "sink", "age")
KEPT = 10_000


class Latest:
    """The latest `size` numbers in an array of fixed size: a run of months takes no more memory than one of minutes."""

    def __init__(self, size: int = KEPT):
        self._values = np.zeros(size)
        self._count = 0

    def add(self, value: float) -> None:
        self._values[self._count % len(self._values)] = value
        self._count += 1

    def values(self) -> NDArray[np.float64]:
        return self._values[: self._count].copy()


class Timings:
    """The latest durations of every stage."""

    def __init__(self) -> None:
        self._kept: dict[str, Latest] = {}

    def add(self, stage: str, seconds: float) -> None:
        kept = self._kept.get(stage)
        if kept is None:
            kept = self._kept.setdefault(stage, Latest())
        kept.add(seconds)

    def percentiles(self, stage: str) -> dict[str, float] | None:
        """p50, p90, p99 in milliseconds; None where nothing was measured."""
        values = self._kept[stage].values() if stage in self._kept else np.zeros(0)
        if not values.size:
            return None
        p50, p90, p99 = np.percentile(values * 1e3, (50, 90, 99))
        return {"p50": round(float(p50), 3), "p90": round(float(p90), 3), "p99": round(float(p99), 3)}


@dataclass
class Summary:
    """A run, or how it stands. `stages` and `latency_ms` in milliseconds.

    `latency_ms` is the model's path (resize + infer + mask); `stages["age"]` is capture to the end of the sink.
    `drops` counts frames per place that lost them; `streams` tells each stream's state (see Lane.state); `result`
    says how the run ended, `error` what broke it; `ladder` is Ladder.state() where a deadline was given.
    """

    frames: int = 0
    seconds: float = 0.0
    count: int | None = None
    latency_ms: dict[str, float] | None = None
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    streams: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ladder: dict[str, Any] | None = None
    result: str = "running"
    error: EdgesegError | None = None

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "fps": round(self.fps, 3),
            "latency_ms": self.latency_ms,
            "stages": self.stages,
            "drops": self.drops,
            "streams": self.streams,
            "warnings": self.warnings,
            "ladder": self.ladder,
            "result": self.result,
            "error": self.error.what if self.error else None,
        }
