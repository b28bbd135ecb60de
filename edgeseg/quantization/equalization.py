"""What a float deploy graph gets before it is quantized, so that INT8 loses less: equal channels, corrected biases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from edgeseg.images import Image
from edgeseg.onnx_graph.fold import attribute, fresh_name
from edgeseg.quantization.ranges import activations, round_weights, values

Array = NDArray[Any]
# f(s x) = s f(x) for s > 0, each channel by itself.
SCALED_THROUGH = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool")


def equalize(model: ModelProto, frames: Sequence[Image]) -> int:
    """Cross-layer equalization in place (Nagel et al. 2019, section 4.1); the network computes the same in float.

    Channel i between two convolutions is divided by s_i where it is made and multiplied by s_i in the weights that read
    it. Weights have a scale for each output channel in all our rules. So r1 is not the range of the first layer's
    weights, as in the paper, but of what it makes on `frames`, and r2, of the weights that read a channel, counts
    relative to the others of their output channel: s = sqrt(r1 / r2), and s = r1 where each output reads one channel
    only (depthwise).
    Returns how many pairs of layers were found.
    """
    found = list(_pairs(model))
    weights = {w.name: w for w in model.graph.initializer}
    names = sorted({first.output[0] for first, _ in found})
    largest: dict[str, Any] = dict.fromkeys(names, 0)
    for row in values(model, frames, names):
        largest = {name: np.maximum(largest[name], np.abs(x).max((0, 2, 3))) for name, x in zip(names, row)}
    for first, second in found:
        r1 = largest[first.output[0]]
        kernel = _grouped(weights[second.input[1]], second)  # [groups, out, in, size]
        relative = np.abs(kernel) / np.maximum(np.abs(kernel).max((2, 3), keepdims=True), 1e-30)
        r2 = relative.max((1, 3)).ravel()
        s = np.ones_like(r2)
        live = (r1 > 0) & (r2 > 0)
        s[live] = r1[live] if kernel.shape[2] == 1 else np.sqrt(r1[live] / r2[live])
        for name in first.input[1:]:
            made = numpy_helper.to_array(weights[name])
            _store(weights[name], made / s.reshape(-1, *[1] * (made.ndim - 1)))
        _store(weights[second.input[1]], kernel * s.reshape(len(kernel), 1, -1, 1))
    return len(found)


def correct_biases(model: ModelProto, frames: Sequence[Image], keep: Collection[str] = (), least: float = 0.0) -> None:
    """Add to each convolution's bias, in place, what rounding its weights w takes from its mean output.

    E[y] - E[y~] = (w - w~) E[x] (Nagel et al. 2019, section 4.2), E[x] the mean of each input channel over `frames`.
    The layers to `keep` are not rounded. `least`: see round_weights.
    """
    weights = {w.name: w for w in model.graph.initializer}
    convs = [n for n in model.graph.node if n.op_type == "Conv" and n.input[1] in weights and n.name not in keep]
    floats = set(activations(model))  # not those of a model in float16, which nobody rounds
    convs = [n for n in convs if n.input[0] in floats and (len(n.input) < 3 or n.input[2] in weights)]
    names = sorted({node.input[0] for node in convs})
    rows = [[x.mean((0, 2, 3), dtype=np.float64) for x in row] for row in values(model, frames, names)]
    means = {name: np.mean([row[i] for row in rows], 0) for i, name in enumerate(names)}
    for node in convs:
        stored = weights[node.input[1]]
        exact = numpy_helper.to_array(stored)
        lost = _grouped(numpy_helper.from_array(exact - round_weights(exact, 0, least)), node).sum(3)
        shift = np.einsum("goi,gi->go", lost, means[node.input[0]].reshape(len(lost), -1)).ravel()
        old = numpy_helper.to_array(weights[node.input[2]]) if len(node.input) > 2 else np.zeros(len(exact))
        name = fresh_name(model, f"{node.output[0]}_bias")
        model.graph.initializer.append(numpy_helper.from_array((old + shift).astype(exact.dtype), name))
        del node.input[2:]
        node.input.append(name)


def _pairs(model: ModelProto) -> Iterator[tuple[NodeProto, NodeProto]]:
    """Convolutions of which the second reads what the first makes, through nothing but SCALED_THROUGH, and alone."""
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(o.name for o in model.graph.output)
    made_by = {node.output[0]: node for node in model.graph.node}
    floats = set(activations(model))
    own = {w.name for w in model.graph.initializer if uses[w.name] == 1}
    for second in model.graph.node:
        name = second.input[0] if second.op_type == "Conv" and second.input[1] in own else ""
        while (node := made_by.get(name)) is not None and node.op_type in SCALED_THROUGH and uses[name] == 1:
            name = node.input[0]
        if (
            node is not None
            and node.op_type == "Conv"
            and uses[name] == 1
            and name in floats
            and own.issuperset(node.input[1:])
        ):
            yield node, second


def _grouped(weight: Any, node: NodeProto) -> Array:
    """A convolution's weights as [groups, outputs, inputs, size] of each group, float64."""
    kernel = numpy_helper.to_array(weight).astype(np.float64)
    groups = attribute(node, "group", 1)
    return kernel.reshape(groups, len(kernel) // groups, kernel.shape[1], -1)


def _store(weight: Any, new: Array) -> None:
    old = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(new.reshape(old.shape).astype(old.dtype), weight.name))
