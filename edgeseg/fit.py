"""How a frame fits the network's input: the one way in, for training, calibration, compile, run and eval, and back.

stretch     the whole frame, its proportions changed
letterbox   the whole frame, scaled with its proportions, centered; the rest is padding
crop        the largest part of the frame with the input's proportions, centered; the rest is not seen
pad         the whole frame at the upper left, never enlarged; the rest is padding
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image
from edgeseg.spec import Spec

Pixel = TypeVar("Pixel", bound=np.generic)
INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "nearest": cv2.INTER_NEAREST,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
}
OUTSIDE = 255  # in class maps of a frame's size: what the network did not see


@dataclass(frozen=True)
class Box:
    """Pixels from `left`, `top`."""

    left: int
    top: int
    width: int
    height: int

    def of(self, array: NDArray[Pixel]) -> NDArray[Pixel]:
        return array[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Placement:
    """The part `seen` of a frame fills the part `filled` of the input."""

    seen: Box
    filled: Box


Detail = Callable[[Placement], Image]
"""Gives the class map [seen.height, seen.width] uint8 of the part of a frame that the network saw."""


def place(spec: Spec, height: int, width: int) -> Placement:
    """Where a frame of `height` x `width` lands."""
    frame, entry = Box(0, 0, width, height), Box(0, 0, spec.width, spec.height)
    across, down = spec.width / width, spec.height / height
    if spec.fit == "crop":
        scale = max(across, down)
        seen = _centered(frame, min(width, round(spec.width / scale)), min(height, round(spec.height / scale)))
        return Placement(seen, entry)
    if spec.fit == "stretch":
        return Placement(frame, entry)
    scale = min(across, down) if spec.fit == "letterbox" else min(across, down, 1.0)
    size = max(1, min(spec.width, round(width * scale))), max(1, min(spec.height, round(height * scale)))
    filled = _centered(entry, *size) if spec.fit == "letterbox" else Box(0, 0, *size)
    return Placement(frame, filled)


def _centered(outer: Box, width: int, height: int) -> Box:
    width, height = max(1, width), max(1, height)
    return Box((outer.width - width) // 2, (outer.height - height) // 2, width, height)


def fit_frame(frame: Image, spec: Spec, into: Image | None = None) -> Image:
    """A frame ([H, W, 3] uint8 BGR) as the network's input, [spec.height, spec.width, 3], written into `into` where it
    is given."""
    how = INTERPOLATIONS[spec.interpolation]
    if spec.fit == "stretch":
        return cv2.resize(frame, (spec.width, spec.height), dst=into, interpolation=how)  # type: ignore[return-value]
    placed = place(spec, *frame.shape[:2])
    out = np.empty((spec.height, spec.width, 3), np.uint8) if into is None else into
    if placed.filled != Box(0, 0, spec.width, spec.height):
        out[:] = spec.pad_color[::-1]
    placed.filled.of(out)[:] = _resized(placed.seen.of(frame), placed.filled, how)
    return out


def fit_labels(labels: Image, spec: Spec, ignore: int) -> Image:
    """A label map [H, W] uint8 at the network's input; padding is `ignore`."""
    placed = place(spec, *labels.shape[:2])
    out = np.full((spec.height, spec.width), ignore, np.uint8)
    placed.filled.of(out)[:] = _resized(placed.seen.of(labels), placed.filled, cv2.INTER_NEAREST_EXACT)
    return out


def unfit(classmap: Image, spec: Spec, height: int, width: int) -> Image:
    """A class map [spec.height, spec.width] in the geometry of a frame of `height` x `width`, nearest neighbor; OUTSIDE
    where the network did not see it."""
    if spec.fit == "stretch" and classmap.shape == (height, width):
        return classmap
    placed = place(spec, height, width)
    return framed(_resized(placed.filled.of(classmap), placed.seen, cv2.INTER_NEAREST), placed.seen, height, width)


def framed(inner: Image, seen: Box, height: int, width: int) -> Image:
    """A class map of the part `seen` of a frame, as one of the frame: OUTSIDE elsewhere."""
    if seen == Box(0, 0, width, height):
        return inner
    out = np.full((height, width), OUTSIDE, np.uint8)
    seen.of(out)[:] = inner
    return out


def seen_part(classmap: Image, spec: Spec, height: int, width: int) -> Image:
    """A class map [spec.height, spec.width] without its padding, for a frame of `height` x `width`."""
    return place(spec, height, width).filled.of(classmap)


def _resized(array: Image, box: Box, interpolation: int) -> Image:
    if array.shape[:2] == (box.height, box.width):
        return array
    size = (box.width, box.height)
    return np.asarray(cv2.resize(np.ascontiguousarray(array), size, interpolation=interpolation), np.uint8)
