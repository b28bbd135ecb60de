"""Einsum -> MatMul: the numbers of numpy, for any equation of two tensors."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeseg.onnx_graph.einsum import einsum_to_matmul

LETTERS = "abcdef"


def graph(equation: str, shapes: list[tuple[int, ...]], shape: tuple[int, ...] | None = None) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)]
    node = helper.make_node("Einsum", [v.name for v in inputs], ["y"], name="/Einsum", equation=equation)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(helper.make_graph([node], "g", inputs, [out]), opset_imports=[opset], ir_version=8)


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, str, str]:
    """Indices of a, b and the output: every one in the output or in both inputs."""
    kinds = {
        letter: draw(st.sampled_from(["batch", "summed", "left", "right"]))
        for letter in LETTERS[: draw(st.integers(1, 6))]
    }
    parts = []
    for without in ("right", "left", "summed"):
        letters = [letter for letter, kind in kinds.items() if kind != without]
        parts.append("".join(draw(st.permutations(letters))))
    return parts[0], parts[1], parts[2]


@given(equations(), st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_any_product_of_two_tensors_keeps_its_values(parts: tuple[str, str, str], seed: int) -> None:
    a, b, out = parts
    rng = np.random.default_rng(seed)
    sizes = {letter: int(rng.integers(1, 5)) for letter in LETTERS}
    x = [rng.standard_normal([sizes[letter] for letter in part]).astype(np.float32) for part in (a, b)]
    expected = np.einsum(f"{a},{b}->{out}", *x)
    model = graph(f"{a},{b}->{out}", [v.shape for v in x], expected.shape)

    einsum_to_matmul(model)

    assert "Einsum" not in {node.op_type for node in model.graph.node}
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {f"x{i}": v for i, v in enumerate(x)})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("equation", ["ab,bc", "aab,bc->ac", "...a,ab->...b", "ab,bc->a", "ab,cd->ad"])
def test_what_is_no_plain_product_stays(equation: str) -> None:
    ranks = [part.replace("...", "z") for part in equation.partition("->")[0].split(",")]
    model = graph(equation, [(2,) * len(part) for part in ranks])

    einsum_to_matmul(model)

    assert [node.op_type for node in model.graph.node] == ["Einsum"]
