"""ONNX operators that work on every element alone, or only on shapes, as TFLite operators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.onnx_graph.threshold import FLOATS
from edgeseg.tflite.flatbuffer import Array
from edgeseg.tflite.writer import Order, Writer, unsupported

UNARY = {"Sigmoid": "LOGISTIC", "Tanh": "TANH", "Sqrt": "SQRT", "Exp": "EXP", "Log": "LOG", "Neg": "NEG", "Abs": "ABS",
         "Floor": "FLOOR", "Ceil": "CEIL", "Sin": "SIN", "Cos": "COS"}  # fmt: skip
CLIPS: dict[tuple[float, float], str] = {(0, np.inf): "RELU", (0, 6): "RELU6", (-1, 1): "RELU_N1_TO_1"}
BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Max": "MAXIMUM", "Min": "MINIMUM", "Pow": "POW"}


def unary(w: Writer, node: NodeProto) -> None:
    x = node.input[0]
    _map(w, node, UNARY[node.op_type], x)


def _map(w: Writer, node: NodeProto, op: str, x: str, **options: object) -> None:
    """An operator from one tensor to one of the same shape and order."""
    w.compute(node.output[0], op, [w.get(x, w.order_of(x))], w.order_of(x), **options)


def activate(w: Writer, node: NodeProto, x: str, activation: str) -> None:
    """RELU and its like: inside the operator before if that can, else an operator of its own."""
    if w.fuse(x, activation):
        w.alias(node.output[0], x)
    else:
        _map(w, node, activation, x)


def relu(w: Writer, node: NodeProto) -> None:
    activate(w, node, node.input[0], "RELU")


def clip(w: Writer, node: NodeProto) -> None:
    limits = [attribute(node, "min", -np.inf), attribute(node, "max", np.inf)]  # as attributes up to opset 10
    if len(node.input) > 1:
        limits = [float(w.constant(node, i, limits[i - 1]).reshape(())) for i in (1, 2)]
    largest = np.finfo(np.float32).max
    low, high = (limit if abs(limit) < largest else float(np.copysign(np.inf, limit)) for limit in limits)
    known = CLIPS.get((low, high))
    if known:
        return activate(w, node, node.input[0], known)
    index, order = w.get(node.input[0], w.order_of(node.input[0])), w.order_of(node.input[0])
    for op, bound in (("MAXIMUM", low), ("MINIMUM", high)):
        if np.isfinite(bound):
            index = w.emit(op, [index, w.const(np.float32(bound))], w.stored(index), node.output[0])
    w.put(node.output[0], index, order)
    return None


def leaky_relu(w: Writer, node: NodeProto) -> None:
    _map(w, node, "LEAKY_RELU", node.input[0], alpha=attribute(node, "alpha", 0.01))


def prelu(w: Writer, node: NodeProto) -> None:
    order = w.order_of(node.input[0])
    slope = _aligned(w.constant(node, 1), order)
    inputs = [w.get(node.input[0], order), w.const(slope, f"{node.output[0]}/alpha")]
    w.compute(node.output[0], "PRELU", inputs, order)


def hard_sigmoid(w: Writer, node: NodeProto) -> None:
    """clip(alpha x + beta, 0, 1) = RELU6(6 alpha x + 6 beta) / 6."""
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    name, (index, order, shape) = node.output[0], w.operand(node)
    if abs(6 * alpha - 1) > 1e-6:
        index = w.emit("MUL", [index, w.const(np.float32(6 * alpha))], shape, f"{name}/scaled")
    relu6 = {"fusedActivationFunction": w.schema.ActivationFunctionType.RELU6}
    index = w.emit("ADD", [index, w.const(np.float32(6 * beta))], shape, f"{name}/shifted", **relu6)
    w.compute(name, "MUL", [index, w.const(np.float32(1 / 6))], order)


def hard_swish(w: Writer, node: NodeProto) -> None:
    """x clip(x + 3, 0, 6) / 6, Howard et al. 2019; not HARD_SWISH, which no INT8 kernel of XNNPACK's knows."""
    name, (index, order, shape) = node.output[0], w.operand(node)
    relu6 = {"fusedActivationFunction": w.schema.ActivationFunctionType.RELU6}
    gate = w.emit("ADD", [index, w.const(np.float32(3))], shape, f"{name}/shifted", **relu6)
    gate = w.emit("MUL", [gate, w.const(np.float32(1 / 6))], shape, f"{name}/gate")
    w.compute(name, "MUL", [index, gate], order)


