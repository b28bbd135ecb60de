"""Choosing frames that cover all others, and measuring how well they do.

Every frame is a point in feature space; greedy k-center (Gonzalez 1985; as core set Sener & Savarese 2018) adds the
frame that is farthest from all chosen ones, so that no frame is far from a chosen one. The resulting radius is at most
twice the smallest possible.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeseg.calibration.features import Floats, FrameFeatures
from edgeseg.results.calibration import ClassCoverage, Coverage

RANDOM_SETS = 20  # random sets of the same size that the chosen one is compared with


def standardize(groups: dict[str, Floats]) -> Floats:
    """Feature groups [N, d] joined to points [N, D] with a mean squared distance of 1 from their mean.

    Every group that varies contributes the same. Class shares are compared by their roots (Hellinger), each class in
    units of its own standard deviation: a rare one counts as much as the road.
    """
    columns = []
    for name, group in groups.items():
        if name in ("classes", "predicted"):
            group = np.sqrt(group)
            group = group / np.maximum(1e-9, group.std(0))
        group = group - group.mean(0)
        scale = float(np.sqrt((group**2).sum(1).mean()))
        if scale > 1e-9:
            columns.append(group / scale)
    if not columns:
        return np.zeros((len(next(iter(groups.values()))), 1))
    return np.asarray(np.concatenate(columns, 1) / np.sqrt(len(columns)), float)


def k_center(points: Floats, count: int, seed: int) -> list[int]:
    """Indices of `count` of the points [N, D], at most N: a random one, then always the farthest from those chosen."""
    chosen = [int(np.random.default_rng(seed).integers(len(points)))]
    distances = nearest_distances(points, chosen)
    while len(chosen) < min(count, len(points)):
        distances[chosen[-1]] = -1  # never twice, even if all points are equal
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, nearest_distances(points, chosen[-1:]))
    return chosen


def nearest_distances(points: Floats, chosen: Sequence[int]) -> Floats:
    """[N]: the distance of each point to the nearest chosen one."""
    nearest = np.full(len(points), np.inf)
    for i in chosen:
        nearest = np.minimum(nearest, np.sqrt(((points - points[i]) ** 2).sum(1)))
    return nearest


def measure_coverage(features: FrameFeatures, chosen: Sequence[int], classes: tuple[str, ...]) -> Coverage:
    """How well the `chosen` frames cover all of them, compared with RANDOM_SETS random sets of the same size."""
    points = standardize(features.groups)
    random = np.random.default_rng(0)
    draws = [random.choice(len(features), len(chosen), replace=False) for _ in range(RANDOM_SETS)]
    rows = list(chosen)
    return Coverage(
        compared_by=tuple(features.groups),
        radius=round(float(nearest_distances(points, rows).max()), 3),
        radius_random=round(float(np.mean([nearest_distances(points, draw.tolist()).max() for draw in draws])), 3),
        brightness=_extremes(features.brightness[rows]),
        brightness_of_all=_extremes(features.brightness),
        classes=_class_coverage(features, rows, classes),
    )


def _class_coverage(
    features: FrameFeatures, rows: list[int], classes: tuple[str, ...]
) -> dict[str, ClassCoverage] | None:
    shares = features.groups.get("classes", features.groups.get("predicted"))
    if shares is None:
        return None
    return {
        name: ClassCoverage(
            share=round(float(shares[rows, c].mean()), 5),
            share_of_all=round(float(shares[:, c].mean()), 5),
            frames=int((shares[rows, c] > 0).sum()),
            frames_of_all=int((shares[:, c] > 0).sum()),
        )
        for c, name in enumerate(classes)
    }


def _extremes(values: Floats) -> tuple[float, float]:
    return round(float(values.min()), 1), round(float(values.max()), 1)
