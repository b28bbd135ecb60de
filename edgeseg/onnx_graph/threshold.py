"""One channel that is compared with a border: the operators behind the logit are inverted on the border instead.

sigmoid(x) > b where x > log(b / (1 - b)), 255 x > b where x > b / 255, and so on, however the probability was made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from edgeseg.onnx_graph import axes
from edgeseg.onnx_graph.index import GraphIndex, attribute

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
Upsample = Callable[[NodeProto, str], str]  # (node, labels of its output) -> a convention of mask.UPSAMPLES, or ""


@dataclass(frozen=True)
class OneChannel:
    """`tensor` > `border` is class 1. Where `object_channel` is 0 or 1 the tensor has two channels instead, and class 1
    is where that channel beats the other by more than `border`."""

    tensor: str
    labels: str
    border: float
    removed: tuple[str, ...] = ()
    upsample: str = ""
    object_channel: int = -1


def default_border(index: GraphIndex, tensor: str) -> float:
    """Half of the range of a probability, scaled as it is (0.5, 127.5); 0 for a logit."""
    scale, offset = 1.0, 0.0  # the output is scale * tensor + offset
    while (node := index.producer(tensor)) is not None:
        low, high = _range(index, node)
        if high > low:
            return scale * (low + high) / 2 + offset
        affine = _affine(index, node)
        if affine is not None:
            tensor, times, plus = affine
            scale, offset = scale * times, offset + scale * plus
        elif node.op_type in (*axes.MOVING, "Cast", "Resize", "Clip", "Slice", "Gather", "Split", "Round", "Floor"):
            tensor = node.input[0]
        else:
            break
    return 0.0


def _range(index: GraphIndex, node: NodeProto) -> tuple[float, float]:
    """The values that a node makes if it makes probabilities, else (0, 0)."""
    if node.op_type in ("Sigmoid", "HardSigmoid", "Softmax") or _is_reciprocal_of_exp(index, node):
        return 0.0, 1.0
    if node.op_type == "Tanh":
        return -1.0, 1.0
    if node.op_type == "Clip":
        low, high = _limits(index, node)
        if 0 <= low < high <= 1:
            return low, high
    return 0.0, 0.0


def cut(index: GraphIndex, tensor: str, labels: str, border: float, upsample: Upsample) -> OneChannel:
    """The tensor furthest in front of `tensor` that says the same as `tensor` > `border`."""
    best = OneChannel(tensor, labels, border)
    removed: list[str] = []
    above = True  # whether class 1 is above the border, not below it
    while (node := index.producer(tensor)) is not None:
        if above and best.tensor == tensor and (convention := upsample(node, labels)):
            removed.append(f"Resize ({convention})")
            return OneChannel(node.input[0], labels, border, tuple(removed), convention)
        pair = _two_channels(index, node, labels, border) if above else None
        if pair is not None:
            return _cut_pair(index, pair, (*removed, node.op_type, "Softmax"), upsample)
        step = _inverted(index, node, border)
        if step is not None:
            tensor, border, flipped = step
            above ^= flipped
        elif inner := axes.before(index, node, labels):
            tensor, labels = node.input[0], inner
        else:
            break
        removed.append(node.op_type)
        if above:
            best = OneChannel(tensor, labels, border, tuple(removed))
    return best


def _inverted(index: GraphIndex, node: NodeProto, border: float) -> tuple[str, float, bool] | None:
    """(input, its border, whether the comparison turns around) of an operator that is monotonic, else None."""
    affine = _affine(index, node)
    if affine is not None and affine[1]:
        tensor, times, plus = affine
        return tensor, (border - plus) / times, times < 0
    tensor, op = node.input[0], node.op_type
    if op == "Cast":
        to_integers = attribute(node, "to", 0) not in FLOATS and index.types.get(tensor) in FLOATS
        return tensor, math.floor(border) + 1.0 if to_integers else border, False
    if op == "Round":
        return tensor, math.floor(border) + 0.5, False
    if op == "Sigmoid" and 0 < border < 1:
        return tensor, _logit(border), False
    if op == "Tanh" and -1 < border < 1:
        return tensor, math.atanh(border), False
    if op == "HardSigmoid" and 0 <= border < 1 and attribute(node, "alpha", 0.2) > 0:
        return tensor, (border - attribute(node, "beta", 0.5)) / attribute(node, "alpha", 0.2), False
    if op == "Clip" and (limits := _limits(index, node))[0] <= border < limits[1]:
        return tensor, border, False
    if op == "Exp" and border > 0:
        return tensor, math.log(border), False
    if border > 0 and _is_reciprocal_of_exp(index, node):
        number = 1.0 if op == "Reciprocal" else _number(index, node.input[0])
        return node.input[-1], number / border, True
    return None


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _number(index: GraphIndex, tensor: str) -> float:
    """A constant of one element, else nan."""
    values = index.constant(tensor) if tensor else None
    return float(values.reshape(())) if values is not None and values.size == 1 else math.nan


def _affine(index: GraphIndex, node: NodeProto) -> tuple[str, float, float] | None:
    """(x, a, b) of a node that makes a x + b of constant numbers a and b, else None."""
    if node.op_type == "Neg":
        return node.input[0], -1.0, 0.0
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or (found := index.scalar_operand(node)) is None:
        return None
    tensor, number = found
    first = tensor == node.input[0]
    if node.op_type == "Mul":
        return tensor, number, 0.0
    if node.op_type == "Add":
        return tensor, 1.0, number
    if node.op_type == "Sub":
        return (tensor, 1.0, -number) if first else (tensor, -1.0, number)
    return (tensor, 1 / number, 0.0) if first and number else None


def _is_reciprocal_of_exp(index: GraphIndex, node: NodeProto) -> bool:
    """Whether a node is 1 / (1 + exp(x)), the sigmoid spelled out, or the like."""
    if node.op_type == "Div":
        if not _number(index, node.input[0]) > 0:
            return False
    elif node.op_type != "Reciprocal":
        return False
    added = index.producer(node.input[-1], "Add")
    found = index.scalar_operand(added) if added is not None else None
    return found is not None and found[1] >= 0 and index.producer(found[0], "Exp") is not None


def _limits(index: GraphIndex, node: NodeProto) -> tuple[float, float]:
    """The limits of a Clip: its second and third inputs, attributes up to opset 10."""
    limits = []
    for position, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = len(node.input) > position and bool(node.input[position])
        limits.append(_number(index, node.input[position]) if given else attribute(node, name, default))
    return limits[0], limits[1]


def _two_channels(index: GraphIndex, node: NodeProto, labels: str, border: float) -> OneChannel | None:
    """The two logits behind a node that takes one of the two channels of a Softmax, else None."""
    softmax = index.producer(node.input[0], "Softmax") if node.op_type in ("Slice", "Gather", "Split") else None
    if softmax is None or not 0 < border < 1:
        return None
    channel, axis = _channel(index, node)
    shape = index.shape(softmax.input[0])
    kept = len(shape) == len(labels)
    if channel not in (0, 1) or not shape or shape[axis % len(shape)] != 2:
        return None
    inner = axes.with_classes(labels, axis, kept)
    if len(inner) != len(shape) or not axes.is_class_axis(attribute(softmax, "axis", -1), inner):
        return None
    return OneChannel(softmax.input[0], inner, _logit(border), object_channel=channel)


def _channel(index: GraphIndex, node: NodeProto) -> tuple[int, int]:
    """(the one channel that a Slice or Gather takes, its axis); channel -1 where it takes others."""
    if node.op_type == "Gather":
        indices = index.constant_input(node, 1)
        if indices is None or indices.size != 1:
            return -1, 0
        return int(indices.reshape(())) % 2, attribute(node, "axis", 0)
    values = [index.constant_input(node, i) for i in (1, 2, 3, 4)]
    starts, ends, axis, steps = values
    if node.op_type != "Slice" or starts is None or ends is None or starts.size != 1 or ends.size != 1:
        return -1, 0
    if axis is None or (steps is not None and int(steps[0]) != 1):
        return -1, 0
    start, end = int(starts[0]), min(int(ends[0]), 2)
    start, end = start + 2 * (start < 0), end + 2 * (end < 0)
    return (start if end - start == 1 else -1), int(axis[0])


def _cut_pair(index: GraphIndex, pair: OneChannel, removed: tuple[str, ...], upsample: Upsample) -> OneChannel:
    """Two logits, with casts, moved axes and the upsampling behind them cut."""
    tensor, labels, gone = pair.tensor, pair.labels, list(removed)
    while (node := index.producer(tensor)) is not None:
        convention = upsample(node, labels)
        if convention:
            gone.append(f"Resize ({convention})")
            return OneChannel(node.input[0], labels, pair.border, tuple(gone), convention, pair.object_channel)
        inner = labels if node.op_type == "Cast" else axes.before(index, node, labels)
        if not inner:
            break
        tensor, labels = node.input[0], inner
        gone.append(node.op_type)
    return OneChannel(tensor, labels, pair.border, tuple(gone), "", pair.object_channel)
