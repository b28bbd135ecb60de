"""What each axis of a tensor is (see outputs.labels), followed backwards through operators that only move axes."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from edgeseg.onnx_graph.index import GraphIndex, attribute

MOVING = ("Identity", "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Flatten")
CHANNELS_FIRST = ("1chw", "11hw")


def before(index: GraphIndex, node: NodeProto, labels: str) -> str:
    """The labels of a node's input, given those of its output; "" if the node does more than move axes."""
    if node.op_type not in MOVING:
        return ""
    if node.op_type == "Identity":
        return labels
    shape = index.shape(node.input[0])
    if node.op_type == "Transpose":
        perm = attribute(node, "perm", list(reversed(range(len(labels)))))
        return "".join(labels[list(perm).index(i)] for i in range(len(labels)))
    letters = [letter for letter in labels if letter != "1"]
    if not all(shape) or [s for s in shape if s != 1] != [s for s in index.shape(node.output[0]) if s != 1]:
        return ""
    if len(letters) != sum(size != 1 for size in shape):
        return ""
    rest = iter(letters)
    return "".join("1" if size == 1 else next(rest) for size in shape)


def with_classes(labels: str, axis: int, kept: bool) -> str:
    """The labels in front of a reduction over the axis of the classes, which `kept` it with one element or not."""
    rank = len(labels) + (not kept)
    axis %= rank
    return labels[:axis] + "c" + labels[axis + kept :]


def is_class_axis(axis: int, labels: str) -> bool:
    return "c" in labels and axis % len(labels) == labels.index("c")


def channels_first(index: GraphIndex, tensor: str, labels: str) -> str:
    """`tensor` as [1, C, h, w] (C = 1 without classes): itself, or what Transpose and Reshape make of it."""
    if labels in CHANNELS_FIRST:
        return tensor
    shape = index.shape(tensor)
    order = [i for letter in "1chw" for i, own in enumerate(labels) if own == letter]
    sizes = [shape[labels.index(letter)] if letter in labels else 1 for letter in "chw"]
    names = [index.fresh_name("logits_order"), index.fresh_name("logits_shape")]
    shape_name = index.add_constant("logits_shape_value", np.array([1, *sizes], np.int64))
    index.graph.node.extend(
        [
            helper.make_node("Transpose", [tensor], [names[0]], perm=order, name=names[0]),
            helper.make_node("Reshape", [names[0], shape_name], [names[1]], name=names[1]),
        ]
    )
    return names[1]
