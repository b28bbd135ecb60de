"""Layers (nodes of the deploy graph) excluded from INT8: how they stay float in each quantizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeseg.errors import EdgesegError

OPENVINO_LAYERS = (
    *("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"),
    *("MatMul", "Add", "Multiply"),
)


def openvino_names(model: Any, excluded: frozenset[str]) -> list[str]:
    """Names of OpenVINO's operators for these ONNX nodes: the one of that name and its unnamed inputs (Conv + bias).

    EdgesegError where OpenVINO has none.
    """
    by_name = {op.get_friendly_name(): op for op in model.get_ops()}

    def operators_of(op: Any) -> Iterator[str]:
        if op.get_type_name() in OPENVINO_LAYERS:
            yield op.get_friendly_name()
        for source in op.input_values():
            if not source.get_names():  # every tensor of the ONNX graph has a name
                yield from operators_of(source.get_node())

    operators = []
    for name in sorted(excluded):
        found = list(operators_of(by_name[name])) if name in by_name else []
        if not found:
            raise EdgesegError(
                f"OpenVINO's graph has no layer {name!r}.",
                "It cannot be excluded from INT8 on this target: exclude its neighbor, or quantize for another target.",
            )
        operators += found
    return operators


def with_producers(model: Any, excluded: frozenset[str]) -> set[str]:
    """Names of these nodes of an ONNX model and of all nodes before them, back to the layers that compute their inputs.

    For quantizers that round a layer's output: an excluded layer reads unrounded inputs only if the layers that compute
    them are excluded as well.
    """
    from edgeseg.onnx_graph.index import GraphIndex
    from edgeseg.onnx_graph.layer_names import LAYERS

    index = GraphIndex(model)
    names: set[str] = set()
    pending = [node for node in model.graph.node if node.name in excluded]
    while pending:
        node = pending.pop()
        names.add(node.name)
        if node.name in excluded or node.op_type not in LAYERS:
            producers = [producer for name in node.input if (producer := index.producer(name)) is not None]
            pending += [n for n in producers if not n.name.startswith("pre_") and n.name not in names]
    return names


def read_unquantized(path: Path, excluded: frozenset[str]) -> None:
    """Connect these nodes of an ONNX file to the inputs of the Q/DQ pairs that other nodes read."""
    import onnx

    from edgeseg.onnx_graph.index import GraphIndex, drop_unused

    model = onnx.load(str(path))
    index = GraphIndex(model)
    for node in model.graph.node:
        for i, name in enumerate(node.input if node.name in excluded else ()):
            dequantize = index.producer(name, "DequantizeLinear")
            quantize = index.producer(dequantize.input[0], "QuantizeLinear") if dequantize is not None else None
            if quantize is not None:
                node.input[i] = quantize.input[0]
    drop_unused(model)
    onnx.save(model, str(path))


def mark_float(model: Any, excluded: frozenset[str], mark: str) -> None:
    """Add `mark` to the names of the tensors that these nodes and the layers before them compute."""
    from edgeseg.onnx_graph.index import rename_tensors

    nodes = with_producers(model, excluded)
    tensors = {name for node in model.graph.node if node.name in nodes for name in node.output}
    for node in model.graph.node:  # a cast in front of an output is no operator in TFLite
        if node.op_type == "Cast" and node.input[0] in tensors:
            tensors.update(node.output)
    rename_tensors(model, {name: f"{name}{mark}" for name in tensors})


def unmark_outputs(data: bytes, mark: str) -> bytes:
    """The same .tflite file with the output names of before mark_float."""
    from edgeseg.tflite.flatbuffer import pack, unpack

    model = unpack(data)
    graph = model.subgraphs[0]
    tensors = [graph.tensors[i] for i in graph.outputs]
    for item in [*tensors, *(entry for signature in model.signatureDefs or () for entry in signature.outputs)]:
        item.name = item.name.removesuffix(mark.encode())
    return pack(model)
