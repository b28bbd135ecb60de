"""Which frames are worth labeling: uncertain, drifted, novel or diverse ones, and what for.

uncertain   the model's mean margin is among the lowest tenth of what the stream had lately
drifted     statistics are out of the reference's ranges (ranges.py)
novel       further from every reference frame than any of those is from the others
diverse     among the tenth that is furthest from everything that was kept (farthest-first selection; Sener and
            Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018)

A frame that looks like one that was kept is worth nothing, whatever else it is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.monitoring import statistics
from edgeseg.monitoring.monitor import DAYS, EVERY, USUAL_FPS
from edgeseg.monitoring.ranges import SHORTEST, Ranges
from edgeseg.result import Result
from edgeseg.results.drift import ReferenceStatistics

Features = NDArray[np.float32]
THUMBNAIL, GRID = 8, 4  # cells on a side
COARSE = 64  # pixels of the shorter side that are looked at
NEAR = 0.02  # distance below which two frames show the same
LATEST = 400  # observations that ranks are among
MOST_COMPARED = 2000  # of the frames that were kept, the latest
FIRST = 20  # observations before there are ranks
RARE = 0.9  # rank from which a frame is among the extreme ones
MOST_DRIFTED = 3  # statistics out of range that count in full


@dataclass(frozen=True)
class Worth:
    """`why`: reason -> 0 to 1; empty for a frame that need not be kept. `features`: to compare other frames with."""

    why: dict[str, float]
    features: Features

    @property
    def score(self) -> float:
        return sum(self.why.values())


class Judge:
    """Rates the results of one stream whose margin was measured. `kept` frames are compared with what comes."""

    def __init__(self, classes: int, reference: ReferenceStatistics | None = None):
        self._classes = classes
        self._kept: Features = np.zeros((0, THUMBNAIL * THUMBNAIL * 3 + GRID * GRID * classes), np.float32)
        self._margins: deque[float] = deque(maxlen=LATEST)
        self._distances: deque[float] = deque(maxlen=LATEST)
        self._reference = _Reference(reference) if reference else None

    def keep(self, features: Features) -> None:
        self._kept = np.vstack([self._kept, features])

    def forget(self, number: int) -> None:
        """The frame that was kept as number `number`, counted from 0, is gone."""
        self._kept = np.delete(self._kept, number, 0)

    def clear(self) -> None:
        """All that was kept is gone."""
        self._kept = self._kept[:0]

    def rate(self, result: Result) -> Worth:
        features = describe(result, self._classes)
        row = statistics.measure(result, self._classes)
        distance = float(distances(self._kept[-MOST_COMPARED:], features).min()) if len(self._kept) else 1.0
        margin = float(row[-1])
        uncertain, diverse = _rank(self._margins, margin, below=False), _rank(self._distances, distance, below=True)
        self._margins.append(margin)
        self._distances.append(distance)
        if distance < NEAR:
            return Worth({}, features)
        why = {"uncertain": uncertain, "diverse": diverse}
        why = {reason: rank for reason, rank in why.items() if rank >= RARE}
        if not len(self._kept):
            why["diverse"] = 1.0
        if self._reference:
            why |= self._reference.reasons(row)
        return Worth({reason: round(value, 4) for reason, value in why.items()}, features)


class _Reference:
    """Reference frames, as points in units of their standard deviations."""

    def __init__(self, reference: ReferenceStatistics):
        self._ranges = Ranges.of(reference, DAYS * 86400 * USUAL_FPS / (SHORTEST * EVERY))
        self._points = self._scaled(np.array(reference.rows, np.float64))
        apart = np.linalg.norm(self._points[:, None] - self._points[None], axis=2)
        np.fill_diagonal(apart, np.inf)
        self._usual = float(apart.min(1).max())

    def _scaled(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.nan_to_num((rows - self._ranges.mean) / self._ranges.deviation)

    def reasons(self, row: NDArray[np.float64]) -> dict[str, float]:
        outside = int(((row < self._ranges.low) | (row > self._ranges.high)).sum())
        nearest = float(np.linalg.norm(self._points - self._scaled(row), axis=1).min())
        why = {"drifted": min(1.0, outside / MOST_DRIFTED)} if outside else {}
        return {**why, "novel": 1.0} if nearest > self._usual else why


def describe(result: Result, classes: int) -> Features:
    """[8 * 8 * 3 + 4 * 4 * C]: the frame, small, 0 to 1, and the share of each class in each cell of a grid."""
    image = result.frame.image
    step = max(1, min(image.shape[:2]) // COARSE)
    small = cv2.resize(image[::step, ::step], (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    ids = np.arange(classes, dtype=np.uint8)[:, None, None]
    height, width = (side - side % GRID for side in result.classmap.shape)
    coarse = result.classmap[: height : max(1, height // COARSE), : width : max(1, width // COARSE)]
    layers = (coarse[None] == ids).astype(np.float32)
    cells = np.stack([cv2.resize(layer, (GRID, GRID), interpolation=cv2.INTER_AREA) for layer in layers])
    return np.concatenate([small.astype(np.float32).ravel() / 255, cells.ravel()])


def distances(kept: Features, features: Features) -> Features:
    """[N]: to each row of `kept`, root mean square over the thumbnail's pixels, plus that over the grid's cells."""
    square = (kept - features) ** 2
    picture = THUMBNAIL * THUMBNAIL * 3
    apart = np.sqrt(square[:, :picture].mean(1)) + np.sqrt(square[:, picture:].sum(1) / GRID**2)
    return np.asarray(apart, np.float32)


def _rank(latest: deque[float], value: float, below: bool) -> float:
    """The share of the latest values that are below (or above) this one; 0 while there are too few."""
    if len(latest) < FIRST:
        return 0.0
    values = np.array(latest)
    return float((values < value).mean() if below else (values > value).mean())
