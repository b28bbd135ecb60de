"""What older or unusual exporters write, brought to the form that every pass here expects.

No initializers among the inputs, nodes in order, no local functions, opset 13 or newer (the first with per-channel
DequantizeLinear). A model that has all of that already is not touched.
"""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import ModelProto, NodeProto, helper

from edgeseg.errors import OptionError, first_line
from edgeseg.onnx_graph.index import all_nodes, attribute, opset, tensors_read

OLDEST_OPSET = 13
FIRST_WITH_COORDINATES = 11  # before, Resize and Upsample sample at index / scale, which the converter forgets
OPSET, IR_VERSION = 17, 8  # what older models are converted to


def modernize(model: ModelProto) -> ModelProto:
    """The model in that form, changed in place or a new one; OptionError where two nodes make one tensor, where the
    nodes form a circle, and for an opset that cannot be converted."""
    _require_unique_names(model)
    weights = {i.name for i in model.graph.initializer}
    for value in [i for i in model.graph.input if i.name in weights]:
        model.graph.input.remove(value)
    _sort_nodes(model)
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    if model.ir_version < 4:  # up to 3, initializers had to be among the inputs
        model.ir_version = IR_VERSION
    version = opset(model, OPSET)
    return model if version >= OLDEST_OPSET else _converted(model, version)


def _converted(model: ModelProto, version: int) -> ModelProto:
    if any(o.domain not in ("", "ai.onnx") for o in model.opset_import):
        used = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
        if used:  # the converter drops other domains; such a graph is taken as it is
            return model
    model.ir_version = max(model.ir_version, IR_VERSION)
    try:
        converted = onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # RuntimeError, ConvertError and others from C++
        raise OptionError(
            f"The model's opset {version} cannot be converted to {OPSET}: {first_line(error)}.",
            "Export it with opset 13 or newer.",
        ) from error
    if version < FIRST_WITH_COORDINATES:
        for node in all_nodes(converted.graph):
            if node.op_type == "Resize" and attribute(node, "coordinate_transformation_mode", None) is None:
                modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
                node.attribute.extend(helper.make_attribute(name, mode) for name, mode in modes.items())
    return converted


def _require_unique_names(model: ModelProto) -> None:
    graph = model.graph
    made = Counter([name for node in graph.node for name in node.output if name])
    made.update({i.name for i in graph.initializer})
    twice = sorted(name for name, count in made.items() if count > 1)
    if twice:
        raise OptionError(
            f"Two nodes or weights of the model make the tensor {twice[0]!r}.",
            "Expected one name for each tensor: the export is faulty, export it again.",
        )


def _sort_nodes(model: ModelProto) -> None:
    """Put every node behind those it reads; nodes in order already are not moved."""
    graph = model.graph
    known = {"", *(i.name for i in graph.initializer), *(i.name for i in graph.input)}
    known.update(i.values.name for i in graph.sparse_initializer)
    made = {name for node in graph.node for name in node.output}
    waiting, ordered = list(graph.node), []

    def ready(node: NodeProto) -> bool:
        return all(name in known or name not in made for name in tensors_read(node))

    while waiting:
        rest = []
        for node in waiting:
            if ready(node):
                known.update(node.output)
                ordered.append(node)
            else:
                rest.append(node)
        if len(rest) == len(waiting):
            raise OptionError(
                f"The nodes of the model form a circle at {rest[0].output[0]!r}.",
                "Its export is faulty; export it again.",
            )
        waiting = rest
    if any(a is not b for a, b in zip(ordered, graph.node)):
        copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del graph.node[:]
        graph.node.extend(copies)
