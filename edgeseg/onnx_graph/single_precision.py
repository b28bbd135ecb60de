"""A network in float16, bfloat16 or float64 computed in float32, so that every precision starts from the same graph."""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper

from edgeseg.onnx_graph.index import all_nodes

OTHERS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def to_float32(model: ModelProto) -> bool:
    """Turn every float tensor of another width into float32, in place; whether there was any. Inputs change too.

    The values are those of the file; sums and products are rounded less than the file asks for (float16) or more
    (float64: what a network computes in it is hardly ever more than coordinates).
    """
    graph, changed = model.graph, False
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in OTHERS:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            changed = True
    for tensor in graph.initializer:
        changed |= _widen(tensor)
    for node in all_nodes(graph):
        for entry in node.attribute:
            if entry.type == AttributeProto.INT and entry.name in TYPE_ATTRIBUTES and entry.i in OTHERS:
                entry.i, changed = TensorProto.FLOAT, True
            elif entry.type == AttributeProto.TENSOR:
                changed |= _widen(entry.t)
            elif entry.type == AttributeProto.GRAPH:
                for tensor in entry.g.initializer:
                    changed |= _widen(tensor)
    if changed:
        del graph.value_info[:]
    return changed


def _widen(tensor: TensorProto) -> bool:
    if tensor.data_type not in OTHERS:
        return False
    values = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return True
