"""Summaries of measured times."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """{p50, p90, p99} in milliseconds."""
    values = np.percentile(list(seconds), (50, 90, 99)) * 1e3
    return {name: round(float(value), 3) for name, value in zip(("p50", "p90", "p99"), values)}
