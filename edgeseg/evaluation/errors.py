"""Where a model errs: near edges or away from them, on small or large objects, in dark or bright frames."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.evaluation.metrics import RIGHT, TRUTH, Table
from edgeseg.evaluation.statistics import miou
from edgeseg.images import Image
from edgeseg.results.evaluation import EdgeBand, ErrorStudy, SizeBand, Slice

# Upper ends of the distance to the nearest edge between two labels, in pixels at the label's size.
DISTANCES = (1, 2, 4, 8, 16, np.inf)
# Upper ends of an object's area as a share of the frame.
AREAS = (0.0001, 0.001, 0.01, 1.0)
FOUND = 0.5  # an object counts as found when this share of its pixels has its class
SLICES = 3


@dataclass
class Errors:
    """Accumulates errors: add() every frame in the dataset's order, then call summary()."""

    classes: int
    ignore_index: int | None = None
    bands: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(DISTANCES), 2), np.int64))
    objects: NDArray[np.int64] = field(init=False)
    brightness: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.objects = np.zeros((self.classes, len(AREAS), 2), np.int64)

    def add(self, frame: Image, truth: Image, prediction: Image) -> None:
        """One frame [H, W, 3] and its class maps [H, W], truth and prediction."""
        right = truth == prediction
        self._add_bands(truth, right)
        self._add_objects(truth, right)
        self.brightness.append(float(frame.mean()))

    def _add_bands(self, truth: Image, right: NDArray[np.bool_]) -> None:
        valid = truth < self.classes if self.ignore_index is None else truth != self.ignore_index
        edge = np.zeros(truth.shape, bool)
        across, down = truth[:, 1:] != truth[:, :-1], truth[1:] != truth[:-1]
        edge[:, 1:] |= across
        edge[:, :-1] |= across
        edge[1:] |= down
        edge[:-1] |= down
        distance = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 3) + 1  # a pixel at the edge has 1
        band = np.searchsorted(DISTANCES, distance)
        for i in range(len(DISTANCES)):
            here = (band == i) & valid
            self.bands[i] += [np.count_nonzero(right & here), np.count_nonzero(here)]

    def _add_objects(self, truth: Image, right: NDArray[np.bool_]) -> None:
        """An object is a connected region of one label; two of one class that touch count as one."""
        for c in np.unique(truth[truth < self.classes]):
            if c == self.ignore_index:
                continue
            count, regions, stats, _ = cv2.connectedComponentsWithStats((truth == c).astype(np.uint8), connectivity=8)
            hits = np.bincount(regions.ravel(), weights=right.ravel(), minlength=count)[1:]
            areas = stats[1:, cv2.CC_STAT_AREA]
            size = np.searchsorted(AREAS, areas / truth.size)
            found = hits >= FOUND * areas
            for i in range(len(AREAS)):
                self.objects[c, i] += [np.count_nonzero(found & (size == i)), np.count_nonzero(size == i)]

    def summary(self, tables: Table, names: tuple[str, ...]) -> ErrorStudy:
        """`edges`: accuracy by distance to the nearest edge; `objects`: share found, by class and size; `slices`: mIoU
        of the darkest, middle and brightest frames. `tables` are the frames' count tables [N, C, 7]."""
        return ErrorStudy(
            edges=tuple(
                EdgeBand(None if np.isinf(top) else top, _share(row), int(row[1]))
                for top, row in zip(DISTANCES, self.bands)
            ),
            objects={
                name: tuple(SizeBand(top, _share(row), int(row[1])) for top, row in zip(AREAS, rows))
                for name, rows in zip(names, self.objects)
            },
            slices=self._slices(tables),
        )

    def _slices(self, tables: Table) -> tuple[Slice, ...]:
        order = np.argsort(self.brightness)
        rows = []
        for part in np.array_split(order, min(SLICES, len(order))):
            brightness = [self.brightness[i] for i in part]
            total = tables[part].sum(0)
            right, truth = int(total[:, RIGHT].sum()), int(total[:, TRUTH].sum())
            mean_iou = float(miou(total))
            name = f"brightness {min(brightness):.0f} to {max(brightness):.0f}"
            rows.append(Slice(name, len(part), None if np.isnan(mean_iou) else mean_iou, right / max(1, truth)))
        return tuple(rows)


def _share(row: NDArray[np.int64]) -> float | None:
    return float(row[0] / row[1]) if row[1] else None
