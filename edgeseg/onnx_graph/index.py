"""GraphIndex: who makes and who reads each tensor of an ONNX model, and what is known before it runs.

Every pass that rewrites or checks a graph asks its questions here. The index works on the ModelProto itself, which is
what shape inference, the checker, ONNX Runtime, OpenVINO and NNCF take; onnx-ir's own graph would have to be converted
there and back around each of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]


class GraphIndex:
    """Producers, consumers and constants of a model's tensors, by name.

    It stays true while the model is changed through its methods; a pass that edits inputs or outputs of nodes itself
    makes a new index before it asks again.
    """

    def __init__(self, model: ModelProto):
        self.model, self.graph = model, model.graph
        self.outputs = {value.name for value in self.graph.output}
        self.initializers: dict[str, TensorProto] = {i.name: i for i in self.graph.initializer}
        self._producers: dict[str, NodeProto] = {}
        self._readers: defaultdict[str, list[NodeProto]] = defaultdict(list)  # a node once for each time it reads
        for node in self.graph.node:
            self._add(node)

    def producer(self, tensor: str, *operators: str) -> NodeProto | None:
        """The node that makes `tensor`, if it is one of `operators` (where any are named)."""
        node = self._producers.get(tensor)
        return node if node is not None and (not operators or node.op_type in operators) else None

    def consumers(self, tensor: str) -> list[NodeProto]:
        """The nodes that read `tensor`, themselves or in a graph inside them (If, Loop), each once."""
        return list({id(node): node for node in self._readers.get(tensor, ())}.values())

    def use_count(self, tensor: str) -> int:
        """How often `tensor` is read, counting each input of a node, graphs inside nodes and the model's outputs."""
        return len(self._readers.get(tensor, ())) + (tensor in self.outputs)

    def sole_consumer(self, tensor: str, *operators: str) -> NodeProto | None:
        """The node that alone reads `tensor`, and once, if it is one of `operators` (where any are named)."""
        readers = self._readers.get(tensor, [])
        alone = len(readers) == 1 and tensor not in self.outputs
        return readers[0] if alone and (not operators or readers[0].op_type in operators) else None

    def constant(self, tensor: str) -> Array | None:
        """The values of an initializer or of a Constant node, else None."""
        if tensor in self.initializers:
            return numpy_helper.to_array(self.initializers[tensor])
        node = self.producer(tensor, "Constant")
        value = None if node is None else attribute(node, "value", None)
        return None if value is None else numpy_helper.to_array(value)

    def constant_input(self, node: NodeProto, position: int) -> Array | None:
        """The values of a node's input, None where it is left out or computed."""
        return self.constant(node.input[position]) if len(node.input) > position and node.input[position] else None

    def scalar_operand(self, node: NodeProto) -> tuple[str, float] | None:
        """(the other input, the number) of a node with two inputs of which one is a constant number, else None."""
        for i in (1, 0) if len(node.input) == 2 else ():
            values = self.constant(node.input[i])
            if values is not None and values.size == 1:
                return node.input[1 - i], float(values.reshape(()))
        return None

    def axes(self, node: NodeProto) -> list[int] | None:
        """The axes of a Squeeze, Unsqueeze or Reduce*: its second input, an attribute up to opset 12 or 17."""
        axes = self.constant_input(node, 1) if len(node.input) > 1 else attribute(node, "axes", None)
        return None if axes is None else [int(axis) for axis in axes]

    @cached_property
    def shapes(self) -> dict[str, list[int]]:
        """Like static_shapes, for the model as it is now."""
        return static_shapes(self.model)

    @cached_property
    def types(self) -> dict[str, int]:
        """Like element_types, for the model as it is now."""
        return element_types(self.model)

    def shape(self, tensor: str) -> list[int]:
        """The inferred shape (0 for an unknown size), or [] where not even the rank is known."""
        return self.shapes.get(tensor, [])

    def replace(self, old: NodeProto, new: Iterable[NodeProto]) -> None:
        """Put copies of `new` where `old` was; the index then describes the changed model."""
        place = self._position(old)
        self._forget(old)
        del self.graph.node[place]
        self._insert(place, new)

    def insert_after(self, node: NodeProto, new: NodeProto) -> None:
        """Put a copy of `new` right behind `node`."""
        self._insert(self._position(node) + 1, [new])

    def remove(self, *nodes: NodeProto) -> None:
        """Take nodes out; their outputs have no producer then."""
        for node in nodes:
            self._forget(node)
        ids = {id(node) for node in nodes}
        for i in reversed(range(len(self.graph.node)) if nodes else ()):
            if id(self.graph.node[i]) in ids:
                del self.graph.node[i]

    def replace_by_constant(self, node: NodeProto, values: Array) -> None:
        """Take out a node with one output and store an initializer in that output's name."""
        self.remove(node)
        self._store(node.output[0], values)

    def add_constant(self, base: str, values: Array) -> str:
        """Store an initializer; returns its name, which is `base` where that was free."""
        name = self.fresh_name(base)
        self._store(name, values)
        return name

    def copy_initializer(self, tensor: TensorProto, name: str) -> None:
        """Store a copy of an initializer from elsewhere, as `name`."""
        self._store(name, numpy_helper.to_array(tensor))

    def set_constant(self, tensor: str, values: Array) -> None:
        """Give an initializer other values; it keeps its name, shape and element type."""
        old = self.initializers[tensor]
        kind = helper.tensor_dtype_to_np_dtype(old.data_type)
        old.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, kind).reshape(old.dims), tensor))

    def fresh_name(self, base: str) -> str:
        """`base`, with underscores behind it until no tensor has that name; reserved from now on."""
        while base in self._names:
            base += "_"
        self._names.add(base)
        return base

    def _position(self, node: NodeProto) -> int:
        return next(i for i, other in enumerate(self.graph.node) if other is node)

    def _insert(self, position: int, nodes: Iterable[NodeProto]) -> None:
        for i, node in enumerate(nodes, position):
            self.graph.node.insert(i, node)
            self._add(self.graph.node[i])
        for cached in ("shapes", "types"):
            self.__dict__.pop(cached, None)

    def _store(self, name: str, values: Array) -> None:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        self.initializers[name] = self.graph.initializer[-1]

    @cached_property
    def _names(self) -> set[str]:
        produced = (name for node in all_nodes(self.graph) for name in node.output)
        return {*self.initializers, *(i.name for i in self.graph.input), *produced}

    def _add(self, node: NodeProto) -> None:
        self._producers.update((name, node) for name in node.output if name)
        for name in tensors_read(node):
            self._readers[name].append(node)

    def _forget(self, node: NodeProto) -> None:
        for name in node.output:
            self._producers.pop(name, None)
        for name in set(tensors_read(node)):
            self._readers[name] = [reader for reader in self._readers[name] if reader is not node]


