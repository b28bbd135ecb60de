"""Will TensorRT take this ONNX graph? A static check that needs no GPU and no TensorRT.

Rules from TensorRT's documentation of explicit quantization and onnx-tensorrt's table of operators; what the real
parser says about each of them is measured by tests/trt. TensorRT quantizes symmetrically: INT8, every zero point 0,
activations with one scale, weights with one scale per output channel, Q and DQ in pairs, biases in float.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from edgeseg.onnx_graph.index import attribute, element_types
from edgeseg.target import Version

Q, DQ = "QuantizeLinear", "DequantizeLinear"
# Operator -> axis of its weights that TensorRT scales per channel: the output channels.
WEIGHTED = {"Conv": 0, "ConvTranspose": 1}
# Operator -> the first TensorRT whose ONNX parser has it (onnx-tensorrt, docs/operators.md of 8.4, 8.5, 8.6, 10.15).
SINCE: dict[Version, str] = {
    (8, 2): """
        Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu
        Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div
        Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm
        GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual HardSigmoid Identity If
        InstanceNormalization IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool
        MatMul Max MaxPool Mean Min Mul Neg NonMaxSuppression Not Or PRelu Pad Pow QuantizeLinear RNN
        RandomUniform RandomUniformLike Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
        ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence Round Scan Scatter
        ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
        SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample
        Where
    """,
    (8, 4): "Shrink Xor",
    (8, 5): """
        GridSample HardSwish MeanVarianceNormalization Mod NonZero OneHot RandomNormal RandomNormalLike Reciprocal
        RoiAlign Trilu
    """,
    (8, 6): "GroupNormalization IsInf LayerNormalization",
    (10, 0): "Hardmax",
    (10, 15): "Attention CastLike Gelu Mish RMSNormalization RotaryEmbedding STFT",
}
OPERATORS = {name: version for version, listed in SINCE.items() for name in listed.split()}


@dataclass(frozen=True)
class Finding:
    """`rule` broken at `node`. `fatal`: TensorRT refuses the graph or reads it wrongly; else it runs it in float."""

    node: str
    rule: str
    what: str
    todo: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.node}: {self.what}. {self.todo}."


def check(model: ModelProto, oldest: Version) -> list[Finding]:
    """What TensorRT `oldest` and later will not take, or not run as INT8, in the order of the nodes."""
    graph = _Graph(model)
    found: list[Finding] = []
    for node in model.graph.node:
        found += _operator(graph, node, oldest)
        if node.op_type in (Q, DQ):
            found += _pair(graph, node)
        elif node.op_type in WEIGHTED:
            found += _weighted(graph, node)
        elif node.op_type == "Add":
            found += _residual(graph, node)
    return found


class _Graph:
    """Who makes and who reads each tensor, and the constants."""

    def __init__(self, model: ModelProto):
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in model.graph.output}
        self.types = element_types(model)
        self._weights = {w.name: w for w in model.graph.initializer}

    def constant(self, name: str) -> Any | None:
        """The value of an initializer or Constant, or None."""
        if name in self._weights:
            return numpy_helper.to_array(self._weights[name])
        node = self.maker.get(name)
        value = attribute(node, "value", None) if node is not None and node.op_type == "Constant" else None
        return None if value is None else numpy_helper.to_array(value)

    def dequantized(self, name: str) -> NodeProto | None:
        node = self.maker.get(name)
        return node if node is not None and node.op_type == DQ else None


def _name(node: NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]}"


def _operator(graph: _Graph, node: NodeProto, oldest: Version) -> Iterator[Finding]:
    since = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    told = ".".join(map(str, oldest))
    if since is None:
        todo = "Replace it in the network, or leave it out of the part that is deployed"
        yield Finding(_name(node), "operator", "TensorRT's ONNX parser has no such operator", todo)
    elif since > oldest:
        first = ".".join(map(str, since))
        todo = f"Replace it, or choose a target whose TensorRT is newer than {told}"
        yield Finding(_name(node), "operator", f"TensorRT has this operator since {first}", todo)
    if node.op_type == "MaxPool" and len(node.output) > 1:
        yield Finding(
            _name(node), "operator", "TensorRT's MaxPool gives no indices", "Upsample by interpolation instead"
        )
    if node.op_type == "Resize":
        mode = attribute(node, "mode", b"nearest").decode()
        if attribute(node, "antialias", 0) or (mode == "cubic" and oldest < (8, 6)):
            todo = "Use nearest or linear interpolation without antialiasing"
            yield Finding(_name(node), "resize", f"TensorRT {told} does not resize like this ({mode})", todo)
    kinds = {graph.types.get(name) for name in node.output} & {TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16}
    if kinds and node.op_type not in (Q, DQ):
        kind = TensorProto.DataType.Name(min(k for k in kinds if k is not None)).lower()
        yield Finding(
            _name(node), "operator", f"TensorRT has no {kind} tensors inside a network", "Cast to int32 or float"
        )


def _pair(graph: _Graph, node: NodeProto) -> Iterator[Finding]:
    name = _name(node)
    scale = graph.constant(node.input[1])
    if scale is None:
        todo = "Make the scale an initializer: quantize statically"
        yield Finding(name, "scale", "its scale is computed at run time, which crashes TensorRT's parser", todo)
    elif not (np.all(scale > 0) and np.all(np.isfinite(scale))):
        bad = np.ravel(scale)[~(np.ravel(scale > 0) & np.ravel(np.isfinite(scale)))]
        todo = "Calibrate with frames on which this tensor is not constant, or keep the layer float"
        yield Finding(name, "scale", f"its scale is {bad[0]:g}; scales must be positive and finite", todo)
    zero = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    yield from _type(graph, node, zero)
    if zero is not None and np.any(zero):
        todo = 'Quantize symmetrically (quantizer = "symmetric")'
        yield Finding(
            name, "zero point", f"its zero point is {np.ravel(zero)[np.argmax(np.ravel(zero) != 0)]}, not 0", todo
        )
    if scale is not None and scale.size > 1:
        yield from _axis(graph, node, name)
    yield from _partner(graph, node, name, scale)


def _type(graph: _Graph, node: NodeProto, zero: Any | None) -> Iterator[Finding]:
    whole = node.output[0] if node.op_type == Q else node.input[0]
    kind = graph.types.get(whole, TensorProto.UNDEFINED)
    if kind == TensorProto.UNDEFINED:  # ONNX: uint8, if there is no zero point that says another
        kind = TensorProto.UINT8 if zero is None else TensorProto.DataType.Value(str(zero.dtype).upper())
    if kind == TensorProto.INT8:
        return
    told = TensorProto.DataType.Name(kind).lower()
    if kind == TensorProto.INT32:
        todo = "Leave biases float (QuantizeBias = False)"
        yield Finding(_name(node), "bias", "an int32 tensor (a quantized bias) is dequantized", todo)
    else:
        what = f"it holds {told}, which TensorRT refuses or reads as INT8"
        yield Finding(_name(node), "type", what, "Quantize activations and weights to signed INT8")


def _axis(graph: _Graph, node: NodeProto, name: str) -> Iterator[Finding]:
    """Per-channel scales: only along the output channels of the constant weights of a convolution."""
    weight = graph.constant(node.input[0])
    ends = [node] if node.op_type == DQ else graph.readers.get(node.output[0], [])
    users = [user for end in ends for user in graph.readers.get(end.output[0], [])]
    maker = graph.maker.get(node.input[0])
    if weight is None and maker is not None and maker.op_type == Q:
        weight = graph.constant(maker.input[0])
    if weight is None:
        yield Finding(name, "axis", "an activation has a scale per channel", "Give activations one scale")
        return
    axis = attribute(node, "axis", 1)
    for user in users:
        wanted = WEIGHTED.get(user.op_type)
        if wanted is not None and axis != wanted:
            what = f"the weights of {_name(user)} are scaled along axis {axis}"
            yield Finding(name, "axis", what, f"Scale them per output channel, axis {wanted}")


def _partner(graph: _Graph, node: NodeProto, name: str, scale: Any | None) -> Iterator[Finding]:
    """Each Q feeds DQs only, and each DQ is fed by a Q of the same scale or by a constant."""
    if node.op_type == Q:
        loose = [user for user in graph.readers.get(node.output[0], []) if user.op_type != DQ]
        if loose or node.output[0] in graph.outputs:
            end = _name(loose[0]) if loose else "the output"
            yield Finding(name, "pair", f"its integers go into {end}", "Put a DequantizeLinear right behind it")
        return
    maker = graph.maker.get(node.input[0])
    if maker is None or maker.op_type != Q:
        if graph.constant(node.input[0]) is None:
            origin = "an input" if maker is None else _name(maker)
            yield Finding(name, "pair", f"its integers come from {origin}", "Put a QuantizeLinear right before it")
        return
    before = graph.constant(maker.input[1])
    if scale is not None and before is not None and not np.array_equal(scale, before, equal_nan=True):
        todo = "Give both the same scale, or the pair stays an operation of its own"
        yield Finding(name, "pair", f"its scale differs from that of {_name(maker)}", todo, fatal=False)


def _weighted(graph: _Graph, node: NodeProto) -> Iterator[Finding]:
    sides = [graph.dequantized(name) is not None for name in node.input[:2]]
    if sides[0] != sides[1]:
        lacking = "weights are" if sides[0] else "input is"
        todo = "Quantize both its input and its weights, or neither"
        yield Finding(_name(node), "half quantized", f"its {lacking} float, so it runs in float", todo, fatal=False)


def _residual(graph: _Graph, node: NodeProto) -> Iterator[Finding]:
    sides = [graph.dequantized(name) is not None or graph.constant(name) is not None for name in node.input]
    quantized = any(graph.dequantized(name) is not None for name in node.input)
    if quantized and not all(sides):
        lacking = node.input[sides.index(False)]
        todo = f"Put a Q/DQ pair of its own on {lacking}"
        what = f"one side ({lacking}) is float, so the sum is not fused into the INT8 convolution before it"
        yield Finding(_name(node), "residual", what, todo, fatal=False)
