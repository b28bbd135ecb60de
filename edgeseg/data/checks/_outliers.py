"""Frames that differ from most of the set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIGMA = 1.4826  # of a normal distribution, in median absolute deviations


def limit_above(values: Sequence[float], deviations: float) -> float:
    """The value from which on one is unusual: so many standard deviations, estimated robustly, above the median."""
    if not values:
        return float("inf")
    middle = float(np.median(values))
    return middle + deviations * SIGMA * float(np.median(np.abs(np.asarray(values) - middle)))