def opset(model: ModelProto, default: int = 0) -> int:
    """The version of ONNX's own operators that a model uses, `default` where it does not say."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default)


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node (If, Loop, Scan)."""
    for entry in node.attribute:
        if entry.type == onnx.AttributeProto.GRAPH:
            yield entry.g
        yield from entry.graphs


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def tensors_read(node: NodeProto) -> Iterator[str]:
    """The inputs of a node and whatever graphs inside it name, one name for each time."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from (value.name for value in graph.output)
        for inner in all_nodes(graph):
            yield from (name for name in inner.input if name)


def operator_counts(model: ModelProto) -> Counter[str]:
    """Operator -> number of nodes."""
    return Counter(node.op_type for node in model.graph.node)


def fresh_name(model: ModelProto, base: str) -> str:
    """`base`, with underscores behind it until no tensor has that name."""
    return GraphIndex(model).fresh_name(base)


def rename_tensors(model: ModelProto, names: Mapping[str, str]) -> None:
    """Rename tensors (old name -> new name) wherever they are named."""
    graph = model.graph
    for node in all_nodes(graph):
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                if name in names:
                    field[i] = names[name]
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if value.name in names:
            value.name = names[value.name]


def drop_unused(model: ModelProto) -> None:
    """Drop the nodes and weights that no output needs, and recorded shapes, which may be stale."""
    graph = model.graph
    needed = {o.name for o in graph.output}
    for i in reversed(range(len(graph.node))):
        if needed.isdisjoint(graph.node[i].output):
            del graph.node[i]
        else:
            needed.update(tensors_read(graph.node[i]))
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name not in needed:
            del graph.initializer[i]
    del graph.value_info[:]


def static_shapes(model: ModelProto) -> dict[str, list[int]]:
    """The shape of every tensor that shape inference can tell; an unknown size is 0."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*graph.value_info, *graph.output, *graph.input]
    ranked = [v for v in values if v.type.tensor_type.HasField("shape")]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in ranked}
    return shapes | {i.name: list(i.dims) for i in graph.initializer}


def element_types(model: ModelProto) -> dict[str, int]:
    """The element type (TensorProto.FLOAT, ...) of every tensor that inference can tell."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output, *graph.input)}
    return types | {i.name: i.data_type for i in graph.initializer}
