"""Logits at the head's stride -> class map at full size, equal to a dense bilinear upsample + argmax.

Argmax of a bilinear upsample is constant inside a cell whose four corner logit vectors have the same argmax, since a
convex combination keeps the winner. So argmax at the head's stride, fill the cells that agree, and interpolate only
the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
ClassMap = NDArray[np.uint8]
UPSAMPLES = ("half_pixel", "align_corners", "asymmetric", "none")


def class_map(logits: Logits, height: int, width: int, upsample: str) -> ClassMap:
    """[C, h, w] float32 -> [height, width] uint8; a tie goes to the lowest class.

    `upsample` names the bilinear convention of the model's own last resize (ONNX: coordinate_transformation_mode);
    `none` where the logits already have the full size.
    """
    return dense(logits, height, width, upsample)


def axis(size: int, small: int, upsample: str) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of `size` outputs: the lower and upper source index and the weight of the upper one (ONNX Resize)."""
    out = np.arange(size, dtype=np.float64)
    if upsample == "align_corners":
        at = out * ((small - 1) / (size - 1)) if size > 1 else out
    elif upsample == "asymmetric":
        at = out * (small / size)
    else:
        at = (out + 0.5) * (small / size) - 0.5
    at = at.clip(0, small - 1)
    low = np.minimum(at.astype(np.intp), max(small - 2, 0))
    high = np.minimum(low + 1, small - 1)
    return low, high, (at - low).astype(np.float32)


def dense(logits: Logits, height: int, width: int, upsample: str) -> ClassMap:
    """The plain way: upsample every logit, then argmax. The reference the fast way is tested against."""
    _, h, w = logits.shape
    if upsample == "none" or (h, w) == (height, width):
        return logits.argmax(0).astype(np.uint8)
    y0, y1, wy = axis(height, h, upsample)
    x0, x1, wx = axis(width, w, upsample)
    rows = logits[:, y0] * (1 - wy)[None, :, None] + logits[:, y1] * wy[None, :, None]
    full = rows[:, :, x0] * (1 - wx) + rows[:, :, x1] * wx
    return full.argmax(0).astype(np.uint8)
