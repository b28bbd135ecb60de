"""Segmentation metrics: count first, divide last."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image
from edgeseg.results.evaluation import ClassScores, Metrics

# Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013.
BOUNDARY_TOLERANCE = 0.0075  # of the image diagonal


# The columns of a count table: pixels right, predicted and labeled; boundary pixels: predicted near a true one, all
# predicted, true near a predicted one, all true.
RIGHT, PREDICTED, TRUTH, MATCHED, EDGE, FOUND, TRUE_EDGE = range(7)
Table = NDArray[np.int64]


class Counts:
    """Counts of right and wrong pixels over frames: `confusion` [truth, prediction], and one count table a frame.

    A table is [C, 7] (the columns above). Every metric is a ratio of sums of tables, so resampling frames
    (statistics.py) needs nothing else.
    """

    def __init__(self, classes: int, ignore_index: int | None = None):
        self.classes = classes
        self.ignore_index = ignore_index
        self.confusion = np.zeros((classes, classes), np.int64)
        self.frames: list[Table] = []

    def add(self, truth: Image, prediction: Image) -> None:
        """Count one pair of [H, W] uint8 class maps; pixels whose truth is the ignore id do not count. A prediction
        that is none of the classes is wrong, and no class's."""
        valid = counted(truth, self.classes, self.ignore_index)
        known = valid & (prediction < self.classes)
        confusion = confusion_of(truth[known], prediction[known], self.classes)
        self.confusion += confusion
        table = table_of(confusion)
        table[:, TRUTH] += np.bincount(truth[valid & ~known], minlength=self.classes)
        self._add_boundaries(table, truth, prediction, valid.astype(np.uint8))
        self.frames.append(table)

    def _add_boundaries(self, table: Table, truth: Image, prediction: Image, valid: Image) -> None:
        radius = max(1, round(BOUNDARY_TOLERANCE * float(np.hypot(*truth.shape))))
        near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        ring = np.ones((3, 3), np.uint8)
        inner: Image = np.asarray(cv2.erode(valid, ring), np.uint8)  # the rim of an ignored region is no boundary
        for c in np.union1d(truth[valid > 0], prediction[valid > 0]):
            if c >= self.classes:
                continue
            edges: list[Image] = [_rim(m == c, ring) & inner for m in (prediction, truth)]
            wide: list[Image] = [np.asarray(cv2.dilate(e, near), np.uint8) for e in edges]
            table[c, MATCHED:] = [
                np.count_nonzero(edges[0] & wide[1]),
                np.count_nonzero(edges[0]),
                np.count_nonzero(edges[1] & wide[0]),
                np.count_nonzero(edges[1]),
            ]

    def tables(self) -> Table:
        """[N, C, 7], one table a frame."""
        return np.stack(self.frames) if self.frames else np.zeros((0, self.classes, 7), np.int64)

    def metrics(self, names: tuple[str, ...]) -> Metrics:
        """Shares of 1. Classes that neither occur nor are predicted are left out of the means (None per class)."""
        total = self.tables().sum(0)
        by_metric = scores(total)
        return Metrics(
            miou=_mean(by_metric["iou"]),
            pixel_accuracy=float(total[:, RIGHT].sum() / max(1, total[:, TRUTH].sum())),
            mean_accuracy=_mean(by_metric["accuracy"]),
            dice=_mean(by_metric["dice"]),
            boundary_f1=_mean(by_metric["boundary_f1"]),
            per_class={
                name: ClassScores(**{k: _number(v[c]) for k, v in by_metric.items()}, pixels=int(total[c, TRUTH]))
                for c, name in enumerate(names)
            },
        )


def counted(truth: Image, classes: int, ignore_index: int | None) -> NDArray[np.bool_]:
    """[H, W]: the pixels that count."""
    return truth < classes if ignore_index is None else truth != ignore_index


def confusion_of(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int) -> Table:
    """[classes, classes]: pixels [truth, prediction], of two arrays of the ids of the same pixels."""
    pairs = truth.astype(np.int64) * classes + prediction
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def table_of(confusion: Table) -> Table:
    """A count table [C, 7] of a confusion matrix, which says nothing of boundaries."""
    table = np.zeros((len(confusion), 7), np.int64)
    table[:, RIGHT], table[:, PREDICTED], table[:, TRUTH] = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    return table


def scores(table: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Per class [..., C] from summed tables [..., C, 7]: iou, accuracy, dice, boundary_f1; NaN where undefined."""
    right, predicted, truth, matched, edge, found, true_edge = np.moveaxis(table.astype(float), -1, 0)
    precision, recall = np.nan_to_num(_ratio(matched, edge)), np.nan_to_num(_ratio(found, true_edge))
    f1 = _ratio(2 * precision * recall, precision + recall)
    f1[np.isnan(f1) & (edge + true_edge > 0)] = 0.0
    return {
        "iou": _ratio(right, truth + predicted - right),
        "accuracy": _ratio(right, truth),
        "dice": _ratio(2 * right, truth + predicted),
        "boundary_f1": f1,
    }


def _rim(region: NDArray[np.bool_], ring: Image) -> Image:
    return np.asarray(cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_GRADIENT, ring), np.uint8)


def _ratio(top: NDArray[Any], bottom: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0))


def _mean(values: NDArray[np.float64]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
