"""Every operator of the TFLite writer computes what ONNX Runtime computes, for any sizes, pads and strides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny import Net

from edgeseg.errors import EdgesegError
from edgeseg.tflite.shapes import regroup
from edgeseg.tflite.writer import NHWC

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

from edgeseg.tflite.convert import convert  # noqa: E402


def run(data: bytes, *inputs: np.ndarray) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(model_content=data)
    network.allocate_tensors()
    for entry, value in zip(network.get_input_details(), inputs):
        network.set_tensor(entry["index"], value)
    network.invoke()
    return [network.get_tensor(end["index"]) for end in network.get_output_details()]


def operators(data: bytes) -> Counter[str]:
    """The operators in the file, before any delegate takes nodes out of it."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    network = Interpreter(model_content=data, experimental_op_resolver_type=kind)
    return Counter(op["op_name"] for op in network._get_ops_details())


def same(
    net: Net,
    *outputs: str,
    height: int = 8,
    width: int = 6,
    tolerance: float = 2e-5,
    spread: float = 1.0,
    opset: int = 17,
) -> Counter[str]:
    """Convert, run both, compare; returns the operators of the TFLite file."""
    model = net.model(*outputs, shape=(1, 3, height, width), opset=opset)
    image = (spread * np.random.default_rng(1).normal(size=(1, 3, height, width))).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(list(outputs), {"image": image})
    data = convert(model)
    found = run(data, np.ascontiguousarray(image.transpose(NHWC)))
    for want, got in zip(expected, found):
        if want.ndim == 4:
            got = got.transpose(0, 3, 1, 2)
        assert got.shape == want.shape
        scale = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(got, want, atol=tolerance * scale)
    return operators(data)


# One element after the other

ONE = [
    "Relu",
    "Sigmoid",
    "Tanh",
    "Exp",
    "Neg",
    "Abs",
    "Elu",
    "Celu",
    "Selu",
    "Softplus",
    "Softsign",
    "Floor",
    "Ceil",
    "Sin",
    "Cos",
    "HardSwish",
    "HardSigmoid",
    "ReduceL1",
    "ReduceL2",
    "LeakyRelu",
    "Softmax",
    "LogSoftmax",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "Flatten",
]


@pytest.mark.parametrize("op", ONE)
def test_one_input(op: str) -> None:
    net = Net()
    same(net, net.add(op, "image"), spread=2)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("op", ["Elu", "Celu", "Selu"])
def test_exponential_activations_of_any_alpha(op: str, alpha: float) -> None:
    net = Net()
    same(net, net.add(op, "image", alpha=alpha), spread=3)


@pytest.mark.parametrize("op", ["Softplus", "Mish"])
def test_soft_activations_do_not_overflow(op: str) -> None:
    for spread in (1, 300):
        net = Net()
        same(net, net.add(op, "image"), spread=spread, opset=18)  # the first that has Mish


def test_the_plain_elu_is_one_operator() -> None:
    net = Net()
    assert same(net, net.add("Elu", "image", alpha=1.0)) == {"ELU": 1}


@pytest.mark.parametrize("op", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"])
def test_comparisons_choose(op: str) -> None:
    """Against a number, a channel's number and a map of its own; both sides of Where run or are constants."""
    net = Net()
    rounded = net.add("Floor", net.add("Mul", "image", net.constant(2.0)))
    for other in (net.constant(0.0), net.constant([[[-1.0]], [[0.0]], [[1.0]]]), net.add("Floor", "image")):
        found = net.add(op, rounded, other)
        net.add("Where", found, "image", net.constant(-7.0))
    outputs = [node.output[0] for node in net.nodes if node.op_type == "Where"]
    same(net, *outputs)


def test_conditions_are_combined() -> None:
    net = Net()
    high, low = net.add("Greater", "image", net.constant(0.3)), net.add("Less", "image", net.constant(-0.3))
    both = net.add("And", net.add("Not", high), net.add("Not", low))
    mean = net.add("ReduceMean", "image", axes=[1], keepdims=1)
    same(net, net.add("Where", both, mean, "image"), net.add("Where", net.add("Or", high, low), "image", mean))


@pytest.mark.parametrize("op", ["ReduceL1", "ReduceL2"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_norms_along_an_axis(op: str, keepdims: int) -> None:
    net = Net()
    same(net, net.add(op, "image", axes=[2], keepdims=keepdims), net.add(op, "image", axes=[1, 3], keepdims=keepdims))


@pytest.mark.parametrize("op", ["Sqrt", "Log", "Reciprocal"])
def test_of_positive_numbers(op: str) -> None:
    net = Net()
    positive = net.add("Add", net.add("Abs", "image"), net.constant(0.5))
    same(net, net.add(op, positive))


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.5), (1 / 6, 0.5), (0.3, 0.1)])
def test_hard_sigmoid_of_any_slope(alpha: float, beta: float) -> None:
    net = Net()
    same(net, net.add("HardSigmoid", "image", alpha=alpha, beta=beta), spread=4)


