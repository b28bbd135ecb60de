"""Confidence intervals of metrics: bootstrap over frames (Efron 1979), paired if two models saw the same frames.

Frames are drawn with replacement and the metric is computed from the sums of their count tables, as it is for the
whole set. Consecutive frames of one clip are alike, so intervals from a single clip are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.evaluation.metrics import Table, scores
from edgeseg.results.common import Drop, Interval
from edgeseg.results.evaluation import Intervals

DRAWS = 1000
SHARE = 0.95
Metric = Callable[[NDArray[Any]], NDArray[np.float64]]
"""Summed tables [..., C, 7] -> [...]."""


def miou(tables: NDArray[Any]) -> NDArray[np.float64]:
    return _nanmean(scores(tables)["iou"])


def boundary_f1(tables: NDArray[Any]) -> NDArray[np.float64]:
    return _nanmean(scores(tables)["boundary_f1"])


def iou_of(index: int) -> Metric:
    return lambda tables: scores(tables)["iou"][..., index]


@dataclass(frozen=True)
class Estimate:
    """A figure and its percentile interval, all in the metric's own unit. NaN where it is undefined."""

    value: float
    low: float
    high: float

    def rounded(self) -> Drop:
        """As results store it: rounded to six digits, None where it is undefined."""
        return Drop(*(None if np.isnan(v) else round(v, 6) for v in (self.value, self.low, self.high)))


def estimate(tables: Table, metric: Metric, share: float = SHARE, seed: int = 0) -> Estimate:
    """`metric` of [N, C, 7] tables with its `share` interval over frames."""
    return _estimate(float(metric(tables.sum(0))), metric(_resampled(tables, seed)), share)


def difference(before: Table, after: Table, metric: Metric, share: float = SHARE, seed: int = 0) -> Estimate:
    """`metric` lost from `before` to `after`, two models on the same N frames: each draw takes the same frames of both.

    Frames that are hard for both cancel, so this is much narrower than the difference of two intervals.
    """
    value = float(metric(before.sum(0)) - metric(after.sum(0)))
    return _estimate(value, metric(_resampled(before, seed)) - metric(_resampled(after, seed)), share)


def intervals(tables: Table, names: tuple[str, ...], seed: int = 0, draw_share: float = SHARE) -> Intervals:
    """[low, high] of miou, boundary_f1 and each class's IoU; None where a class is undefined. `draw_share`: of the
    draws that lie between, see share_of_few."""
    drawn = _resampled(tables, seed)
    by_metric = scores(drawn)

    def ends(values: NDArray[np.float64]) -> Interval | None:
        interval = _estimate(0.0, values, draw_share)
        return None if np.isnan(interval.low) else (round(interval.low, 6), round(interval.high, 6))

    return Intervals(
        share=SHARE,
        miou=ends(_nanmean(by_metric["iou"])),
        boundary_f1=ends(_nanmean(by_metric["boundary_f1"])),
        iou={name: ends(by_metric["iou"][:, c]) for c, name in enumerate(names)},
    )


def share_of_few(count: int) -> float:
    """The share of draws between the ends of a SHARE interval of few frames, for which a percentile interval is too
    narrow: that of Student's t with the sample's own variance (Hesterberg, "What teachers should know about the
    bootstrap", The American Statistician 69, 2015, "expanded percentile interval"). `count`: two or more."""
    t = student_t(NormalDist().inv_cdf((1 + SHARE) / 2), count - 1)
    return 2 * NormalDist().cdf(t * (count / (count - 1)) ** 0.5) - 1


def student_t(z: float, freedom: float) -> float:
    """The quantile of Student's distribution that is `z` of the normal one (Abramowitz and Stegun, 26.7.5)."""
    first = (z**3 + z) / (4 * freedom)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return z + first + second + third


def _resampled(tables: Table, seed: int) -> NDArray[np.float64]:
    """[DRAWS, C, 7]: sums over N frames drawn with replacement. One matrix product instead of DRAWS x N copies."""
    count = len(tables)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS).astype(float)
    drawn: NDArray[np.float64] = weights @ tables.reshape(count, -1).astype(float)
    return drawn.reshape(DRAWS, *tables.shape[1:])


def _estimate(value: float, draws: NDArray[np.float64], share: float) -> Estimate:
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(draws, ((1 - share) / 2, (1 + share) / 2))
    return Estimate(value, float(low), float(high))


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is defined; NaN, without a warning, where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    total: NDArray[np.float64] = np.where(known, values, 0.0).sum(-1)
    return np.asarray(np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0))
