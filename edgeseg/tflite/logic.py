"""Comparisons, what combines them, and Where."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto

from edgeseg.tflite.pointwise import broadcastable
from edgeseg.tflite.writer import Order, Writer

COMPARISONS = {"Greater": "GREATER", "GreaterOrEqual": "GREATER_EQUAL", "Less": "LESS", "LessOrEqual": "LESS_EQUAL",
               "Equal": "EQUAL"}  # fmt: skip
COMBINATIONS = {"And": "LOGICAL_AND", "Or": "LOGICAL_OR"}


def compare(w: Writer, node: NodeProto) -> None:
    order = _order(w, node.input, node.output[0])
    op = {**COMPARISONS, **COMBINATIONS}[node.op_type]
    w.compute(node.output[0], op, [broadcastable(w, name, order) for name in node.input], order, np.bool_)


def negate(w: Writer, node: NodeProto) -> None:
    order = w.order_of(node.input[0])
    w.compute(node.output[0], "LOGICAL_NOT", [w.get(node.input[0], order)], order, np.bool_)


def where(w: Writer, node: NodeProto) -> None:
    """SELECT_V2: the second where the first is true, else the third; all three broadcast."""
    order = _order(w, node.input, node.output[0])
    inputs = [broadcastable(w, name, order) for name in node.input]
    w.compute(node.output[0], "SELECT_V2", inputs, order, w.dtype(inputs[1]))


def _order(w: Writer, names: Sequence[str], out: str) -> Order:
    """The order that the result is stored in: that of the largest running input where it has as many dimensions."""
    rank = len(w.shape(out))
    running = [name for name in names if name in w.values and len(w.shape(name)) == rank]
    if not running:
        return tuple(range(rank))
    return w.order_of(max(running, key=lambda name: int(np.prod(w.shape(name)))))


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {
    **dict.fromkeys((*COMPARISONS, *COMBINATIONS), compare),
    "Not": negate,
    "Where": where,
}
