"""The small network that a layer is timed in, as a deploy graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.profiling.layer import Layer

if TYPE_CHECKING:
    from onnx import ModelProto


def layer_graph(layer: Layer, with_layer: bool = True) -> ModelProto:
    """Two convolutions, the layer, and one position of its output; or the same network without the layer."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []

    def conv(op: str, source: str, name: str, shape: tuple[int, ...], outputs: int, **attributes: Any) -> str:
        values = {"weight": random.normal(0, 0.1, shape), "bias": random.normal(0, 0.1, outputs)}
        weights.extend(numpy_helper.from_array(v.astype(np.float32), f"{name}_{k}") for k, v in values.items())
        inputs = [source, f"{name}_weight", f"{name}_bias"]
        nodes.append(helper.make_node(op, inputs, [f"{name}_sum"], name=f"{name}_conv", **attributes))
        nodes.append(helper.make_node("Relu", [f"{name}_sum"], [name], name=name))
        return name

    nodes.append(helper.make_node("Cast", ["frame"], ["pre_float"], to=TensorProto.FLOAT, name="pre_float"))
    nodes.append(helper.make_node("Transpose", ["pre_float"], ["pre_nchw"], perm=[0, 3, 1, 2], name="pre_nchw"))
    x = conv("Conv", "pre_nchw", "entry", (layer.inputs, 3, 3, 3), layer.inputs, pads=[1] * 4)
    x = conv("Conv", x, "before", (layer.inputs, layer.inputs, 1, 1), layer.inputs)
    if with_layer:
        op, shape, attributes = _operator(layer)
        x = conv(op, x, "layer", shape, layer.outputs, group=layer.groups, **attributes)
    corner = {"starts": [0, 0], "ends": [1, 1], "axes": [2, 3]}
    weights.extend(numpy_helper.from_array(np.array(v), name) for name, v in corner.items())
    nodes.append(helper.make_node("Slice", [x, *corner], ["corner"], name="corner"))
    nodes.append(helper.make_node("Cast", ["corner"], ["logits"], to=TensorProto.FLOAT, name="logits"))
    channels = layer.outputs if with_layer else layer.inputs
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, *layer.size, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, channels, 1, 1])
    graph = helper.make_graph(nodes, "layer", [frame], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _operator(layer: Layer) -> tuple[str, tuple[int, ...], dict[str, list[int]]]:
    """The ONNX operator, the shape of its weights and its attributes, with the padding that leads from size to out."""
    sides = list(zip(layer.size, layer.out, layer.kernel, layer.stride, layer.dilation))
    attributes: dict[str, list[int]] = {"strides": list(layer.stride), "dilations": list(layer.dilation)}
    if layer.transposed:
        excess = [(size - 1) * s + d * (k - 1) + 1 - out for size, out, k, s, d in sides]
        attributes["output_padding"] = [max(0, -e) for e in excess]
        shape = (layer.inputs, layer.outputs // layer.groups, *layer.kernel)
    else:
        excess = [(out - 1) * s + d * (k - 1) + 1 - size for size, out, k, s, d in sides]
        shape = (layer.outputs, layer.inputs // layer.groups, *layer.kernel)
    pads = [max(0, e) for e in excess]
    attributes["pads"] = [*(p // 2 for p in pads), *(p - p // 2 for p in pads)]
    return "ConvTranspose" if layer.transposed else "Conv", shape, attributes
