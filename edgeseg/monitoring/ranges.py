"""Ranges: where each statistic may be, from reference frames, with an allowance for how few or how alike they are.

Half the range is a prediction interval for one more frame, mean +- t * sd * sqrt(1 + 1/n), or what was observed, if
that is more. `n` counts frames as far as they are independent: n / tau, with the integrated autocorrelation time tau
(Sokal, "Monte Carlo methods in statistical mechanics", 1997, section 3: summed over a window of WINDOW * tau).

How far out is t? Single pictures stand for many scenes, of which a camera sees one for years: STILLS. In a sequence,
excursions come back after about tau. One that goes d standard deviations beyond the range for tau, in blocks of length
L, gathers log evidence of d^2 / 2 * tau / L at most, and an alarm takes T: those of d < sqrt(2 T L / tau) are harmless.
So the range ends that far below the height z that the sequence reaches once in the time between two false alarms; not
below LEAST_QUANTILE. The longer frames are correlated, the wider it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import OptionError
from edgeseg.evaluation.statistics import student_t
from edgeseg.monitoring.statistics import AREA, MARGIN
from edgeseg.results.drift import ReferenceStatistics

Values = NDArray[np.float64]
MIN_FRAMES = 16
STILLS, LEAST_QUANTILE = 3.09, 1.64  # of the normal distribution: 0.1 % and 5 % are outside, on each side
SHORTEST, LONGEST = 2, 6  # observations in a block
BETS = (0.5, 1.0, 2.0, 4.0)  # sizes of change, in standard deviations, that the detector is best for
WINDOW = 5.0
RELIABLE = 50
# The least standard deviation that is believed, in the statistic's own unit: less is a scene that stood still.
LEAST = {
    "brightness": 2.0,
    "contrast": 1.0,
    "sharpness": 0.05,
    "red": 1.0,
    "blue": 1.0,
    "edges": 0.05,
    "upper": 2.0,
    "left": 2.0,
}
LEAST_AREA = 0.02  # of the square root of a share
LEAST_MARGIN = 0.05  # of the mean margin


@dataclass(frozen=True)
class Ranges:
    """Of each statistic in `names`: its mean, standard deviation, and where it may be: arrays [S] float64."""

    names: tuple[str, ...]
    mean: Values
    deviation: Values
    low: Values
    high: Values

    @classmethod
    def of(cls, reference: ReferenceStatistics, blocks: float) -> Ranges:
        """`blocks`: of the SHORTEST, between two false alarms. A statistic that was never measured gets an infinite
        range. OptionError for fewer than MIN_FRAMES frames."""
        if reference.frames < MIN_FRAMES:
            raise OptionError(
                f"The reference statistics are of {reference.frames} frames.",
                f"Expected at least {MIN_FRAMES}; some hundred of what the camera sees on all days are better.",
            )
        horizon = _Horizon(blocks, len(reference.names) * 2 * len(BETS))
        rows = _rows(reference)
        times = _times(rows) if reference.sequence else [None] * len(rows)
        columns = [_Column.of(*given, horizon) for given in zip(reference.names, rows, times)]
        return cls(
            reference.names,
            *(np.array([getattr(c, key) for c in columns]) for key in ("mean", "deviation", "low", "high")),
        )


@dataclass(frozen=True)
class _Column:
    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, name: str, values: Values, tau: float | None, horizon: _Horizon) -> _Column:
        """`tau`: the autocorrelation time, None for single pictures."""
        values = values[~np.isnan(values)]
        if len(values) < 2:
            return cls(0.0, 1.0, -np.inf, np.inf)
        mean = float(values.mean())
        deviation = max(float(values.std(ddof=1)), _least(name, mean))
        count = max(4.0, len(values) / (tau or 1.0))
        deviation /= (1 - 1 / count) ** 0.5  # what a short sequence does not show of its own variance
        half = student_t(horizon.quantile(tau) if tau else STILLS, count - 1) * deviation * (1 + 1 / count) ** 0.5
        return cls(mean, deviation, min(mean - half, float(values.min())), max(mean + half, float(values.max())))


@dataclass(frozen=True)
class _Horizon:
    """`components`: e-detectors that are averaged."""

    blocks: float
    components: int

    def quantile(self, tau: float) -> float:
        """How many standard deviations a sequence with this autocorrelation time may be from its mean."""
        excursions = self.blocks * SHORTEST / tau * self.components
        highest = NormalDist().inv_cdf(1 - min(0.5, 1 / excursions))
        harmless = (2 * np.log(self.blocks * self.components) * LONGEST / max(tau, LONGEST)) ** 0.5
        return max(LEAST_QUANTILE, float(highest - harmless))


def _times(rows: Values) -> list[float | None]:
    """The autocorrelation time of each statistic; a short sequence shows too little of some: those get the median."""
    known = [values[~np.isnan(values)] for values in rows]
    own = [autocorrelation_time(values) for values in known]
    usual = float(np.median(own))
    return [time if len(values) >= RELIABLE * usual else max(time, usual) for time, values in zip(own, known)]


def _rows(reference: ReferenceStatistics) -> Values:
    """[S, frames]"""
    return np.array(reference.rows, np.float64).reshape(reference.frames, len(reference.names)).T


def _least(name: str, mean: float) -> float:
    if name == MARGIN:
        return LEAST_MARGIN * abs(mean)
    return LEAST_AREA if name.startswith(AREA) else LEAST[name]


def autocorrelation_time(values: Values) -> float:
    """How many of these [N] successive values say as much about the mean as one independent value; at least 1.

    Fewer than RELIABLE times as many values show too little of it (Sokal): then at least that of a first-order process
    with their lag-1 correlation.
    """
    centered = values - values.mean()
    if len(values) < 2 or not centered.any():
        return 1.0
    power = np.abs(np.fft.rfft(centered, 2 * len(values))) ** 2
    correlation = np.fft.irfft(power)[: len(values)]
    sums = 2 * np.cumsum(correlation / correlation[0]) - 1
    wide = np.flatnonzero(np.arange(len(sums)) >= WINDOW * sums)
    found = max(1.0, float(sums[wide[0] if len(wide) else -1]))
    if len(values) >= RELIABLE * found:
        return found
    lag1 = min(0.999, float(correlation[1] / correlation[0]) * len(values) / (len(values) - 1))
    return max(found, (1 + lag1) / (1 - lag1))
