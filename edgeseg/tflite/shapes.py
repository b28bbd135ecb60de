"""ONNX operators that move, cut, join or sum dimensions, as TFLite operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.flatbuffer import Array
from edgeseg.tflite.pointwise import broadcastable
from edgeseg.tflite.writer import Order, Writer, unsupported


def regroup(shape: Sequence[int], order: Order, new: Sequence[int]) -> Order | None:
    """The order in which a reshape of `shape` (stored in `order`) to `new` leaves memory as it is; None if it cannot.

    Both shapes are cut into runs of equal size; a run's dimensions must lie beside one another in memory, in order.
    """
    if prod(shape) != prod(new):
        return None
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(shape) or j < len(new):
        a, b = [i] if i < len(shape) else [], [j] if j < len(new) else []
        i, j = i + len(a), j + len(b)
        while (left := prod(shape[d] for d in a)) != (right := prod(new[d] for d in b)):
            if left < right:
                a, i = [*a, i], i + 1
            else:
                b, j = [*b, j], j + 1
        runs.append((a, b))
    owner = {d: run for run, (a, _) in enumerate(runs) for d in a}
    wide = [d for d in order if shape[d] > 1]
    in_memory = list(dict.fromkeys(owner[d] for d in wide))
    if wide != [d for run in in_memory for d in runs[run][0] if shape[d] > 1]:
        return None
    narrow = [run for run, (a, _) in enumerate(runs) if all(shape[d] == 1 for d in a)]
    return tuple(d for run in [*narrow, *in_memory] for d in runs[run][1])


def reshape(w: Writer, node: NodeProto) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: whatever the new shape is, in place where memory allows."""
    x, name = node.input[0], node.output[0]
    new, value = w.shape(name), w.values[x]
    order = regroup(value.shape, value.order, new)
    index = value.index if order else w.get(x)
    order = order or tuple(range(len(new)))
    result = w.reshape(index, [new[d] for d in order], name)
    if result == index:
        w.alias(name, x, order) if index == value.index else w.put(name, index, order)
    else:
        w.put(name, result, order)


def transpose(w: Writer, node: NodeProto) -> None:
    x, rank = node.input[0], len(w.shape(node.input[0]))
    perm = list(attribute(node, "perm", list(reversed(range(rank)))))
    w.alias(node.output[0], x, tuple(perm.index(d) for d in w.order_of(x)))


def concat(w: Writer, node: NodeProto) -> None:
    name = node.output[0]
    axis = attribute(node, "axis", 0) % len(w.shape(name))
    running = [n for n in node.input if n in w.values]
    order = max((w.order_of(n) for n in running), key=[w.order_of(n) for n in running].count)
    inputs = [w.get(n, order) for n in node.input]
    w.compute(name, "CONCATENATION", inputs, order, axis=order.index(axis))


def _slice(w: Writer, x: str, name: str, begin: list[int], end: list[int], step: list[int]) -> None:
    """STRIDED_SLICE by ONNX's dimensions; for a negative step `end` may be -1, which means: to the first."""
    order = w.order_of(x)
    index = w.get(x, order)
    mask = sum(1 << k for k, d in enumerate(order) if end[d] < 0)
    limits = {"begin": begin, "end": [max(e, 0) for e in end], "step": step}
    tensors = [w.const(np.array([v[d] for d in order], np.int32), f"{name}/{key}") for key, v in limits.items()]
    w.compute(name, "STRIDED_SLICE", [index, *tensors], order, endMask=mask)


def slice_(w: Writer, node: NodeProto) -> None:
    x, shape = node.input[0], w.shape(node.input[0])
    if len(node.input) > 1:
        starts, ends = w.constant(node, 1), w.constant(node, 2)
        axes = w.constant(node, 3, np.arange(len(starts)))
        steps = w.constant(node, 4, np.ones(len(starts), np.int64))
    else:
        starts, ends = (np.array(attribute(node, key, [])) for key in ("starts", "ends"))
        axes, steps = np.array(attribute(node, "axes", range(len(starts)))), np.ones(len(starts), np.int64)
    begin, end, step = [0] * len(shape), list(shape), [1] * len(shape)
    for a, s, e, by in zip(axes.tolist(), starts.tolist(), ends.tolist(), steps.tolist()):
        begin[a], end[a], step[a] = slice(s, e, by).indices(shape[a])
    _slice(w, x, node.output[0], begin, end, step)


def split(w: Writer, node: NodeProto) -> None:
    x, shape = node.input[0], w.shape(node.input[0])
    axis, offset = attribute(node, "axis", 0) % len(shape), 0
    for name in node.output:
        begin, end = [0] * len(shape), list(shape)
        begin[axis], end[axis] = offset, offset + w.shape(name)[axis]
        offset = end[axis]
        _slice(w, x, name, begin, end, [1] * len(shape))


