"""One layer of a float graph in INT8: rounded weights, and Q/DQ pairs that only this layer reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.onnx_graph.index import attribute, drop_unused, fresh_name
from edgeseg.quantization.ranges import Range
from edgeseg.quantization.requantize import REDUCING, input_axis
from edgeseg.quantization.rounding import round_weights, scale_and_zero_point
from edgeseg.quantization.scheme import Scheme


@dataclass(frozen=True)
class RoundedTensors:
    """The names of the float32 tensors of one layer that INT8 rounds."""

    activations: tuple[str, ...]
    weights: tuple[str, ...]


def rounded_tensors(model: ModelProto, types: Mapping[str, int], node: NodeProto, scheme: Scheme) -> RoundedTensors:
    """`types`: ONNX element types of the graph's tensors."""
    constants = {i.name for i in model.graph.initializer}
    inputs = [name for name in node.input[:2] if types.get(name) == TensorProto.FLOAT]
    activations = [name for name in dict.fromkeys(inputs) if name not in constants]
    readers = [n for n in model.graph.node if node.output[0] in n.input]
    if scheme.rounds_output and all("logits" in n.output for n in readers):
        activations.append(node.output[0])
    return RoundedTensors(tuple(activations), tuple(name for name in inputs if name in constants))


def quantize_layer(
    model: ModelProto, name: str, tensors: RoundedTensors, scheme: Scheme, ranges: Mapping[str, Range]
) -> ModelProto:
    """A copy of a deploy graph with the layer called `name` in INT8. `ranges`: of all activations it rounds."""
    copy = ModelProto()
    copy.CopyFrom(model)
    node = next(n for n in copy.graph.node if n.name == name)
    for weight in tensors.weights:
        stored = next(i for i in copy.graph.initializer if i.name == weight)
        rounded = fresh_name(copy, f"{weight}_rounded")
        weights = numpy_helper.to_array(stored)
        inputs = input_axis(node, weights.ndim) if scheme.safe_scales and node.op_type in REDUCING else None
        values = round_weights(weights, _channel_axis(node), scheme.min_weight_scale, inputs)
        copy.graph.initializer.append(numpy_helper.from_array(values, rounded))
        _replace(node.input, weight, rounded)
    for activation in tensors.activations:
        _insert_pair(copy, node, activation, ranges[activation], scheme.symmetric)
    drop_unused(copy)
    return copy


def _insert_pair(model: ModelProto, node: NodeProto, activation: str, span: Range, symmetric: bool) -> None:
    """A Q/DQ pair before the node, or behind it if the activation is its output."""
    rounded = fresh_name(model, f"{activation}_rounded")
    behind = activation in node.output
    readers = [n for n in model.graph.node if activation in n.input] if behind else [node]
    pair = _qdq_pair(model, activation, rounded, span, symmetric)
    for reader in readers:
        _replace(reader.input, activation, rounded)
    index = next(i for i, n in enumerate(model.graph.node) if n.name == node.name) + behind
    for offset, inserted in enumerate(pair):
        model.graph.node.insert(index + offset, inserted)


def _qdq_pair(model: ModelProto, source: str, output: str, span: Range, symmetric: bool) -> list[NodeProto]:
    scale, zero = scale_and_zero_point(*span, symmetric)
    values = {"scale": np.float32(scale), "zero": np.array(zero, np.int8 if symmetric else np.uint8)}
    names = {key: fresh_name(model, f"{output}_{key}") for key in values}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), names[k]) for k, v in values.items())
    integers = f"{output}_whole"
    return [
        helper.make_node("QuantizeLinear", [source, names["scale"], names["zero"]], [integers], name=integers),
        helper.make_node("DequantizeLinear", [integers, names["scale"], names["zero"]], [output], name=output),
    ]


def _channel_axis(node: NodeProto) -> int:
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 0
    return 1 if node.op_type == "ConvTranspose" else -1


def _replace(names: Any, old: str, new: str) -> None:
    for i, name in enumerate(names):
        if name == old:
            names[i] = new
