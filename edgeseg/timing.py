"""Summaries of measured times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

POINTS = ("p50", "p90", "p99")


@dataclass(frozen=True)
class Percentiles:
    """Of a set of times, in milliseconds."""

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Percentiles:
        values = np.percentile(list(seconds), (50, 90, 99)) * 1e3
        return cls(*(round(float(value), 3) for value in values))

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    def values(self) -> tuple[float, float, float]:
        return self.p50, self.p90, self.p99
