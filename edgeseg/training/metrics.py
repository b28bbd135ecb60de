"""Accuracy during training, from pixel counts on the device. Shipped models are measured by `edgeseg.evaluation`."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg.training.objectives.losses import IGNORE


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Pixel counts [C, C]: rows are labels, columns are predictions."""
    classes = logits.shape[1]
    valid = labels != IGNORE
    pairs = labels[valid] * classes + logits.argmax(1)[valid]
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def mean_iou(counts: Tensor) -> float:
    """Mean intersection over union, 0..1, over the classes that were labeled or predicted; 0 where none was."""
    hit = counts.diag().double()
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    seen = union > 0
    return float((hit[seen] / union[seen]).mean()) if seen.any() else 0.0


def pixel_accuracy(counts: Tensor) -> float:
    """Fraction of the labeled pixels that are right, 0..1; 0 where none is labeled."""
    return float(counts.diag().sum() / counts.sum().clamp(min=1))
