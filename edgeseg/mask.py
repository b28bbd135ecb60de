"""Logits at the head's stride -> class map at full size, equal to a dense bilinear upsample + argmax.

Argmax of a bilinear upsample is constant inside a cell whose four corner logit vectors have the same argmax, since a
convex combination keeps the winner. So: argmax at the head's stride, fill the cells that agree, interpolate only the
others. _mask.c does this; where it could not be built, numpy does the same, slower, with equal results. frame_map goes
straight to the size of the frame: no class is decided twice.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.fit import Placement

try:
    from edgeseg import _mask  # type: ignore[attr-defined,unused-ignore]
except ImportError:  # no C compiler when edgeseg was installed
    _mask = None

Logits = NDArray[np.float32]
ClassMap = NDArray[np.uint8]
Axis = tuple[NDArray[np.int32], NDArray[np.float32]]
"""For each pixel of one axis: the lower index into the logits, and the weight of the next one."""
UPSAMPLES = ("half_pixel", "align_corners", "asymmetric", "none")


def compiled() -> bool:
    """Whether the C kernel is there."""
    return _mask is not None


def class_map(logits: Logits, height: int, width: int, upsample: str) -> ClassMap:
    """[C, h, w] float32 -> [height, width] uint8, C up to 256; a tie goes to the lowest class.

    `upsample` names the bilinear convention of the model's own last resize (ONNX: coordinate_transformation_mode);
    `none` where the logits already have the full size.
    """
    _, h, w = logits.shape
    if upsample == "none" or (h, w) == (height, width):
        return _argmax(logits)
    return _filled(logits, _axis(height, h, upsample), _axis(width, w, upsample))


def frame_map(logits: Logits, height: int, width: int, upsample: str, placed: Placement) -> ClassMap:
    """class_map of the part of a frame that was seen, at the frame's own size: [placed.seen.height, .width] uint8.

    `height`, `width`: of the network's input. A pixel's logits are those of where its middle lies in the input.
    """
    _, h, w = logits.shape
    seen, filled = placed.seen, placed.filled
    rows = _frame_axis(seen.height, filled.top, filled.height, height, h, upsample)
    return _filled(logits, rows, _frame_axis(seen.width, filled.left, filled.width, width, w, upsample))


def _argmax(logits: Logits) -> ClassMap:
    """[C, h, w] float32 -> [h, w] uint8; a tie goes to the lowest class."""
    if _mask is None:
        return np.asarray(logits.argmax(0), np.uint8)
    out: ClassMap = np.empty(logits.shape[1:], np.uint8)
    _mask.argmax(np.ascontiguousarray(logits, np.float32), len(logits), out)
    return out


def _filled(logits: Logits, rows: Axis, columns: Axis) -> ClassMap:
    if _mask is None:
        return _sparse(logits, rows, columns)
    out: ClassMap = np.empty((len(rows[0]), len(columns[0])), np.uint8)
    logits = np.ascontiguousarray(logits, np.float32)
    _mask.class_map(logits, *logits.shape, *rows, *columns, out, None)
    return out


def class_map_margin(logits: Logits, height: int, width: int, upsample: str) -> tuple[ClassMap, NDArray[np.float32]]:
    """class_map, and by how much each pixel's best logit beats the second best: [height, width] float32, >= 0."""
    if _mask is None or upsample == "none":
        full = upsampled(logits, height, width, upsample)
        second, first = np.partition(full, -2, axis=0)[-2:]
        return np.asarray(full.argmax(0), np.uint8), np.asarray(first - second, np.float32)
    classes, h, w = logits.shape
    out: ClassMap = np.empty((height, width), np.uint8)
    margin = np.empty((height, width), np.float32)
    logits = np.ascontiguousarray(logits, np.float32)
    _mask.class_map(logits, classes, h, w, *_axis(height, h, upsample), *_axis(width, w, upsample), out, margin)
    return out, margin


