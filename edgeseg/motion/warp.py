"""Class maps and logits moved along a field. Equal to numpy's result bit for bit, in C where that could be built."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.fit import Box, Placement, place
from edgeseg.mask import ClassMap, Logits
from edgeseg.motion.field import Field, Grid
from edgeseg.spec import Spec

try:
    from edgeseg import _motion  # type: ignore[attr-defined,unused-ignore]
except ImportError:  # no C compiler when edgeseg was installed
    _motion = None

Axis = tuple[NDArray[np.int32], NDArray[np.float32]]
"""For each pixel of one axis: the lower index into the grid, and the weight of the next one."""


def class_map(before: ClassMap, field: Field, grid: Grid, spec: Spec) -> ClassMap:
    """A class map [spec.height, spec.width] uint8 of the frame where `field` begins, as it looks in the frame of
    `field`. Each pixel is the one nearest to where its content was; padding stays."""
    placed = place(spec, grid.height, grid.width)
    scale = placed.filled.width / placed.seen.width, placed.filled.height / placed.seen.height
    rows = _axis(placed.filled.height, placed.seen.top, 1 / scale[1], grid.cell, grid.shape[0])
    columns = _axis(placed.filled.width, placed.seen.left, 1 / scale[0], grid.cell, grid.shape[1])
    scaled = field * np.array(scale, np.float32)
    if placed.filled == Box(0, 0, spec.width, spec.height):
        return _warped(before, scaled, rows, columns)
    out = before.copy()
    placed.filled.of(out)[:] = _warped(placed.filled.of(before), scaled, rows, columns)
    return out


def frame_map(before: ClassMap, field: Field, grid: Grid, seen: Box) -> ClassMap:
    """class_map for a class map of the frame's own size, of the part `seen` of the frame."""
    rows = _axis(seen.height, seen.top, 1.0, grid.cell, grid.shape[0])
    return _warped(before, field, rows, _axis(seen.width, seen.left, 1.0, grid.cell, grid.shape[1]))


def logits(before: Logits, field: Field, grid: Grid, spec: Spec) -> Logits:
    """[C, h, w] logits at the head's stride, bilinear; what comes from outside the picture is that of its border."""
    at = _logit_grid(*before.shape[1:], spec.height, spec.width, place(spec, grid.height, grid.width), grid.cell)
    moved = cv2.remap(field, at.field_x, at.field_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved_x = np.asarray(at.columns + moved[..., 0] / at.per_logit[0], np.float32)
    moved_y = np.asarray(at.rows + moved[..., 1] / at.per_logit[1], np.float32)
    where, part = cv2.convertMaps(moved_x, moved_y, cv2.CV_16SC2)
    planes = [cv2.remap(plane, where, part, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for plane in before]
    return np.asarray(np.stack(planes), np.float32)


@dataclass(frozen=True)
class _LogitGrid:
    """[h, w] float32 each: where every logit lies in the field, and its own column and row. `per_logit`: pixels of the
    frame per logit, (x, y)."""

    field_x: NDArray[np.float32]
    field_y: NDArray[np.float32]
    columns: NDArray[np.float32]
    rows: NDArray[np.float32]
    per_logit: tuple[float, float]


@lru_cache(maxsize=16)
def _logit_grid(h: int, w: int, height: int, width: int, placed: Placement, cell: int) -> _LogitGrid:
    across, down = width / w, height / h  # pixels of the input per logit
    scale = placed.seen.width / placed.filled.width, placed.seen.height / placed.filled.height
    frame_x = ((np.arange(w) + 0.5) * across - placed.filled.left) * scale[0] + placed.seen.left
    frame_y = ((np.arange(h) + 0.5) * down - placed.filled.top) * scale[1] + placed.seen.top
    x, y = np.meshgrid((frame_x / cell - 0.5).astype(np.float32), (frame_y / cell - 0.5).astype(np.float32))
    columns, rows = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return _LogitGrid(x, y, columns, rows, (scale[0] * across, scale[1] * down))


def _warped(before: ClassMap, field: Field, rows: Axis, columns: Axis) -> ClassMap:
    before, field = np.ascontiguousarray(before), np.ascontiguousarray(field, np.float32)
    if _motion is None:
        return plain(before, field, rows, columns)
    out: ClassMap = np.empty_like(before)
    _motion.warp(before, field, *field.shape[:2], *rows, *columns, out)
    return out


def plain(before: ClassMap, field: Field, rows: Axis, columns: Axis) -> ClassMap:
    """_motion.warp in numpy."""
    (y, b), (x, r) = rows, columns
    below, right = np.minimum(y + 1, field.shape[0] - 1), np.minimum(x + 1, field.shape[1] - 1)
    lines = field[:, x] + (field[:, right] - field[:, x]) * r[:, None]  # equal neighbors give exactly their value
    offset = np.floor(lines[y] + (lines[below] - lines[y]) * b[:, None, None] + np.float32(0.5)).astype(np.int64)
    height, width = before.shape
    at_y = (np.arange(height)[:, None] + offset[..., 1]).clip(0, height - 1)
    at_x = (np.arange(width) + offset[..., 0]).clip(0, width - 1)
    return np.asarray(before[at_y, at_x], np.uint8)


@lru_cache(maxsize=64)
def _axis(size: int, begin: int, step: float, cell: int, cells: int) -> Axis:
    """Of `size` pixels, `step` frame pixels apart, from frame pixel `begin` on."""
    at = (((np.arange(size) + 0.5) * step + begin) / cell - 0.5).clip(0, cells - 1)
    low = np.minimum(at.astype(np.int32), max(cells - 2, 0))
    return low, (at - low).astype(np.float32)