@pytest.mark.parametrize("alpha", [0.0, 0.01, 0.3])
def test_leaky_relu(alpha: float) -> None:
    net = Net()
    same(net, net.add("LeakyRelu", "image", alpha=alpha))


def test_prelu_per_channel() -> None:
    net = Net()
    same(net, net.add("PRelu", "image", net.constant([[[0.1]], [[0.5]], [[-0.2]]])))


@pytest.mark.parametrize(
    ("low", "high", "op"),
    [(0, 6, "RELU6"), (0, None, "RELU"), (-1, 1, "RELU_N1_TO_1"), (-0.5, 0.7, "MINIMUM"), (None, 0.2, "MINIMUM")],
)
def test_clip(low: float | None, high: float | None, op: str) -> None:
    net = Net()
    bounds = [net.constant(np.float32(b)) if b is not None else "" for b in (low, high)]
    assert same(net, net.add("Clip", net.add("Abs", net.add("Neg", "image")), *bounds), spread=5)[op] == 1


def test_an_activation_goes_into_the_operator_before_it() -> None:
    net = Net()
    x = net.add("Relu", net.conv("image", 3, 4))
    x = net.add("Clip", net.add("Add", x, net.conv("image", 3, 4)), net.constant(0.0), net.constant(6.0))
    found = same(net, x)
    assert found == {"CONV_2D": 2, "ADD": 1}


