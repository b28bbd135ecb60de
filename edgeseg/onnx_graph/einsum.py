"""Einsum of two tensors as a matrix product, which every runtime has."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper

from edgeseg.onnx_graph.index import GraphIndex, attribute, drop_unused


def einsum_to_matmul(model: ModelProto) -> None:
    """Rewrite every Einsum of two tensors of known shape in place.

    Each index must be in the output or in both tensors, and no tensor may name one twice or use an ellipsis: any other
    Einsum stays as it is.
    """
    index = GraphIndex(model)
    for node in [node for node in model.graph.node if node.op_type == "Einsum"]:
        parts = _parts(node)
        if parts and all(len(index.shape(name)) == len(part) for name, part in zip(node.input, parts)):
            index.replace(node, _product(index, node, *parts))
    drop_unused(model)


def _parts(node: NodeProto) -> tuple[str, str, str] | None:
    """The indices of the two inputs and of the output."""
    equation = attribute(node, "equation", b"").decode().replace(" ", "")
    inputs, arrow, out = equation.partition("->")
    if not arrow or inputs.count(",") != 1 or "." in equation:
        return None
    a, b = inputs.split(",")
    distinct = all(len(set(part)) == len(part) for part in (a, b, out))
    summed = set(a + b) - set(out)
    return (a, b, out) if distinct and summed <= set(a) & set(b) and set(out) <= set(a + b) else None


def _product(index: GraphIndex, node: NodeProto, a: str, b: str, out: str) -> list[NodeProto]:
    """(batch, rows, summed) @ (batch, summed, columns), each group of indices flattened, then put in order."""
    sizes = {letter: size for name, part in zip(node.input, (a, b)) for letter, size in zip(part, index.shape(name))}
    batch = [letter for letter in a if letter in b and letter in out]
    summed = [letter for letter in a if letter not in out]
    rows = [letter for letter in a if letter not in b]
    columns = [letter for letter in b if letter not in a]
    nodes: list[NodeProto] = []

    def emit(operator: str, inputs: list[str], step: str, **options: Any) -> str:
        name = node.output[0] if step == "out" else index.fresh_name(f"{node.output[0]}_{step}")
        nodes.append(helper.make_node(operator, inputs, [name], name=f"{node.name or name}_{step}", **options))
        return name

    def reshape(tensor: str, groups: list[list[str]], step: str) -> str:
        shape = np.array([prod(sizes[letter] for letter in group) for group in groups], np.int64)
        return emit("Reshape", [tensor, index.add_constant(f"{node.output[0]}_{step}_shape", shape)], step)

    def operand(tensor: str, part: str, groups: list[list[str]], step: str) -> str:
        order = [part.index(letter) for group in groups for letter in group]
        if order != sorted(order):
            tensor = emit("Transpose", [tensor], f"{step}_order", perm=order)
        return reshape(tensor, [[letter] for letter in batch] + groups[-2:], step)

    left = operand(node.input[0], a, [batch, rows, summed], "left")
    right = operand(node.input[1], b, [batch, summed, columns], "right")
    product = emit("MatMul", [left, right], "product")
    made = batch + rows + columns
    order = [made.index(letter) for letter in out]
    in_order = order == sorted(order)
    product = reshape(product, [[letter] for letter in made], "out" if in_order else "indices")
    if not in_order:
        emit("Transpose", [product], "out", perm=order)
    return nodes
