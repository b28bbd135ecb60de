"""(x - mean) / sqrt(mean((x - mean)^2) + eps), Ba et al. 2016, as exporters wrote it before opset 17."""

from __future__ import annotations

from onnx import NodeProto, helper

from edgeseg.onnx_graph.index import GraphIndex, attribute


def fuse_layer_norm(index: GraphIndex, root: NodeProto) -> None:
    """Replace the Div behind a Sqrt by LayerNormalization over the last axis; nothing where it is something else."""
    divide, plus = index.sole_consumer(root.output[0], "Div"), index.producer(root.input[0], "Add")
    if divide is None or plus is None or (epsilon := index.scalar_operand(plus)) is None:
        return
    variance = index.producer(epsilon[0], "ReduceMean")
    square = index.producer(variance.input[0], "Pow", "Mul") if variance is not None else None
    if variance is None or square is None or not _over_last_axis(index, variance):
        return
    centered = square.input[0]
    power = index.scalar_operand(square) if square.op_type == "Pow" else None
    if (power is None or power[1] != 2) if square.op_type == "Pow" else square.input[1] != centered:
        return
    minus = index.producer(centered, "Sub")
    mean = index.producer(minus.input[1], "ReduceMean") if minus is not None else None
    if minus is None or mean is None or divide.input[0] != centered:
        return
    if mean.input[0] == minus.input[0] and _over_last_axis(index, mean):
        node = helper.make_node("LayerNormalization", minus.input[:1], divide.output, axis=-1, epsilon=epsilon[1])
        node.name = divide.name or divide.output[0]
        index.replace(divide, [node])


def _over_last_axis(index: GraphIndex, node: NodeProto) -> bool:
    return index.axes(node) == [-1] and bool(attribute(node, "keepdims", 1))