@lru_cache(maxsize=64)
def _axis(size: int, small: int, upsample: str) -> Axis:
    """Of `size` pixels of the input, which `small` logits span (ONNX Resize, float64)."""
    return _at(np.arange(size, dtype=np.float64), size, small, upsample)


@lru_cache(maxsize=64)
def _frame_axis(seen: int, begin: int, filled: int, size: int, small: int, upsample: str) -> Axis:
    """Of `seen` pixels of a frame that became `filled` pixels of the input, from `begin` on."""
    out = np.arange(seen, dtype=np.float64)
    return _at((out + 0.5) * (filled / seen) - 0.5 + begin, size, small, upsample)


def _at(out: NDArray[np.floating[Any]], size: int, small: int, upsample: str) -> Axis:
    if upsample == "align_corners":
        at = out * ((small - 1) / (size - 1)) if size > 1 else out
    elif upsample == "asymmetric":
        at = out * (small / size)
    elif upsample == "none":
        at = out
    else:
        at = (out + 0.5) * (small / size) - 0.5
    at = at.clip(0, small - 1)
    low = np.minimum(at.astype(np.int32), max(small - 2, 0))
    return low, (at - low).astype(np.float32)


def dense(logits: Logits, height: int, width: int, upsample: str) -> ClassMap:
    """Upsample every logit, then argmax: the reference that class_map is tested against."""
    return np.asarray(upsampled(logits, height, width, upsample).argmax(0), np.uint8)


def upsampled(logits: Logits, height: int, width: int, upsample: str) -> Logits:
    """[C, h, w] -> [C, height, width], bilinear."""
    _, h, w = logits.shape
    if upsample == "none" or (h, w) == (height, width):
        return logits
    return interpolated(logits, _axis(height, h, upsample), _axis(width, w, upsample))


def interpolated(logits: Logits, at_rows: Axis, at_columns: Axis) -> Logits:
    """[C, h, w] at the given rows and columns."""
    _, h, w = logits.shape
    (y, wy), (x, wx) = at_rows, at_columns
    rows = logits[:, y] * (1 - wy)[:, None] + logits[:, np.minimum(y + 1, h - 1)] * wy[:, None]
    return np.asarray(rows[:, :, x] * (1 - wx) + rows[:, :, np.minimum(x + 1, w - 1)] * wx, np.float32)


def sparse(logits: Logits, height: int, width: int, upsample: str) -> ClassMap:
    """class_map in numpy: fill the cells that agree, interpolate only the pixels of the others."""
    _, h, w = logits.shape
    if upsample == "none" or (h, w) == (height, width):
        return np.asarray(logits.argmax(0), np.uint8)
    return _sparse(logits, _axis(height, h, upsample), _axis(width, w, upsample))


def _sparse(logits: Logits, rows: Axis, columns: Axis) -> ClassMap:
    _, h, w = logits.shape
    win = np.asarray(logits.argmax(0), np.uint8)
    (y, wy), (x, wx) = rows, columns
    below, right = np.minimum(y + 1, h - 1), np.minimum(x + 1, w - 1)
    corners = [win[np.ix_(a, b)] for a in (y, below) for b in (x, right)]
    out: ClassMap = corners[0].copy()
    mixed = (corners[0] != corners[1]) | (corners[0] != corners[2]) | (corners[0] != corners[3])
    at_y, at_x = np.nonzero(mixed)
    top, low, lft, rgt = y[at_y], below[at_y], x[at_x], right[at_x]
    a, b = wy[at_y], wx[at_x]
    left = logits[:, top, lft] * (1 - a) + logits[:, low, lft] * a
    rest = logits[:, top, rgt] * (1 - a) + logits[:, low, rgt] * a
    out[at_y, at_x] = (left * (1 - b) + rest * b).argmax(0)
    return out


def agreement(a: ClassMap, b: ClassMap) -> float:
    """The share of pixels on which two class maps agree."""
    return float((a == b).mean())
