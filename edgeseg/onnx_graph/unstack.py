"""A sum over stacked tensors becomes a chain of Adds, which the swap of upsampling and convolution can see through."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper

from edgeseg.onnx_graph.index import GraphIndex, attribute, drop_unused


def unstack(model: ModelProto) -> None:
    """Rewrite ReduceSum(Concat(Unsqueeze(a), Unsqueeze(b), ...)), as torch.stack(...).sum(0) is exported, in place."""
    index = GraphIndex(model)
    for node in [n for n in model.graph.node if n.op_type == "ReduceSum" and not attribute(n, "keepdims", 1)]:
        stack, axes = index.producer(node.input[0], "Concat"), index.axes(node)
        if stack is None or len(stack.input) < 2 or index.use_count(node.input[0]) != 1:
            continue
        rows = [row for name in stack.input if (row := index.producer(name, "Unsqueeze")) is not None]
        if len(rows) == len(stack.input) and all(
            a == [attribute(stack, "axis", 0)] for a in (axes, *map(index.axes, rows))
        ):
            index.replace(node, sum_of([row.input[0] for row in rows], node.output[0]))
    drop_unused(model)


def sum_of(tensors: list[str], output: str) -> list[NodeProto]:
    """Adds that sum two or more `tensors` from left to right into `output`."""
    totals = [tensors[0], *(f"{output}_sum{i}" for i in range(1, len(tensors) - 1)), output]
    return [
        helper.make_node("Add", [totals[i - 1], tensors[i]], [totals[i]], name=f"{output}_add{i}")
        for i in range(1, len(tensors))
    ]
