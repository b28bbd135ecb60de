"""Distillation losses: how far a student's logits or feature maps are from a teacher's.

Logits are [N, C, H, W], labels [N, H, W]; pixels labeled IGNORE never count.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edgeseg.training.objectives.losses import IGNORE

MASKED = -1e4  # a logit that no softmax gives any weight
GRID = 8  # cells per side at which pairwise similarities are compared


def soft_targets(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the classes at softmax temperature T, mean over labeled pixels (Hinton 2015)."""
    valid = labels != IGNORE
    target = (teacher / temperature).log_softmax(1)
    predicted = (student / temperature).log_softmax(1)
    per_pixel = (target.exp() * (target - predicted)).sum(1)
    return temperature**2 * (per_pixel * valid).sum() / valid.sum().clamp(min=1)


def channel_wise(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """T^2 KL of the softmaxes over the labeled positions, mean over classes and frames (Shu et al. 2021, eq. 5)."""
    ignored = (labels == IGNORE).flatten(1)[:, None]
    target = (teacher.flatten(2) / temperature).masked_fill(ignored, MASKED).log_softmax(2)
    predicted = (student.flatten(2) / temperature).masked_fill(ignored, MASKED).log_softmax(2)
    return temperature**2 * (target.exp() * (target - predicted)).sum(2).mean()


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance between the attention maps of two feature maps [N, any, h, w], 0..2, mean over frames.

    Zagoruyko & Komodakis 2017, eq. 2: the mean over channels of the squares, as a unit vector over positions. It has
    no weights, so the two maps may differ in channels; the finer one is averaged down to the coarser grid.
    """
    grid = _coarser(student, teacher)
    predicted, target = (
        F.normalize(F.adaptive_avg_pool2d(x.float().square().mean(1), grid).flatten(1)) for x in (student, teacher)
    )
    return (predicted - target).square().sum(1).mean()


def pairwise_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosine similarities between all pairs of positions, for maps [N, any, h, w].

    Pair-wise distillation (Liu et al. 2019, eq. 3; Tung & Mori 2019 compare frames of a batch likewise), on a grid of
    at most GRID x GRID cells.
    """
    height, width = (min(GRID, side) for side in _coarser(student, teacher))
    similarities = []
    for x in (student, teacher):
        cells = F.normalize(F.adaptive_avg_pool2d(x.float(), (height, width)).flatten(2))
        similarities.append(cells.transpose(1, 2) @ cells)
    return (similarities[0] - similarities[1]).square().mean()


def _coarser(one: Tensor, other: Tensor) -> tuple[int, int]:
    return min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
