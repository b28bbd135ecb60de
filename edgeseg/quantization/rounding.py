"""Rounding to INT8: scales, zero points, and weights as INT8 stores them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.quantization.saturation import safe_scale


def scale_and_zero_point(low: float, high: float, symmetric: bool) -> tuple[float, int]:
    """Of INT8 (symmetric) or UINT8 over a range, which is extended to hold 0: 0 is always represented exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        return max(-low, high, 1e-30) / 127, 0
    scale = max(high - low, 1e-30) / 255
    return scale, round(-low / scale)


def round_weights(
    weights: NDArray[Any], axis: int, min_scale: float = 0.0, input_axis: int | None = None
) -> NDArray[np.float32]:
    """Weights rounded to symmetric INT8 and back to float, one scale for each channel of `axis`.

    `min_scale`: the smallest scale, as a share of the largest. `input_axis`: where scales are widened for CPUs without
    VNNI (saturation.py), the axis of the inputs.
    """
    other_axes = tuple(i for i in range(weights.ndim) if i != axis % weights.ndim)
    scale = np.abs(weights).max(other_axes, keepdims=True) / 127
    scale = np.maximum(scale, max(min_scale * float(scale.max()), 1e-30))
    if input_axis is not None:
        scale = safe_scale(weights, scale, input_axis)
    return np.asarray(to_int8(weights, scale) * scale, np.float32)


def to_int8(weights: NDArray[Any], scale: NDArray[Any]) -> NDArray[np.int8]:
    """Symmetric: -127 to 127."""
    return np.asarray(np.clip(np.rint(weights / scale), -127, 127), np.int8)
