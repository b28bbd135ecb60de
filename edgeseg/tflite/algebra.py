"""Matrix products and normalizations, as TFLite operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.flatbuffer import Array
from edgeseg.tflite.pointwise import broadcastable
from edgeseg.tflite.writer import NHWC, Order, Writer, unsupported

FLOAT = "/float"  # part of the names of tensors that stay float when the rest becomes INT8


def matmul(w: Writer, node: NodeProto) -> None:
    """FULLY_CONNECTED where the right side is a constant matrix, else BATCH_MATMUL."""
    a, b = node.input[0], node.input[1]
    weight = w.constants.get(b)
    if weight is not None and weight.ndim == 2 and a in w.values:
        return fully_connected(w, a, node.output[0], weight)
    shapes = [w.shape(a), w.shape(b)]
    if min(len(s) for s in shapes) < 2:
        raise unsupported(node, "multiplies by a vector")
    if len(shapes[0]) != len(shapes[1]):
        raise unsupported(node, f"multiplies tensors of shapes {shapes}")
    rank = len(shapes[0])
    natural = tuple(range(rank))
    transposed = (*natural[:-2], rank - 1, rank - 2)
    orders = [transposed if n in w.values and w.order_of(n)[-1] == rank - 2 else natural for n in (a, b)]
    inputs = [w.get(n, order) for n, order in zip((a, b), orders)]
    left, right = (order == transposed for order in orders)
    w.compute(node.output[0], "BATCH_MATMUL", inputs, adjX=left, adjY=right)
    return None


def fully_connected(w: Writer, x: str, name: str, weight: Array, bias: Array | None = None) -> None:
    """x @ weight (+ bias) along the last ONNX dimension of x; `weight` is [inputs, outputs]."""
    order = w.order_of(x)
    last = len(order) - 1
    if order[-1] != last:
        order = tuple(range(len(order)))
    inputs = [w.get(x, order), w.const(weight.T, f"{name}/weight")]
    if bias is not None:
        inputs.append(w.const(bias, f"{name}/bias"))
    w.compute(name, "FULLY_CONNECTED", inputs, order, keepNumDims=True)


def gemm(w: Writer, node: NodeProto) -> None:
    if attribute(node, "transA", 0):
        raise unsupported(node, "has transA")
    weight = w.constant(node, 1) * np.float32(attribute(node, "alpha", 1.0))
    weight = weight.T if attribute(node, "transB", 0) else weight
    bias = None
    if len(node.input) > 2:
        bias = w.constant(node, 2) * np.float32(attribute(node, "beta", 1.0))
        bias = np.broadcast_to(bias.reshape(-1), [weight.shape[1]])
    fully_connected(w, node.input[0], node.output[0], weight, bias)


def standardize(w: Writer, index: int, dims: Sequence[int], epsilon: float, name: str) -> int:
    """(x - mean) / sqrt(variance + epsilon) over stored dimensions `dims`; stays float in an INT8 network."""
    shape = w.stored(index)
    reduced = [1 if d in dims else n for d, n in enumerate(shape)]
    name += FLOAT
    axes = [w.const(np.array(dims, np.int32), f"{name}/axes") for _ in range(2)]
    mean = w.emit("MEAN", [index, axes[0]], reduced, f"{name}/mean", keepDims=True)
    centered = w.emit("SUB", [index, mean], shape, f"{name}/centered")
    square = w.emit("MUL", [centered, centered], shape, f"{name}/square")
    variance = w.emit("MEAN", [square, axes[1]], reduced, f"{name}/variance", keepDims=True)
    safe = w.emit("ADD", [variance, w.const(np.float32(epsilon))], reduced, f"{name}/safe")
    root = w.emit("RSQRT", [safe], reduced, f"{name}/root")
    return w.emit("MUL", [centered, root], shape, f"{name}/standard")


def scale_and_shift(w: Writer, index: int, name: str, order: Order, scale: str, bias: str) -> None:
    """name = index * scale + bias, two constants of ONNX's shape that broadcast (or "" for none)."""
    shape = w.stored(index)
    for op, constant in (("MUL", scale), ("ADD", bias)):
        if constant:
            index = w.emit(op, [index, broadcastable(w, constant, order)], shape, f"{name}{FLOAT}/{op.lower()}")
    w.put(name, index, order)


def layer_norm(w: Writer, node: NodeProto) -> None:
    x, rank = node.input[0], len(w.shape(node.input[0]))
    first, order = attribute(node, "axis", -1) % rank, w.order_of(node.input[0])
    dims = [order.index(d) for d in range(first, rank)]
    index = standardize(w, w.get(x, order), dims, attribute(node, "epsilon", 1e-5), node.output[0])
    w.constant(node, 1, 1.0)
    scale, bias = [*node.input[1:], "", ""][:2]
    scale_and_shift(w, index, node.output[0], order, scale, bias)


def group_norm(w: Writer, node: NodeProto) -> None:
    """[1, H, W, C] seen as [1, H * W, G, C / G]: no channel moves."""
    x, name = node.input[0], node.output[0]
    shape, groups = w.shape(x), attribute(node, "groups", 1)
    order = (0, *range(2, len(shape)), 1)
    index = w.get(x, order)
    stored = w.stored(index)
    split = [stored[0], int(np.prod(stored[1:-1])), groups, stored[-1] // groups]
    index = standardize(w, w.reshape(index, split, f"{name}/groups"), [1, 3], attribute(node, "epsilon", 1e-5), name)
    w.put(name, w.reshape(index, stored, f"{name}{FLOAT}"), order)


def instance_norm(w: Writer, node: NodeProto) -> None:
    x, name, rank = node.input[0], node.output[0], len(w.shape(node.input[0]))
    order = w.order_of(x)
    dims = [k for k, d in enumerate(order) if d > 1]
    index = standardize(w, w.get(x, order), dims, attribute(node, "epsilon", 1e-5), name)
    for key in node.input[1:3]:
        w.constants[f"{key}{FLOAT}{rank}"] = w.constants[key].reshape(-1, *[1] * (rank - 2))
    scale_and_shift(w, index, name, order, *(f"{key}{FLOAT}{rank}" for key in node.input[1:3]))


def batch_norm(w: Writer, node: NodeProto) -> None:
    """One that could not be folded into a convolution: x * gain + shift."""
    scale, beta, mean, var = (w.constant(node, i).astype(np.float64) for i in range(1, 5))
    gain = scale / np.sqrt(var + attribute(node, "epsilon", 1e-5))
    rank = len(w.shape(node.input[0]))
    order = NHWC if rank == 4 else w.order_of(node.input[0])
    index = w.get(node.input[0], order)
    for op, values in (("MUL", gain), ("ADD", beta - mean * gain)):
        key = f"{node.output[0]}/{op.lower()}"
        w.constants[key] = values.astype(np.float32).reshape(-1, *[1] * (rank - 2))
        index = w.emit(op, [index, broadcastable(w, key, order)], w.stored(index), key)
    w.put(node.output[0], index, order)


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "LayerNormalization": layer_norm,
    "GroupNorm": group_norm,
    "InstanceNormalization": instance_norm,
    "BatchNormalization": batch_norm,
}