def gelu(w: Writer, node: NodeProto) -> None:
    _map(w, node, "GELU", node.input[0], approximate=attribute(node, "approximate", b"none") == b"tanh")


def reciprocal(w: Writer, node: NodeProto) -> None:
    order = w.order_of(node.input[0])
    index = w.get(node.input[0], order)
    w.compute(node.output[0], "DIV", [w.const(np.float32(1)), index], order)


def power(w: Writer, node: NodeProto) -> None:
    exponent = w.constants.get(node.input[1])
    if exponent is None or exponent.size != 1 or float(exponent.reshape(())) not in (2, 0.5):
        return binary(w, node)
    x = node.input[0]
    index, order = w.get(x, w.order_of(x)), w.order_of(x)
    op, inputs = ("MUL", [index, index]) if float(exponent.reshape(())) == 2 else ("SQRT", [index])
    w.compute(node.output[0], op, inputs, order)
    return None


def binary(w: Writer, node: NodeProto) -> None:
    """Two (Max and Min: more) tensors that broadcast against each other, in the order of the largest."""
    if node.op_type == "Add" and _add_to_bias(w, node):
        return
    shape = w.shape(node.output[0])
    running = [name for name in node.input if name in w.values]
    first = max(running, key=lambda name: (len(w.shape(name)), np.prod(w.shape(name))))
    order = w.order_of(first) if len(w.shape(first)) == len(shape) else tuple(range(len(shape)))
    inputs = [broadcastable(w, name, order) for name in node.input]
    stored, index = [shape[d] for d in order], inputs[0]
    for other in inputs[1:]:
        index = w.emit(BINARY[node.op_type], [index, other], stored, node.output[0])
    w.put(node.output[0], index, order)


def broadcastable(w: Writer, name: str, order: Order) -> int:
    """The tensor of `name`, as the stored `order` of a tensor of higher or equal rank needs it."""
    if name in w.constants:
        return w.const(_aligned(w.constants[name], order), name)
    value = w.values[name]
    if len(value.shape) == len(order):
        return w.get(name, order)
    padded = (*[1] * (len(order) - len(value.shape)), *value.shape)
    if sum(n > 1 for n in padded) > 1:
        index = w.reshape(w.get(name), padded, f"{name}/wide")
        perm = w.const(np.array(order, np.int32), f"{name}/perm")
        return w.emit("TRANSPOSE", [index, perm], [padded[d] for d in order], f"{name}/transposed")
    return w.reshape(value.index, [padded[d] for d in order], f"{name}/wide")


def _aligned(array: Array, order: Order) -> Array:
    """A constant with as many dimensions as `order`, in that order, leading ones dropped."""
    padded = array.reshape([*[1] * (len(order) - array.ndim), *array.shape]).transpose(order)
    while padded.ndim > 1 and padded.shape[0] == 1:
        padded = padded[0]
    return padded


def _add_to_bias(w: Writer, node: NodeProto) -> bool:
    """Add a constant to the output of FULLY_CONNECTED as its bias."""
    for x, name in (node.input, reversed(node.input)):
        operator, bias = w.only_use(x), w.constants.get(name)
        if operator is None or bias is None or w.code(operator) != "FULLY_CONNECTED" or len(operator.inputs) > 2:
            continue
        if (
            bias.shape[-1:] != w.shape(x)[-1:]
            or bias.size != w.shape(x)[-1]
            or w.activation(w.values[x].index) != "NONE"
        ):
            continue
        operator.inputs = [*operator.inputs, w.const(bias.reshape(-1), name)]
        w.alias(node.output[0], x)
        return True
    return False


def cast(w: Writer, node: NodeProto) -> None:
    x = node.input[0]
    index, order, to = w.get(x, w.order_of(x)), w.order_of(x), attribute(node, "to", 1)
    if to not in FLOATS:
        raise unsupported(node, "makes integers")
    if w.dtype(index) == np.float32:
        return w.alias(node.output[0], x)
    types = {"inDataType": w.tensors[index].type, "outDataType": w.schema.TensorType.FLOAT32}
    w.compute(node.output[0], "CAST", [index], order, np.float32, **types)
    return None


def same(w: Writer, node: NodeProto) -> None:
    w.alias(node.output[0], node.input[0])


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys(("Identity", "Dropout"), same),
    "Relu": relu, "Clip": clip, "LeakyRelu": leaky_relu, "PRelu": prelu, "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish, "Gelu": gelu, "Reciprocal": reciprocal, "Pow": power, "Cast": cast,
}  # fmt: skip
