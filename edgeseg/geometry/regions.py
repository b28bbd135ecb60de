"""Shapes to pixels: polygons, boxes and ellipses as the pixels of a frame that they cover.

Three rules, of which a format names one:
    by_centers   a pixel is inside if its center is, by the even-odd rule. Outlines along pixel corners are exact.
    as_coco      pycocotools' rasterization, pixel for pixel: edgeseg.data.coco_polygons.
    with_outline coordinates are pixels, and the outline belongs to the shape, as PIL and cv2.fillPoly draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import FileError

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]
FARTHEST = 1e9  # pixels from the frame; beyond, a coordinate is a fault
MOST_CROSSINGS = 10_000_000  # of an outline with rows of the frame


@dataclass(frozen=True)
class Region:
    """`mask` [h, w], whose upper left pixel is x, y of the frame. `cut`: the shape reaches out of the frame."""

    x: int
    y: int
    mask: Mask
    cut: bool = False

    @property
    def window(self) -> tuple[slice, slice]:
        """The part of a frame that the mask covers."""
        height, width = self.mask.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    def minus(self, hole: Region) -> Region:
        mask = self.mask.copy()
        y0, x0 = max(self.y, hole.y), max(self.x, hole.x)
        y1 = min(self.y + mask.shape[0], hole.y + hole.mask.shape[0])
        x1 = min(self.x + mask.shape[1], hole.x + hole.mask.shape[1])
        if y1 > y0 and x1 > x0:
            part = hole.mask[y0 - hole.y : y1 - hole.y, x0 - hole.x : x1 - hole.x]
            mask[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x] &= ~part
        return Region(self.x, self.y, mask, self.cut)


def points(numbers: object, what: str) -> Points:
    """[N, 2] from x, y, x, y ... or from pairs, N >= 3; FileError, which begins with `what`, for anything else."""
    if not isinstance(numbers, (list, tuple)):
        raise FileError(f"{what} is {str(numbers)[:40]!r}.", "Expected x, y of at least 3 points.")
    try:
        found = np.array(numbers, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise FileError(f"{what} cannot be read: {str(numbers)[:40]}.", "Expected x, y of at least 3 points.") from None
    if found.ndim not in (1, 2) or found.size < 6 or found.size % 2 or (found.ndim == 2 and found.shape[1] != 2):
        raise FileError(f"{what} has {found.size} numbers.", "Expected x, y of at least 3 points.")
    if not (np.abs(found) <= FARTHEST).all():  # nor NaN
        raise FileError(f"{what} has a coordinate that is no place in an image.", "Export it again.")
    return found.reshape(-1, 2)


def by_centers(rings: Sequence[Points], height: int, width: int) -> Region:
    """What the rings cover together: a hole is a ring inside another."""
    x0, y0, x1, y1, cut = window_of(np.concatenate(rings), height, width)
    counts = np.zeros((y1 - y0, x1 - x0 + 1), np.uint8)
    for ring in rings:
        rows, at = _crossings(ring - (x0, y0), y1 - y0)
        columns = np.ceil(at - 0.5).clip(0, x1 - x0).astype(np.int64)
        flips = np.bincount(rows * counts.shape[1] + columns, minlength=counts.size).reshape(counts.shape)
        counts ^= (flips & 1).astype(np.uint8)
    return Region(x0, y0, np.bitwise_xor.accumulate(counts, axis=1)[:, :-1].astype(bool), cut)


def _crossings(ring: Points, height: int) -> tuple[NDArray[np.int64], Points]:
    """(row, x) of each crossing of the ring with the line through a row's pixel centers."""
    a, b = ring, np.roll(ring, -1, axis=0)
    down = (a[:, 1] < b[:, 1])[:, None]
    low, high = np.where(down, a, b), np.where(down, b, a)  # so that an edge gives the same x in both directions
    first = np.ceil(low[:, 1] - 0.5).clip(0, height).astype(np.int64)
    last = np.ceil(high[:, 1] - 0.5).clip(0, height).astype(np.int64)
    number = last - first
    if number.sum() > MOST_CROSSINGS:
        raise FileError(f"An outline of {len(ring)} points goes to and fro too often.", "Export it again.")
    edge = np.repeat(np.arange(len(ring)), number)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(number) - number, number) + first[edge]
    step = (high[edge] - low[edge]).T
    return rows, low[edge, 0] + (rows + 0.5 - low[edge, 1]) * step[0] / step[1]


def with_outline(ring: Points, height: int, width: int) -> Region:
    ring = np.trunc(ring)
    if np.abs(ring).max() > 30_000:  # OpenCV counts in 32 bits
        return by_centers([ring], height, width)
    x0, y0, x1, y1, cut = window_of(ring + 0.5, height, width)
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    if mask.size:
        cv2.fillPoly(mask, [(ring - (x0, y0)).astype(np.int32)], 1)
    return Region(x0, y0, mask.astype(bool), cut)


def box(x: float, y: float, w: float, h: float, degrees: float = 0, pivot: tuple[float, float] | None = None) -> Points:
    """The corners of a box, turned clockwise around `pivot`, by default its center."""
    corners = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], np.float64)
    if not degrees:
        return corners
    center = np.array(pivot or (x + w / 2, y + h / 2))
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray((corners - center) @ np.array([[c, s], [-s, c]]) + center)


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float, height: int, width: int) -> Region:
    """The pixels whose centers lie in an ellipse, turned clockwise."""
    numbers = np.array((cx, cy, rx, ry, degrees), np.float64)
    if not (np.abs(numbers) <= FARTHEST).all() or min(rx, ry) <= 0:
        raise FileError(f"An ellipse has the radii {rx:g} and {ry:g}.", "Expected numbers above 0.")
    reach = max(rx, ry)
    x0, y0, x1, y1, cut = window_of(np.array([(cx - reach, cy - reach), (cx + reach, cy + reach)]), height, width)
    dy, dx = np.mgrid[y0:y1, x0:x1].astype(np.float32) + 0.5
    dx, dy = dx - np.float32(cx), dy - np.float32(cy)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return Region(x0, y0, ((dx * c + dy * s) / rx) ** 2 + ((dy * c - dx * s) / ry) ** 2 <= 1, cut)


def placed(mask: Mask, x: int, y: int, height: int, width: int) -> Region:
    """A bitmap at x, y of the frame, cut at its borders."""
    h, w = mask.shape
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    inside = mask[max(y0 - y, 0) : max(y1 - y, 0), max(x0 - x, 0) : max(x1 - x, 0)]
    return Region(min(x0, width), min(y0, height), inside, inside.shape != mask.shape)


def window_of(at: Points, height: int, width: int) -> tuple[int, int, int, int, bool]:
    """x0, y0, x1, y1 of the part of the frame that the points span, and whether they reach out of it."""
    low, high = at.min(0), at.max(0)
    x0, y0 = np.floor(low).clip(0, (width, height)).astype(int)
    x1, y1 = (np.ceil(high) + 1).clip(0, (width, height)).astype(int)
    cut = bool((low < -1).any() or (high > (width + 1, height + 1)).any())
    return int(x0), int(y0), max(int(x0), int(x1)), max(int(y0), int(y1)), cut
