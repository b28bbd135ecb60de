"""Graphs that TensorRT accepts and graphs broken in every known way, for the static check and the real parser.

Each entry of CASES is (name, the rules that legality.check must name, a function that makes the deploy graph).
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tiny
from onnx import TensorProto, helper, numpy_helper

from edgeseg import onnx_graph
from edgeseg.quantization.quantize import quantize
from edgeseg.spec import Spec

Make = Callable[[], Any]
SPEC = Spec(32, 48, ("a", "b", "c", "d"))


class Net(tiny.Net):
    """Small heads with the parts of quantized segmentation networks; the output is [1, 4, 8, 12]."""

    def body(self, *blocks: str) -> Any:
        x = self.add("Relu", self.conv("image", 3, 8, stride=2))
        for block in blocks:
            x = getattr(self, block)(x)
        x = self.add("Relu", self.conv(x, 8, 8, stride=2))
        return self.model(self.conv(x, 8, 4, size=1), shape=(1, 3, SPEC.height, SPEC.width))

    def residual(self, x: str) -> str:
        return self.add("Relu", self.add("Add", x, self.conv(self.add("Relu", self.conv(x, 8, 8)), 8, 8)))

    def depthwise(self, x: str) -> str:
        weight = self.constant(self.random.normal(0, 0.3, (8, 1, 3, 3)))
        return self.add("Relu", self.add("Conv", x, weight, pads=[1] * 4, group=8))

    def grouped(self, x: str) -> str:
        weight = self.constant(self.random.normal(0, 0.3, (8, 4, 3, 3)))
        return self.add("Relu", self.add("Conv", x, weight, pads=[1] * 4, group=2))

    def dilated(self, x: str) -> str:
        weight = self.constant(self.random.normal(0, 0.2, (8, 8, 3, 3)))
        return self.add("Conv", x, weight, pads=[2] * 4, dilations=[2, 2])

    def transposed(self, x: str) -> str:
        weight = self.constant(self.random.normal(0, 0.2, (8, 8, 2, 2)))
        x = self.add("ConvTranspose", x, weight, strides=[2, 2])
        return self.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    def concat(self, x: str) -> str:
        return self.conv(self.add("Concat", x, self.add("Sigmoid", x), axis=1), 16, 8)

    def pooled(self, x: str) -> str:
        return self.add("AveragePool", self.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4), kernel_shape=[1, 1])

    def gate(self, x: str) -> str:
        whole = self.conv(self.add("GlobalAveragePool", x), 8, 8, size=1)
        return self.add("Mul", x, self.add("HardSigmoid", whole, alpha=1 / 6))

    def clipped(self, x: str) -> str:
        return self.add("Clip", x, self.constant(0.0), self.constant(6.0))

    def swish(self, x: str) -> str:
        return self.add("HardSwish", x)

    def bilinear(self, x: str) -> str:
        return self.resize(self.conv(x, 8, 8, stride=2), sizes=[1, 8, 16, 24])

    def corners(self, x: str) -> str:
        return self.resize(self.conv(x, 8, 8, stride=2), "align_corners", sizes=[1, 8, 16, 24])

    def nearest(self, x: str) -> str:
        return self.resize(self.conv(x, 8, 8, stride=2), "asymmetric", sizes=[1, 8, 16, 24], kind="nearest")

    def cubic(self, x: str) -> str:
        return self.resize(self.conv(x, 8, 8, stride=2), sizes=[1, 8, 16, 24], kind="cubic")

    def instance(self, x: str) -> str:
        return self.add("InstanceNormalization", x, self.constant(np.ones(8)), self.constant(np.zeros(8)))

    def attention(self, x: str) -> str:
        flat = self.add("Reshape", x, self.constant([1, 8, 384], kind=np.int64))
        scores = self.add("Softmax", self.add("MatMul", flat, self.add("Transpose", flat, perm=[0, 2, 1])), axis=-1)
        mixed = self.add("MatMul", scores, flat)
        return self.add("Reshape", mixed, self.constant([1, 8, 16, 24], kind=np.int64))

    def slices(self, x: str) -> str:
        a = self.add("Slice", x, *(self.constant([v], kind=np.int64) for v in (0, 4, 1)))
        return self.add("Concat", a, a, axis=1)

    def shuffle(self, x: str) -> str:
        x = self.add("Reshape", x, self.constant([1, 2, 4, 16, 24], kind=np.int64))
        return self.add(
            "Reshape", self.add("Transpose", x, perm=[0, 2, 1, 3, 4]), self.constant([1, 8, 16, 24], kind=np.int64)
        )

    def prelu(self, x: str) -> str:
        return self.add("PRelu", x, self.constant(np.full((8, 1, 1), 0.1)))

    def reduced(self, x: str) -> str:
        return self.add("Mul", x, self.add("ReduceMean", x, axes=[2, 3], keepdims=1))

    # What TensorRT's parser does not know

    def determinant(self, x: str) -> str:
        square = self.add("Slice", x, *(self.constant(v, kind=np.int64) for v in ([0, 0], [16, 16], [2, 3])))
        det = self.add("Det", square)
        return self.add("Add", x, self.add("Reshape", det, self.constant([1, 8, 1, 1], kind=np.int64)))

    def indices(self, x: str) -> str:
        self.nodes.append(
            helper.make_node("MaxPool", [x], ["pooled", "where"], "pool", kernel_shape=[2, 2], strides=[2, 2])
        )
        return self.add("MaxUnpool", "pooled", "where", kernel_shape=[2, 2], strides=[2, 2])

    def bits(self, x: str) -> str:
        whole = self.add("Cast", self.add("Abs", x), to=TensorProto.UINT8)
        shifted = self.add("BitShift", whole, self.constant(1, kind=np.uint8), direction="LEFT")
        return self.add("Cast", shifted, to=TensorProto.FLOAT)

    def dynamic(self, x: str) -> str:
        self.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], ["q", "s", "z"], "dynamic"))
        return self.add("DequantizeLinear", "q", "s", "z")

    def unique(self, x: str) -> str:
        first = self.add("ReduceMin", self.add("Unique", x), keepdims=0)
        return self.add("Sub", x, first)

    def compress(self, x: str) -> str:
        half = self.add("Compress", x, self.constant([True] * 4 + [False] * 4, kind=np.bool_), axis=1)
        return self.add("Concat", half, half, axis=1)


def floats(*blocks: str) -> Any:
    return onnx_graph.deploy_graph(Net(3).body(*blocks), SPEC).model


@functools.cache
def _quantized(rules: str, *blocks: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "deploy.onnx"
        onnx.save(floats(*blocks), str(source))
        frames = tiny.frames(8, height=SPEC.height, width=SPEC.width)
        return onnx.load(str(quantize(source, frames, rules, Path(folder))))


def int8(*blocks: str, rules: str = "symmetric") -> Any:
    return copy.deepcopy(_quantized(rules, *blocks))


# Surgery


def node(model: Any, op: str, index: int = 0) -> Any:
    return [n for n in model.graph.node if n.op_type == op][index]


def feeding(model: Any, tensor: str) -> Any:
    return next(n for n in model.graph.node if tensor in n.output)


def value(model: Any, name: str) -> np.ndarray:
    return np.array(numpy_helper.to_array(next(i for i in model.graph.initializer if i.name == name)))


def put(model: Any, name: str, array: Any) -> str:
    for old in [i for i in model.graph.initializer if i.name == name]:
        model.graph.initializer.remove(old)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return name


def pair(model: Any, op: str, index: int, operand: int) -> tuple[Any, Any]:
    """The Q and DQ in front of one input of the index-th `op`."""
    dq = feeding(model, node(model, op, index).input[operand])
    return feeding(model, dq.input[0]), dq


def own(model: Any, nodes: tuple[Any, ...], which: int, array: Any) -> Any:
    """Give a pair a scale (1) or zero point (2) of its own."""
    name = put(model, f"{nodes[0].name}_own_{which}", array)
    for n in nodes:
        n.input[which] = name
    return model


def with_zero_point(array: Any, operand: int = 0) -> Any:
    model = int8("residual")
    q, dq = pair(model, "Conv", 1, operand)
    shape = value(model, q.input[1]).shape
    return own(model, (q, dq), 2, np.broadcast_to(array, shape).copy())


def with_scale(array: Any, operand: int = 0, which: int = 1) -> Any:
    model = int8("residual")
    q, dq = pair(model, "Conv", which, operand)
    shape = value(model, q.input[1]).shape
    return own(model, (q, dq), 1, np.broadcast_to(np.float32(array), shape).copy())


def one_channel_zero() -> Any:
    model = int8("residual")
    q, dq = pair(model, "Conv", 1, 1)
    scale = value(model, q.input[1])
    scale[3] = 0
    return own(model, (q, dq), 1, scale)


def wrong_axis() -> Any:
    model = int8("residual")
    for n in pair(model, "Conv", 1, 1):
        next(a for a in n.attribute if a.name == "axis").i = 1
    return model


def per_channel_activation() -> Any:
    model = int8("residual")
    q, dq = pair(model, "Conv", 1, 0)
    own(model, (q, dq), 1, np.full(8, 0.05, np.float32))
    own(model, (q, dq), 2, np.zeros(8, np.int8))
    for n in (q, dq):
        n.attribute.append(helper.make_attribute("axis", 1))
    return model


def integer_bias() -> Any:
    model = int8("residual")
    conv = node(model, "Conv", 1)
    put(model, "bias_q", np.arange(8, dtype=np.int32))
    put(model, "bias_s", np.float32(1e-3))
    put(model, "bias_z", np.int32(0))
    extra = helper.make_node("DequantizeLinear", ["bias_q", "bias_s", "bias_z"], ["bias_f"], "bias_dq")
    model.graph.node.insert(0, extra)
    conv.input[2] = "bias_f"
    return model


def bypass(op: str, index: int, operand: int) -> Any:
    """Remove the pair in front of one input."""
    model = int8("residual")
    q, dq = pair(model, op, index, operand)
    node(model, op, index).input[operand] = q.input[0]
    for n in (q, dq):
        model.graph.node.remove(n)
    return model


def dangling_q() -> Any:
    """A Q whose integers go into a Cast instead of a DQ."""
    model = int8("residual")
    q, dq = pair(model, "Conv", 1, 0)
    at = list(model.graph.node).index(dq)
    model.graph.node.remove(dq)
    model.graph.node.insert(
        at, helper.make_node("Cast", [q.output[0]], [dq.output[0]], "loose_cast", to=TensorProto.FLOAT)
    )
    return model


def dangling_dq() -> Any:
    """A DQ whose integers come from a Cast instead of a Q."""
    model = int8("residual")
    q, _ = pair(model, "Conv", 1, 0)
    at = list(model.graph.node).index(q)
    model.graph.node.remove(q)
    model.graph.node.insert(
        at, helper.make_node("Cast", [q.input[0]], [q.output[0]], "loose_cast", to=TensorProto.INT8)
    )
    return model


def integers_through_relu() -> Any:
    """Q -> Relu -> DQ: an operator between the two halves of a pair."""
    model = int8("residual")
    q, dq = pair(model, "Conv", 1, 0)
    at = list(model.graph.node).index(dq)
    model.graph.node.insert(
        at, helper.make_node("MaxPool", [q.output[0]], ["whole_pool"], "between", kernel_shape=[1, 1])
    )
    dq.input[0] = "whole_pool"
    return model


def unequal_pair() -> Any:
    model = int8("residual")
    q, _ = pair(model, "Conv", 1, 0)
    return own(model, (q,), 1, np.float32(0.013))


def computed_scale() -> Any:
    model = int8("residual")
    q, dq = pair(model, "Conv", 1, 0)
    largest = helper.make_node("ReduceMax", [q.input[0]], ["largest"], "largest", keepdims=0)
    put(model, "of_127", np.float32(127))
    scale = helper.make_node("Div", ["largest", "of_127"], ["live_scale"], "live_scale")
    at = list(model.graph.node).index(q)
    for n in (scale, largest):
        model.graph.node.insert(at, n)
    q.input[1] = dq.input[1] = "live_scale"
    return model


def stored_weights() -> Any:
    """INT8 weights in the file, with a DQ only."""
    model = int8("residual")
    q, dq = pair(model, "Conv", 1, 1)
    scale = value(model, q.input[1])
    whole = np.clip(np.rint(value(model, q.input[0]) / scale[:, None, None, None]), -128, 127).astype(np.int8)
    dq.input[0] = put(model, "whole_weights", whole)
    model.graph.node.remove(q)
    return model


def per_tensor_weights() -> Any:
    model = int8("residual")
    nodes = pair(model, "Conv", 1, 1)
    own(model, nodes, 1, np.float32(0.01))
    own(model, nodes, 2, np.int8(0))
    for n in nodes:
        del n.attribute[:]
    return model


def no_zero_points() -> Any:
    model = int8("residual")
    for n in model.graph.node:
        if n.op_type in ("QuantizeLinear", "DequantizeLinear"):
            del n.input[2:]
    return graph_without_types(model)


def graph_without_types(model: Any) -> Any:
    """Without a zero point Q makes uint8: that is ONNX's default."""
    del model.graph.value_info[:]
    return model


