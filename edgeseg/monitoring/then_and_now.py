"""The picture of an alarm: the reference's typical frame beside the frame that raised it."""

from __future__ import annotations

import textwrap

import cv2
import numpy as np

from edgeseg.images import Image

HEIGHT, LINE, GAP = 270, 22, 6
PAPER, INK = (32, 32, 32), (235, 235, 235)


def then_and_now(then: Image | None, now: Image, what: str) -> Image:
    """[H, W, 3] uint8 BGR: both images ([H, W, 3] uint8 BGR) at the same height, above what has changed in words."""
    parts = [] if then is None else [_titled(then, "reference")]
    row = np.hstack([*parts, _titled(now, "now")])
    lines = textwrap.wrap(what.encode("ascii", "replace").decode(), max(20, row.shape[1] // 10))
    caption = np.full((LINE * len(lines) + GAP, row.shape[1], 3), PAPER, np.uint8)
    for i, line in enumerate(lines):
        _write(caption, line, LINE * i + LINE - 4)
    return np.vstack([row, caption])


def _titled(image: Image, title: str) -> Image:
    height, width = image.shape[:2]
    size = (max(1, round(width * HEIGHT / height)), HEIGHT)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    out = np.full((HEIGHT + LINE + GAP, size[0] + GAP, 3), PAPER, np.uint8)
    _write(out, title, LINE - 4)
    out[LINE : LINE + HEIGHT, : size[0]] = small
    return out


def _write(image: Image, text: str, y: int) -> None:
    cv2.putText(image, text, (GAP, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
