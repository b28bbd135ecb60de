"""A 1x1 convolution behind an upsampling moves in front of it: the same numbers, less work.

A 1x1 convolution mixes channels and an upsampling mixes positions; both are linear, so either may come first:
conv(up(a) + up(b) + c) = up(conv(a)) + up(conv(b)) + conv(c), and likewise for channels that are concatenated. Networks
that add up or concatenate a pyramid before their classifier (FPN, SegFormer, the pooled branch of DeepLab) then resize
and add as many channels as there are classes instead of hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper

from edgeseg.onnx_graph.index import Array, GraphIndex, attribute, drop_unused
from edgeseg.onnx_graph.unstack import sum_of

# INT8 multiply-accumulates in the time of resizing or adding one float, measured on AVX512-VNNI in powers of two.
MACS_PER_ELEMENT = 64
# Smaller savings are lost again: several small convolutions and a sum cannot be fused as well as one convolution can.
# (DeepLab's pooled branch, 14 % by this count, was 4 % slower in INT8; FPN's classifier, 80 %, 13 % faster.)
MIN_SAVING = 0.25


@dataclass(frozen=True)
class Part:
    """A tensor that a convolution reads with channels `start..stop` of its weights; `resize` upsampled it, or None."""

    tensor: str
    start: int
    stop: int
    resize: NodeProto | None

    @property
    def channels(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Join:
    """What a convolution reads: `parts` joined by `op`, Concat or Add, or "" for a single part."""

    op: str
    parts: list[Part]

    @property
    def upsampled(self) -> list[Part]:
        return [part for part in self.parts if part.resize is not None]

    @property
    def rest(self) -> list[Part]:
        return [part for part in self.parts if part.resize is None]


def swap_upsample_conv(model: ModelProto) -> int:
    """Move convolutions in front of the upsamplings they read, in place, where that is exact and pays; how many."""
    index = GraphIndex(model)
    moved = sum(_swap(index, conv) for conv in [n for n in model.graph.node if n.op_type == "Conv"])
    if moved:
        drop_unused(model)
    return moved


def _swap(index: GraphIndex, conv: NodeProto) -> bool:
    weight, has_bias = index.constant_input(conv, 1), len(conv.input) > 2 and bool(conv.input[2])
    if weight is None or not _is_pointwise(conv, weight) or (has_bias and conv.input[2] not in index.initializers):
        return False
    join, shape = _joined(index, conv.input[0]), index.shape(conv.output[0])
    if len(shape) != 4 or not all(shape) or not _pays(index, join, shape):
        return False
    index.replace(conv, _swapped(index, conv, weight, join))
    return True


def _is_pointwise(conv: NodeProto, weight: Array) -> bool:
    """1x1, step 1, no padding, one group."""
    ones = all(v == 1 for v in (*attribute(conv, "strides", []), attribute(conv, "group", 1)))
    padded = any(attribute(conv, "pads", [])) or attribute(conv, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return weight.ndim == 4 and weight.shape[2:] == (1, 1) and ones and not padded


def _joined(index: GraphIndex, tensor: str) -> Join:
    """The summands or slices of channels that make up `tensor`."""
    channels = (index.shape(tensor) or [0, 0])[1]
    node = index.producer(tensor, "Add", "Concat") if index.use_count(tensor) == 1 else None
    if node is not None and node.op_type == "Add":
        if all(index.shapes.get(name) == index.shapes.get(tensor) for name in node.input):
            names = [summand for name in node.input for summand in _summands(index, name)]
            return Join("Add", [Part(name, 0, channels, _upsampling(index, name)) for name in names])
    elif node is not None and attribute(node, "axis", 0) in (1, -3):
        ends = np.cumsum([0, *(index.shapes.get(name, [0, 0])[1] for name in node.input)]).tolist()
        parts = [Part(n, a, b, _upsampling(index, n)) for n, a, b in zip(node.input, ends, ends[1:])]
        return Join("Concat", parts if ends[-1] == channels else [])
    return Join("", [Part(tensor, 0, channels, _upsampling(index, tensor))])


def _summands(index: GraphIndex, tensor: str) -> list[str]:
    join = _joined(index, tensor)
    return [part.tensor for part in join.parts] if join.op == "Add" else [tensor]


def _upsampling(index: GraphIndex, tensor: str) -> NodeProto | None:
    """The Resize that made `tensor` from a smaller one, if nothing else reads it and its weights add up to 1."""
    node = index.producer(tensor, "Resize")
    if node is None or index.use_count(tensor) != 1:
        return None
    before, after = index.shape(node.input[0]), index.shape(tensor)
    plain = attribute(node, "mode", b"nearest") in (b"linear", b"nearest") and not attribute(node, "antialias", 0)
    inside = attribute(node, "coordinate_transformation_mode", b"half_pixel") != b"tf_crop_and_resize"
    sized = len(before) == len(after) == 4 and all(before) and all(after) and before[:2] == after[:2]
    grows = sized and before[2] <= after[2] and before[3] <= after[3] and before != after
    fixed = len(node.input) < 4 or not node.input[3] or node.input[3] in index.initializers
    return node if plain and inside and grows and fixed else None


def _pays(index: GraphIndex, join: Join, shape: list[int]) -> bool:
    """Whether moving saves more than it costs, counted in floats touched; `shape` is the convolution's output."""
    small, rest, adds = join.upsampled, join.rest, join.op == "Add"
    if not small:
        return False
    out, area = shape[1], shape[2] * shape[3]
    channels = join.parts[0].channels if adds else sum(part.channels for part in join.parts)
    before = sum(part.channels for part in small) + channels * out / MACS_PER_ELEMENT
    before += (len(join.parts) - 1) * channels if adds else 0
    after: float = out * len(small) + out * (len(small) - (not rest))
    after += max(0, len(rest) - 1) * channels if adds else 0
    if rest:
        after += (channels if adds else sum(part.channels for part in rest)) * out / MACS_PER_ELEMENT
    low = sum(part.channels * np.prod(index.shape(_source(part))[2:]) for part in small)
    saved = area * (before - after) - low * out / MACS_PER_ELEMENT
    return bool(saved > MIN_SAVING * area * before)


