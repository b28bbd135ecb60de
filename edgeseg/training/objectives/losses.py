"""Losses on logits [N, C, H, W] and labels [N, H, W]; pixels labeled IGNORE never count."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, smoothing: float = 0.0, ohem: float = 0.0
) -> Tensor:
    """Mean over the labeled pixels, weighted by `weights` [C] of their classes; 0 where there are none.

    `smoothing`: the fraction of every label spread evenly over all classes (Szegedy et al. 2016). `ohem`: only this
    fraction of the pixels counts, those with the highest cross-entropy (Shrivastava et al. 2016); 0 = all.
    """
    if ohem:
        labels = hardest(logits, labels, ohem)
    total = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
    valid = labels != IGNORE
    if weights is None:
        return total / valid.sum().clamp(min=1)
    return total / weights[labels[valid]].sum().clamp(min=1e-6)


def focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Mean of (1 - p)^gamma times the cross-entropy over the labeled pixels, p the probability of the true class
    (Lin et al. 2017, eq. 4); 0 where there are none."""
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")  # 0 where ignored
    # The slope of x^gamma is infinite at 0 for gamma below 1, and a pixel may be that sure.
    unsure = (1 - torch.exp(-losses)).clamp(min=1e-6) if gamma else torch.ones_like(losses)
    return (unsure**gamma * losses).sum() / (labels != IGNORE).sum().clamp(min=1)


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
    return tversky(logits, labels, beta=0.5)


def tversky(logits: Tensor, labels: Tensor, beta: float) -> Tensor:
    """1 - soft Tversky index (Salehi et al. 2017, eq. 3), mean over the classes in the batch.

    `beta`: weight of the missed pixels, 1 - beta that of the false ones; 0.5 is Dice.
    """
    valid = labels != IGNORE
    ids = labels.masked_fill(~valid, 0)
    probabilities = logits.softmax(1)
    own = probabilities.gather(1, ids[:, None])[:, 0] * valid
    # Summed per class by index: a one-hot tensor would cost several times the whole net.
    overlap = own.new_zeros(logits.shape[1]).index_add(0, ids.flatten(), own.flatten())
    truth = torch.bincount(labels[valid], minlength=logits.shape[1])
    predicted = (probabilities * valid[:, None]).sum((0, 2, 3))
    # overlap + (1 - beta) (predicted - overlap) + beta (truth - overlap)
    scores = 1 - overlap / ((1 - beta) * predicted + beta * truth).clamp(min=1e-6)
    return scores[truth > 0].sum() / (truth > 0).sum().clamp(min=1)


def lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovasz-softmax (Berman et al. 2018, algorithm 1): a convex surrogate of 1 - IoU, mean over the classes labeled.

    Sorts all pixels once per class, so it costs more than the other losses.
    """
    valid = labels != IGNORE
    truth = labels[valid]
    probabilities = logits.softmax(1).movedim(1, 0)[:, valid]  # [C, pixels]
    losses = []
    for index in torch.bincount(truth).nonzero()[:, 0]:
        own = (truth == index).float()
        errors, order = (own - probabilities[index]).abs().sort(descending=True)
        hits = own[order]
        # Jaccard loss if the k worst pixels were wrong, for every k; its steps weight the sorted errors.
        jaccard = 1 - (hits.sum() - hits.cumsum(0)) / (hits.sum() + (1 - hits).cumsum(0))
        losses.append(errors @ torch.diff(jaccard, prepend=jaccard.new_zeros(1)))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def boundary(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over boundary pixels only, as PIDNet adds it (Xu et al. 2023, eq. 2).

    A labeled pixel is at a boundary if one of its eight neighbors is labeled with another class.
    """
    valid = labels != IGNORE
    ids = labels.float()[:, None]
    highest = F.max_pool2d(ids.masked_fill(~valid[:, None], -1), 3, 1, 1)
    lowest = -F.max_pool2d(-ids, 3, 1, 1)  # IGNORE is the highest id, and the padding never counts
    edge = valid & (highest != lowest)[:, 0]
    return cross_entropy(logits, labels.masked_fill(~edge, IGNORE))
