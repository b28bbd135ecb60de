"""Segmentation metrics: count first, divide last."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.images import Image

# Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013.
BOUNDARY_TOLERANCE = 0.0075  # of the image diagonal


class Counts:
    """What a set of class maps got right: `confusion` [truth, prediction] pixels, and boundary pixels per class.

    `boundary` is [C, 4]: predicted boundary pixels near a true one, all predicted, true near a predicted, all true.
    """

    def __init__(self, classes: int, ignore_index: int | None = None):
        self.classes = classes
        self.ignore_index = ignore_index
        self.confusion = np.zeros((classes, classes), np.int64)
        self.boundary = np.zeros((classes, 4), np.int64)

    def add(self, truth: Image, prediction: Image) -> None:
        """Count one pair of [H, W] uint8 class maps; pixels whose truth is the ignore id do not count."""
        valid = truth < self.classes if self.ignore_index is None else truth != self.ignore_index
        pairs = truth[valid].astype(np.int64) * self.classes + prediction[valid]
        self.confusion += np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)
        self._add_boundaries(truth, prediction, valid.astype(np.uint8))

    def _add_boundaries(self, truth: Image, prediction: Image, valid: Image) -> None:
        radius = max(1, round(BOUNDARY_TOLERANCE * float(np.hypot(*truth.shape))))
        near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        ring = np.ones((3, 3), np.uint8)
        inner: Image = np.asarray(cv2.erode(valid, ring), np.uint8)  # the rim of an ignored region is nobody's boundary
        for c in np.union1d(truth[valid > 0], prediction[valid > 0]):
            edges: list[Image] = [_rim(m == c, ring) & inner for m in (prediction, truth)]
            wide: list[Image] = [np.asarray(cv2.dilate(e, near), np.uint8) for e in edges]
            self.boundary[c] += [
                np.count_nonzero(edges[0] & wide[1]),
                np.count_nonzero(edges[0]),
                np.count_nonzero(edges[1] & wide[0]),
                np.count_nonzero(edges[1]),
            ]

    def metrics(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Shares of 1. Classes that neither occur nor are predicted are left out of the means (None per class)."""
        right = np.diag(self.confusion).astype(float)
        truth, guess = self.confusion.sum(1), self.confusion.sum(0)
        matched, edge, found, true_edge = self.boundary.T.astype(float)
        iou = _ratio(right, truth + guess - right)
        recall = _ratio(right, truth)
        dice = _ratio(2 * right, truth + guess)
        precision_b, recall_b = _ratio(matched, edge), _ratio(found, true_edge)
        f1 = _ratio(2 * np.nan_to_num(precision_b * recall_b), np.nan_to_num(precision_b) + np.nan_to_num(recall_b))
        f1[np.isnan(f1) & (edge + true_edge > 0)] = 0.0
        table = {"iou": iou, "accuracy": recall, "dice": dice, "boundary_f1": f1}
        return {
            "miou": _mean(iou),
            "pixel_accuracy": float(right.sum() / max(1, truth.sum())),
            "mean_accuracy": _mean(recall),
            "dice": _mean(dice),
            "boundary_f1": _mean(f1),
            "per_class": {
                name: {**{k: _number(v[c]) for k, v in table.items()}, "pixels": int(truth[c])}
                for c, name in enumerate(names)
            },
        }


def _rim(region: NDArray[np.bool_], ring: Image) -> Image:
    return np.asarray(cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_GRADIENT, ring), np.uint8)


def agreement(a: Image, b: Image) -> float:
    """The share of pixels on which two class maps agree."""
    return float((a == b).mean())


def _ratio(top: NDArray[Any], bottom: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0))


def _mean(values: NDArray[np.float64]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
