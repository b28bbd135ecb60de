"""Sensitivity: which layers INT8 hurts most, ranked by the noise each adds at the logits.

One layer at a time is quantized (its weights per output channel, its inputs per tensor; all else stays float) and the
network runs on a few real frames:

    SQNR = 10 log10( sum x^2 / sum (x - x_q)^2 )   in dB, over the logits x of all frames

One forward run a layer, without a quantizer in the loop, and no layer hides behind another, as it can when layers are
taken out of the full INT8 network one by one. A layer that is kept in float reads its inputs unquantized, which is
exactly the noise that is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.errors import OptionError
from edgeseg.images import Image
from edgeseg.onnx_graph.index import attribute, drop_unused, element_types, fresh_name
from edgeseg.onnx_graph.layer_names import layers
from edgeseg.quantization import ranges, schemes
from edgeseg.quantization.ranges import grid, round_weights
from edgeseg.quantization.scheme import Scheme
from edgeseg.results.search import LayerNoise

FRAMES = 8
SILENT = 120.0  # dB; less noise than this is none
OLDEST_OPSET = 10  # the first with QuantizeLinear


def candidates(model: ModelProto, scheme: Scheme) -> list[NodeProto]:
    """The layers that the scheme quantizes, and whose activations are float32."""
    types = element_types(model)
    found = [
        n
        for n in layers(model)
        if types.get(n.input[0]) == TensorProto.FLOAT and (not scheme.operators or n.op_type in scheme.operators)
    ]
    if not found:
        raise OptionError("The network has no layer that INT8 could apply to.", "Expected convolutions in float32.")
    return found


def rank(
    graph: Path,
    frames: list[Image],
    scheme: str,
    each: Callable[[int, int, Callable[[], float]], float | None] = lambda index, count, measure: measure(),
) -> list[LayerNoise]:
    """Every layer of a deploy graph (an ONNX file), the noisiest first. `frames`: [H, W, 3] uint8 BGR of its size.

    `each` (index, count, measure) decides about every measurement: it may remember it, or return None to leave the
    layer out when time is short.
    """
    model = onnx.load(str(graph))
    if next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) < OLDEST_OPSET:
        raise OptionError(f"The model's opset is older than {OLDEST_OPSET}.", "Export it with opset 17.")
    rules = schemes.get(scheme)
    lab = _Lab(model, frames[:FRAMES], rules)
    nodes = candidates(model, rules)
    found = []
    for i, node in enumerate(nodes):
        noise = each(i, len(nodes), partial(lab.sqnr, node.name))
        if noise is not None:
            found.append(LayerNoise(node.name, node.op_type, round(noise, 2)))
    return sorted(found, key=lambda row: row.sqnr_db)


class _Lab:
    """The float network's ranges and logits on some frames, made when they are first needed."""

    def __init__(self, model: ModelProto, frames: list[Image], scheme: Scheme):
        self.model, self.frames, self.scheme = model, frames, scheme
        self.types = element_types(model)
        self._ranges: dict[str, ranges.Span] = {}
        self._logits: list[NDArray[np.float32]] = []

    def sqnr(self, layer: str) -> float:
        if not self._ranges:
            self._ranges = self._find_ranges()
            self._logits = list(_run(self.model, self.frames))
        made = onnx.ModelProto.FromString(self.model.SerializeToString())
        node = next(n for n in made.graph.node if n.name == layer)
        self._quantize(made, node)
        signal = noise = 0.0
        for logits, noisy in zip(self._logits, _run(made, self.frames)):
            signal += float(np.square(logits, dtype=np.float64).sum())
            noise += float(np.square(logits - noisy, dtype=np.float64).sum())
        return SILENT if noise <= signal * 10 ** (-SILENT / 10) else float(10 * np.log10(max(signal, 1e-30) / noise))

    def _tensors(self, model: ModelProto, node: NodeProto) -> tuple[list[str], list[str]]:
        """What INT8 rounds of one layer: activations, weights."""
        weights = {i.name for i in model.graph.initializer}
        inputs = [name for name in node.input[:2] if self.types.get(name) == TensorProto.FLOAT]
        activations = [name for name in dict.fromkeys(inputs) if name not in weights]
        readers = [n for n in model.graph.node if node.output[0] in n.input]
        if self.scheme.rounds_output and all("logits" in n.output for n in readers):
            activations.append(node.output[0])
        return activations, [name for name in inputs if name in weights]

    def _find_ranges(self) -> dict[str, ranges.Span]:
        """The smallest and largest value of every activation that a layer touches."""
        nodes = candidates(self.model, self.scheme)
        names = {name for node in nodes for name in self._tensors(self.model, node)[0]}
        return ranges.find(self.model, self.frames, "minmax", names=names)

    def _quantize(self, model: ModelProto, node: NodeProto) -> None:
        """Round one layer's weights, and its activations through Q/DQ pairs that only it reads."""
        activations, weights = self._tensors(model, node)
        for name in weights:
            stored = next(i for i in model.graph.initializer if i.name == name)
            rounded = fresh_name(model, f"{name}_rounded")
            values = round_weights(numpy_helper.to_array(stored), _channel_axis(node), self.scheme.min_weight_scale)
            model.graph.initializer.append(numpy_helper.from_array(values, rounded))
            _replace(node.input, name, rounded)
        place = next(i for i, n in enumerate(model.graph.node) if n.name == node.name)
        for name in activations:
            rounded = fresh_name(model, f"{name}_rounded")
            if name in node.output:
                readers = [n for n in model.graph.node if name in n.input]
                place += 1
            else:
                readers = [node]
            pair = _pair(model, name, rounded, self._ranges[name], self.scheme.symmetric)
            for reader in readers:
                _replace(reader.input, name, rounded)
            for offset, made in enumerate(pair):
                model.graph.node.insert(place + offset, made)
            place += 0 if name in node.output else len(pair)
        drop_unused(model)


def _channel_axis(node: NodeProto) -> int:
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 0
    return 1 if node.op_type == "ConvTranspose" else -1


def _pair(model: ModelProto, name: str, into: str, span: tuple[float, float], symmetric: bool) -> list[NodeProto]:
    scale, zero = grid(*span, symmetric)
    kind = np.int8 if symmetric else np.uint8
    values = {"scale": np.float32(scale), "zero": np.array(zero, kind)}
    names = {key: fresh_name(model, f"{into}_{key}") for key in values}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), names[k]) for k, v in values.items())
    whole = f"{into}_whole"
    return [
        helper.make_node("QuantizeLinear", [name, names["scale"], names["zero"]], [whole], name=whole),
        helper.make_node("DequantizeLinear", [whole, names["scale"], names["zero"]], [into], name=into),
    ]


def _replace(names: Any, old: str, new: str) -> None:
    for i, name in enumerate(names):
        if name == old:
            names[i] = new


def _run(model: ModelProto, frames: list[Image]) -> Iterator[NDArray[np.float32]]:
    """The logits of each frame."""
    return (outputs[0] for outputs in ranges.run(model, frames))
