"""Layers (nodes of the deploy graph) excluded from INT8: how each quantizer is made to leave them in float."""

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
    """OpenVINO's operators for these ONNX nodes: the one of that name, and those it hides behind it (Conv + bias)."""
    by_name = {op.get_friendly_name(): op for op in model.get_ops()}

    def layers_behind(op: Any) -> Iterator[str]:
        if op.get_type_name() in OPENVINO_LAYERS:
            yield op.get_friendly_name()
        for source in op.input_values():
            if not source.get_names():  # every tensor of the ONNX graph has a name
                yield from layers_behind(source.get_node())

    operators = []
    for name in sorted(excluded):
        layers = list(layers_behind(by_name[name])) if name in by_name else []
        if not layers:
            raise EdgesegError(
                f"OpenVINO's graph has no layer {name!r}.", "It cannot be excluded from INT8 on this target."
            )
        operators += layers
    return operators


def with_makers(model: Any, excluded: frozenset[str]) -> set[str]:
    """These nodes of an ONNX model, and those in front of them back to the layers that make their inputs.

    Where a tensor is rounded as it is made, the layer that makes it must be float too for the excluded one to read it
    as it was.
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
    """Let nodes of an ONNX file read their inputs in front of the Q/DQ pairs that are there for others."""
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
    """Add `mark` to the names of the tensors that these nodes and the layers before them make."""
    from edgeseg.onnx_graph.index import rename_tensors

    nodes = with_makers(model, excluded)
    tensors = {name for node in model.graph.node if node.name in nodes for name in node.output}
    for node in model.graph.node:  # casts in front of an output are no operators of TFLite's
        if node.op_type == "Cast" and node.input[0] in tensors:
            tensors.update(node.output)
    rename_tensors(model, {name: f"{name}{mark}" for name in tensors})


def unmark_outputs(data: bytes, mark: str) -> bytes:
    """The same .tflite file, its outputs called what they were before mark_float."""
    from edgeseg.tflite.flatbuffer import pack, unpack

    model = unpack(data)
    graph = model.subgraphs[0]
    tensors = [graph.tensors[i] for i in graph.outputs]
    for named in [*tensors, *(entry for signature in model.signatureDefs or () for entry in signature.outputs)]:
        named.name = named.name.removesuffix(mark.encode())
    return pack(model)
