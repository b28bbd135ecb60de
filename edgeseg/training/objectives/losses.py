"""Losses on logits [N, C, H, W] and labels [N, H, W]; pixels labeled IGNORE never count."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255
NEVER = -1e4  # a logit that is never chosen
PLACES = 8


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, smoothing: float = 0.0, ohem: float = 0.0
) -> Tensor:
    """Mean over the labeled pixels, weighted by `weights` [C] of their classes; 0 where there are none.

    `smoothing`: share of every label that is spread evenly over all classes (Szegedy et al. 2016). `ohem`: only this
    share of the pixels counts, those with the highest cross-entropy (Shrivastava et al. 2016); 0 = all.
    """
    if ohem:
        labels = hardest(logits, labels, ohem)
    total = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
    valid = labels != IGNORE
    if weights is None:
        return total / valid.sum().clamp(min=1)
    return total / weights[labels[valid]].sum().clamp(min=1e-6)


@torch.no_grad()
def hardest(logits: Tensor, labels: Tensor, share: float) -> Tensor:
    """`labels` with all but `share` of the labeled pixels, those with the highest cross-entropy, set to IGNORE."""
    valid = labels != IGNORE
    keep = math.ceil(share * int(valid.sum()))
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").masked_fill(~valid, -1)
    chosen = losses.flatten().topk(keep).indices
    return torch.full_like(labels, IGNORE).flatten().scatter(0, chosen, labels.flatten()[chosen]).reshape(labels.shape)


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


def lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovasz-softmax (Berman et al. 2018, algorithm 1): a convex surrogate of 1 - IoU, mean over the classes labeled.

    Sorts all pixels once per class: dearer than the other losses.
    """
    valid = labels != IGNORE
    truth = labels[valid]
    shares = logits.softmax(1).movedim(1, 0)[:, valid]  # [C, pixels]
    losses = []
    for index in torch.bincount(truth).nonzero()[:, 0]:
        own = (truth == index).float()
        errors, order = (own - shares[index]).abs().sort(descending=True)
        hits = own[order]
        # Jaccard loss if the k worst pixels were wrong, for every k; its steps weight the sorted errors.
        jaccard = 1 - (hits.sum() - hits.cumsum(0)) / (hits.sum() + (1 - hits).cumsum(0))
        losses.append(errors @ torch.diff(jaccard, prepend=jaccard.new_zeros(1)))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def boundary(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the pixels at a boundary alone, as PIDNet adds it (Xu et al. 2023, eq. 2).

    At a boundary lies a labeled pixel with one of another class among its eight neighbors.
    """
    valid = labels != IGNORE
    ids = labels.float()[:, None]
    highest = F.max_pool2d(ids.masked_fill(~valid[:, None], -1), 3, 1, 1)
    lowest = -F.max_pool2d(-ids, 3, 1, 1)  # IGNORE is the highest id, and the padding never counts
    edge = valid & (highest != lowest)[:, 0]
    return cross_entropy(logits, labels.masked_fill(~edge, IGNORE))


def soft_targets(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the classes at softmax temperature T, mean over labeled pixels (Hinton 2015)."""
    valid = labels != IGNORE
    wanted = (teacher / temperature).log_softmax(1)
    got = (student / temperature).log_softmax(1)
    per_pixel = (wanted.exp() * (wanted - got)).sum(1)
    return temperature**2 * (per_pixel * valid).sum() / valid.sum().clamp(min=1)


def channel_wise(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """T^2 KL of the softmaxes over the labeled positions, mean over classes and frames (Shu et al. 2021, eq. 5)."""
    nowhere = (labels == IGNORE).flatten(1)[:, None]
    wanted = (teacher.flatten(2) / temperature).masked_fill(nowhere, NEVER).log_softmax(2)
    got = (student.flatten(2) / temperature).masked_fill(nowhere, NEVER).log_softmax(2)
    return temperature**2 * (wanted.exp() * (wanted - got)).sum(2).mean()


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of where two maps [N, any, h, w] are active, 0..2, mean over frames.

    Attention transfer (Zagoruyko & Komodakis 2017, eq. 2): the mean over channels of the squares, as a unit vector over
    positions. Nothing is learnt for it, so that a map fits one of any other channels; strides are made equal by
    averaging to the coarser grid.
    """
    grid = _coarser(student, teacher)
    got, wanted = (
        F.normalize(F.adaptive_avg_pool2d(x.float().square().mean(1), grid).flatten(1)) for x in (student, teacher)
    )
    return (got - wanted).square().sum(1).mean()


def structure(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of how alike the places of a frame are, for maps [N, any, h, w].

    Pair-wise distillation (Liu et al. 2019, eq. 3; Tung & Mori 2019 compare frames of a batch likewise): the cosine of
    the features of every two places, on a grid of at most PLACES x PLACES.
    """
    height, width = (min(PLACES, side) for side in _coarser(student, teacher))
    alike = []
    for x in (student, teacher):
        places = F.normalize(F.adaptive_avg_pool2d(x.float(), (height, width)).flatten(2))
        alike.append(places.transpose(1, 2) @ places)
    return (alike[0] - alike[1]).square().mean()


def _coarser(one: Tensor, other: Tensor) -> tuple[int, int]:
    return min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])


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
    """Share of the labeled pixels that are right, 0..1; 0 where none is labeled."""
    return float(counts.diag().sum() / counts.sum().clamp(min=1))