def foreign(op: str = "Conv", domain: str = "com.acme") -> Any:
    model = floats("residual")
    old = node(model, op, 1)
    old.domain, old.op_type, old.name = domain, "FastConv", "magic"
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def integer_operator() -> Any:
    """The QOperator format: QLinearConv instead of Q/DQ."""
    model = int8("residual")
    conv = node(model, "Conv", 1)
    (_, dqx), (qw, dqw) = pair(model, "Conv", 1, 0), pair(model, "Conv", 1, 1)
    whole = np.zeros(value(model, qw.input[0]).shape, np.int8)
    put(model, "ql_w", whole), put(model, "ql_y_s", np.float32(0.1)), put(model, "ql_y_z", np.int8(0))
    at = list(model.graph.node).index(conv)
    quantized = helper.make_node(
        "QLinearConv",
        [*dqx.input, "ql_w", *dqw.input[1:], "ql_y_s", "ql_y_z"],
        ["ql_y"],
        "qlinear",
        pads=[1] * 4,
    )
    back = helper.make_node("DequantizeLinear", ["ql_y", "ql_y_s", "ql_y_z"], [conv.output[0]], "qlinear_dq")
    model.graph.node.remove(conv)
    for n in (back, quantized):
        model.graph.node.insert(at, n)
    return model


