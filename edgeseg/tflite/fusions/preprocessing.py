"""The deploy graph's channel swap and normalization as one 1x1 Conv: a single rounding when it is quantized."""

from __future__ import annotations

import numpy as np
from onnx import helper

from edgeseg.onnx_graph.index import GraphIndex


def fuse_preprocessing(index: GraphIndex) -> None:
    """Replace (x[order] - mean) * gain of an NCHW deploy graph; nothing where its preprocessing is another."""
    minus = index.producer("pre_Sub", "Sub")
    times = index.sole_consumer("pre_Sub", "Mul")
    if minus is None or times is None:
        return
    mean, gain = index.constant_input(minus, 1), index.constant_input(times, 1)
    if mean is None or gain is None or mean.shape != (1, 3, 1, 1) or gain.shape != (1, 3, 1, 1):
        return
    source, order = minus.input[0], np.arange(3)
    if (swap := index.producer(source, "Gather")) is not None:
        indices = index.constant_input(swap, 1)
        if indices is None:
            return
        source, order = swap.input[0], indices
    weight = np.zeros((3, 3, 1, 1), np.float32)
    weight[np.arange(3), order, 0, 0] = gain.ravel()
    bias = -(mean.astype(np.float64) * gain).ravel().astype(np.float32)
    inputs = [source, index.add_constant("pre_weight", weight), index.add_constant("pre_bias", bias)]
    name = times.name or times.output[0]
    index.replace(times, [helper.make_node("Conv", inputs, times.output, name, kernel_shape=[1, 1])])
