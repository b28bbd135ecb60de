"""Durations of the stages of a run: the latest ones in memory for percentiles, every one to an observer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeseg.timing import Percentiles

# The stages before and after the Segmenter's own (Result.times), which stand between them in summaries.
FIRST_STAGES = ("read",)
LAST_STAGES = ("overlay", "sink", "age")
LATENCY = "latency"
CAPACITY = 10_000
OnStage = Callable[[str, str, float], None]


class LatestValues:
    """The latest `size` numbers in an array of fixed size: a run of months takes no more memory than one of minutes."""

    def __init__(self, size: int = CAPACITY):
        self._values = np.zeros(size)
        self._count = 0

    def add(self, value: float) -> None:
        self._values[self._count % len(self._values)] = value
        self._count += 1

    def values(self) -> NDArray[np.float64]:
        """[n] float64, in no particular order once it is full."""
        return self._values[: self._count].copy()


class StageTimings:
    """The latest durations of every stage. `on_stage(stream, stage, seconds)` is called for each one."""

    def __init__(self) -> None:
        self.on_stage: OnStage | None = None
        self._latest: dict[str, LatestValues] = {}

    def add(self, stream: str, stage: str, seconds: float) -> None:
        latest = self._latest.get(stage)
        if latest is None:
            latest = self._latest.setdefault(stage, LatestValues())
        latest.add(seconds)
        if self.on_stage is not None:
            self.on_stage(stream, stage, seconds)

    def percentiles(self, stage: str) -> Percentiles | None:
        """None where nothing was measured."""
        values = self._latest[stage].values() if stage in self._latest else np.zeros(0)
        return Percentiles.of(values) if values.size else None

    def stages(self) -> dict[str, Percentiles]:
        """Every stage that was measured, in the order a frame passes them; without the sum, `latency`."""
        inner = [s for s in tuple(self._latest) if s not in (*FIRST_STAGES, *LAST_STAGES, LATENCY)]
        rows = {stage: self.percentiles(stage) for stage in (*FIRST_STAGES, *inner, *LAST_STAGES)}
        return {stage: row for stage, row in rows.items() if row is not None}
