"""How each quantizer is told which layers (nodes of the deploy graph) stay float."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeseg.errors import EdgesegError

OPENVINO_KINDS = (
    *("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"),
    *("MatMul", "Add", "Multiply"),
)


def openvino_names(model: Any, keep: frozenset[str]) -> list[str]:
    """OpenVINO's operators for these ONNX nodes: the one of that name, and those it hides behind it (Conv + bias)."""
    named = {op.get_friendly_name(): op for op in model.get_ops()}

    def made_of(op: Any) -> Iterator[str]:
        if op.get_type_name() in OPENVINO_KINDS:
            yield op.get_friendly_name()
        for source in op.input_values():
            if not source.get_names():  # every tensor of the ONNX graph has a name
                yield from made_of(source.get_node())

    found = {name: list(made_of(named[name])) if name in named else [] for name in sorted(keep)}
    if lost := [name for name, ops in found.items() if not ops]:
        raise EdgesegError(f"OpenVINO's graph has no layer {lost[0]!r}.", "It cannot be kept in float on this target.")
    return [op for ops in found.values() for op in ops]


def with_makers(model: Any, keep: frozenset[str]) -> set[str]:
    """These nodes of an ONNX model, and those in front of them back to the layers that make their inputs.

    Where a tensor is rounded as it is made, its maker must be float for a reader to have it as it was.
    """
    from edgeseg.onnx_graph.deploy import LAYERS

    made_by = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    left = [node for node in model.graph.node if node.name in keep]
    while left:
        node = left.pop()
        found.add(node.name)
        if node.name in keep or node.op_type not in LAYERS:
            makers = (made_by[name] for name in node.input if name in made_by)
            left += [n for n in makers if not n.name.startswith("pre_") and n.name not in found]
    return found


def read_unquantized(path: Path, keep: frozenset[str]) -> None:
    """Let nodes of an ONNX file read their inputs in front of the Q/DQ pairs that are there for others."""
    import onnx

    from edgeseg.onnx_graph.fold import drop_unused

    model = onnx.load(str(path))
    made_by = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        for i, name in enumerate(node.input if node.name in keep else ()):
            back = made_by.get(name)
            front = made_by.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
            if front is not None and front.op_type == "QuantizeLinear":
                node.input[i] = front.input[0]
    drop_unused(model)
    onnx.save(model, str(path))


def mark_float(model: Any, keep: frozenset[str], mark: str) -> None:
    """Add `mark` to the names of the tensors that these nodes and the makers of their inputs make."""
    from edgeseg.onnx_graph.deploy import rename

    nodes = with_makers(model, keep)
    found = {name for node in model.graph.node if node.name in nodes for name in node.output}
    for node in model.graph.node:  # casts in front of an output are no operators of TFLite's
        if node.op_type == "Cast" and node.input[0] in found:
            found.update(node.output)
    for name in sorted(found):
        rename(model, name, f"{name}{mark}")


def unmark_outputs(data: bytes, mark: str) -> bytes:
    """The same .tflite file, its outputs called what they were before mark_float."""
    from edgeseg.tflite.flatbuffer import packed, unpacked

    made = unpacked(data)
    graph = made.subgraphs[0]
    tensors = [graph.tensors[i] for i in graph.outputs]
    for named in [*tensors, *(entry for signature in made.signatureDefs or () for entry in signature.outputs)]:
        named.name = named.name.removesuffix(mark.encode())
    return packed(made)
