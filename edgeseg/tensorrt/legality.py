"""Will TensorRT take this ONNX graph? A static check that needs no GPU and no TensorRT.

Operators by onnx-tensorrt's table of them, here; Q/DQ pairs in qdq_rules.py. What the real parser says about each rule
is measured by tests/trt.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import ModelProto, NodeProto, TensorProto

from edgeseg.onnx_graph.index import GraphIndex, attribute
from edgeseg.onnx_graph.quantized import QDQ
from edgeseg.target import Version
from edgeseg.tensorrt.finding import Finding, label
from edgeseg.tensorrt.qdq_rules import qdq_findings

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


def check(model: ModelProto, oldest: Version) -> list[Finding]:
    """What TensorRT `oldest` and later will not take, or not run as INT8, in the order of the nodes."""
    index = GraphIndex(model)
    findings: list[Finding] = []
    for node in model.graph.node:
        findings += _operator(index, node, oldest)
        findings += qdq_findings(index, node)
    return findings


def _operator(index: GraphIndex, node: NodeProto, oldest: Version) -> Iterator[Finding]:
    since = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    version = ".".join(map(str, oldest))
    if since is None:
        advice = "Replace it in the network, or leave it out of the part that is deployed"
        yield Finding(label(node), "operator", "TensorRT's ONNX parser has no such operator", advice)
    elif since > oldest:
        first = ".".join(map(str, since))
        advice = f"Replace it, or choose a target whose TensorRT is newer than {version}"
        yield Finding(label(node), "operator", f"TensorRT has this operator since {first}", advice)
    if node.op_type == "MaxPool" and len(node.output) > 1:
        advice = "Upsample by interpolation instead"
        yield Finding(label(node), "operator", "TensorRT's MaxPool gives no indices", advice)
    if node.op_type == "Resize":
        mode = attribute(node, "mode", b"nearest").decode()
        if attribute(node, "antialias", 0) or (mode == "cubic" and oldest < (8, 6)):
            advice = "Use nearest or linear interpolation without antialiasing"
            yield Finding(label(node), "resize", f"TensorRT {version} does not resize like this ({mode})", advice)
    types = {index.types.get(name, 0) for name in node.output}
    unsupported = types & {TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16}
    if unsupported and node.op_type not in QDQ:
        kind = TensorProto.DataType.Name(min(unsupported)).lower()
        problem = f"TensorRT has no {kind} tensors inside a network"
        yield Finding(label(node), "operator", problem, "Cast to int32 or float")
