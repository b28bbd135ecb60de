"""draw: zones over a frame, for people who check what they drew."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edgeseg.images import Image
from edgeseg.spec import default_palette
from edgeseg.stream.events.zones import WHOLE, Zone

FONT = cv2.FONT_HERSHEY_SIMPLEX
TINT = 0.25


def draw(image: Image, zones: Sequence[Zone]) -> Image:
    """The frame [H, W, 3] BGR with the outline, the corners and the name of each zone; the whole frame is left out."""
    out = image.copy()
    height, width = image.shape[:2]
    scale = max(0.4, min(height, width) / 900)
    shown = [zone for zone in zones if zone.name != WHOLE]
    corners = [np.round(np.array(zone.points) * (width, height)).astype(np.int32) for zone in shown]
    colors = [rgb[::-1] for rgb in default_palette(max(len(shown), 1))]
    for points, color in zip(corners, colors):
        tinted = cv2.fillPoly(out.copy(), [points], color)
        out = np.asarray(cv2.addWeighted(out, 1 - TINT, tinted, TINT, 0), np.uint8)
    for zone, points, color in zip(shown, corners, colors):
        cv2.polylines(out, [points], True, color, max(2, round(3 * scale)), cv2.LINE_AA)
        for number, (x, y) in enumerate(points, 1):
            cv2.circle(out, (int(x), int(y)), max(3, round(6 * scale)), color, cv2.FILLED, cv2.LINE_AA)
            _write(out, str(number), (int(x), int(y)), 0.7 * scale)
        x, y = points.mean(0)
        _write(out, zone.name, (int(x), int(y)), 1.2 * scale, centered=True)
    return out


def _write(image: Image, text: str, at: tuple[int, int], scale: float, centered: bool = False) -> None:
    """White letters on a dark strip, inside the image."""
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    x = at[0] - width // 2 if centered else at[0] + round(8 * scale)
    y = at[1] + height // 2 if centered else at[1] - round(8 * scale)
    x = min(max(x, 2), max(image.shape[1] - width - 2, 0))
    y = min(max(y, height + 2), max(image.shape[0] - below - 2, height))
    strip = image[max(y - height - 2, 0) : y + below, max(x - 2, 0) : x + width + 2]
    strip[:] = cv2.convertScaleAbs(strip, alpha=0.25)
    cv2.putText(image, text, (x, y), FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
