"""Masks of attention: bounded without a change of values, and never rounded to 8 bits."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.onnx_graph.attention_masks import MASKED, bound_masks, masked_layers

LOWEST = np.finfo(np.float32).min


def attention(low: float, end: str = "Softmax") -> onnx.ModelProto:
    """softmax(x + where(x > 0, low, 0)), or another operator at the end."""
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["hidden"], name="hide"),
        helper.make_node("Where", ["hidden", "low", "zero"], ["mask"], name="mask"),
        helper.make_node("Add", ["x", "mask"], ["scores"], name="scores"),
        helper.make_node(end, ["scores"], ["y"], name="end"),
    ]
    constants = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("low", low), ("zero", 0))]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8]) for name in "xy")
    whole = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("low", [-np.inf, LOWEST, -1e9])
def test_bounded_masks_give_the_same_attention(low: float) -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 8)).astype(np.float32) * 30
    model = attention(low)
    expected = run(model, x)

    bound_masks(model)

    assert {i.name: float(numpy_helper.to_array(i)) for i in model.graph.initializer}["low"] == MASKED
    np.testing.assert_array_equal(run(model, x), expected)
    assert masked_layers(model) == ("scores",)


def test_low_constants_elsewhere_are_left_alone() -> None:
    model = attention(-np.inf, end="Relu")
    before = model.SerializeToString()

    bound_masks(model)

    assert model.SerializeToString() == before
    assert masked_layers(model) == ()


def test_a_softmax_without_a_mask_has_no_masked_layers() -> None:
    assert masked_layers(attention(-5.0)) == ()
