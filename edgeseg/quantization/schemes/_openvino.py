"""INT8 weights of OpenVINO models, rounded again with scales that no CPU saturates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeseg.quantization.rounding import to_int8
from edgeseg.quantization.saturation import safe_scale
from edgeseg.quantization.scheme import Array

# The axis of the weights whose products are added up: [O, I, ...], [G, O, I, ...], [I, O, ...], [G, I, O, ...].
INPUT_AXES = {
    "Convolution": 1,
    "GroupConvolution": 2,
    "ConvolutionBackpropData": 0,
    "GroupConvolutionBackpropData": 1,
}


def layers_with_weights(model: Any) -> Iterator[Any]:
    """The operators of an ov.Model that multiply by weights, their second input."""
    return (op for op in model.get_ordered_ops() if op.get_type_name() in (*INPUT_AXES, "MatMul"))


def widen_scales(model: Any, floats: Mapping[str, Array]) -> None:
    """Give the symmetric INT8 weights of an ov.Model safe scales (see saturation.py), in place.

    `floats`: the weights before any rounding, by the friendly name of the operator; others are rounded twice.
    """
    from openvino import opset13 as ops

    for op in layers_with_weights(model):
        multiply = op.input_value(1).get_node()
        if multiply.get_type_name() != "Multiply" or multiply.input_value(0).get_node().get_type_name() != "Convert":
            continue
        convert, factor = (multiply.input_value(i).get_node() for i in (0, 1))
        stored = convert.input_value(0).get_node()
        if stored.get_type_name() != "Constant" or stored.get_data().dtype != np.int8:
            continue
        ints, old = stored.get_data(), factor.get_data()
        weights = floats.get(op.get_friendly_name(), ints * old).reshape(ints.shape)
        new = safe_scale(weights, old, _input_axis(op, ints.ndim)).astype(np.float32)
        convert.input(0).replace_source_output(ops.constant(to_int8(weights, new)).output(0))
        multiply.input(1).replace_source_output(ops.constant(new).output(0))


def _input_axis(op: Any, dimensions: int) -> int:
    if (axis := INPUT_AXES.get(op.get_type_name())) is not None:
        return axis
    return dimensions - (1 if op.get_attributes()["transpose_b"] else 2)
