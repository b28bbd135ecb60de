"""Questions about the QuantizeLinear and DequantizeLinear nodes of a graph, and their weights as integers."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from edgeseg.onnx_graph.index import GraphIndex, attribute, drop_unused

QDQ = ("QuantizeLinear", "DequantizeLinear")


def is_quantized(model: ModelProto) -> bool:
    """Whether a trained network came with Q/DQ pairs."""
    return any(node.op_type in QDQ for node in model.graph.node)


def is_symmetric(model: ModelProto) -> bool:
    """Whether every Q/DQ pair of a deploy graph is INT8 with zero point 0."""
    index = GraphIndex(model)
    zeros = [index.constant_input(node, 2) for node in model.graph.node if node.op_type in QDQ]
    return all(zero is not None and zero.dtype == np.int8 and not zero.any() for zero in zeros)


def store_integer_weights(model: ModelProto) -> None:
    """Store weights that a QuantizeLinear rounds as the integers it makes of them, in place."""
    index = GraphIndex(model)
    for node in [n for n in model.graph.node if n.op_type == "QuantizeLinear"]:
        values, scale, zero = (index.constant_input(node, i) for i in range(3))
        if values is None or scale is None or zero is None:
            continue
        if scale.ndim:
            shape = [-1 if i == attribute(node, "axis", 1) % values.ndim else 1 for i in range(values.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        limits = np.iinfo(zero.dtype)
        integers = np.clip(np.rint(values / scale) + zero, limits.min, limits.max)
        index.replace_by_constant(node, integers.astype(zero.dtype))
    drop_unused(model)
