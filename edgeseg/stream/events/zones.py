"""Zone: a polygon on the frame, and which pixels of a class map lie in it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.fit import Box, place
from edgeseg.images import Image
from edgeseg.spec import Spec

Point = tuple[float, float]
WHOLE = "frame"  # the zone that is always there


@dataclass(frozen=True)
class Zone:
    """`points`: corners (x, y), 0 to 1 across and down the frame. `streams`: the streams that have it, () for all."""

    name: str
    points: tuple[Point, ...]
    streams: tuple[str, ...] = ()


FRAME = Zone(WHOLE, ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))


@dataclass(frozen=True)
class ZonePixels:
    """A zone on class maps of one size: the pixels that `mask` ([h, w] uint8, 255 inside; None: all) has of `box`."""

    box: Box
    mask: Image | None
    count: int

    def histogram(self, classmap: Image) -> NDArray[np.float64]:
        """[256] how many pixels of each class the zone has."""
        # Up to twice as fast as numpy's bincount, which makes 64-bit integers of the pixels first.
        counts = cv2.calcHist([self.box.of(classmap)], [0], self.mask, [256], [0, 256])
        return np.asarray(counts, np.float64).reshape(-1)


def rasterize(zone: Zone, spec: Spec, height: int, width: int) -> ZonePixels:
    """The pixels of a class map [spec.height, spec.width] whose centers lie in `zone` on a frame of `height` x `width`.

    Padding, and what the network does not see of the frame, belong to no zone. Zones that share an edge share no pixel.
    """
    placed = place(spec, height, width)
    seen, filled = placed.seen, placed.filled
    x = (seen.left + (np.arange(filled.width) + 0.5) * seen.width / filled.width) / width
    y = (seen.top + (np.arange(filled.height) + 0.5) * seen.height / filled.height) / height
    inside = np.zeros((filled.height, filled.width), bool)
    for (x0, y0), (x1, y1) in edges(zone.points):  # even-odd rule: count the edges to the right of each pixel
        rows = (y0 <= y) != (y1 <= y)
        if rows.any():
            crossing = x0 + (y[rows] - y0) * (x1 - x0) / (y1 - y0)
            inside[rows] ^= x[None, :] < crossing[:, None]
    count = int(inside.sum())
    if not count:
        return ZonePixels(Box(0, 0, 0, 0), None, 0)
    left, top, wide, high = cv2.boundingRect(inside.view(np.uint8))
    part = inside[top : top + high, left : left + wide]
    mask = None if part.all() else part.astype(np.uint8) * 255
    return ZonePixels(Box(filled.left + left, filled.top + top, wide, high), mask, count)


def edges(points: tuple[Point, ...]) -> list[tuple[Point, Point]]:
    return list(zip(points, (*points[1:], points[0])))


def crossing_edges(points: tuple[Point, ...]) -> tuple[int, int] | None:
    """The numbers (from 1) of two edges of a polygon that cross each other, if there are any."""
    sides = edges(points)
    for i, (a, b) in enumerate(sides):
        for j in range(i + 2, len(sides) - (i == 0)):  # neighbors meet at their corner
            c, d = sides[j]
            if _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0:
                return i + 1, j + 1
    return None


def area(points: tuple[Point, ...]) -> float:
    """Of a polygon, in the square of the points' unit (the shoelace formula)."""
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in edges(points))) / 2


def _turn(a: Point, b: Point, c: Point) -> float:
    """Above 0 where c lies on one side of the line from a to b, below 0 on the other."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
