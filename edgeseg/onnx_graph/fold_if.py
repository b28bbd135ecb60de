"""An `If` whose condition is a constant becomes the branch that is taken (torch writes them for squeeze, mostly)."""

from __future__ import annotations

from onnx import GraphProto, ModelProto, NodeProto

from edgeseg.onnx_graph.index import GraphIndex, all_nodes, attribute, subgraphs


def fold_if(model: ModelProto) -> bool:
    """Inline the branch taken, in place; whether there was one."""
    index, folded = GraphIndex(model), False
    for node in [n for n in model.graph.node if n.op_type == "If"]:
        condition = index.constant(node.input[0])
        if condition is None or condition.size != 1:
            continue
        _inline(index, node, attribute(node, "then_branch" if condition.reshape(())[()] else "else_branch", None))
        folded = True
    return folded


def _inline(index: GraphIndex, node: NodeProto, branch: GraphProto) -> None:
    inner = {name for n in all_nodes(branch) for name in n.output if name} | {i.name for i in branch.initializer}
    names = {name: index.fresh_name(f"{node.output[0]}_{name}") for name in inner}
    copies = [NodeProto.FromString(n.SerializeToString()) for n in branch.node]
    for copy in copies:
        _rename(copy, names)
    for weight in branch.initializer:
        index.copy_initializer(weight, names[weight.name])
    outputs = [names.get(value.name, value.name) for value in branch.output]
    ends = [_identity(made, name) for made, name in zip(outputs, node.output) if name]
    index.replace(node, [*copies, *ends])


def _identity(tensor: str, output: str) -> NodeProto:
    return NodeProto(op_type="Identity", input=[tensor], output=[output], name=f"{output}_of_if")


def _rename(node: NodeProto, names: dict[str, str]) -> None:
    for field in (node.input, node.output):
        for i, name in enumerate(field):
            field[i] = names.get(name, name)
    for graph in subgraphs(node):
        for value in graph.output:
            value.name = names.get(value.name, value.name)
        for weight in graph.initializer:
            weight.name = names.get(weight.name, weight.name)
        for inner in graph.node:
            _rename(inner, names)
