"""INT8 weights that no x86 CPU saturates.

Without VNNI, x86 multiplies u8 activations by s8 weights in pairs of neighboring inputs and adds the two products into
16 bits (vpmaddubsw, Intel's Software Developer's Manual): 255 * (a + b) fits only where |a + b| <= 128. So the scale of
an output channel is widened until its largest pair fits, which costs most channels less than half a bit, where halving
the range of all weights (NNCF's overflow fix, ONNX Runtime's reduce_range) costs a whole one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def largest_pair(weights: Array, axis: int, shape: tuple[int, ...]) -> Array:
    """The largest |a + b| of two weights that such a CPU may add, reduced to `shape`, that of the scales.

    `axis`: of the input channels; `shape`: that of the weights with 1 for each axis that shares a scale. Kernels walk
    the inputs fastest, then rows and columns. With an odd number of inputs a pair can span two positions, and start at
    either neighbor; an input by itself (depthwise) is not added to another.
    """
    count = weights.shape[axis]
    kernel = [i for i in range(weights.ndim) if i != axis % weights.ndim and shape[i] == 1]
    outputs = [i for i in range(weights.ndim) if shape[i] != 1]
    order = weights.transpose([*outputs, *kernel, axis])
    flat = order.reshape(*(weights.shape[i] for i in outputs), -1)
    if count == 1 or flat.shape[-1] < 2:
        return np.zeros(shape)
    sums = np.abs(flat[..., :-1] + flat[..., 1:])
    if count % 2 == 0:
        sums = sums[..., ::2]
    return np.asarray(sums.max(-1).reshape(shape))


def safe_scale(weights: Array, scale: Array, axis: int) -> Array:
    """`scale` (of symmetric INT8, broadcast over `weights`), widened where a pair would not fit.

    After rounding, two weights whose sum is at most 127 scales add up to at most 128.
    """
    return np.asarray(np.maximum(scale, largest_pair(weights.astype(np.float64), axis, scale.shape) / 127))
