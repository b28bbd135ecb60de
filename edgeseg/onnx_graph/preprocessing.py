"""Normalization inside the graph: it takes a uint8 BGR frame as the camera delivers it."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from edgeseg.errors import OptionError
from edgeseg.onnx_graph.index import GraphIndex, attribute
from edgeseg.onnx_graph.loading import image_input
from edgeseg.onnx_graph.quantized import QDQ
from edgeseg.spec import Spec


def prepend_preprocessing(model: ModelProto, spec: Spec) -> list[str]:
    """Make the graph take `frame`, uint8 BGR [1, H, W, 3], and normalize it inside, in place; returns notes."""
    index, graph = GraphIndex(model), model.graph
    name, layout, _, _ = image_input(model)
    kind = next(i for i in graph.input if i.name == name).type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise OptionError(
            f"Input {name} is {TensorProto.DataType.Name(kind).lower()}.",
            "Expected floats, or uint8 for a network whose normalization is inside it.",
        )
    mean, std = np.array(spec.mean, np.float32) * 255, np.array(spec.std, np.float32) * 255
    swap_channels, notes = spec.color == "RGB", []
    if swap_channels and layout == "NCHW" and reverse_first_conv(index, name):
        mean, std, swap_channels = mean[::-1], std[::-1], False
        notes.append("BGR -> RGB folded into the first convolution")
    shape = [1, 3, 1, 1] if layout == "NCHW" else [1, 1, 1, 3]
    nodes = [helper.make_node("Cast", ["frame"], ["pre_float"], to=TensorProto.FLOAT, name="pre_float")]

    def append(op: str, output: str, *constants: str, **attributes: Any) -> None:
        inputs = [nodes[-1].output[0], *constants]
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))

    if layout == "NCHW":
        append("Transpose", "pre_nchw", perm=[0, 3, 1, 2])
    if swap_channels:
        append("Gather", "pre_rgb", index.add_constant("pre_order", np.array([2, 1, 0])), axis=shape.index(3))
    if kind == TensorProto.UINT8:
        nodes[0].op_type = "Identity"
        del nodes[0].attribute[:]
        notes.append("the network normalizes pixels itself: mean and std are not used")
    for op, values in (("Sub", mean), ("Mul", 1 / std)) if kind == TensorProto.FLOAT else ():
        append(op, f"pre_{op}", index.add_constant(f"pre_{op}_value", values.astype(np.float32).reshape(shape)))
    nodes[-1].output[0] = name
    for node in reversed(nodes):
        graph.node.insert(0, node)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, spec.height, spec.width, 3]))
    return notes


def reverse_first_conv(index: GraphIndex, image: str) -> bool:
    """Reverse the input channels of the only reader of `image` if that is an ordinary Conv with constant weights.

    Q/DQ pairs in between do not matter where they treat all input channels alike.
    """
    reader = index.sole_consumer(image)
    while reader is not None and reader.op_type in QDQ and _one_scale(index, reader.input[1]):
        reader = index.sole_consumer(reader.output[0])
    if reader is None or reader.op_type != "Conv" or attribute(reader, "group", 1) != 1:
        return False
    weight = reader.input[1]
    while (node := index.producer(weight, *QDQ)) is not None and attribute(node, "axis", 1) == 0:
        weight = node.input[0]
    if weight not in index.initializers or index.use_count(weight) != 1:
        return False
    values = index.constant(weight)
    assert values is not None
    index.set_constant(weight, values[:, ::-1])
    return True


def _one_scale(index: GraphIndex, scale: str) -> bool:
    return scale in index.initializers and list(index.initializers[scale].dims) in ([], [1])
