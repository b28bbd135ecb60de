"""ChangeDetector: tells a lasting change from the ups and downs of a stream, with a bound on its false alarms.

Frames of a camera are not independent: tests that take them for that (Kolmogorov-Smirnov windows, ADWIN, Page-Hinkley)
raise alarms on streams that have not changed. Here nothing is assumed about their dependence. The null hypothesis is
that, *given everything that came before*, the mean of the next block of a statistic lies within the reference's range
[low, high], and scatters about it by no more than the reference's frames do (sub-Gaussian with their standard deviation
s). Then, for any a > 0, exp(a (mean - high) / s - a^2 / 2) is an e-value: its expectation given the past is at most 1;
likewise for `low`. A camera may look at the edge of its range for hours, and nothing is held against it.

An e-detector of Shiryaev-Roberts type multiplies them up, M <- (M + 1) e, and an average of e-detectors, over all
statistics, both directions and several `a`, is one again. An alarm at M >= c comes, while nothing has changed, after c
blocks or more on average, whatever the dependence between blocks and between statistics: Shin, Ramdas and Rinaldo,
"E-detectors: a nonparametric framework for sequential change detection", arXiv 2203.03532, theorem 2.4; the block means
and the reduction to a confidence sequence around the mean follow Shekhar and Ramdas, arXiv 2309.09111.

Blocks have the length of the stream's own autocorrelation time, as measured so far, within limits: shorter ones would
count one disturbance several times. e-values are cut off (which leaves them e-values) so that no alarm comes of fewer
than `patience` observations out of range: a lorry that passes is no drift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.monitoring.ranges import BETS, LONGEST, SHORTEST, Ranges, Values

MEMORY = 0.99  # of the running autocorrelation, per observation
BACK = 2  # blocks within the range until a statistic that has raised an alarm may raise another


@dataclass(frozen=True)
class Change:
    """Statistic number `index` left its range: `value` is the mean of the latest block, `since` the observation with
    which the evidence begins, `evidence` the e-detector: a false alarm comes once in so many blocks at most."""

    index: int
    value: float
    since: int
    evidence: float


class ChangeDetector:
    """`blocks`: how many of the shortest blocks should lie between two false alarms, on average, at least. `patience`:
    observations out of range that an alarm takes at least."""

    def __init__(self, ranges: Ranges, blocks: float, patience: int):
        self._ranges = ranges
        self._patience = patience
        self._shape = (len(ranges.names), 2, len(BETS))
        self._threshold = float(np.log(blocks))
        self._evidence: Values = np.full(self._shape, -np.inf)  # log M
        self._since = np.zeros(len(ranges.names), int)
        self._away = np.zeros(len(ranges.names), int)  # 0: watched; else blocks within the range that are still needed
        self._block: list[Values] = []
        self._previous: Values | None = None
        self._products = np.zeros(2)  # sums of x[t] x[t-1] and x[t]^2
        self._seen = 0
        self.length = LONGEST
        self.means: Values = np.full(len(ranges.names), np.nan)

    @property
    def scores(self) -> Values:
        """[S]: log evidence of each statistic as a share of what an alarm takes; 1 for those that are out of range
        since their alarm."""
        logs = np.logaddexp.reduce(self._evidence, axis=(1, 2)) - np.log(self._evidence.size)
        shares = np.maximum(0.0, logs / self._threshold)
        return np.where(self._away > 0, 1.0, np.minimum(shares, 1.0))

    def add(self, row: Values) -> list[Change]:
        """Count one observation [S], NaN where something was not measured; the changes that it makes certain."""
        self._seen += 1
        self._correlate(row)
        self._block.append(row)
        if len(self._block) < self.length:
            return []
        block = np.array(self._block)
        known = ~np.isnan(block)
        count = known.sum(0)
        sums = np.where(known, block, 0.0).sum(0)
        self.means = np.divide(sums, count, out=np.full(len(sums), np.nan), where=count > 0)
        outside = np.stack([block > self._ranges.high, block < self._ranges.low]).sum(1).T
        share = np.divide(outside, count[:, None], out=np.zeros(outside.shape), where=count[:, None] > 0)
        changes = self._update(self.means, share * len(block))
        self._block.clear()
        self.length = self._next_length()
        return changes

    def _update(self, means: Values, outside: Values) -> list[Change]:
        """Multiply the e-values of one block up. `outside`: [S, 2] observations of it above and below the range."""
        known = ~np.isnan(means)
        values = np.where(known, means, self._ranges.mean)
        beyond = np.stack([values - self._ranges.high, self._ranges.low - values], 1) / self._ranges.deviation[:, None]
        bets = np.array(BETS)
        logs = bets * beyond[..., None] - bets**2 / 2  # infinite ranges give -inf
        enough = self._threshold + np.log(self._evidence.size)
        highest = enough * np.minimum(1.0, outside / self._patience)
        updated = np.logaddexp(self._evidence, 0.0) + np.minimum(logs, highest[..., None])
        self._evidence = np.where(known[:, None, None], updated, self._evidence)
        self._watch_return(known & (beyond.max(1) <= 0))
        fresh = self._evidence.max((1, 2)) <= 0
        self._since[fresh] = self._seen
        return list(self._alarms(means))

    def _alarms(self, means: Values) -> list[Change]:
        """Each statistic that brings the average over the threshold, the strongest first."""
        found: list[Change] = []
        while True:
            logs = np.logaddexp.reduce(self._evidence, axis=(1, 2))
            if np.logaddexp.reduce(logs) - np.log(self._evidence.size) < self._threshold:
                return found
            index = int(logs.argmax())
            value = float(means[index]) if not np.isnan(means[index]) else float("nan")
            evidence = float(np.exp(min(700.0, logs[index] - np.log(self._evidence.size))))
            found.append(Change(index, value, int(self._since[index]), evidence))
            self._away[index] = BACK
            self._evidence[index] = -np.inf

    def _watch_return(self, within: NDArray[np.bool_]) -> None:
        """A statistic that has raised its alarm rests until it has been back in its range for BACK blocks."""
        away = self._away > 0
        self._away = np.where(away & within, self._away - 1, np.where(away, BACK, 0))
        self._evidence[away] = -np.inf
        self._since[away] = self._seen

    def _correlate(self, row: Values) -> None:
        scaled = (row - self._ranges.mean) / self._ranges.deviation
        scaled = np.where(np.isnan(scaled) | ~np.isfinite(self._ranges.high), 0.0, scaled)
        if self._previous is not None:
            new = np.array([scaled @ self._previous, scaled @ scaled])
            self._products = MEMORY * self._products + new
        self._previous = scaled

    def _next_length(self) -> int:
        """The autocorrelation time (1 + r) / (1 - r) of a first-order process with the lag-1 correlation so far."""
        product, square = self._products
        r = min(0.999, max(0.0, float(product / square))) if square > 0 else 0.999
        return int(np.clip(round((1 + r) / (1 - r)), SHORTEST, LONGEST))
