"""Any trained segmentation network -> the deploy graph.

The deploy graph takes a uint8 BGR frame [1, H, W, 3], normalizes inside, has its batch normalization folded, and ends
in float32 logits [1, C, h, w] at the head's own stride.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import ModelProto

from edgeseg.onnx_graph.head import cut_head
from edgeseg.onnx_graph.index import GraphIndex, operator_counts, rename_tensors
from edgeseg.onnx_graph.loading import graph_errors, simplify
from edgeseg.onnx_graph.preprocessing import prepend_preprocessing
from edgeseg.onnx_graph.quantized import is_quantized
from edgeseg.onnx_graph.swap_upsample_conv import swap_upsample_conv
from edgeseg.onnx_graph.unstack import unstack
from edgeseg.spec import Spec

RESERVED_NAMES = (
    *("frame", "pre_float", "pre_nchw", "pre_order", "pre_rgb", "pre_Sub", "pre_Sub_value", "pre_Mul", "pre_Mul_value"),
    *("background", "one_logit", "logits", "pair", "pair_raised", "ids_large"),
)


@dataclass(frozen=True)
class DeployGraph:
    """The deploy graph, the convention of the Resize that was cut (mask.UPSAMPLES), and what was done."""

    model: ModelProto
    upsample: str
    notes: tuple[str, ...]
    batchnorm_before: int
    batchnorm_after: int


def deploy_graph(model: ModelProto, spec: Spec, output: str = "") -> DeployGraph:
    """The deploy graph of a float or quantized segmentation network; OptionError where it is not one."""
    before = operator_counts(model)["BatchNormalization"]
    graph = simplify(model, spec.height, spec.width, output)
    with graph_errors():
        _free_reserved_names(graph)
        upsample, notes = cut_head(graph, spec)
        unstack(graph)
        if moved := swap_upsample_conv(graph):
            notes.append(f"1x1 convolutions moved in front of an upsampling: {moved}")
        notes += prepend_preprocessing(graph, spec)
        _name_nodes(graph)
        if is_quantized(graph):
            notes.append(f"came quantized: {operator_counts(graph)['QuantizeLinear']} Q/DQ pairs")
        graph.graph.name = "edgeseg"
        del graph.metadata_props[:]
        ready = onnx.shape_inference.infer_shapes(graph)
        onnx.checker.check_model(ready)
    return DeployGraph(ready, upsample, tuple(notes), before, operator_counts(ready)["BatchNormalization"])


def _free_reserved_names(model: ModelProto) -> None:
    """Rename what the network calls by the names that the deploy graph uses itself."""
    index = GraphIndex(model)
    rename_tensors(model, {name: index.fresh_name(f"inner_{name}") for name in RESERVED_NAMES})


def _name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own: the one it has where no other has it, else that of its output."""
    taken: set[str] = set()
    for node in sorted(model.graph.node, key=lambda n: n.output[0] not in RESERVED_NAMES):
        if not node.name or node.name in taken:
            node.name = node.output[0]
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)
