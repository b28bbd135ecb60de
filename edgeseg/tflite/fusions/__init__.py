"""Groups of ONNX nodes that compute one thing, fused into one node before the TFLite operators are chosen.

Tensors keep their names, so shapes inferred before stay true.
"""

from __future__ import annotations

from onnx import ModelProto

from edgeseg.onnx_graph.index import GraphIndex, drop_unused
from edgeseg.tflite.fusions.gelu import fuse_gelu
from edgeseg.tflite.fusions.group_norm import fuse_group_norm
from edgeseg.tflite.fusions.layer_norm import fuse_layer_norm
from edgeseg.tflite.fusions.preprocessing import fuse_preprocessing

# Operator in the middle of a group -> what fuses the group around it.
FUSIONS = {"Erf": fuse_gelu, "InstanceNormalization": fuse_group_norm, "Sqrt": fuse_layer_norm}


def fuse(model: ModelProto) -> ModelProto:
    """A copy with every known group fused."""
    model = ModelProto.FromString(model.SerializeToString())
    index = GraphIndex(model)
    for node in [n for n in model.graph.node if n.op_type in FUSIONS]:
        FUSIONS[node.op_type](index, node)
    fuse_preprocessing(index)
    drop_unused(model)
    return model
