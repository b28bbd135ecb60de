"""Writer: TFLite operators and tensors, collected while an ONNX graph is walked, then packed as a flatbuffer.

ONNX stores channels first, TFLite's convolutions expect them last. So every tensor here carries the order in which its
dimensions are stored: an ONNX Transpose only changes that record, a Reshape that merges or splits neighbors leaves the
memory as it is, and a TRANSPOSE operator is written only where the next operator needs another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from edgeseg.errors import EdgesegError
from edgeseg.onnx_graph.index import GraphIndex
from edgeseg.tflite import flatbuffer
from edgeseg.tflite.flatbuffer import BARE, OPTIONS, TYPES, Array, aligned_buffer, schema

Order = tuple[int, ...]
NHWC: Order = (0, 2, 3, 1)


def unsupported(node: NodeProto, why: str = "is not supported") -> EdgesegError:
    return EdgesegError(
        f"TFLite: operator {node.op_type} (node {node.name or node.output[0]}) {why}.",
        "Export the network without it, or compile for a target that runs any ONNX operator: onnxruntime-cpu.",
    )


@dataclass(frozen=True)
class Value:
    """An ONNX tensor in the TFLite graph: stored dimension i is ONNX dimension `order[i]` of `shape`."""

    index: int
    shape: tuple[int, ...]
    order: Order


class Writer:
    """`values` are tensors computed at run time, `constants` those known now; both by their ONNX names.

    `model` may hold nodes of fusions/, which shape inference does not know; so `shapes` and element `types` are those
    from before. `half`: weights are stored as float16 and widened when the model is loaded.
    """

    def __init__(self, model: ModelProto, shapes: dict[str, list[int]], types: dict[str, int], half: bool = False):
        self.schema = schema()
        self.graph, self.onnx = model.graph, GraphIndex(model)
        self.shapes, self.types, self.half = shapes, types, half
        self.constants = {i.name: _as_float32(numpy_helper.to_array(i)) for i in model.graph.initializer}
        self.values: dict[str, Value] = {}
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [self.schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[str] = []
        self._operator_of: dict[int, Any] = {}  # TFLite tensor -> the operator emitted for it
        self._shared: set[int] = set()  # tensors known under several ONNX names that are all used
        self._stored: dict[tuple[int, Order], int] = {}
        self._names: set[str] = set()

    # What is known of ONNX tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The static shape of an ONNX tensor; EdgesegError where inference cannot tell it."""
        if name in self.constants:
            return self.constants[name].shape
        shape = self.shapes.get(name)
        if shape is None or 0 in shape:
            raise EdgesegError(
                f"TFLite: the shape of tensor {name} is not known before the network runs.",
                "Export it with fixed sizes (no shapes computed from the input).",
            )
        return tuple(shape)

    def constant(self, node: NodeProto, index: int, default: Any = None) -> Array:
        """A node's constant input; `default` (if there is one) where it is left out."""
        name = node.input[index] if index < len(node.input) else ""
        if not name and default is not None:
            return np.asarray(default)
        if name not in self.constants:
            raise unsupported(node, f"has an input {index} that is not constant")
        return self.constants[name]

    # Tensors

    def order_of(self, name: str) -> Order:
        """The order a run-time tensor is stored in."""
        return self.values[name].order

    def get(self, name: str, order: Order | None = None) -> int:
        """The tensor that holds `name` with its dimensions in `order` (ONNX's own by default)."""
        if name in self.constants:
            array = self.constants[name]
            return self.const(array.transpose(order) if order else array, name)
        value = self.values[name]
        order = order or tuple(range(len(value.shape)))
        if order == value.order:
            return value.index
        permutation = tuple(value.order.index(d) for d in order)
        key = (value.index, permutation)
        if key not in self._stored:
            shape = [value.shape[d] for d in order]
            wide = [d for d in value.order if value.shape[d] > 1]
            if wide == [d for d in order if value.shape[d] > 1]:
                self._stored[key] = self.reshape(value.index, shape, f"{name}/view")
            else:
                perm = self.const(np.array(permutation, np.int32), f"{name}/perm")
                self._stored[key] = self.emit("TRANSPOSE", [value.index, perm], shape, f"{name}/transposed")
        return self._stored[key]

    def put(self, name: str, index: int, order: Order | None = None) -> None:
        """Say that ONNX tensor `name` is tensor `index`, stored in `order`."""
        shape = self.shape(name)
        self.values[name] = Value(index, shape, order or tuple(range(len(shape))))

    def alias(self, name: str, source: str, order: Order | None = None) -> None:
        """Say that `name` is the tensor of `source` seen in another order (by default the same)."""
        value = self.values[source]
        if self.onnx.use_count(source) > 1:
            self._shared.add(value.index)
        self.put(name, value.index, order or value.order)

    def operand(self, node: NodeProto) -> tuple[int, Order, list[int]]:
        """A node's first input as it is stored: its tensor, order and shape."""
        order = self.order_of(node.input[0])
        index = self.get(node.input[0], order)
        return index, order, self.stored(index)

    def const(self, value: Any, name: str = "const") -> int:
        """A constant tensor of an array or a number."""
        array = _as_float32(np.asarray(value))
        data = np.ascontiguousarray(array).reshape(array.shape)  # which would make a number a list of one
        small = self.half and data.dtype == np.float32 and data.size >= 16
        stored = np.clip(data, -65504, 65504).astype(np.float16) if small else data
        self.buffers.append(aligned_buffer(stored.reshape(-1).view(np.uint8)))
        index = self.tensor(data.shape, stored.dtype, f"{name}/half" if small else name, len(self.buffers) - 1)
        return self.emit("DEQUANTIZE", [index], data.shape, name, np.float32) if small else index

    def tensor(self, shape: Sequence[int], dtype: Any, name: str, buffer: int = 0) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type = [int(n) for n in shape], getattr(self.schema.TensorType, TYPES[np.dtype(dtype)])
        tensor.buffer, tensor.name, tensor.hasRank = buffer, self._unique(name), True
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def dtype(self, index: int) -> np.dtype[Any]:
        dtypes = {getattr(self.schema.TensorType, name): dtype for dtype, name in TYPES.items()}
        dtype: np.dtype[Any] = np.dtype(dtypes[self.tensors[index].type])
        return dtype

    def stored(self, index: int) -> list[int]:
        """The shape of a TFLite tensor."""
        return list(self.tensors[index].shape)

    # Operators

    def emit(
        self, op: str, inputs: Sequence[int], shape: Sequence[int], name: str, dtype: Any = None, **options: Any
    ) -> int:
        """Add an operator with one output of `shape`, whose type is that of the first input unless `dtype` says."""
        out = self.tensor(shape, dtype or self.dtype(inputs[0]), name)
        if op not in self.codes:
            self.codes.append(op)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self.codes.index(op), list(inputs), [out]
        if op not in BARE:
            title = OPTIONS.get(op) or "".join(word.capitalize() for word in op.split("_"))
            table = getattr(self.schema, f"{title}OptionsT")()
            for key, value in options.items():
                if not hasattr(table, key):
                    raise AttributeError(f"{title}Options has no {key}")
                setattr(table, key, value)
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, f"{title}Options")
            operator.builtinOptions = table
        self.operators.append(operator)
        self._operator_of[out] = operator
        return out

    def compute(
        self, name: str, op: str, inputs: Sequence[int], order: Order | None = None, dtype: Any = None, **options: Any
    ) -> None:
        """Add an operator whose output is the ONNX tensor `name`, stored in `order`."""
        shape = self.shape(name)
        order = order or tuple(range(len(shape)))
        self.put(name, self.emit(op, inputs, [shape[d] for d in order], name, dtype, **options), order)

    def reshape(self, index: int, shape: Sequence[int], name: str) -> int:
        """`index` with another stored shape; itself where that is its shape already."""
        shape = [int(n) for n in shape]
        if self.stored(index) == shape:
            return index
        size = self.const(np.array(shape, np.int32), f"{name}/shape")
        return self.emit("RESHAPE", [index, size], shape, name, newShape=shape)

    def code(self, operator: Any) -> str:
        return str(self.codes[operator.opcodeIndex])

    def only_use(self, name: str) -> Any:
        """The operator that makes `name`, if nothing else reads its tensor, so that it may be changed; else None."""
        value = self.values.get(name)
        if value is None or self.onnx.use_count(name) != 1 or value.index in self._shared:
            return None
        return self._operator_of.get(value.index)

    def fuse(self, name: str, activation: str) -> bool:
        """Let the operator that makes `name` apply `activation` itself, where it can and nothing else needs `name`."""
        operator, activations = self.only_use(name), self.schema.ActivationFunctionType
        table: Any = getattr(operator, "builtinOptions", None)
        if (
            getattr(table, "fusedActivationFunction", None) != activations.NONE
            or self.code(operator) == "CONCATENATION"
        ):
            return False
        table.fusedActivationFunction = getattr(activations, activation)
        return True

    def activation(self, index: int) -> str:
        """The activation that tensor `index` went through last: its operator's name or its fused one's, or NONE."""
        operator = self._operator_of.get(index)
        if operator is None:
            return "NONE"
        fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        names = {v: k for k, v in vars(self.schema.ActivationFunctionType).items() if isinstance(v, int)}
        return self.code(operator) if self.code(operator) in BARE else names[fused]

    # The file

    def pack(self, inputs: dict[str, int], outputs: dict[str, int], metadata: dict[str, bytes]) -> bytes:
        """The .tflite file; operators that no output needs are left out."""
        for names in (inputs, outputs):
            for name, index in names.items():
                self._rename(index, name)
        renumbered = self._drop_unused([*inputs.values(), *outputs.values()])
        inputs, outputs = ({name: renumbered[index] for name, index in names.items()} for names in (inputs, outputs))
        graph = self.schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self.tensors, self.operators
        graph.inputs, graph.outputs = [*inputs.values()], [*outputs.values()]
        return flatbuffer.pack(flatbuffer.build_model(graph, self.codes, self.buffers, inputs, outputs, metadata))

    def _drop_unused(self, ends: Sequence[int]) -> dict[int, int]:
        """Leave out what no output needs; returns the new number of each tensor that stays."""
        needed, operators = set(ends), []
        for operator in reversed(self.operators):
            if needed & set(operator.outputs):
                operators.append(operator)
                needed |= set(operator.inputs)
        renumbered = {old: new for new, old in enumerate(sorted(needed))}
        codes = sorted({self.code(operator) for operator in operators})
        for operator in operators:
            operator.inputs = [renumbered[i] for i in operator.inputs]
            operator.outputs = [renumbered[i] for i in operator.outputs]
            operator.opcodeIndex = codes.index(self.code(operator))
        self.operators, self.codes = operators[::-1], codes
        buffers, self.buffers = self.buffers, self.buffers[:1]
        self.tensors = [self.tensors[old] for old in renumbered]
        for tensor in self.tensors:
            if tensor.buffer:
                self.buffers.append(buffers[tensor.buffer])
                tensor.buffer = len(self.buffers) - 1
        return renumbered

    def _rename(self, index: int, name: str) -> None:
        if self.tensors[index].name != name:
            for other in self.tensors:
                if other.name == name:
                    other.name = self._unique(f"{name}_")
            self.tensors[index].name = name

    def _unique(self, name: str) -> str:
        unique, number = name, 1
        while unique in self._names:
            unique, number = f"{name}_{number}", number + 1
        self._names.add(unique)
        return unique


def _as_float32(array: Array) -> Array:
    """Floats as float32; 64-bit integers stay (they are indices and shapes, never data)."""
    return array.astype(np.float32) if array.dtype.kind == "f" else array
