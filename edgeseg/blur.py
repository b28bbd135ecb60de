"""Blur: pixels of a frame that nobody is to recognize."""

from __future__ import annotations

import cv2
import numpy as np

from edgeseg.images import Image

TILES = 24  # of the shorter side of a frame: what is blurred has one color in each
GRAY = 114


def hide(image: Image, mask: Image, fill: bool = False) -> None:
    """Blur, or `fill` with gray, in place: `image` [H, W, 3] uint8 where `mask` [H, W] uint8, which has such a pixel,
    is not 0."""
    left, top, width, height = cv2.boundingRect(mask)
    part = (slice(top, top + height), slice(left, left + width))
    instead = np.full_like(image[part], GRAY) if fill else _tiles(image[part], image)
    cv2.copyTo(instead, mask[part], image[part])


def _tiles(part: Image, frame: Image) -> Image:
    """The part in the mean colors of TILES of the frame's size, smoothly joined."""
    side = max(1, min(frame.shape[:2]) // TILES)
    size = max(1, part.shape[1] // side), max(1, part.shape[0] // side)
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, part.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
