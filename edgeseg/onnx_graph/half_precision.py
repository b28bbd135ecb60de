"""Weights stored as float16: half the file, the same arithmetic."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeseg.onnx_graph.index import Array, GraphIndex

FLOAT16_MAX = 65504
MIN_VALUES = 16  # smaller weights are not worth a Cast


def half_weights(model: ModelProto) -> ModelProto:
    """A copy whose float weights of 16 and more values are stored as float16 and cast back when the model loads."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    index, casts = GraphIndex(model), []
    for name, weight in index.initializers.items():
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size >= MIN_VALUES:
            stored = index.fresh_name(f"{name}_half")
            casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
            weight.CopyFrom(numpy_helper.from_array(as_float16(values), stored))
    for node in casts:
        model.graph.node.insert(0, node)
    return model


def as_float16(values: Array) -> Array:
    """Rounded to float16; what is beyond its range becomes its largest number instead of infinity."""
    return np.clip(values, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)


def has_half_weights(model: ModelProto) -> bool:
    """Whether a network stores tensors in float16, and so probably computes in it."""
    return any(i.data_type == TensorProto.FLOAT16 and len(i.dims) > 1 for i in model.graph.initializer)
