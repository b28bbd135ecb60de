"""A deploy graph for programs that hand over a planar float image and take the largest of positive outputs."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from edgeseg.errors import BundleError
from edgeseg.onnx_graph.index import GraphIndex

# Of mask.UPSAMPLES, as Resize calls them.
COORDINATES = {"half_pixel": "half_pixel", "align_corners": "align_corners", "asymmetric": "asymmetric"}


def planar_float_image(model: ModelProto) -> None:
    """`image`, float32 [1, 3, H, W] from 0 to 255, in place of the frame, [1, H, W, 3] of uint8 or float32.

    BundleError for a graph whose frame is used as anything but float32.
    """
    graph, index = model.graph, GraphIndex(model)
    entry = graph.input[0]
    if entry.type.tensor_type.elem_type == TensorProto.UINT8 and not all(
        reader.op_type == "Cast" for reader in index.consumers(entry.name)
    ):
        raise BundleError("The model computes with its uint8 frame.", "Expected a graph that casts it first.")
    height, width = (size.dim_value for size in entry.type.tensor_type.shape.dim[1:3])
    name = index.fresh_name("image")
    to_frame = helper.make_node("Transpose", [name], [entry.name], name="image_to_frame", perm=[0, 2, 3, 1])
    graph.node.insert(0, to_frame)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, height, width]))


def probabilities(model: ModelProto, height: int, width: int, upsample: str) -> None:
    """`probabilities`, float32 [1, C, height, width], in place of the logits [1, C, h, w]; `upsample`: one of
    mask.UPSAMPLES."""
    graph, index = model.graph, GraphIndex(model)
    logits = graph.output[0].name
    classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    if upsample in COORDINATES:
        sizes = index.add_constant("full_size", np.array([1, classes, height, width], np.int64))
        large = index.fresh_name("full_logits")
        more = {"mode": "linear", "coordinate_transformation_mode": COORDINATES[upsample]}
        graph.node.append(helper.make_node("Resize", [logits, "", "", sizes], [large], name=large, **more))
        logits = large
    name = index.fresh_name("probabilities")
    graph.node.append(helper.make_node("Softmax", [logits], [name], name=name, axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, classes, height, width]))
