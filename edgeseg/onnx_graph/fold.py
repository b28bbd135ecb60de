"""Make a foreign ONNX graph static and lean: constants folded, Conv-BN pairs fused, nothing unused left."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]
# Not folded: their result is not a function of their inputs alone, or they mark a precision on purpose.
KEEP = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "QuantizeLinear", "DequantizeLinear"}
LARGEST = 1 << 24  # elements; larger results would bloat the file


def fold(model: ModelProto) -> None:
    """Fold constants (shapes included) until nothing changes, then Conv-BN pairs; drop what no output needs."""
    bypass(model)
    while fold_constants(model):
        pass
    fold_batchnorm(model)
    drop_unused(model)


def bypass(model: ModelProto) -> None:
    """Remove Identity and (inference) Dropout nodes by naming their input instead."""
    outputs = {o.name for o in model.graph.output}
    alias: dict[str, str] = {}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = alias.get(name, name)
        if node.op_type in ("Identity", "Dropout") and node.output[0] not in outputs:
            alias[node.output[0]] = node.input[0]


def fold_constants(model: ModelProto) -> bool:
    """One pass; True when something was folded, so that another may find more."""
    shapes = static_shapes(model)
    known = {i.name: i for i in model.graph.initializer}
    made: dict[str, Array] = {}
    left: list[NodeProto] = []
    for node in model.graph.node:
        found = _evaluate(node, known, made, shapes, model.opset_import)
        if found is None:
            left.append(node)
        else:
            made.update(zip(node.output, found))
    if not made:
        return False
    kept = [type(node).FromString(node.SerializeToString()) for node in left]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in made.items())
    return True


def _evaluate(
    node: NodeProto, known: dict[str, Any], made: dict[str, Array], shapes: dict[str, list[int]], opsets: Any
) -> list[Array] | None:
    """The node's outputs, if they can be told without running the network."""
    if node.op_type == "Shape" and all(shapes.get(node.input[0], [0])):
        bounds = {a.name: a.i for a in node.attribute}
        return [np.array(shapes[node.input[0]][bounds.get("start", 0) : bounds.get("end")], np.int64)]
    names = [name for name in node.input if name]
    has_graph = any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)
    if has_graph or node.op_type in KEEP or not all(name in made or name in known for name in names):
        return None
    if any(math.prod(shapes.get(name, [])) > LARGEST for name in node.output):
        return None
    values = {name: made[name] if name in made else numpy_helper.to_array(known[name]) for name in names}
    graph = helper.make_graph(
        [node],
        "fold",
        [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in values.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    try:
        found: list[Any] = list(ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)).run(None, values))
    except Exception:  # the evaluator does not know this operator or form: then it stays in the graph
        return None
    return None if any(np.size(value) > LARGEST for value in found) else found


def fold_batchnorm(model: ModelProto) -> None:
    """Fold BatchNormalization into the Conv before it: w' = w * g / sqrt(var + eps), b' = (b - mean) * ... + beta."""
    graph = model.graph
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(o.name for o in graph.output)
    convs = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    weights = {i.name: i for i in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "BatchNormalization"]:
        conv = convs.get(node.input[0])
        if conv is None or uses[node.input[0]] != 1 or conv.input[1] not in weights:
            continue
        if any(a.name == "training_mode" and a.i for a in node.attribute):
            continue
        if not all(name in weights for name in [*node.input[1:], *conv.input[2:]]):
            continue
        scale, beta, mean, var = (numpy_helper.to_array(weights[name]).astype(np.float64) for name in node.input[1:5])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        w = numpy_helper.to_array(weights[conv.input[1]])
        b = numpy_helper.to_array(weights[conv.input[2]]) if len(conv.input) > 2 else np.zeros(len(w))
        gain = scale / np.sqrt(var + epsilon)
        tensors = (w * gain.reshape(-1, *[1] * (w.ndim - 1)), (b - mean) * gain + beta)
        names = [fresh_name(model, f"{node.output[0]}_{part}") for part in ("weight", "bias")]
        graph.initializer.extend(numpy_helper.from_array(t.astype(w.dtype), n) for t, n in zip(tensors, names))
        inputs = [conv.input[0], *names]
        del conv.input[:]
        conv.input.extend(inputs)
        conv.output[0] = node.output[0]
        graph.node.remove(node)


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def fresh_name(model: ModelProto, wanted: str) -> str:
    """`wanted`, with underscores behind it until no tensor is called so."""
    graph = model.graph
    taken = {i.name for i in (*graph.initializer, *graph.input)} | {name for n in graph.node for name in n.output}
    while wanted in taken:
        wanted += "_"
    return wanted


def drop_unused(model: ModelProto) -> None:
    """Drop the nodes and weights that no output needs, and remembered shapes, which may be stale."""
    graph = model.graph
    needed = {o.name for o in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(type(node).FromString(node.SerializeToString()))
            needed |= set(node.input) | {name for a in node.attribute for n in a.g.node for name in n.input}
    weights = [type(i).FromString(i.SerializeToString()) for i in graph.initializer if i.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)


def static_shapes(model: ModelProto) -> dict[str, list[int]]:
    """The shape of every tensor that shape inference can tell; an unknown size is 0."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*graph.value_info, *graph.output, *graph.input]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values if _ranked(v)}
    return shapes | {i.name: list(i.dims) for i in graph.initializer}


def element_types(model: ModelProto) -> dict[str, int]:
    """The element type (TensorProto.FLOAT, ...) of every tensor that inference can tell."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output, *graph.input)}
    return types | {i.name: i.data_type for i in graph.initializer}


def _ranked(value: Any) -> bool:
    return bool(value.type.tensor_type.HasField("shape"))
