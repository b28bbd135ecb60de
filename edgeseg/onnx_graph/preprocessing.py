"""Normalization inside the graph: it takes a uint8 BGR frame as the camera delivers it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgeseg.errors import OptionError
from edgeseg.onnx_graph.index import GraphIndex, attribute
from edgeseg.onnx_graph.loading import image_input
from edgeseg.onnx_graph.quantized import QDQ
from edgeseg.spec import CHANNELS_OF, LUMA, Spec

ONLY_ALPHA = " Alpha is then opaque everywhere; what else a fourth channel may hold no camera gives."


def prepend_preprocessing(model: ModelProto, spec: Spec) -> list[str]:
    """Make the graph take `frame`, uint8 BGR [1, H, W, 3], and normalize it inside, in place; returns notes."""
    index, graph = GraphIndex(model), model.graph
    name, layout, _, _, channels = image_input(model)
    kind = next(i for i in graph.input if i.name == name).type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise OptionError(
            f"Input {name} is {TensorProto.DataType.Name(kind).lower()}.",
            "Expected floats, or uint8 for a network whose normalization is inside it.",
        )
    if channels != len(CHANNELS_OF[spec.color]):
        names = [color for color, order in CHANNELS_OF.items() if len(order) == channels]
        raise OptionError(
            f"The network takes {channels} channels, and the color order is {spec.color}.",
            f"Expected {' or '.join(names)}: give it with --color."
            + " Alpha is then opaque everywhere; what else a fourth channel may hold no camera gives."
            * (channels == 4),
        )
    if channels != 3:
        if kind != TensorProto.FLOAT:
            raise OptionError(f"Input {name} takes {channels} channels of uint8.", "Expected floats.")
        return _prepend_channels(model, spec, index, name, layout)
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
    _put_first(model, nodes, spec)
    return notes


def _prepend_channels(model: ModelProto, spec: Spec, index: GraphIndex, name: str, layout: str) -> list[str]:
    """Gray or RGBA from BGR, normalized, by one convolution of 1x1."""
    weights, bias = channel_mix(spec)
    constants = [
        index.add_constant("pre_channels_weight", weights[:, :, None, None]),
        index.add_constant("pre_channels_bias", bias),
    ]
    nodes = [
        helper.make_node("Cast", ["frame"], ["pre_float"], to=TensorProto.FLOAT, name="pre_float"),
        helper.make_node("Transpose", ["pre_float"], ["pre_nchw"], name="pre_nchw", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["pre_nchw", *constants], ["pre_channels"], name="pre_channels"),
    ]
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["pre_channels"], ["pre_nhwc"], name="pre_nhwc", perm=[0, 2, 3, 1]))
    nodes[-1].output[0] = name
    _put_first(model, nodes, spec)
    return [f"{spec.color} from BGR by a convolution of 1x1"]


def channel_mix(spec: Spec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(weights [C, 3], bias [C]): the network's normalized channels from those of a BGR frame, 0 to 255."""
    rows, bias = [], []
    for i, channel in enumerate(CHANNELS_OF[spec.color]):
        if channel == "A":
            rows.append(np.zeros(3))
            bias.append(1.0)  # opaque
        else:
            picked = np.array(LUMA) if channel == "Y" else np.eye(3)["BGR".index(channel)]
            rows.append(picked / 255 / spec.std[i])
            bias.append(-spec.mean[i] / spec.std[i])
    return np.array(rows, np.float32), np.array(bias, np.float32)


def _put_first(model: ModelProto, nodes: list[NodeProto], spec: Spec) -> None:
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    del model.graph.input[:]
    shape = [1, spec.height, spec.width, 3]
    model.graph.input.append(helper.make_tensor_value_info("frame", TensorProto.UINT8, shape))


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
