"""Constant folding: what can be computed without the input frame is computed once, shapes included."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeseg.onnx_graph.fold_if import fold_if
from edgeseg.onnx_graph.index import Array, GraphIndex, attribute, subgraphs

# Never folded: their result is not a function of their inputs alone, or they mark a precision on purpose.
NEVER_FOLDED = {
    *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"),
    *("QuantizeLinear", "DequantizeLinear"),
}
MAX_ELEMENTS = 1 << 24  # larger results would bloat the file


def fold_constants(model: ModelProto) -> None:
    """Fold in place until nothing changes; Identity and Dropout (at inference) are bypassed first."""
    bypass_identities(model)
    while True:
        while _fold_once(model):
            pass
        if not fold_if(model):
            return _bypass_factors_of_one(model)
        bypass_identities(model)


def _bypass_factors_of_one(model: ModelProto) -> None:
    """Let the readers of a product with the number 1, as exporters write scales, read its other factor instead."""
    index = GraphIndex(model)
    for node in model.graph.node:
        ones = [i for i, name in enumerate(node.input) if (v := index.constant(name)) is not None and _is_one(v)]
        if node.op_type == "Mul" and ones and node.output[0] not in index.outputs:
            node.op_type = "Identity"
            del node.input[ones[0]]
    bypass_identities(model)


def _is_one(values: Array) -> bool:
    return values.ndim == 0 and bool(values == 1)


def bypass_identities(model: ModelProto) -> None:
    """Let the readers of Identity and Dropout nodes read their input instead."""
    outputs = {o.name for o in model.graph.output}
    alias: dict[str, str] = {}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name in alias:
                node.input[i] = alias[name]
        if node.op_type in ("Identity", "Dropout") and node.output[0] not in outputs:
            alias[node.output[0]] = node.input[0]


def _fold_once(model: ModelProto) -> bool:
    """One pass; True when something was folded, so that another may find more."""
    index = GraphIndex(model)
    folded: dict[str, Array] = {}
    done: list[NodeProto] = []
    for node in model.graph.node:
        results = _evaluate(index, node, folded)
        if results is not None:
            folded.update(zip(node.output, results))
            done.append(node)
    index.remove(*done)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in folded.items() if name)
    return bool(folded)


def _evaluate(index: GraphIndex, node: NodeProto, folded: dict[str, Array]) -> list[Array] | None:
    """The node's outputs, if they do not depend on the frame."""
    if node.op_type == "Shape" and all(index.shapes.get(node.input[0], [0])):
        dims = index.shapes[node.input[0]][attribute(node, "start", 0) : attribute(node, "end", None)]
        return [np.array(dims, np.int64)]
    names = [name for name in node.input if name]
    if node.op_type in NEVER_FOLDED or not all(name in folded or name in index.initializers for name in names):
        return None
    if any(subgraphs(node)) or any(math.prod(index.shape(name)) > MAX_ELEMENTS for name in node.output):
        return None
    values = {name: folded[name] if name in folded else index.constant(name) for name in names}
    entries = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for name, v in values.items()
        if v is not None
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    model = helper.make_model(
        helper.make_graph([node], "fold", entries, outputs), opset_imports=index.model.opset_import
    )
    try:
        results = [np.asarray(result) for result in ReferenceEvaluator(model).run(None, values)]
    except Exception:  # the evaluator does not know this operator or form: then it stays in the graph
        return None
    return None if any(result.size > MAX_ELEMENTS for result in results) else results
