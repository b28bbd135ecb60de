"""BatchNormalization folded into the Conv or ConvTranspose before it."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from edgeseg.onnx_graph.index import GraphIndex, attribute


def fold_batchnorm(model: ModelProto) -> None:
    """In place: w' = w g and b' = (b - mean) g + beta with g = scale / sqrt(var + epsilon), computed in float64.

    Left alone: a norm in training mode, one whose weights are computed, and a convolution that others read too.
    """
    index = GraphIndex(model)
    for norm in [node for node in model.graph.node if node.op_type == "BatchNormalization"]:
        conv = index.producer(norm.input[0], "Conv", "ConvTranspose")
        if conv is None or index.use_count(norm.input[0]) != 1 or attribute(norm, "training_mode", 0):
            continue
        if all(name in index.initializers for name in (*norm.input[1:], *conv.input[1:]) if name):
            folded = _folded(index, conv, norm)
            index.remove(norm)
            index.replace(conv, [folded])


def _folded(index: GraphIndex, conv: NodeProto, norm: NodeProto) -> NodeProto:
    scale, beta, mean, variance, weight = (
        numpy_helper.to_array(index.initializers[name]).astype(np.float64) for name in (*norm.input[1:5], conv.input[1])
    )
    kind = numpy_helper.to_array(index.initializers[conv.input[1]]).dtype
    bias = index.constant_input(conv, 2)
    gain = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    shift = ((np.zeros(len(gain)) if bias is None else bias) - mean) * gain + beta
    if conv.op_type == "Conv":  # weights are [out, in / groups, ...]
        weight *= gain.reshape(-1, *[1] * (weight.ndim - 1))
    else:  # weights are [in, out / groups, ...]: the first in / groups of them make the first out / groups channels
        groups = attribute(conv, "group", 1)
        by_group = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
        weight = (by_group * gain.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    folded: NodeProto = NodeProto.FromString(conv.SerializeToString())
    name = norm.output[0]
    names = [index.add_constant(f"{name}_{part}", v.astype(kind)) for part, v in (("weight", weight), ("bias", shift))]
    folded.input[1:] = names
    folded.output[0] = name
    return folded
