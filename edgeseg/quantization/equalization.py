"""Preparing a float deploy graph so that INT8 loses less: equalized channels, corrected biases."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from edgeseg.images import Image
from edgeseg.onnx_graph.index import Array, GraphIndex, attribute
from edgeseg.quantization.rounding import round_weights
from edgeseg.quantization.tensors import activation_names, tensor_values

# f(s x) = s f(x) for s > 0, each channel by itself.
SCALE_INVARIANT = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool")


def equalize(model: ModelProto, frames: Sequence[Image]) -> int:
    """Cross-layer equalization in place (Nagel et al. 2019, section 4.1); the network computes the same in float.

    Channel i between two convolutions is divided by s_i in the first and multiplied by s_i in the second.
    All our schemes give weights a scale for each output channel. So r1 is not the range of the first layer's weights,
    as in the paper, but of its outputs on `frames`, and r2, of the weights that read a channel, is relative to the
    other weights of their output channel: s = sqrt(r1 / r2), and s = r1 where each output reads one channel only
    (depthwise).

    Returns the number of pairs of layers.
    """
    index = GraphIndex(model)
    pairs = list(_pairs(index))
    names = sorted({first.output[0] for first, _ in pairs})
    largest: dict[str, Array] = dict.fromkeys(names, np.zeros(()))
    for row in tensor_values(model, frames, names):
        largest = {name: np.maximum(largest[name], np.abs(x).max((0, 2, 3))) for name, x in zip(names, row)}
    for first, second in pairs:
        r1 = largest[first.output[0]]
        kernel = _by_group(_weights(index, second), second)  # [groups, out, in, size]
        relative = np.abs(kernel) / np.maximum(np.abs(kernel).max((2, 3), keepdims=True), 1e-30)
        r2 = relative.max((1, 3)).ravel()
        s = np.ones_like(r2)
        nonzero = (r1 > 0) & (r2 > 0)
        s[nonzero] = r1[nonzero] if kernel.shape[2] == 1 else np.sqrt(r1[nonzero] / r2[nonzero])
        for name in first.input[1:]:
            old = numpy_helper.to_array(index.initializers[name])
            index.set_constant(name, old / s.reshape(-1, *[1] * (old.ndim - 1)))
        index.set_constant(second.input[1], kernel * s.reshape(len(kernel), 1, -1, 1))
    return len(pairs)


def correct_biases(
    model: ModelProto,
    frames: Sequence[Image],
    excluded: Collection[str] = (),
    min_weight_scale: float = 0.0,
    safe_scales: bool = False,
) -> None:
    """Add to each convolution's bias, in place, the change of its mean output that rounding its weights w to w~ causes.

    E[y] - E[y~] = (w - w~) E[x] (Nagel et al. 2019, section 4.2), E[x] the mean of each input channel over `frames`.
    `excluded` layers are not rounded. `min_weight_scale`, `safe_scales`: see Scheme.
    """
    index = GraphIndex(model)
    floats = set(activation_names(model))  # a model in float16 has none, it is not quantized
    convs = [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.name not in excluded
        and node.input[0] in floats
        and index.initializers.keys() >= set(node.input[1:])
    ]
    names = sorted({node.input[0] for node in convs})
    rows = [[x.mean((0, 2, 3), dtype=np.float64) for x in row] for row in tensor_values(model, frames, names)]
    means = {name: np.mean([row[i] for row in rows], 0) for i, name in enumerate(names)}
    for node in convs:
        weights, bias = _weights(index, node), index.constant_input(node, 2)
        rounded = round_weights(weights, 0, min_weight_scale, 1 if safe_scales else None)
        rounding = _by_group(weights - rounded, node).sum(3)
        shift = np.einsum("goi,gi->go", rounding, means[node.input[0]].reshape(len(rounding), -1)).ravel()
        corrected = (np.zeros(len(weights)) if bias is None else bias) + shift
        node.input[2:] = [index.add_constant(f"{node.output[0]}_bias", corrected.astype(weights.dtype))]


def _pairs(index: GraphIndex) -> Iterator[tuple[NodeProto, NodeProto]]:
    """Convolutions of which the second alone reads the output of the first, through SCALE_INVARIANT operators only."""
    floats = set(activation_names(index.model))
    used_once = {name for name in index.initializers if index.use_count(name) == 1}
    for second in index.graph.node:
        name = second.input[0] if second.op_type == "Conv" and second.input[1] in used_once else ""
        while index.use_count(name) == 1 and (node := index.producer(name, *SCALE_INVARIANT)) is not None:
            name = node.input[0]
        first = index.producer(name, "Conv") if index.use_count(name) == 1 and name in floats else None
        if first is not None and used_once.issuperset(first.input[1:]):
            yield first, second


def _weights(index: GraphIndex, conv: NodeProto) -> Array:
    return numpy_helper.to_array(index.initializers[conv.input[1]])


def _by_group(weights: Array, conv: NodeProto) -> Array:
    """A convolution's weights as [groups, outputs, inputs, size] of each group, float64."""
    groups = attribute(conv, "group", 1)
    return weights.astype(np.float64).reshape(groups, len(weights) // groups, weights.shape[1], -1)