def half() -> Any:
    from edgeseg.tensorrt.fp16 import to_fp16 as fp16

    return fp16(floats("residual"))


CASES: list[tuple[str, set[str], Make]] = [
    *(
        (f"float {block}", set(), functools.partial(floats, block))
        for block in (
            *("residual", "depthwise", "grouped", "dilated", "transposed", "concat", "pooled", "gate", "clipped"),
            *("swish", "bilinear", "corners", "nearest", "instance", "attention", "slices", "shuffle", "prelu"),
            "reduced",
        )
    ),
    *(
        (f"int8 {block}", set(), functools.partial(int8, block))
        for block in (
            *("residual", "depthwise", "grouped", "dilated", "transposed", "concat", "pooled", "gate", "clipped"),
            *("swish", "bilinear", "attention"),
        )
    ),
    ("per-tensor weights", set(), per_tensor_weights),
    ("fp16", set(), half),
    ("cubic resize", set(), lambda: floats("cubic")),
    ("Det", {"operator"}, lambda: floats("determinant")),
    ("MaxPool indices", {"operator"}, lambda: floats("indices")),
    ("BitShift", {"operator"}, lambda: floats("bits")),
    ("DynamicQuantizeLinear", {"operator", "scale", "type", "pair", "half quantized"}, lambda: floats("dynamic")),
    ("Unique", {"operator"}, lambda: floats("unique")),
    ("Compress", {"operator"}, lambda: floats("compress")),
    ("custom operator", {"operator"}, foreign),
    ("QLinearConv", {"operator", "pair"}, integer_operator),
    ("our Q/DQ for ONNX Runtime", {"type", "zero point", "bias"}, lambda: int8("residual", rules="qdq")),
    ("zero point of an activation", {"zero point"}, lambda: with_zero_point(np.int8(3))),
    ("zero point of a weight", {"zero point"}, lambda: with_zero_point(np.int8(-5), 1)),
    ("uint8, zero point 128", {"type", "zero point"}, lambda: with_zero_point(np.uint8(128))),
    ("uint8, zero point 0", {"type"}, lambda: with_zero_point(np.uint8(0))),
    ("uint8 weights", {"type"}, lambda: with_zero_point(np.uint8(0), 1)),
    ("no zero points (uint8)", {"type"}, no_zero_points),
    ("scale 0", {"scale"}, lambda: with_scale(0)),
    ("negative scale", {"scale"}, lambda: with_scale(-0.02)),
    ("scale NaN", {"scale"}, lambda: with_scale(np.nan)),
    ("scale infinite", {"scale"}, lambda: with_scale(np.inf)),
    ("scale 0 of weights", {"scale"}, lambda: with_scale(0, 1)),
    ("scale 0 of one channel", {"scale"}, one_channel_zero),
    ("scale computed at run time", {"scale"}, computed_scale),
    ("unequal pair", {"pair"}, unequal_pair),
    ("wrong axis", {"axis"}, wrong_axis),
    ("per-channel activation", {"axis"}, per_channel_activation),
    ("int32 bias", {"bias"}, integer_bias),
    ("residual, left side float", {"residual"}, lambda: bypass("Add", 0, 0)),
    ("residual, right side float", {"residual"}, lambda: bypass("Add", 0, 1)),
    ("float weights", {"half quantized"}, lambda: bypass("Conv", 1, 1)),
    ("float activations", {"half quantized"}, lambda: bypass("Conv", 1, 0)),
    ("dangling Q", {"pair", "half quantized"}, dangling_q),
    ("dangling DQ", {"pair"}, dangling_dq),
    ("an operator inside a pair", {"pair"}, integers_through_relu),
    ("weights stored as INT8", set(), stored_weights),
]
