"""Activations that TFLite has no operator for, put together of those it has: exact, and safe from overflow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.writer import Writer

SELU = 1.6732632, 1.0507010  # ONNX's alpha and gamma


def exponential(w: Writer, node: NodeProto) -> None:
    """gain (max(x, 0) + alpha (e^(min(x, 0) / slope) - 1)): Elu, Celu and Selu."""
    alpha, slope, gain = attribute(node, "alpha", 1.0), 1.0, 1.0
    if node.op_type == "Celu":
        slope = alpha
    if node.op_type == "Selu":
        alpha, gain = attribute(node, "alpha", SELU[0]), attribute(node, "gamma", SELU[1])
    name, (index, order, shape) = node.output[0], w.operand(node)
    if alpha == slope == gain == 1:
        return w.compute(name, "ELU", [index], order)
    positive = _times(w, w.emit("RELU", [index], shape, f"{name}/positive"), gain, name)
    negative = w.emit("MINIMUM", [index, w.const(np.float32(0))], shape, f"{name}/negative")
    curve = w.emit("ELU", [_times(w, negative, 1 / slope, name)], shape, f"{name}/curve")
    w.compute(name, "ADD", [positive, _times(w, curve, alpha * gain, name)], order)
    return None


def softplus(w: Writer, node: NodeProto) -> None:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|); Mish is x tanh of it."""
    name, (index, order, shape) = node.output[0], w.operand(node)
    size = w.emit("ABS", [index], shape, f"{name}/size")
    power = w.emit("EXP", [w.emit("NEG", [size], shape, f"{name}/minus")], shape, f"{name}/power")
    more = w.emit("ADD", [power, w.const(np.float32(1))], shape, f"{name}/more")
    rest = w.emit("LOG", [more], shape, f"{name}/rest")
    positive = w.emit("RELU", [index], shape, f"{name}/positive")
    if node.op_type == "Softplus":
        return w.compute(name, "ADD", [positive, rest], order)
    soft = w.emit("ADD", [positive, rest], shape, f"{name}/soft")
    w.compute(name, "MUL", [index, w.emit("TANH", [soft], shape, f"{name}/gate")], order)
    return None


def softsign(w: Writer, node: NodeProto) -> None:
    """x / (1 + |x|)."""
    name, (index, order, shape) = node.output[0], w.operand(node)
    size = w.emit("ABS", [index], shape, f"{name}/size")
    w.compute(name, "DIV", [index, w.emit("ADD", [size, w.const(np.float32(1))], shape, f"{name}/more")], order)


def _times(w: Writer, index: int, factor: float, name: str) -> int:
    if factor == 1:
        return index
    return w.emit("MUL", [index, w.const(np.float32(factor))], w.stored(index), f"{name}/scaled")


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {
    **dict.fromkeys(("Elu", "Celu", "Selu"), exponential),
    **dict.fromkeys(("Softplus", "Mish"), softplus),
    "Softsign": softsign,
}
