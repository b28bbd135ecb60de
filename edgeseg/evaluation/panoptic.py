"""Panoptic quality (Kirillov et al. 2019, arXiv 1801.00868): count first, divide last.

A predicted and a labeled segment of one class match where their IoU is above 0.5, of which there is at most one. Void
pixels of the label count for nothing. Segments that lie mostly in void, or in a crowd of their own class, are no
errors, nor are crowds that nothing matches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import OptionError
from edgeseg.evaluation.statistics import Estimate, Metric, estimate
from edgeseg.panoptic import VOID, PanopticMap, Segment

# The columns of a count table: the sum of the IoU of matches, matches, unmatched predictions, unmatched labels.
IOU, MATCHES, FALSE, MISSED = range(4)
Table = NDArray[np.float64]


def count(truth: PanopticMap, found: PanopticMap, classes: int) -> Table:
    """[classes, 4] counts of one frame. OptionError for maps of two sizes."""
    if truth.ids.shape != found.ids.shape:
        raise OptionError(
            f"The labels are {truth.ids.shape[::-1]}, the prediction {found.ids.shape[::-1]} pixels.",
            "Both must have one size.",
        )
    common = _overlaps(truth, found)
    table = np.zeros((classes, 4))
    labeled = {segment.id: segment for segment in truth.segments if not segment.crowd}
    crowds = [segment for segment in truth.segments if segment.crowd]
    matched: set[int] = set()
    for segment in found.segments:
        match, iou = _match(segment, labeled, common)
        if match:
            matched.add(match)
            table[segment.class_id, [IOU, MATCHES]] += iou, 1
        else:
            same = [crowd.id for crowd in crowds if crowd.class_id == segment.class_id]
            nowhere = common[[VOID, *same], segment.id].sum()
            table[segment.class_id, FALSE] += nowhere <= segment.area / 2
    for segment in labeled.values():
        table[segment.class_id, MISSED] += segment.id not in matched
    return table


def _overlaps(truth: PanopticMap, found: PanopticMap) -> NDArray[np.int64]:
    """[labels, predictions] pixels that have both ids."""
    rows, columns = (max((s.id for s in m.segments), default=0) + 1 for m in (truth, found))
    pairs = truth.ids.astype(np.int64) * columns + found.ids
    return np.bincount(pairs.ravel(), minlength=rows * columns).reshape(rows, columns)


def _match(segment: Segment, labeled: dict[int, Segment], common: NDArray[np.int64]) -> tuple[int, float]:
    """The id of the labeled segment that a predicted one matches, and their IoU; 0 where there is none."""
    for other in np.flatnonzero(common[:, segment.id]).tolist():
        label = labeled.get(other)
        if label and label.class_id == segment.class_id:
            both = common[other, segment.id]
            union = label.area + segment.area - both - common[VOID, segment.id]
            if 2 * both > union:
                return other, float(both / union)
    return 0, 0.0


def quality(tables: Table) -> tuple[Table, Table, Table]:
    """PQ, SQ and RQ [..., classes] of summed tables [..., classes, 4]; NaN for a class that is nowhere.

    PQ = SQ x RQ: how well matches fit (mean IoU), and how many there are (the F1 score).
    """
    total, matches = tables[..., IOU], tables[..., MATCHES]
    judged = matches + (tables[..., FALSE] + tables[..., MISSED]) / 2
    nothing = np.full(np.shape(total), np.nan)
    rq = np.divide(matches, judged, out=nothing.copy(), where=judged > 0)
    sq = np.divide(total, matches, out=np.where(judged > 0, 0.0, np.nan), where=matches > 0)
    return sq * rq, sq, rq


@dataclass(frozen=True)
class PanopticScores:
    """Means over the classes that are there, with an interval over frames: of all classes, of things and of stuff.

    `classes`: PQ, SQ and RQ of each, NaN where it is nowhere.
    """

    pq: Estimate
    sq: Estimate
    rq: Estimate
    things: Estimate
    stuff: Estimate
    classes: tuple[tuple[float, float, float], ...]


def score(tables: Table, things: tuple[int, ...], seed: int = 0) -> PanopticScores:
    """The scores of the tables [frames, classes, 4] of a dataset."""
    every = range(tables.shape[1])
    metrics = [_mean_of(which, list(every)) for which in range(3)]
    metrics += [_mean_of(0, ids) for ids in ([c for c in every if c in things], [c for c in every if c not in things])]
    pq, sq, rq, thing, stuff = (estimate(tables, metric, seed=seed) for metric in metrics)  # type: ignore[arg-type]
    by_class = np.stack(quality(tables.sum(0)), -1)
    return PanopticScores(pq, sq, rq, thing, stuff, tuple(map(tuple, by_class.tolist())))


def _mean_of(which: int, ids: list[int]) -> Metric:
    """The mean over the classes `ids` of PQ, SQ or RQ (0, 1, 2)."""

    def metric(tables: NDArray[np.float64]) -> NDArray[np.float64]:
        values = quality(tables)[which][..., ids]
        known = ~np.isnan(values)
        number = known.sum(-1)
        total: NDArray[np.float64] = np.where(known, values, 0.0).sum(-1)
        return np.asarray(np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0))

    return metric