def test_an_activation_stays_out_of_what_others_need() -> None:
    net = Net()
    x = net.conv("image", 3, 4)
    seen = net.add("Transpose", net.add("Transpose", x, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    found = same(net, net.add("Relu", x), net.add("Sub", seen, net.constant(0.5)))
    assert found["RELU"] == 1


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize("shape", [(), (1,), (6,), (8, 1), (3, 1, 1), (1, 3, 8, 6), (1, 1, 1, 6)])
def test_a_constant_that_broadcasts(op: str, shape: tuple[int, ...]) -> None:
    net = Net()
    value = net.constant(np.random.default_rng(2).uniform(0.5, 2, shape))
    same(net, net.add(op, "image", value), net.add(op, value, "image"), tolerance=1e-4)


def test_tensors_of_other_rank_and_order() -> None:
    net = Net()
    rows = net.add("ReduceMean", "image", axes=[0, 1], keepdims=0)  # [8, 6]
    columns = net.add("ReduceMean", "image", axes=[0, 1, 2], keepdims=0)  # [6]
    turned = net.add("Transpose", net.add("Transpose", "image", perm=[0, 3, 2, 1]), perm=[0, 3, 2, 1])
    same(net, net.add("Add", "image", rows), net.add("Mul", columns, "image"), net.add("Sub", turned, "image"))


def test_more_than_two_in_a_maximum() -> None:
    net = Net()
    same(net, net.add("Max", "image", net.add("Neg", "image"), net.constant(0.3)))


@pytest.mark.parametrize("exponent", [2.0, 0.5, 3.0])
def test_power(exponent: float) -> None:
    net = Net()
    same(net, net.add("Pow", net.add("Abs", "image"), net.constant(exponent)), tolerance=1e-4)


# Patterns


@pytest.mark.parametrize("form", ["torch", "halves first", "multiplied"])
def test_gelu_in_the_forms_that_exporters_write(form: str) -> None:
    net = Net()
    x = net.conv("image", 3, 4)
    root = net.constant(2**-0.5 if form == "multiplied" else 2**0.5)
    scaled = net.add("Mul" if form == "multiplied" else "Div", x, root)
    plus = net.add("Add", net.add("Erf", scaled), net.constant(1.0))
    if form == "halves first":
        out = net.add("Mul", net.add("Mul", x, net.constant(0.5)), plus)
    else:
        out = net.add("Mul", net.add("Mul", x, plus), net.constant(0.5))
    assert same(net, out)["GELU"] == 1


def test_layer_norm_of_the_last_dimension_and_its_decomposition() -> None:
    net = Net()
    x = net.add("Transpose", net.conv("image", 3, 10), perm=[0, 2, 3, 1])
    scale, bias = net.constant(np.linspace(0.5, 2, 10)), net.constant(np.linspace(-1, 1, 10))
    whole = net.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-6)
    mean = net.add("ReduceMean", x, axes=[-1])
    centered = net.add("Sub", x, mean)
    variance = net.add("ReduceMean", net.add("Pow", centered, net.constant(2.0)), axes=[-1])
    root = net.add("Sqrt", net.add("Add", variance, net.constant(1e-6)))
    parts = net.add("Add", net.add("Mul", net.add("Div", centered, root), scale), bias)
    found = same(net, net.add("Transpose", whole, perm=[0, 3, 1, 2]), net.add("Transpose", parts, perm=[0, 3, 1, 2]))
    assert found["RSQRT"] == 2 and not found["TRANSPOSE"] and not found["SQRT"]


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_group_norm_moves_no_channel(groups: int) -> None:
    net = Net()
    x = net.conv("image", 3, 8)
    packed = net.add("Reshape", x, net.constant([0, groups, -1], kind=np.int64))
    ones, zeros = net.constant(np.ones(groups)), net.constant(np.zeros(groups))
    norm = net.add("InstanceNormalization", packed, ones, zeros, epsilon=1e-5)
    back = net.add("Reshape", norm, net.constant([1, 8, 8, 6], kind=np.int64))
    assert not same(net, back)["TRANSPOSE"]


def test_instance_norm_and_batch_norm_alone() -> None:
    net = Net()
    x = net.conv("image", 3, 8)
    scale, bias = net.constant(np.linspace(0.5, 2, 8)), net.constant(np.linspace(-1, 1, 8))
    same(net, net.add("InstanceNormalization", x, scale, bias), net.norm(net.add("Relu", x), 8))


def test_preprocessing_is_one_convolution() -> None:
    from tiny import SPEC, frames

    from edgeseg.onnx_graph.deploy import deploy_graph

    net = Net()
    ready = deploy_graph(net.model(net.resize(net.head("image", len(SPEC.classes)))), SPEC).model
    frame = frames(1)[0][None]
    expected = ort.InferenceSession(ready.SerializeToString()).run(None, {"frame": frame})[0]
    data = convert(ready)
    np.testing.assert_allclose(run(data, frame)[0].transpose(0, 3, 1, 2), expected, atol=1e-4)
    assert operators(data) == {"CAST": 1, "CONV_2D": 4, "PAD": 2}


# Shapes


@settings(max_examples=60)
@given(st.data())
def test_reshapes_that_need_a_transpose_are_distinguished(data: Any) -> None:
    """regroup against numpy: transpose the memory and check that the claimed order reads it back."""
    sizes = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4))
    order = tuple(data.draw(st.permutations(range(len(sizes)))))
    total = int(np.prod(sizes))
    cuts = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), max_size=3))
    new = [c for c in cuts if total % int(np.prod(cuts[: cuts.index(c) + 1])) == 0]
    assume(total % int(np.prod(new)) == 0)
    new.append(total // int(np.prod(new)))
    values = np.arange(total).reshape(sizes)
    kept = regroup(sizes, order, new)
    if kept is not None:
        assert sorted(kept) == list(range(len(new)))
        memory = values.transpose(order).ravel().reshape([new[d] for d in kept])
        np.testing.assert_array_equal(memory.transpose(np.argsort(kept)), values.reshape(new))
    elif order == tuple(range(len(sizes))):
        pytest.fail("a tensor in ONNX's own order can always be reshaped in place")


def test_tokens_and_images_change_into_each_other_without_transposes() -> None:
    net = Net()
    x = net.conv("image", 3, 10)
    tokens = net.add("Transpose", net.add("Reshape", x, net.constant([1, 10, 48], kind=np.int64)), perm=[0, 2, 1])
    tokens = net.add("MatMul", tokens, net.constant(np.random.default_rng(3).normal(size=(10, 12))))
    tokens = net.add("Add", net.constant(np.arange(12) / 12), tokens)
    back = net.add("Reshape", net.add("Transpose", tokens, perm=[0, 2, 1]), net.constant([1, 12, 8, 6], kind=np.int64))
    found = same(net, net.conv(back, 12, 4))
    assert not found["TRANSPOSE"] and found["FULLY_CONNECTED"] == 1 and not found["ADD"]


def test_attention() -> None:
    net = Net()
    net_input = net.add("Reshape", net.conv("image", 3, 16), net.constant([1, 16, 48], kind=np.int64))
    tokens = net.add("Transpose", net_input, perm=[0, 2, 1])
    qkv = net.add("MatMul", tokens, net.constant(np.random.default_rng(4).normal(size=(16, 48)) / 4))
    split = net.add(
        "Transpose", net.add("Reshape", qkv, net.constant([1, 48, 3, 4, 4], kind=np.int64)), perm=[2, 0, 3, 1, 4]
    )
    q, k, v = (net.add("Gather", split, net.constant(i, kind=np.int64), axis=0) for i in range(3))
    scores = net.add("Softmax", net.add("MatMul", q, net.add("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    mixed = net.add("Transpose", net.add("MatMul", scores, v), perm=[0, 2, 1, 3])
    same(net, net.add("Reshape", mixed, net.constant([1, 48, 16], kind=np.int64)))


def test_products_of_every_form() -> None:
    net = Net()
    random = np.random.default_rng(5)
    pooled = net.add("Flatten", net.add("GlobalAveragePool", "image"))
    weight, bias = net.constant(random.normal(size=(5, 3))), net.constant(random.normal(size=5))
    gemm = net.add("Gemm", pooled, weight, bias, transB=1, alpha=0.5, beta=2.0)
    plain = net.add("Gemm", pooled, net.constant(random.normal(size=(3, 4))))
    rows = net.add("MatMul", "image", net.constant(random.normal(size=(6, 2))))
    left = net.add("MatMul", net.constant(random.normal(size=(1, 3, 2, 8))), "image")
    both = net.add("MatMul", "image", net.add("Transpose", "image", perm=[0, 1, 3, 2]))
    more = net.add("Add", rows, net.constant(0.5))
    for out in (gemm, plain, rows, left, both, more):
        same(net, out)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_concat_and_split(axis: int) -> None:
    net = Net()
    whole = net.add("Concat", "image", net.add("Neg", "image"), net.constant(np.ones((1, 3, 8, 6))), axis=axis)
    names = [f"part{i}" for i in range(3)]
    from onnx import helper

    net.nodes.append(helper.make_node("Split", [whole], names, axis=axis))
    same(net, whole, *names)


@settings(max_examples=25)
@given(st.data())
def test_slice(data: Any) -> None:
    axes = data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3, unique=True))
    steps, starts, ends = [], [], []
    for axis in axes:
        size = (1, 3, 8, 6)[axis]
        low, high = sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True)))
        steps.append(data.draw(st.sampled_from([1, 2, -1, -2])))
        low, high = (low, high) if steps[-1] > 0 else (high - 1, low - 1)
        starts.append(low - size if data.draw(st.booleans()) and low < size else low)
        ends.append(-99 if high < 0 else high)
    net = Net()
    given = [net.constant(v, kind=np.int64) for v in (starts, ends, axes, steps)]
    same(net, net.add("Slice", "image", *given))


