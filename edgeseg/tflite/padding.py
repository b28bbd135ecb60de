"""Pad, by itself or as part of the convolution behind it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.flatbuffer import Array
from edgeseg.tflite.windows import Pads
from edgeseg.tflite.writer import Writer, unsupported


def pad(w: Writer, node: NodeProto) -> None:
    x, name, rank = node.input[0], node.output[0], len(w.shape(node.input[0]))
    amounts, value, mode = _pad_of(w, node)
    if min(amounts.ravel()) < 0:
        raise unsupported(node, "crops (has negative pads)")
    order = w.order_of(x)
    index = w.get(x, order)
    table = w.const(amounts.reshape(2, rank).T[list(order)].astype(np.int32), f"{name}/pads")
    if mode == "constant":
        op, more = ("PAD", []) if value == 0 else ("PADV2", [w.const(np.float32(value), f"{name}/value")])
        w.compute(name, op, [index, table, *more], order)
    elif mode == "reflect" or (mode == "edge" and amounts.max() <= 1):
        # An edge of one pixel is also the first pixel of a symmetric mirror.
        kind = w.schema.MirrorPadMode.REFLECT if mode == "reflect" else w.schema.MirrorPadMode.SYMMETRIC
        w.compute(name, "MIRROR_PAD", [index, table], order, mode=kind)
    else:
        raise unsupported(node, f"has the mode {mode}")


def _pad_of(w: Writer, node: NodeProto) -> tuple[Array, float, str]:
    """(amounts [2, rank], the constant, the mode) of a Pad."""
    rank = len(w.shape(node.input[0]))
    pads = w.constant(node, 1) if len(node.input) > 1 else np.array(attribute(node, "pads", []))
    value = float(w.constant(node, 2, 0.0).reshape(())) if len(node.input) > 1 else attribute(node, "value", 0.0)
    amounts = pads.reshape(2, -1)
    if len(node.input) > 3 and node.input[3]:
        all_axes = np.zeros((2, rank), np.int64)
        all_axes[:, w.constant(node, 3) % rank] = amounts
        amounts = all_axes
    return amounts, value, attribute(node, "mode", b"constant").decode()


def before_pad(w: Writer, x: str) -> tuple[str, Pads]:
    """(input, amounts) of the Pad with zeros of H and W that makes `x`; `x` itself where there is no such Pad."""
    node = w.onnx.producer(x, "Pad")
    if node is None or len(w.shape(x)) != 4:
        return x, [(0, 0), (0, 0)]
    amounts, value, mode = _pad_of(w, node)
    if mode != "constant" or value != 0 or amounts[:, :2].any() or amounts.min() < 0:
        return x, [(0, 0), (0, 0)]
    return node.input[0], [(int(a), int(b)) for a, b in amounts[:, 2:].T]


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {"Pad": pad}
