"""Losses on logits [N, C, H, W] and labels [N, H, W]; pixels labelled IGNORE never count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labelled pixels; 0 where there are none."""
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - soft Dice coefficient (Milletari et al. 2016, without squares), mean over the classes in the batch."""
    valid = labels != IGNORE
    ids = labels.masked_fill(~valid, 0)
    share = logits.softmax(1)
    own = share.gather(1, ids[:, None])[:, 0] * valid
    # Summed per class by index: a one-hot tensor would cost several times the whole net.
    overlap = own.new_zeros(logits.shape[1]).index_add(0, ids.flatten(), own.flatten())
    truth = torch.bincount(labels[valid], minlength=logits.shape[1])
    size = (share * valid[:, None]).sum((0, 2, 3)) + truth
    scores = 1 - 2 * overlap / size.clamp(min=1e-6)
    return scores[truth > 0].sum() / (truth > 0).sum().clamp(min=1)


def soft_targets(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the classes at softmax temperature T, mean over labelled pixels (Hinton 2015)."""
    valid = labels != IGNORE
    wanted = (teacher / temperature).log_softmax(1)
    got = (student / temperature).log_softmax(1)
    per_pixel = (wanted.exp() * (wanted - got)).sum(1)
    return temperature**2 * (per_pixel * valid).sum() / valid.sum().clamp(min=1)


def channel_wise(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL between the softmaxes over positions, mean over classes and frames (Shu et al. 2021, eq. 5)."""
    wanted = (teacher.flatten(2) / temperature).log_softmax(2)
    got = (student.flatten(2) / temperature).log_softmax(2)
    return temperature**2 * (wanted.exp() * (wanted - got)).sum(2).mean()


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Pixel counts [C, C]: rows are labels, columns are predictions."""
    classes = logits.shape[1]
    valid = labels != IGNORE
    pairs = labels[valid] * classes + logits.argmax(1)[valid]
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def mean_iou(counts: Tensor) -> float:
    """Mean intersection over union, 0..1, over the classes that were labelled or predicted; 0 where none was."""
    hit = counts.diag().double()
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    seen = union > 0
    return float((hit[seen] / union[seen]).mean()) if seen.any() else 0.0
