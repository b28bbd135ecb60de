"""Networks that end in class ids: back to the scores behind them, through casts, scaling and nearest upsampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgeseg.onnx_graph import axes
from edgeseg.onnx_graph.index import GraphIndex, attribute

INTEGERS = (
    *(TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16, TensorProto.INT32),
    *(TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64, TensorProto.BOOL),
)
ROUNDING = ("Cast", "Round", "Floor", "Ceil")
SCALING = ("Mul", "Div", "Add", "Sub")


@dataclass(frozen=True)
class ClassIds:
    """`tensor` with `labels` decides the ids: by ArgMax over its classes, or where it is above `border`.

    `removed`: the operators behind it, from the output backwards; `nearest`: the nearest Resizes among them with their
    axes of height and width, to be done on the scores.
    """

    tensor: str
    labels: str
    border: float | None
    removed: tuple[str, ...]
    nearest: tuple[tuple[NodeProto, int, int], ...]


def trace(index: GraphIndex, tensor: str, labels: str) -> ClassIds | None:
    """How the map of ids `tensor` was made; None where no ArgMax or comparison is behind it."""
    removed: list[str] = []
    nearest: list[tuple[NodeProto, int, int]] = []
    while (node := index.producer(tensor)) is not None:
        removed.append(node.op_type)
        if node.op_type == "ArgMax":
            inner = axes.with_classes(labels, attribute(node, "axis", 0), bool(attribute(node, "keepdims", 1)))
            return ClassIds(node.input[0], inner, None, tuple(removed), tuple(nearest))
        if node.op_type in ("Greater", "GreaterOrEqual"):
            border = index.constant_input(node, 1)
            if border is None or border.size != 1:
                return None
            return ClassIds(node.input[0], labels, float(border.reshape(())), tuple(removed), tuple(nearest))
        if node.op_type == "Resize" and attribute(node, "mode", b"nearest") == b"nearest":
            nearest.append((node, labels.index("h"), labels.index("w")))
            tensor = node.input[0]
        elif node.op_type in ROUNDING:
            tensor = node.input[0]
        elif node.op_type in SCALING and (found := index.scalar_operand(node)) is not None:
            tensor = found[0]
        elif node.op_type == "Where" and _raises(index, node):
            tensor = node.input[0]
        elif inner := axes.before(index, node, labels):
            tensor, labels = node.input[0], inner
        else:
            return None
    return None


def _raises(index: GraphIndex, node: NodeProto) -> bool:
    """Whether a Where takes a larger number where its condition holds than where it does not."""
    one, other = index.constant_input(node, 1), index.constant_input(node, 2)
    return one is not None and other is not None and one.size == other.size == 1 and bool((one > other).all())


def repeat_nearest(index: GraphIndex, tensor: str, shape: list[int], ids: ClassIds) -> tuple[str, list[int]]:
    """`tensor` [1, C, h, w] of `shape` behind the nearest upsamplings that the ids went through; its name and shape."""
    for node, h, w in reversed(ids.nearest):
        name = index.fresh_name("logits_nearest")
        scales, after = index.constant_input(node, 2), index.shape(node.output[0])
        shape = [*shape[:2], after[h], after[w]]
        if scales is not None and scales.size == len(after):
            sizes = ["", index.add_constant(f"{name}_scales", np.array([1, 1, scales[h], scales[w]], np.float32))]
        else:
            sizes = ["", "", index.add_constant(f"{name}_sizes", np.array(shape, np.int64))]
        more = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "axes"}
        index.graph.node.append(helper.make_node("Resize", [tensor, *sizes], [name], name=name, **more))
        tensor = name
    return tensor, shape


def one_hot(index: GraphIndex, tensor: str, classes: int) -> str:
    """Scores [1, classes, h, w] of ids [1, 1, h, w] of which no scores are in the graph: 1 for the id, 0 for others."""
    names = [index.fresh_name(f"ids_{part}") for part in ("integer", "equal", "float")]
    known = index.add_constant("ids_known", np.arange(classes, dtype=np.int32).reshape(1, classes, 1, 1))
    index.graph.node.extend(
        [
            helper.make_node("Cast", [tensor], [names[0]], to=TensorProto.INT32, name=names[0]),
            helper.make_node("Equal", [names[0], known], [names[1]], name=names[1]),
            helper.make_node("Cast", [names[1]], [names[2]], to=TensorProto.FLOAT, name=names[2]),
        ]
    )
    return names[2]
