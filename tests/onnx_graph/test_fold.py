"""Constant and batch-norm folding: what is folded, what stays, and that the results do not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import Net

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgeseg import onnx_graph
from edgeseg.onnx_graph.fold_constants import MAX_ELEMENTS
from edgeseg.onnx_graph.index import fresh_name
from edgeseg.onnx_graph.loading import fold


def run(model: Any, image: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"image": image}))


def folded(model: Any) -> Any:
    """A folded copy, after checking that it is valid and computes the same."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    fold(copy)
    onnx.checker.check_model(copy)
    shape = [d.dim_value or 8 for d in model.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    for a, b in zip(run(model, image), run(copy, image), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    return copy


SHAPE = (1, 3, 8, 8)


def test_conv_and_norm_become_one_conv() -> None:
    net = Net()
    made = folded(net.model(net.norm(net.conv("image", 3, 4), 4), shape=SHAPE))
    assert onnx_graph.operator_counts(made) == {"Conv": 1}
    assert len(made.graph.initializer) == 2


def test_a_conv_without_bias_gets_one() -> None:
    net = Net()
    weight = net.constant(net.random.normal(size=(4, 3, 1, 1)))
    made = folded(net.model(net.norm(net.add("Conv", "image", weight), 4), shape=SHAPE))
    assert onnx_graph.operator_counts(made) == {"Conv": 1}
    assert len(made.graph.node[0].input) == 3


def test_a_tiny_variance_is_guarded_by_its_own_epsilon() -> None:
    net = Net()
    x = net.conv("image", 3, 2)
    parts = [net.constant(v) for v in ([1, 2], [0, 1], [0, 0], [0, 0])]
    made = folded(net.model(net.add("BatchNormalization", x, *parts, epsilon=0.25), shape=SHAPE))
    assert onnx_graph.operator_counts(made) == {"Conv": 1}


def transposed(
    net: Net, groups: int, depths: tuple[int, int], kernel: int, stride: int, padding: int, bias: bool
) -> str:
    """ConvTranspose of `groups` groups, `depths` channels (in, out) of each, then BatchNormalization."""
    inside, outside = depths
    x = net.conv("image", 3, groups * inside)
    weights = [net.constant(net.random.normal(size=(groups * inside, outside, kernel, kernel)))]
    weights += [net.constant(net.random.normal(size=groups * outside))] if bias else []
    more = {"group": groups, "strides": [stride, stride], "output_padding": [padding, padding]}
    return net.norm(net.add("ConvTranspose", x, *weights, **more), groups * outside)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_transposed_conv_and_its_norm_become_one(groups: int, bias: bool, padding: int) -> None:
    net = Net()
    made = folded(net.model(transposed(net, groups, (2, 3), 3, 2, padding, bias), shape=SHAPE))
    assert onnx_graph.operator_counts(made) == {"Conv": 1, "ConvTranspose": 1}
    assert len(made.graph.node[-1].input) == 3


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(1, 4), st.data())
def test_folding_any_transposed_conv_is_exact(groups: int, depths: tuple[int, int], kernel: int, data: Any) -> None:
    net, stride = Net(), data.draw(st.integers(1, 3))
    padding, bias = data.draw(st.integers(0, stride - 1)), data.draw(st.booleans())
    made = folded(net.model(transposed(net, groups, depths, kernel, stride, padding, bias), shape=SHAPE))
    assert onnx_graph.operator_counts(made)["BatchNormalization"] == 0


def test_a_chain_of_norms_folds_altogether() -> None:
    net = Net()
    x = net.norm(net.norm(net.conv("image", 3, 4), 4), 4)
    assert onnx_graph.operator_counts(folded(net.model(x, shape=SHAPE)))["Conv"] == 1


def test_a_conv_whose_result_is_an_output_stays() -> None:
    net = Net()
    x = net.conv("image", 3, 4)
    made = folded(net.model(net.norm(x, 4), x, shape=SHAPE))
    assert onnx_graph.operator_counts(made) == {"Conv": 1, "BatchNormalization": 1}


def test_norms_that_share_their_conv_stay() -> None:
    net = Net()
    x = net.conv("image", 3, 4)
    made = folded(net.model(net.add("Add", net.norm(x, 4), net.norm(x, 4)), shape=SHAPE))
    assert onnx_graph.operator_counts(made) == {"Conv": 1, "BatchNormalization": 2, "Add": 1}


def test_a_conv_that_a_branch_reads_stays() -> None:
    net = Net()
    x = net.conv("image", 3, 4)
    branches = []
    for op in ("Relu", "Neg"):
        node = onnx.helper.make_node(op, [x], [f"{op}_out"])
        branches.append(onnx.helper.make_graph([node], op, [], [onnx.ValueInfoProto(name=f"{op}_out")]))
    positive = net.add("Greater", net.add("ReduceMax", "image", keepdims=0), net.constant(0.0))
    chosen = net.add("If", positive, then_branch=branches[0], else_branch=branches[1])
    made = folded(net.model(net.add("Add", net.norm(x, 4), chosen), shape=SHAPE))
    assert onnx_graph.operator_counts(made)["BatchNormalization"] == 1


def test_a_norm_in_training_mode_stays() -> None:
    net = Net()
    x = net.conv("image", 3, 4)
    parts = [net.constant(v) for v in np.ones((4, 4))]
    net.nodes.append(onnx.helper.make_node("BatchNormalization", [x, *parts], ["y", "m", "v"], training_mode=1))
    assert onnx_graph.operator_counts(folded(net.model("y", shape=SHAPE)))["BatchNormalization"] == 1


def test_folding_gives_no_name_twice() -> None:
    net = Net()
    x = net.norm(net.conv("image", 3, 4), 4, "bn", prefix="bn")
    x = net.add("Add", x, net.constant(np.ones((1, 4, 1, 1)), "bn_weight_"))
    made = folded(net.model(net.add("Mul", x, net.constant(2.0, "bn_bias_")), shape=SHAPE))
    assert onnx_graph.operator_counts(made) == {"Conv": 1, "Add": 1, "Mul": 1}
    assert fresh_name(made, "bn") == "bn_"
    assert fresh_name(made, "other") == "other"


def test_arithmetic_on_constants_and_shapes_is_folded() -> None:
    net = Net()
    two = net.constant([2], kind=np.int64)
    size = net.add("Slice", net.add("Shape", "image"), two, net.constant([4], kind=np.int64))
    doubled = net.add("Mul", size, two)
    target = net.add("Concat", net.constant([1, 3], kind=np.int64), doubled, axis=0)
    made = folded(net.model(net.resize("image", sizes=target), shape=SHAPE))
    assert onnx_graph.operator_counts(made) == {"Resize": 1}
    sizes = next(i for i in made.graph.initializer if i.name == made.graph.node[0].input[3])
    assert numpy_helper.to_array(sizes).tolist() == [1, 3, 16, 16]


def test_a_shape_that_is_not_known_stays() -> None:
    net = Net()
    size = net.add("Cast", net.add("Shape", "image"), to=1)
    model = net.model(net.add("Add", net.add("ReduceMean", "image", keepdims=0), size), shape=("n", 3, 8, 8))
    assert onnx_graph.operator_counts(folded(model))["Shape"] == 1


def test_random_numbers_and_quantization_stay() -> None:
    net = Net()
    noise = net.add("RandomNormal", shape=[1, 3, 8, 8], seed=1.0)
    scale, zero = net.constant(0.1), net.constant(128, kind=np.uint8)
    quantized = net.add("QuantizeLinear", net.constant(np.ones(SHAPE)), scale, zero)
    x = net.add("Add", net.add("Add", "image", noise), net.add("DequantizeLinear", quantized, scale, zero))
    model = net.model(x, shape=SHAPE)
    fold(model)
    assert onnx_graph.operator_counts(model) == {
        "RandomNormal": 1,
        "QuantizeLinear": 1,
        "DequantizeLinear": 1,
        "Add": 2,
    }


def test_a_constant_that_would_fill_the_memory_is_not_folded() -> None:
    net = Net()
    side = net.constant([1, 1, 1 << 20, 1 << 20], kind=np.int64)  # four tebibytes
    x = net.add("Expand", net.constant([1.0]), side)
    model = net.model(net.add("Add", net.add("ReduceMax", x, keepdims=0), "image"), shape=SHAPE)
    fold(model)
    assert onnx_graph.operator_counts(model)["Expand"] == 1
    assert max(np.prod(i.dims) for i in model.graph.initializer) < MAX_ELEMENTS


def test_what_no_output_needs_is_dropped() -> None:
    net = Net()
    net.conv("image", 3, 64)
    made = folded(net.model(net.conv("image", 3, 2), shape=SHAPE))
    assert onnx_graph.operator_counts(made) == {"Conv": 1}
    assert sum(int(np.prod(i.dims)) for i in made.graph.initializer) == 2 * 27 + 2


def test_branches_keep_what_they_use() -> None:
    """If: its branches read a tensor from outside, under the name that the deploy graph wants for itself."""
    net = Net()
    net.add("Relu", net.conv("image", 3, 8), name="logits")
    branches = []
    for op in ("Relu", "Neg"):
        node = onnx.helper.make_node(op, ["logits"], [f"{op}_out"])
        branches.append(onnx.helper.make_graph([node], op, [], [onnx.ValueInfoProto(name=f"{op}_out")]))
    top = net.add("ReduceMax", "image", keepdims=0)
    chosen = net.add("Greater", top, net.constant(0.0))
    x = net.add("If", chosen, then_branch=branches[0], else_branch=branches[1])
    model = net.model(net.conv(x, 8, 8))
    from tiny import SPEC, frames, parent_says

    made = onnx_graph.deploy_graph(model, SPEC).model
    assert onnx_graph.operator_counts(made)["If"] == 1
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    frame = frames(1)[0]
    found = session.run(None, {"frame": frame[None]})[0][0].argmax(0)
    assert np.mean(found == parent_says(model, frame, SPEC)) >= 0.999
