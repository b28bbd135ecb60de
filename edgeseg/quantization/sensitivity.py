"""Sensitivity: which layers INT8 hurts most, ranked by the noise that each adds to the logits.

One layer at a time is quantized (its weights per output channel, its inputs per tensor; all else stays float) and the
network runs on a few real frames:

    SQNR = 10 log10( sum x^2 / sum (x - x_q)^2 )   in dB, over the logits x of all frames

This takes one forward pass per layer and no quantizer. Measured alone, no layer masks another, as can happen when
layers are excluded from the full INT8 network one by one. An excluded layer reads its inputs unquantized, which removes
exactly the noise that is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from edgeseg.errors import OptionError
from edgeseg.images import Image
from edgeseg.onnx_graph.index import element_types, opset
from edgeseg.onnx_graph.layer_names import layers
from edgeseg.quantization import schemes
from edgeseg.quantization.ranges import Range, estimate_ranges
from edgeseg.quantization.scheme import Scheme
from edgeseg.quantization.single_layer import quantize_layer, rounded_tensors
from edgeseg.quantization.tensors import run_graph
from edgeseg.results.search import LayerNoise

FRAMES = 8
MAX_SQNR = 120.0  # dB; less noise counts as none
OLDEST_OPSET = 10  # the first with QuantizeLinear


def quantizable_layers(model: ModelProto, scheme: Scheme) -> list[NodeProto]:
    """The layers that the scheme quantizes, and whose activations are float32; OptionError if there is none."""
    types = element_types(model)
    nodes = [
        n
        for n in layers(model)
        if types.get(n.input[0]) == TensorProto.FLOAT and (not scheme.operators or n.op_type in scheme.operators)
    ]
    if not nodes:
        raise OptionError("The network has no layer that INT8 could apply to.", "Expected convolutions in float32.")
    return nodes


def rank(
    graph: Path,
    frames: list[Image],
    scheme: str,
    each: Callable[[int, int, Callable[[], float]], float | None] = lambda index, count, measure: measure(),
) -> list[LayerNoise]:
    """Every layer of a deploy graph (an ONNX file), the noisiest first: see rank_model."""
    return rank_model(onnx.load(str(graph)), frames, scheme, each)


def rank_model(
    model: ModelProto,
    frames: list[Image],
    scheme: str,
    each: Callable[[int, int, Callable[[], float]], float | None] = lambda index, count, measure: measure(),
) -> list[LayerNoise]:
    """Every layer of a deploy graph, the noisiest first. `frames`: [H, W, 3] uint8 BGR of its size.

    `each(index, count, measure)` decides about every measurement: it may return a stored figure, or None to leave the
    layer out when time is short.
    """
    if opset(model) < OLDEST_OPSET:
        raise OptionError(
            f"The model has opset {opset(model)}, in which nothing can be quantized.",
            f"Expected {OLDEST_OPSET} or newer: export it with opset 17.",
        )
    network = FloatNetwork(model, frames[:FRAMES], schemes.get(scheme))
    rows = []
    for i, node in enumerate(network.layers):
        noise = each(i, len(network.layers), partial(network.sqnr, node.name))
        if noise is not None:
            rows.append(LayerNoise(node.name, node.op_type, round(noise, 2)))
    return sorted(rows, key=lambda row: row.sqnr_db)


class FloatNetwork:
    """A deploy graph, and its ranges and logits on some frames, computed when they are first used."""

    def __init__(self, model: ModelProto, frames: Sequence[Image], scheme: Scheme):
        self.model, self.frames, self.scheme = model, frames, scheme
        self.layers = quantizable_layers(model, scheme)
        types = element_types(model)
        self._tensors = {node.name: rounded_tensors(model, types, node, scheme) for node in self.layers}

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """The smallest and largest value of every activation that a layer rounds."""
        names = {name for tensors in self._tensors.values() for name in tensors.activations}
        return estimate_ranges(self.model, self.frames, "minmax", names=names)

    @cached_property
    def logits(self) -> list[NDArray[Any]]:
        return [outputs[0] for outputs in run_graph(self.model, self.frames)]

    def sqnr(self, layer: str) -> float:
        """In dB, of the network with this layer alone in INT8; at most MAX_SQNR."""
        quantized = quantize_layer(self.model, layer, self._tensors[layer], self.scheme, self.ranges)
        signal = noise = 0.0
        for logits, (noisy, *_) in zip(self.logits, run_graph(quantized, self.frames)):
            signal += float(np.square(logits, dtype=np.float64).sum())
            noise += float(np.square(logits - noisy, dtype=np.float64).sum())
        if noise <= signal * 10 ** (-MAX_SQNR / 10):
            return MAX_SQNR
        return float(10 * np.log10(max(signal, 1e-30) / noise))