def test_gather_expand_squeeze_and_reductions() -> None:
    net = Net()
    picked = net.add("Gather", "image", net.constant([2, 0, -1, 1], kind=np.int64), axis=1)
    row = net.add("Gather", "image", net.constant(3, kind=np.int64), axis=2)
    axes = net.constant([1], kind=np.int64)
    flat = net.add("Squeeze", net.add("ReduceSum", "image", axes), axes)
    wide = net.add("Expand", net.add("Unsqueeze", flat, axes), net.constant([1, 3, 8, 6], kind=np.int64))
    more = [net.add(op, "image", axes=a, keepdims=k) for op, a, k in (("ReduceMax", [2], 0), ("ReduceMin", [1, 3], 1))]
    same(net, picked, row, flat, wide, *more)


def test_softmax_of_another_axis() -> None:
    net = Net()
    same(net, net.add("Softmax", "image", axis=1), net.add("Softmax", "image", axis=2))


# Windows

PADS = st.integers(0, 2)


@settings(max_examples=80)
@given(st.data())
def test_conv(data: Any) -> None:
    height, width = data.draw(st.tuples(st.integers(7, 12), st.integers(7, 12)))
    kernel = [data.draw(st.integers(1, 4)) for _ in range(2)]
    strides, dilations = (
        [data.draw(st.integers(1, 3)) for _ in range(2)],
        [data.draw(st.integers(1, 2)) for _ in range(2)],
    )
    group, depth = data.draw(st.sampled_from([(1, 1), (2, 1), (6, 1), (6, 2), (3, 3)]))
    net = Net()
    x = net.conv("image", 3, 6, size=1)
    weight = net.constant(net.random.normal(size=(6 * depth, 6 // group, *kernel)))
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": group}
    mode = data.draw(st.sampled_from(["pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if mode == "pads":
        attributes["pads"] = [data.draw(PADS) for _ in range(4)]
    else:
        attributes |= {"auto_pad": mode}
        assume(mode == "VALID" or dilations == [1, 1])
    bias = [net.constant(net.random.normal(size=6 * depth))] if data.draw(st.booleans()) else []
    same(net, net.add("Conv", x, weight, *bias, **attributes), height=height, width=width, tolerance=1e-5)


def test_the_border_of_tensorflow_costs_no_operator() -> None:
    """A Pad of 0 before, 1 behind, as timm's tf_ networks have it, is SAME."""
    net = Net()
    padded = net.add("Pad", "image", net.constant([0, 0, 0, 0, 0, 0, 1, 1], kind=np.int64))
    weight = net.constant(net.random.normal(size=(4, 3, 3, 3)))
    assert same(net, net.add("Conv", padded, weight, strides=[2, 2])) == {"CONV_2D": 1}


@settings(max_examples=40)
@given(st.data())
def test_conv_transpose(data: Any) -> None:
    kernel, stride = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    groups, dilation = data.draw(st.sampled_from([1, 3])), data.draw(st.integers(1, 2))
    pads = [data.draw(st.integers(0, min(2, kernel - 1))) for _ in range(4)]
    extra = [data.draw(st.integers(0, stride - 1)) for _ in range(2)]
    assume(all(pads[i + 2] >= extra[i] for i in range(2)))
    net = Net()
    weight = net.constant(net.random.normal(size=(3, 5, kernel, kernel)))
    bias = net.constant(net.random.normal(size=5 * groups))
    out = net.add("ConvTranspose", "image", weight, bias, strides=[stride] * 2, pads=pads, output_padding=extra,
                  group=groups, dilations=[dilation] * 2)  # fmt: skip
    same(net, out, tolerance=1e-5)


@settings(max_examples=60)
@given(st.data())
def test_pools(data: Any) -> None:
    op = data.draw(st.sampled_from(["MaxPool", "AveragePool"]))
    kernel = [data.draw(st.integers(1, 4)) for _ in range(2)]
    strides = [data.draw(st.integers(1, 3)) for _ in range(2)]
    pads = [data.draw(st.integers(0, k // 2)) for k in (*kernel, *kernel)]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if op == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    height = data.draw(st.integers(7, 11))
    if op == "MaxPool" and data.draw(st.booleans()):
        attributes["ceil_mode"] = 1
        sums = [n + pads[i] + pads[i + 2] - k for i, (n, k) in enumerate(zip((height, 6), kernel))]
        assume(all(-(-t // s) * s < n + pads[i] for i, (t, s, n) in enumerate(zip(sums, strides, (height, 6)))))
    net = Net()
    x = net.add("Relu", "image") if data.draw(st.booleans()) else "image"
    same(net, net.add(op, x, **attributes), height=height)


@settings(max_examples=80)
@given(st.data())
def test_resize(data: Any) -> None:
    height, width = data.draw(st.tuples(st.integers(2, 9), st.integers(2, 9)))
    size = [data.draw(st.integers(1, 20)) for _ in range(2)]
    net = Net()
    sizes = net.constant([1, 3, *size], kind=np.int64)
    kind = data.draw(st.sampled_from(["linear", "nearest"]))
    mode = data.draw(st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]))
    attributes: dict[str, Any] = {}
    if kind == "nearest":
        attributes["nearest_mode"] = data.draw(
            st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
        )
    if kind == "linear" and mode == "pytorch_half_pixel":
        assume(min(size) > 1)
    same(net, net.resize("image", mode, sizes, kind, **attributes), height=height, width=width, tolerance=1e-5)


@pytest.mark.parametrize("scale", [2.0, 3.0, 4.0, 1.5, 0.5])
def test_nearest_upsampling_by_a_scale(scale: float) -> None:
    net = Net()
    scales = net.constant([1, 1, scale, scale], kind=np.float32)
    out = net.add(
        "Resize", "image", "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    assert same(net, out)["RESIZE_NEAREST_NEIGHBOR"] == 1


@pytest.mark.parametrize(
    ("mode", "pads", "value"),
    [
        ("constant", [0, 0, 1, 2, 0, 0, 3, 0], 0.0),
        ("constant", [0, 1, 1, 0, 0, 1, 0, 1], 1.5),
        ("reflect", [0, 0, 2, 1, 0, 0, 1, 3], 0.0),
        ("edge", [0, 0, 1, 1, 0, 0, 1, 0], 0.0),
    ],
)
def test_pad(mode: str, pads: list[int], value: float) -> None:
    net = Net()
    out = net.add("Pad", "image", net.constant(pads, kind=np.int64), net.constant(np.float32(value)), mode=mode)
    same(net, out, net.add("Neg", out))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    net = Net()
    same(net, net.add("DepthToSpace", net.conv("image", 3, 12), blocksize=2, mode=mode))


def test_float16_and_double_networks_are_computed_in_float32() -> None:
    net = Net(float_type=np.float16)
    model = net.model(net.add("Cast", net.conv("image", 3, 4), to=1))
    data = convert(model)
    image = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    assert run(data, image)[0].dtype == np.float32


def test_half_weights_are_half_the_file() -> None:
    net = Net()
    model = net.model(net.head("image", 8))
    image = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    big, small = convert(model), convert(model, half=True)
    np.testing.assert_allclose(run(big, image)[0], run(small, image)[0], atol=0.02)
    assert b"/half" in small and len(small) < len(big) + 2000


# What cannot be written


def refused(build: Callable[[Net], str]) -> str:
    net = Net()
    with pytest.raises(EdgesegError) as caught:
        convert(net.model(build(net), shape=(1, 3, 8, 6)))
    assert "onnxruntime-cpu" in caught.value.hint or "fixed sizes" in caught.value.hint
    return caught.value.what


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda n: n.add("Acosh", "image"), "operator Acosh (node t0) is not supported"),
        (lambda n: n.add("Erf", "image"), "operator Erf (node t0) is not supported"),
        (lambda n: n.add("Conv", "image", n.add("Expand", "image", n.constant([3, 3, 8, 6], kind=np.int64))),
         "operator Conv (node t1) has an input 1 that is not constant"),
        (lambda n: n.resize("image", sizes=[1, 3, 16, 12], kind="cubic"), "operator Resize (node t0) is cubic"),
        (lambda n: n.add("Pad", "image", n.constant([0, 0, 2, 2, 0, 0, 2, 2], kind=np.int64), mode="edge"),
         "operator Pad (node t0) has the mode edge"),
        (lambda n: n.add("MaxPool", "image", kernel_shape=[2, 2], dilations=[2, 2]), "has dilations"),
        (lambda n: n.add("Cast", "image", to=7), "operator Cast (node t0) makes integers"),
        (lambda n: n.add("Gather", "image", n.constant([[0, 1], [1, 0]], kind=np.int64), axis=1), "takes a table"),
    ],
)  # fmt: skip
def test_what_is_refused_names_operator_and_node(build: Callable[[Net], str], message: str) -> None:
    assert message in refused(build)
