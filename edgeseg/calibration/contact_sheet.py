"""Contact sheet: the chosen frames side by side in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edgeseg.images import Image, read_image


def contact_sheet(files: Sequence[Path], width: int = 160, columns: int = 8) -> Image:
    """[H, W, 3] uint8 BGR with the frames in the order given, each at most `width` pixels wide, proportions kept."""
    rows = []
    height = round(width * 0.75)
    for start in range(0, len(files), columns):
        row = np.full((height + 4, columns * (width + 4), 3), 32, np.uint8)
        for column, file in enumerate(files[start : start + columns]):
            frame = read_image(file)
            scale = min(width / frame.shape[1], height / frame.shape[0])
            w, h = (max(1, round(side * scale)) for side in frame.shape[1::-1])
            left = column * (width + 4) + 2
            row[2 : 2 + h, left : left + w] = cv2.resize(frame, (w, h), interpolation=cv2.INTER_AREA)
        rows.append(row)
    return np.vstack(rows)
