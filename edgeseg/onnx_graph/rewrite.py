"""Exact rewrites of a folded graph that leave the same numbers and less work.

A 1x1 convolution mixes channels and an upsampling mixes places; both are linear, so either may come first:
conv(up(a) + up(b) + c) = up(conv(a)) + up(conv(b)) + conv(c), and likewise for channels that are concatenated. Networks
that add up or concatenate a pyramid before their classifier (FPN, SegFormer, the pooled branch of DeepLab) then resize
and add as many channels as there are classes instead of hundreds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgeseg.onnx_graph.fold import attribute, drop_unused, fresh_name, static_shapes

# INT8 multiply-accumulates in the time of resizing or adding one float, measured on AVX512-VNNI in powers of two.
MACS_PER_ELEMENT = 64
# Smaller savings are lost again: several small convolutions and a sum cannot be fused as well as one convolution can.
# (DeepLab's pooled branch, 14 % by this count, was 4 % slower in INT8; FPN's classifier, 80 %, 13 % faster.)
WORTH = 0.25


@dataclass(frozen=True)
class Part:
    """What a convolution reads: channels `start..stop` of its weights; `resize` made it, or None."""

    tensor: str
    start: int
    stop: int
    resize: NodeProto | None


def rewrite(model: ModelProto) -> int:
    """Apply the rewrites in place; how many convolutions moved in front of an upsampling."""
    unstack(model)
    graph = _Graph(model)
    moved = sum(graph.move(conv) for conv in [n for n in model.graph.node if n.op_type == "Conv"])
    if moved:
        drop_unused(model)
    return moved


def unstack(model: ModelProto) -> None:
    """ReduceSum over stacked tensors (what torch.stack(...).sum(0) exports to) becomes a chain of Adds."""
    graph = _Graph(model)
    for node in [n for n in model.graph.node if n.op_type == "ReduceSum" and not attribute(n, "keepdims", 1)]:
        stack = graph.maker.get(node.input[0])
        axes = graph.constant(node.input[1]) if len(node.input) > 1 else attribute(node, "axes", None)
        if stack is None or stack.op_type != "Concat" or axes is None or graph.uses[node.input[0]] != 1:
            continue
        axis = attribute(stack, "axis", 0)
        rows = [graph.maker.get(name) for name in stack.input]
        if list(axes) != [axis] or len(rows) < 2 or not all(_unsqueezes(graph, row, axis) for row in rows):
            continue
        graph.replace(node, graph.added([row.input[0] for row in rows if row is not None], node.output[0]))
    drop_unused(model)


def _unsqueezes(graph: _Graph, node: NodeProto | None, axis: int) -> bool:
    if node is None or node.op_type != "Unsqueeze":
        return False
    axes = graph.constant(node.input[1]) if len(node.input) > 1 else attribute(node, "axes", None)
    return axes is not None and list(axes) == [axis]


class _Graph:
    """A model with the questions that rewriting asks of it."""

    def __init__(self, model: ModelProto):
        self.model, self.shapes = model, static_shapes(model)
        self.weights = {i.name: i for i in model.graph.initializer}
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.uses = Counter(name for node in model.graph.node for name in node.input)
        self.uses.update(o.name for o in model.graph.output)

    def constant(self, name: str) -> NDArray[Any] | None:
        return numpy_helper.to_array(self.weights[name]) if name in self.weights else None

    def replace(self, old: NodeProto, new: list[NodeProto]) -> None:
        nodes = self.model.graph.node
        place = list(nodes).index(old)
        nodes.remove(old)
        for node in reversed(new):
            nodes.insert(place, node)
        self.__init__(self.model)  # type: ignore[misc]

    def added(self, tensors: list[str], out: str) -> list[NodeProto]:
        """Adds that sum `tensors` from left to right into `out`."""
        nodes, total = [], tensors[0]
        for i, name in enumerate(tensors[1:], 1):
            result = out if i == len(tensors) - 1 else f"{out}_sum{i}"
            nodes.append(helper.make_node("Add", [total, name], [result], name=f"{out}_add{i}"))
            total = result
        return nodes

    def move(self, conv: NodeProto) -> bool:
        """Move `conv` in front of the upsamplings that it reads, where that is exact and less work."""
        weight, bias = self.constant(conv.input[1]), None
        if weight is None or not _pointwise(conv, weight):
            return False
        if len(conv.input) > 2 and conv.input[2]:
            bias = self.constant(conv.input[2])
            if bias is None:
                return False
        joint, parts = self.parts(conv.input[0])
        shape = self.shapes.get(conv.output[0], [])
        if len(shape) != 4 or not all(shape) or not self.pays(parts, joint, weight.shape[0], shape):
            return False
        self.replace(conv, self.moved(conv, weight, bias, joint, parts))
        return True

    def parts(self, tensor: str) -> tuple[str, list[Part]]:
        """(Concat, Add or "", what it joins): the summands or slices that make up `tensor`."""
        maker = self.maker.get(tensor)
        channels = (self.shapes.get(tensor) or [0, 0])[1]
        if maker is not None and self.uses[tensor] == 1:
            if maker.op_type == "Add" and all(self.shapes.get(n) == self.shapes.get(tensor) for n in maker.input):
                names = [part.tensor for name in maker.input for part in self.summands(name)]
                return "Add", [Part(name, 0, channels, self.upsampling(name)) for name in names]
            if maker.op_type == "Concat" and attribute(maker, "axis", 0) in (1, -3):
                ends = np.cumsum([0, *(self.shapes.get(name, [0, 0])[1] for name in maker.input)]).tolist()
                made = [Part(n, a, b, self.upsampling(n)) for n, a, b in zip(maker.input, ends, ends[1:])]
                return "Concat", made if ends[-1] == channels else []
        return "", [Part(tensor, 0, channels, self.upsampling(tensor))]

    def summands(self, tensor: str) -> list[Part]:
        joint, parts = self.parts(tensor)
        return parts if joint == "Add" else [Part(tensor, 0, 0, None)]

    def upsampling(self, tensor: str) -> NodeProto | None:
        """The Resize that made `tensor` from a smaller one, if nothing else reads it and its weights add up to 1."""
        node = self.maker.get(tensor)
        if node is None or node.op_type != "Resize" or self.uses[tensor] != 1:
            return None
        before, after = self.shapes.get(node.input[0], []), self.shapes.get(tensor, [])
        plain = attribute(node, "mode", b"nearest") in (b"linear", b"nearest") and not attribute(node, "antialias", 0)
        inside = attribute(node, "coordinate_transformation_mode", b"half_pixel") != b"tf_crop_and_resize"
        sized = len(before) == len(after) == 4 and all(before) and all(after) and before[:2] == after[:2]
        grows = sized and before[2] <= after[2] and before[3] <= after[3] and before != after
        fixed = len(node.input) < 4 or not node.input[3] or node.input[3] in self.weights
        return node if plain and inside and grows and fixed else None

    def pays(self, parts: list[Part], joint: str, out: int, shape: list[int]) -> bool:
        """Whether moving saves more than it costs, counted in floats touched."""
        small = [part for part in parts if part.resize is not None]
        rest = [part for part in parts if part.resize is None]
        area = shape[2] * shape[3]
        into = parts[0].stop if joint == "Add" else sum(part.stop - part.start for part in parts)
        sums = len(parts) - 1 if joint == "Add" else 0
        before: float = sum(p.stop - p.start for p in small) + sums * into + into * out / MACS_PER_ELEMENT
        after: float = out * len(small) + out * (len(small) - (not rest))
        after += max(0, len(rest) - 1) * into if joint == "Add" else 0
        kept = into if joint == "Add" else sum(p.stop - p.start for p in rest)
        after += kept * out / MACS_PER_ELEMENT if rest else 0
        low = sum((p.stop - p.start) * np.prod(self.shapes[_source(p)][2:]) for p in small)
        saved = area * (before - after) - low * out / MACS_PER_ELEMENT
        return bool(small) and saved > WORTH * area * before

    def moved(
        self, conv: NodeProto, weight: NDArray[Any], bias: NDArray[Any] | None, joint: str, parts: list[Part]
    ) -> list[NodeProto]:
        """The nodes that make conv's output from what was upsampled before."""
        rest = [part for part in parts if part.resize is None]
        nodes, results, out = [], [], conv.output[0]

        def convolve(tensor: str, kernel: np.ndarray, name: str, first: bool) -> str:
            inputs = [tensor, self.store(f"{name}_weight", kernel)]
            if bias is not None and first:  # once; the weights of an upsampling add up to 1
                inputs.append(self.store(f"{name}_bias", bias))
            nodes.append(helper.make_node("Conv", inputs, [name], name=name))
            return name

        if rest:
            joined, kernel = rest[0].tensor, weight
            if joint == "Concat":
                kernel = np.concatenate([weight[:, part.start : part.stop] for part in rest], axis=1)
            if len(rest) > 1:
                joined = f"{out}_rest"
                names = [part.tensor for part in rest]
                nodes += (
                    [helper.make_node("Concat", names, [joined], axis=1, name=joined)]
                    if joint == "Concat"
                    else self.added(names, joined)
                )
            results.append(convolve(joined, kernel, f"{out}_here", True))
        for i, part in enumerate(part for part in parts if part.resize is not None):
            kernel = weight[:, part.start : part.stop]
            made = convolve(_source(part), kernel, f"{out}_small{i}", not results)
            nodes.append(self.resized(part, made, weight.shape[0], f"{out}_up{i}"))
            results.append(nodes[-1].output[0])
        if len(results) == 1:
            nodes[-1].output[0] = out
            return nodes
        return nodes + self.added(results, out)

    def resized(self, part: Part, tensor: str, channels: int, name: str) -> NodeProto:
        """The part's Resize for `tensor` and its `channels`."""
        assert part.resize is not None
        node: NodeProto = NodeProto.FromString(part.resize.SerializeToString())
        node.input[0], node.output[0], node.name = tensor, name, name
        sizes = self.constant(node.input[3]) if len(node.input) > 3 else None
        if sizes is not None and len(sizes) == 4:
            node.input[3] = self.store(f"{name}_sizes", np.array([sizes[0], channels, *sizes[2:]], np.int64))
        return node

    def store(self, name: str, values: NDArray[Any]) -> str:
        stored: str = fresh_name(self.model, name)
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), stored))
        return stored


def _source(part: Part) -> str:
    assert part.resize is not None
    return str(part.resize.input[0])


def _pointwise(conv: NodeProto, weight: NDArray[Any]) -> bool:
    """1x1, step 1, no padding, one group."""
    ones = all(v == 1 for v in (*attribute(conv, "strides", []), attribute(conv, "group", 1)))
    padded = any(attribute(conv, "pads", [])) or attribute(conv, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return weight.ndim == 4 and weight.shape[2:] == (1, 1) and ones and not padded
