"""Weights of a Q/DQ graph, rounded again with scales that no CPU saturates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from edgeseg.onnx_graph.index import GraphIndex, attribute
from edgeseg.quantization.rounding import to_int8
from edgeseg.quantization.saturation import safe_scale

Array = NDArray[Any]
REDUCING = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def float_weights(model: ModelProto) -> dict[str, Array]:
    """The constant weights of a float graph's layers, by the name of the node."""
    index = GraphIndex(model)
    layers = [node for node in model.graph.node if node.op_type in REDUCING]
    found = {node.name: index.constant_input(node, 1) for node in layers}
    return {name: weights for name, weights in found.items() if weights is not None}


def widen_scales(model: ModelProto, floats: Mapping[str, Array]) -> None:
    """Give the symmetric INT8 weights of a Q/DQ graph safe scales (see saturation.py), in place.

    `floats`: the weights before any rounding, by the name of the layer; those of other layers are rounded twice.
    """
    index = GraphIndex(model)
    for node in [node for node in model.graph.node if node.op_type in REDUCING]:
        pair = index.producer(node.input[1], "DequantizeLinear")
        if pair is None or not _is_symmetric(index, pair):
            continue
        stored, scale = index.constant_input(pair, 0), index.constant_input(pair, 1)
        if stored is None or scale is None:
            continue
        old = scale.reshape(_broadcast(scale, pair, stored.ndim))
        weights = floats.get(node.name, stored * old)
        new = safe_scale(weights, old, input_axis(node, stored.ndim))
        if (new > old).any():
            index.set_constant(pair.input[0], to_int8(weights, new))
            index.set_constant(pair.input[1], new.reshape(scale.shape))
            _requantize_bias(index, node, new.ravel())


def input_axis(node: NodeProto, dimensions: int) -> int:
    """The axis of a layer's weights whose products are added up."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 1
    return 0 if node.op_type in ("ConvTranspose", "Gemm") else dimensions - 2


def _is_symmetric(index: GraphIndex, pair: NodeProto) -> bool:
    zero = index.constant_input(pair, 2)
    return zero is not None and zero.dtype == np.int8 and not zero.any()


def _broadcast(scale: Array, pair: NodeProto, dimensions: int) -> list[int]:
    shape = [1] * dimensions
    if scale.size > 1:
        shape[attribute(pair, "axis", 1) % dimensions] = scale.size
    return shape


def _requantize_bias(index: GraphIndex, node: NodeProto, weight_scale: Array) -> None:
    """ONNX Runtime's integer kernels take an INT32 bias in units of the input's scale times the weights'."""
    pair = index.producer(node.input[2], "DequantizeLinear") if len(node.input) > 2 else None
    entry = index.producer(node.input[0], "DequantizeLinear")
    if pair is None or entry is None:
        return
    stored, scale = index.constant_input(pair, 0), index.constant_input(pair, 1)
    input_scale = index.constant_input(entry, 1)
    if stored is None or scale is None or input_scale is None or stored.dtype != np.int32:
        return
    new = np.broadcast_to(input_scale.ravel() * weight_scale, scale.shape)
    index.set_constant(pair.input[0], np.rint(stored * scale.astype(np.float64) / new))
    index.set_constant(pair.input[1], new)