def gather(w: Writer, node: NodeProto) -> None:
    """Constant indices only: one number is a slice, a list a GATHER."""
    x, name, shape = node.input[0], node.output[0], w.shape(node.input[0])
    axis, indices = attribute(node, "axis", 0) % len(shape), w.constant(node, 1) % shape[attribute(node, "axis", 0)]
    if indices.ndim > 1:
        raise unsupported(node, "takes a table of indices")
    if indices.ndim == 1:
        return take(w, x, name, axis, indices)
    begin, end = [0] * len(shape), list(shape)
    begin[axis], end[axis] = int(indices), int(indices) + 1
    order = tuple(d - (d > axis) for d in w.order_of(x) if d != axis)
    part = f"{name}/part"
    w.shapes[part] = [1 if d == axis else n for d, n in enumerate(shape)]
    _slice(w, x, part, begin, end, [1] * len(shape))
    w.put(name, w.reshape(w.values[part].index, [w.shape(name)[d] for d in order], name), order)
    return None


def take(w: Writer, x: str, name: str, axis: int, indices: Array) -> None:
    """name = x with these `indices` of an ONNX axis."""
    order = w.order_of(x)
    inputs = [w.get(x, order), w.const(indices.astype(np.int32), f"{name}/indices")]
    w.compute(name, "GATHER", inputs, order, axis=order.index(axis))


def expand(w: Writer, node: NodeProto) -> None:
    x, name = node.input[0], node.output[0]
    shape, value = w.shape(name), w.values[x]
    order = value.order if len(value.shape) == len(shape) else tuple(range(len(shape)))
    index = broadcastable(w, x, order)
    size = w.const(np.array([shape[d] for d in order], np.int32), f"{name}/shape")
    w.compute(name, "BROADCAST_TO", [index, size], order)


def reduce(w: Writer, node: NodeProto) -> None:
    """ReduceMean, Sum, Max, Min, L1, L2 and the global pools."""
    x, name, rank = node.input[0], node.output[0], len(w.shape(node.input[0]))
    pool = node.op_type.startswith("Global")
    axes_input = w.constant(node, 1) if len(node.input) > 1 and node.input[1] else None
    if axes_input is not None and not axes_input.size and attribute(node, "noop_with_empty_axes", 0):
        return w.alias(name, x)
    axes = list(range(2, rank)) if pool else axes_of(node, rank, axes_input)
    keep_dims = pool or bool(attribute(node, "keepdims", 1))
    op = {
        "Mean": "MEAN",
        "AveragePool": "MEAN",
        "Sum": "SUM",
        "Max": "REDUCE_MAX",
        "MaxPool": "REDUCE_MAX",
        "Min": "REDUCE_MIN",
        "L1": "SUM",
        "L2": "SUM",
    }[node.op_type.removeprefix("Global").removeprefix("Reduce")]
    order = w.order_of(x)
    index = w.get(x, order)
    if node.op_type == "ReduceL1":
        index = w.emit("ABS", [index], w.stored(index), f"{name}/size")
    if node.op_type == "ReduceL2":
        index = w.emit("MUL", [index, index], w.stored(index), f"{name}/square")
    stored_axes = w.const(np.array([order.index(a) for a in axes], np.int32), f"{name}/axes")
    remaining = order if keep_dims else tuple(d - sum(a < d for a in axes) for d in order if d not in axes)
    if node.op_type == "ReduceL2":
        shape = [w.shape(name)[d] for d in remaining]
        total = w.emit(op, [index, stored_axes], shape, f"{name}/total", keepDims=keep_dims)
        return w.compute(name, "SQRT", [total], remaining)
    w.compute(name, op, [index, stored_axes], remaining, keepDims=keep_dims)
    return None


def softmax(w: Writer, node: NodeProto) -> None:
    x, name, shape = node.input[0], node.output[0], w.shape(node.input[0])
    axis = attribute(node, "axis", -1) % len(shape)
    order = w.order_of(x)
    if order[-1] != axis:
        order = (*(d for d in range(len(shape)) if d != axis), axis)
    op, options = ("SOFTMAX", {"beta": 1.0}) if node.op_type == "Softmax" else ("LOG_SOFTMAX", {})
    w.compute(name, op, [w.get(x, order)], order, **options)


def axes_of(node: NodeProto, rank: int, axes_input: Array | None = None) -> list[int]:
    """The axes a node works along, none negative: from its attribute or `axes_input`; all where there are none."""
    axes = attribute(node, "axes", None) if axes_input is None else axes_input.reshape(-1).tolist()
    return sorted(int(a) % rank for a in axes) if axes else list(range(rank))


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys([f"Reduce{kind}" for kind in ("Mean", "Sum", "Max", "Min", "L1", "L2")], reduce),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    "Transpose": transpose,
    "Concat": concat,
    "Slice": slice_,
    "Split": split,
    "Gather": gather,
    "Expand": expand,
}
