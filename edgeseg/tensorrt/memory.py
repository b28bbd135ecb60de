"""How much memory a network needs while it runs."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from edgeseg.onnx_graph.index import element_types, static_shapes, tensors_read


def memory(model: ModelProto) -> int:
    """Bytes: weights, and the activations that are alive at once when the nodes run in order."""
    shapes, types = static_shapes(model), element_types(model)

    def size(tensor: str) -> int:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(types.get(tensor) or TensorProto.FLOAT))
        return int(np.prod(shapes.get(tensor, [0]), dtype=np.int64)) * dtype.itemsize

    last_read = {name: i for i, node in enumerate(model.graph.node) for name in tensors_read(node)}
    alive, peak = {value.name: size(value.name) for value in model.graph.input}, 0
    for i, node in enumerate(model.graph.node):
        alive.update({name: size(name) for name in node.output})
        peak = max(peak, sum(alive.values()))
        alive = {name: held for name, held in alive.items() if last_read.get(name, -1) > i}
    return sum(len(weight.SerializeToString()) for weight in model.graph.initializer) + peak
