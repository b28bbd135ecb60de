"""Optical flow between small gray pictures, for sources whose codec tells no motion (MJPEG, V4L2, CSI, folders).

DIS: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, as OpenCV has it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image
from edgeseg.motion.field import Field, Grid

Thumbnail = NDArray[np.uint8]
SIDE = 320  # pixels, of the longer side
NOISE = 3.0  # levels of gray: a picture that differs by less has not moved


def thumbnail(image: Image) -> Thumbnail:
    """[H, W, 3] BGR as a small gray picture."""
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(16, round(width * scale)), max(16, round(height * scale))  # DIS wants at least 16
    # Not the mean of each area: reading every pixel of a 4K frame would take longer than the flow.
    small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


def field(before: Thumbnail, now: Thumbnail, grid: Grid) -> Field:
    """The Field from thumbnail `now` back to `before`, which has the same size."""
    differs = cv2.absdiff(before, now)
    if float(differs.mean()) < NOISE / 10 and float(differs.max()) < 8 * NOISE:
        return grid.still()
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(now, before, None)  # type: ignore[call-overload]
    rows, columns = grid.shape
    reach = columns * grid.cell / grid.width, rows * grid.cell / grid.height  # the last cells may stand out
    height, width = now.shape
    at_x = ((np.arange(columns) + 0.5) / columns * reach[0] * width - 0.5).astype(np.float32)
    at_y = ((np.arange(rows) + 0.5) / rows * reach[1] * height - 0.5).astype(np.float32)
    x, y = np.meshgrid(at_x, at_y)
    small = cv2.remap(cv2.blur(flow, (3, 3)), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(small * np.array([grid.width / width, grid.height / height]), np.float32)
