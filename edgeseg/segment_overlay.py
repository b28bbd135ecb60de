"""A panoptic map in color over its frame: every object in a shade of its class's color, outlined and named."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from edgeseg.images import Image
from edgeseg.panoptic import PanopticMap, Segment
from edgeseg.spec import Rgb, Spec

FONT = cv2.FONT_HERSHEY_SIMPLEX
SMALLEST_NAMED = 0.002  # share of the frame


def draw(image: Image, panoptic: PanopticMap, spec: Spec, alpha: float = 0.5) -> Image:
    """[H, W, 3] uint8 BGR: `image` with the segments; a map of another size is stretched to it. Void stays as it is."""
    height, width = image.shape[:2]
    ids = cv2.resize(panoptic.ids, (width, height), interpolation=cv2.INTER_NEAREST)
    table = np.zeros((max((s.id for s in panoptic.segments), default=0) + 1, 3), np.uint8)
    for segment in panoptic.segments:
        table[segment.id] = _shade(spec.palette[segment.class_id], segment)[::-1]
    tint: Image = table[ids]
    out = np.asarray(cv2.addWeighted(image, 1 - alpha, tint, alpha, 0), np.uint8)
    out[ids == 0] = image[ids == 0]
    for segment in panoptic.segments:
        if segment.thing:
            _outline(out, (ids == segment.id).astype(np.uint8), segment, spec)
    return out


def _shade(color: Rgb, segment: Segment) -> Rgb:
    """The class's color for stuff; lighter or darker, and a little turned, for each object."""
    if not segment.thing:
        return color
    hue, saturation, _ = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    turn = segment.id * 0.618034 % 1.0
    r, g, b = colorsys.hsv_to_rgb((hue + 0.16 * (turn - 0.5)) % 1.0, max(0.35, saturation), 0.45 + 0.55 * turn)
    return int(r * 255), int(g * 255), int(b * 255)


def _outline(out: Image, mask: Image, segment: Segment, spec: Spec) -> None:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, contours, -1, (255, 255, 255), 1)
    if mask.sum() < SMALLEST_NAMED * mask.size:
        return
    x, y, _, _ = cv2.boundingRect(mask)
    scale = max(0.3, min(mask.shape) / 1200)
    text = spec.classes[segment.class_id] + ("" if segment.score == 1 else f" {segment.score:.2f}")
    (_, high), _ = cv2.getTextSize(text, FONT, scale, 1)
    at = (x + 2, max(high + 1, y + high + 2))
    cv2.putText(out, text, at, FONT, scale, (0, 0, 0), 2, cv2.LINE_AA)
    cv2.putText(out, text, at, FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
