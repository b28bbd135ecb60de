"""TensorRT's rules of explicit quantization, from its documentation.

It quantizes symmetrically: INT8, every zero point 0, activations with one scale, weights with one scale per output
channel, Q and DQ in pairs, biases in float.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from edgeseg.onnx_graph.index import Array, GraphIndex, attribute
from edgeseg.tensorrt.finding import Finding, label

Q, DQ = "QuantizeLinear", "DequantizeLinear"
# Operator -> axis of its weights that TensorRT scales per channel: the output channels.
CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}


def qdq_findings(index: GraphIndex, node: NodeProto) -> Iterator[Finding]:
    """The rules that a Q, a DQ or a layer between them breaks."""
    if node.op_type in (Q, DQ):
        scale, zero = index.constant_input(node, 1), index.constant_input(node, 2)
        yield from _scale(node, scale)
        yield from _element_type(index, node, zero)
        if zero is not None and np.any(zero):
            problem = f"its zero point is {np.ravel(zero)[np.argmax(np.ravel(zero) != 0)]}, not 0"
            yield Finding(label(node), "zero point", problem, 'Quantize symmetrically (quantizer = "symmetric")')
        if scale is not None and scale.size > 1:
            yield from _axis(index, node)
        yield from _quantize(index, node) if node.op_type == Q else _dequantize(index, node, scale)
    elif node.op_type in CHANNEL_AXIS:
        yield from _half_quantized(index, node)
    elif node.op_type == "Add":
        yield from _residual(index, node)


def _scale(node: NodeProto, scale: Array | None) -> Iterator[Finding]:
    if scale is None:
        advice = "Make the scale an initializer: quantize statically"
        yield Finding(
            label(node), "scale", "its scale is computed at run time, which crashes TensorRT's parser", advice
        )
    elif not (np.all(scale > 0) and np.all(np.isfinite(scale))):
        bad = np.ravel(scale)[~(np.ravel(scale > 0) & np.ravel(np.isfinite(scale)))]
        advice = "Calibrate with frames on which this tensor is not constant, or exclude the layer from INT8"
        yield Finding(label(node), "scale", f"its scale is {bad[0]:g}; scales must be positive and finite", advice)


def _element_type(index: GraphIndex, node: NodeProto, zero: Array | None) -> Iterator[Finding]:
    kind = index.types.get(node.output[0] if node.op_type == Q else node.input[0], TensorProto.UNDEFINED)
    if kind == TensorProto.UNDEFINED:  # ONNX: the type of the zero point, uint8 without one
        kind = TensorProto.UINT8 if zero is None else TensorProto.DataType.Value(str(zero.dtype).upper())
    if kind == TensorProto.INT32:
        advice = "Leave biases float (QuantizeBias = False)"
        yield Finding(label(node), "bias", "an int32 tensor (a quantized bias) is dequantized", advice)
    elif kind != TensorProto.INT8:
        problem = f"it holds {TensorProto.DataType.Name(kind).lower()}, which TensorRT refuses or reads as INT8"
        yield Finding(label(node), "type", problem, "Quantize activations and weights to signed INT8")


def _axis(index: GraphIndex, node: NodeProto) -> Iterator[Finding]:
    """Per-channel scales: only along the output channels of the constant weights of a convolution."""
    quantize = index.producer(node.input[0], Q)
    if index.constant(node.input[0] if quantize is None else quantize.input[0]) is None:
        yield Finding(label(node), "axis", "an activation has a scale per channel", "Give activations one scale")
        return
    axis = attribute(node, "axis", 1)
    for end in [node] if node.op_type == DQ else index.consumers(node.output[0]):
        for user in index.consumers(end.output[0]):
            expected = CHANNEL_AXIS.get(user.op_type, axis)
            if axis != expected:
                problem = f"the weights of {label(user)} are scaled along axis {axis}"
                yield Finding(label(node), "axis", problem, f"Scale them per output channel, axis {expected}")


def _quantize(index: GraphIndex, node: NodeProto) -> Iterator[Finding]:
    """A Q feeds DQs only."""
    others = [user for user in index.consumers(node.output[0]) if user.op_type != DQ]
    if others or node.output[0] in index.outputs:
        user = label(others[0]) if others else "the output"
        problem = f"its integers go into {user}"
        yield Finding(label(node), "pair", problem, "Put a DequantizeLinear right behind it")


def _dequantize(index: GraphIndex, node: NodeProto, scale: Array | None) -> Iterator[Finding]:
    """A DQ is fed by a Q of the same scale or by a constant."""
    quantize = index.producer(node.input[0])
    if quantize is None or quantize.op_type != Q:
        if index.constant(node.input[0]) is None:
            problem = f"its integers come from {'an input' if quantize is None else label(quantize)}"
            yield Finding(label(node), "pair", problem, "Put a QuantizeLinear right before it")
        return
    before = index.constant_input(quantize, 1)
    if scale is not None and before is not None and not np.array_equal(scale, before, equal_nan=True):
        advice = "Give both the same scale, or the pair stays an operation of its own"
        yield Finding(label(node), "pair", f"its scale differs from that of {label(quantize)}", advice, fatal=False)


def _half_quantized(index: GraphIndex, node: NodeProto) -> Iterator[Finding]:
    quantized_input, quantized_weights = (index.producer(name, DQ) is not None for name in node.input[:2])
    if quantized_input != quantized_weights:
        problem = f"its {'weights are' if quantized_input else 'input is'} float, so it runs in float"
        advice = "Quantize both its input and its weights, or neither"
        yield Finding(label(node), "half quantized", problem, advice, fatal=False)


def _residual(index: GraphIndex, node: NodeProto) -> Iterator[Finding]:
    quantized = [index.producer(name, DQ) is not None for name in node.input]
    floats = [n for n, q in zip(node.input, quantized) if not q and index.constant(n) is None]
    if any(quantized) and floats:
        problem = f"one side ({floats[0]}) is float, so the sum is not fused into the INT8 convolution before it"
        advice = f"Put a Q/DQ pair of its own on {floats[0]}"
        yield Finding(label(node), "residual", problem, advice, fatal=False)
