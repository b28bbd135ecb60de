"""Zones on class maps: which pixels, however a frame fits the network's input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.fit import place
from edgeseg.spec import Spec
from edgeseg.stream.events.picture import draw
from edgeseg.stream.events.zones import FRAME, Zone, ZonePixels, area, crossing_edges, rasterize

FITS = ("stretch", "letterbox", "crop", "pad")
SPEC = Spec(height=48, width=64, classes=("road", "sky"))


def spec(fit: str) -> Spec:
    return Spec(height=48, width=64, classes=("road", "sky"), fit=fit)


def full(pixels: ZonePixels, of: Spec = SPEC) -> np.ndarray:
    """The zone as a mask of the class map's size."""
    out = np.zeros((of.height, of.width), bool)
    part = pixels.box.of(out)
    part[:] = True if pixels.mask is None else pixels.mask > 0
    return out


@st.composite
def polygons(draw_value: st.DrawFn) -> tuple[tuple[float, float], ...]:
    """Stars around a center: their edges never cross."""
    count = draw_value(st.integers(3, 9))
    reach = draw_value(st.lists(st.floats(0.05, 0.5), min_size=count, max_size=count))
    angles = (np.arange(count) + draw_value(st.floats(0, 1))) * 2 * np.pi / count
    return tuple((0.5 + r * np.cos(a), 0.5 + r * np.sin(a)) for r, a in zip(reach, angles))


@settings(max_examples=60, deadline=None)
@given(polygons(), st.sampled_from(FITS), st.integers(20, 200), st.integers(20, 200))
def test_a_pixel_is_in_a_zone_if_its_center_is(points, fit: str, height: int, width: int) -> None:
    assert crossing_edges(points) is None
    of = spec(fit)
    inside = full(rasterize(Zone("z", points), of, height, width), of)
    placed = place(of, height, width)
    outline = (np.array(points) * (width, height)).astype(np.float32)
    for row in range(0, of.height, 3):
        for column in range(0, of.width, 3):
            filled, seen = placed.filled, placed.seen
            if not (0 <= row - filled.top < filled.height and 0 <= column - filled.left < filled.width):
                assert not inside[row, column], "padding belongs to no zone"
                continue
            x = seen.left + (column - filled.left + 0.5) * seen.width / filled.width
            y = seen.top + (row - filled.top + 0.5) * seen.height / filled.height
            distance = cv2.pointPolygonTest(outline, (float(x), float(y)), True)
            if abs(distance) > 1e-3:
                assert inside[row, column] == (distance > 0)


@settings(max_examples=60, deadline=None)
@given(polygons())
def test_the_share_of_a_zone_is_its_area(points) -> None:
    big = Spec(height=480, width=640, classes=("road", "sky"))
    assert rasterize(Zone("z", points), big, 480, 640).count / big.height / big.width == pytest.approx(
        area(points), abs=0.01
    )


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.sampled_from(FITS))
def test_zones_that_share_an_edge_share_no_pixel(top: float, bottom: float, fit: str) -> None:
    of = spec(fit)
    left = Zone("l", ((0.0, 0.0), (top, 0.0), (bottom, 1.0), (0.0, 1.0)))
    right = Zone("r", ((top, 0.0), (1.0, 0.0), (1.0, 1.0), (bottom, 1.0)))
    whole, *halves = (full(rasterize(zone, of, 90, 160), of) for zone in (FRAME, left, right))
    assert (halves[0] ^ halves[1] == whole).all() and not (halves[0] & halves[1]).any()


def test_pixels_are_counted_by_class() -> None:
    classmap = np.zeros((48, 64), np.uint8)
    classmap[:, 40:] = 1
    pixels = rasterize(Zone("z", ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))), SPEC, 90, 160)
    assert pixels.mask is None and pixels.count == 48 * 32, "a rectangle needs no mask"
    assert pixels.histogram(classmap)[:2].tolist() == [48 * 8, 48 * 24]
    triangle = rasterize(Zone("t", ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))), SPEC, 90, 160)
    counts = triangle.histogram(classmap)
    assert counts.sum() == triangle.count and counts[1] == (full(triangle) & (classmap == 1)).sum()


def test_the_picture_shows_the_zones() -> None:
    image = np.full((90, 160, 3), 90, np.uint8)
    drawn = draw(image, (FRAME, Zone("gate", ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)))))
    changed = (drawn != image).any(2)
    assert changed[45, 80] and changed[18:72, 32:128].mean() > 0.95 and not changed[:3].any() and (image == 90).all()
    assert (draw(image, (FRAME,)) == image).all()
