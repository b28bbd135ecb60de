"""The graph index: producers, consumers and constants, also after the graph was changed through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import Net

pytest.importorskip("onnx")

import onnx
from onnx import helper

from edgeseg.onnx_graph.index import GraphIndex, drop_unused, rename_tensors


def chain() -> Any:
    """image -> Relu a -> Add(a, a) b -> Mul(b, 2) c; b and c are outputs."""
    net = Net()
    net.add("Relu", "image", name="a")
    net.add("Add", "a", "a", name="b")
    net.add("Mul", "b", net.constant(2.0, "two"), name="c")
    return net.model("c", "b", shape=(1, 3, 4, 4))


def with_branches() -> Any:
    """Relu a, read only by both branches of an If."""
    net = Net()
    net.add("Relu", "image", name="a")
    branches = []
    for op in ("Relu", "Neg"):
        node = helper.make_node(op, ["a"], [f"{op}_out"])
        branches.append(helper.make_graph([node], op, [], [onnx.ValueInfoProto(name=f"{op}_out")]))
    condition = net.constant(True, "condition", kind=np.bool_)
    net.add("If", condition, name="c", then_branch=branches[0], else_branch=branches[1])
    return net.model("c", shape=(1, 3, 4, 4))


def names(nodes: list[Any]) -> list[str]:
    return [node.output[0] for node in nodes]


def test_every_read_counts_and_so_does_an_output() -> None:
    index = GraphIndex(chain())
    assert [index.use_count(name) for name in ("image", "a", "b", "c", "two", "nothing")] == [1, 2, 2, 1, 1, 0]
    assert names(index.consumers("a")) == ["b"], "a node that reads a tensor twice is one consumer"
    assert index.sole_consumer("a") is None and index.sole_consumer("b") is None
    reader = index.sole_consumer("image")
    assert reader is not None and reader.op_type == "Relu"
    assert index.sole_consumer("image", "Conv") is None


def test_producers_can_be_restricted_to_operators() -> None:
    index = GraphIndex(chain())
    assert index.producer("image") is None and index.producer("two") is None
    assert index.producer("b", "Add", "Mul") is not None and index.producer("b", "Mul") is None


def test_branches_are_consumers() -> None:
    index = GraphIndex(with_branches())
    assert names(index.consumers("a")) == ["c"] and index.use_count("a") == 2


def test_what_branches_read_is_renamed_and_not_dropped() -> None:
    model = with_branches()
    rename_tensors(model, {"a": "z", "image": "frame"})
    drop_unused(model)
    index = GraphIndex(model)
    assert index.producer("a") is None and index.use_count("a") == 0
    assert index.producer("z", "Relu") is not None and index.use_count("z") == 2
    onnx.checker.check_model(model)


def test_a_replaced_node_is_forgotten_and_the_new_ones_known() -> None:
    model = chain()
    index = GraphIndex(model)
    assert index.shape("small") == []
    old = index.producer("b")
    assert old is not None
    new = [helper.make_node("GlobalMaxPool", ["a"], ["small"]), helper.make_node("Neg", ["small"], ["b"])]
    index.replace(old, new)
    assert names(list(model.graph.node)) == ["a", "small", "b", "c"]
    assert index.use_count("a") == 1 and index.use_count("small") == 1
    assert index.producer("b", "Neg") is model.graph.node[2]
    assert index.shape("small") == [1, 3, 1, 1], "shapes are inferred again"


def test_a_removed_node_reads_and_makes_nothing() -> None:
    model = chain()
    index = GraphIndex(model)
    index.remove(*model.graph.node[1:])
    assert names(list(model.graph.node)) == ["a"]
    assert index.producer("c") is None and index.consumers("a") == []


def test_a_node_behind_another() -> None:
    model = chain()
    index = GraphIndex(model)
    index.insert_after(model.graph.node[0], helper.make_node("Neg", ["a"], ["minus"]))
    assert names(list(model.graph.node)) == ["a", "minus", "b", "c"] and index.use_count("a") == 3


def test_constants_are_stored_under_names_that_are_free() -> None:
    model = chain()
    index = GraphIndex(model)
    assert [index.add_constant("a", np.float32(v)) for v in (1, 2)] == ["a_", "a__"]
    stored = index.constant("a__")
    assert stored is not None and stored.shape == () and stored == 2, "a number does not become a list of one"
    index.set_constant("a_", np.array([[7.0]]))
    changed = index.constant("a_")
    assert changed is not None and (changed.shape, changed.dtype, float(changed)) == ((), np.float32, 7)
    node = index.producer("c")
    assert node is not None and index.scalar_operand(node) == ("b", 2.0)
    index.replace_by_constant(node, np.zeros((1, 3, 4, 4), np.float32))
    assert index.producer("c") is None and index.constant("c") is not None


@pytest.mark.parametrize("as_input", [True, False])
def test_axes_as_an_input_or_an_attribute(as_input: bool) -> None:
    axes = onnx.numpy_helper.from_array(np.array([0, 1]), "axes")
    inputs, attributes = (["image", "axes"], {}) if as_input else (["image"], {"axes": [0, 1]})
    nodes = [helper.make_node("Unsqueeze", inputs, ["x"], **attributes), helper.make_node("Relu", ["x"], ["y"])]
    index = GraphIndex(helper.make_model(helper.make_graph(nodes, "axes", [], [], [axes])))
    assert index.axes(nodes[0]) == [0, 1] and index.axes(nodes[1]) is None
