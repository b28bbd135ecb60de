"""Ranges: the interval of each activation that INT8 represents, estimated on calibration frames in float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgeseg.images import Image
from edgeseg.quantization.rounding import scale_and_zero_point
from edgeseg.quantization.tensors import activation_names, tensor_values

Array = NDArray[Any]
Range = tuple[float, float]
BINS = 2048
TAIL = 1e-4  # share of values that `percentile` leaves out at either end
SHARES = np.linspace(1, 0.2, 81)  # of an end of the range, that `mse` tries
LEVELS = 128  # of |x| in `entropy`


def estimate_ranges(
    model: ModelProto, frames: Sequence[Image], method: str, symmetric: bool = False, names: Collection[str] = ()
) -> dict[str, Range]:
    """The range of every float activation of a deploy graph, or of `names`, over `frames` ([H, W, 3] uint8 BGR).

    `method`: see recipe.PTQ. `symmetric`: whether it will be rounded without a zero point.
    """
    names = sorted(names or activation_names(model))
    ends = np.array([[(x.min(), x.max()) for x in row] for row in tensor_values(model, frames, names)])
    low, high = (ends.mean(0) if method == "mean" else np.stack([ends[..., 0].min(0), ends[..., 1].max(0)], -1)).T
    if method in ("minmax", "mean"):
        return {name: (float(a), float(b)) for name, a, b in zip(names, low, high)}
    step = np.maximum(high - low, 1e-30) / BINS
    counts = np.zeros((len(names), BINS))
    for row in tensor_values(model, frames, names):
        for i, x in enumerate(row):
            bins = np.minimum(((x.ravel() - low[i]) / step[i]).astype(np.int32), BINS - 1)
            counts[i] += np.bincount(bins, minlength=BINS)
    edges = low[:, None] + step[:, None] * np.arange(BINS + 1)
    return {name: ESTIMATORS[method](h, e, symmetric) for name, h, e in zip(names, counts, edges)}


def percentile(counts: Array, edges: Array, symmetric: bool) -> Range:
    """Without the smallest and largest 0.01 % of all values."""
    below = np.cumsum(counts) / counts.sum()
    first, last = np.searchsorted(below, [TAIL, 1 - TAIL])
    return float(edges[first]), float(edges[min(last, BINS - 1) + 1])


def mse(counts: Array, edges: Array, symmetric: bool) -> Range:
    """The least squared error of rounding and clipping, over shares of the upper end, then of the lower."""
    centers = (edges[1:] + edges[:-1]) / 2

    def error(candidate: Range) -> float:
        scale, zero = scale_and_zero_point(*candidate, symmetric)
        smallest, largest = (-127, 127) if symmetric else (0, 255)
        rounded = (np.clip(np.round(centers / scale) + zero, smallest, largest) - zero) * scale
        return float(counts @ np.square(centers - rounded))

    low, high = float(edges[0]), float(edges[-1])
    if symmetric:
        top = max(-low, high)
        return min(((max(low, -top * share), min(high, top * share)) for share in SHARES), key=error)
    low, high = min(((low, high * share) for share in SHARES), key=error)
    return min(((low * share, high) for share in SHARES), key=error)


def entropy(counts: Array, edges: Array, symmetric: bool) -> Range:
    """The threshold t of |x| at which 128 levels lose the least: by KL divergence (Migacz 2017, "8-bit Inference").

    P is the distribution of |x| below t, with all values above t in its last bin; Q is the distribution below t in 128
    levels, without them.
    """
    centers = np.abs(edges[1:] + edges[:-1]) / 2
    top = float(np.abs(edges).max())
    folded, _ = np.histogram(centers, BINS, (0, top), weights=counts)
    folded[0] = folded[1]  # zeros, of which there are many behind a ReLU, are exact at every scale
    least, best_count = np.inf, BINS
    for count in range(LEVELS, BINS + 1, 8):
        p, inside = folded[:count].copy(), folded[:count]
        p[-1] += folded[count:].sum()
        level = np.arange(count) * LEVELS // count
        filled = np.maximum(np.bincount(level, inside > 0), 1)
        q = np.where(inside > 0, (np.bincount(level, inside) / filled)[level], 0)
        nonzero = p > 0
        if (q[nonzero] > 0).all() and nonzero.any():
            p, q = p[nonzero] / p.sum(), q[nonzero] / q.sum()
            divergence = float(p @ np.log(p / q))
            least, best_count = min((least, best_count), (divergence, count))
    threshold = top * best_count / BINS
    return max(float(edges[0]), -threshold), min(float(edges[-1]), threshold)


# From a histogram, counts [BINS] and edges [BINS + 1], and whether rounding is symmetric.
Estimator = Callable[[Array, Array, bool], Range]
ESTIMATORS: dict[str, Estimator] = {"percentile": percentile, "mse": mse, "entropy": entropy}