def _swapped(index: GraphIndex, conv: NodeProto, weight: Array, join: Join) -> list[NodeProto]:
    """The nodes that make conv's output with the convolution in front of each upsampling."""
    nodes: list[NodeProto] = []
    summands: list[str] = []
    output = conv.output[0]

    def convolve(tensor: str, kernel: Array, name: str) -> None:
        inputs = [tensor, index.add_constant(f"{name}_weight", kernel)]
        if not summands:  # the bias counts once; the weights of an upsampling add up to 1
            inputs += conv.input[2:]
        nodes.append(helper.make_node("Conv", inputs, [name], name=name))

    if rest := join.rest:
        tensor = rest[0].tensor
        if len(rest) > 1:
            tensor, names = f"{output}_rest", [part.tensor for part in rest]
            concat = join.op == "Concat"
            nodes += [helper.make_node("Concat", names, [tensor], axis=1, name=tensor)] if concat else []
            nodes += [] if concat else sum_of(names, tensor)
        kernels = [weight[:, part.start : part.stop] for part in (rest if join.op == "Concat" else rest[:1])]
        convolve(tensor, np.concatenate(kernels, axis=1), f"{output}_here")
        summands.append(nodes[-1].output[0])
    for i, part in enumerate(join.upsampled):
        convolve(_source(part), weight[:, part.start : part.stop], f"{output}_small{i}")
        nodes.append(_resize(index, part, nodes[-1].output[0], len(weight), f"{output}_up{i}"))
        summands.append(nodes[-1].output[0])
    if len(summands) > 1:
        return nodes + sum_of(summands, output)
    nodes[-1].output[0] = output
    return nodes


def _resize(index: GraphIndex, part: Part, tensor: str, channels: int, name: str) -> NodeProto:
    """The part's Resize for `tensor` and its `channels`."""
    assert part.resize is not None
    node: NodeProto = NodeProto.FromString(part.resize.SerializeToString())
    node.input[0], node.output[0], node.name = tensor, name, name
    sizes = index.constant_input(node, 3)
    if sizes is not None and len(sizes) == 4:
        node.input[3] = index.add_constant(f"{name}_sizes", np.array([sizes[0], channels, *sizes[2:]], np.int64))
    return node


def _source(part: Part) -> str:
    assert part.resize is not None
    return str(part.resize.input[0])
