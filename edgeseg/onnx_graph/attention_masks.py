"""Attention masks: constants of minus infinity, or of the lowest float, on their way to a Softmax."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from edgeseg.onnx_graph.index import GraphIndex
from edgeseg.onnx_graph.layer_names import layers

MASKED = -1e4  # exp() of it is 0 in every float type, and float16 holds it
CARRIES = (
    *("Where", "Add", "Max", "Cast", "Identity", "Concat", "Expand", "Tile", "Reshape"),
    *("Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "ScatterND", "Flatten", "Split"),
)


def bound_masks(model: ModelProto) -> None:
    """Raise what is below MASKED in the constants of masks to MASKED, in place.

    A Softmax then ignores what it ignored before, and no quantizer meets a range without an end.
    """
    index = GraphIndex(model)
    for name in _masks(index):
        values = index.constant(name)
        if values is not None:
            index.set_constant(name, np.maximum(values, MASKED))


def masked_layers(model: ModelProto) -> tuple[str, ...]:
    """The layers of a deploy graph that see a mask: rounded to 8 bits, they would know nothing but the mask."""
    index = GraphIndex(model)
    carriers = {id(node) for nodes in _masks(index).values() for node in nodes}
    return tuple(node.name for node in layers(model) if id(node) in carriers)


def _masks(index: GraphIndex) -> dict[str, list[NodeProto]]:
    """The constants that are masks, each with the nodes that carry it to a Softmax."""
    found = {}
    for name, tensor in index.initializers.items():
        values = index.constant(name)
        if tensor.data_type == TensorProto.FLOAT and values is not None and values.size and values.min() <= MASKED:
            carriers = _to_softmax(index, name)
            if carriers:
                found[name] = carriers
    return found


def _to_softmax(index: GraphIndex, tensor: str) -> list[NodeProto]:
    """The nodes between a tensor and the Softmax operators that alone read it in the end; none for any other use."""
    carriers: dict[int, NodeProto] = {}
    pending, ends = [tensor], 0
    while pending:
        name = pending.pop()
        if name in index.outputs:
            return []
        for node in index.consumers(name):
            if node.op_type == "Softmax":
                ends += 1
            elif node.op_type not in CARRIES:
                return []
            elif id(node) not in carriers:
                carriers[id(node)] = node
                pending += node.output
    return list(carriers.values()) if ends else []
