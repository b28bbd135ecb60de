"""The end of a segmentation network: find its logits and cut the upsampling, softmax and argmax behind them.

mask.class_map does that work exactly and faster, so the deploy graph ends in logits at the head's own stride.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgeseg.errors import OptionError
from edgeseg.onnx_graph import axes, class_ids, outputs, threshold
from edgeseg.onnx_graph.index import GraphIndex, attribute, drop_unused, opset, static_shapes
from edgeseg.onnx_graph.loading import graph_errors, simplify
from edgeseg.onnx_graph.threshold import FLOATS
from edgeseg.spec import Spec

# coordinate_transformation_mode of a Resize -> mask.UPSAMPLES
UPSAMPLES = {
    "half_pixel": "half_pixel",
    "pytorch_half_pixel": "half_pixel",
    "align_corners": "align_corners",
    "asymmetric": "asymmetric",
}


@dataclass(frozen=True)
class Scores:
    """`tensor`, whose axes are `labels` (outputs.labels), holds the scores; `removed` follows it, from the output
    backwards, with the convention of the Resize among that ("" without one).

    `border`: what one channel is compared with, None for argmax. `object_channel` as in OneChannel. `ids`: the class
    ids that the network ends in; `one_hot` where no scores are behind them, so that `tensor` holds the ids.
    """

    tensor: str
    labels: str
    removed: tuple[str, ...] = ()
    upsample: str = ""
    border: float | None = None
    object_channel: int = -1
    ids: class_ids.ClassIds | None = None
    one_hot: bool = False


def cut_head(model: ModelProto, spec: Spec) -> tuple[str, list[str]]:
    """Make the last logits the float32 output `logits` [1, classes, h, w], in place.

    Returns how they are to be upsampled (mask.UPSAMPLES, or "none") and notes on what was done. OptionError where the
    model's output does not fit the Spec.
    """
    index = GraphIndex(model)
    scores = _find_scores(index, spec)
    notes = [f"cut from the end: {', '.join(reversed(scores.removed))}"] if scores.removed else []
    if scores.labels not in axes.CHANNELS_FIRST:
        notes.append(f"axes of the scores: {scores.labels}")
    if scores.border is not None:
        notes.append(f"class 1 is where the score is above {scores.border:.6g}")
    height, width = _set_output(index, scores, spec)
    drop_unused(model)
    if (height, width) == (spec.height, spec.width):
        return "none", notes
    if not scores.upsample:
        notes.append(f"logits are {width}x{height}: upsampled bilinearly (half-pixel) to {spec.width}x{spec.height}")
    return scores.upsample or "half_pixel", notes


def _find_scores(index: GraphIndex, spec: Spec) -> Scores:
    """The scores that the output is made of; OptionError where it does not fit the Spec."""
    output = index.graph.output[0].name
    channels = 1 if spec.head == "threshold" else len(spec.classes)
    labels = _labels(index, output, spec, channels)
    if "c" not in labels and labels:  # one channel, or class ids
        ids = class_ids.trace(index, output, labels)
        if ids is not None and ids.border is None and spec.head == "argmax":
            return _argmax_of_ids(index, ids, spec)
        if spec.head == "threshold":
            return _one_channel(index, ids, output, labels, spec)
        if index.types.get(output, TensorProto.FLOAT) in class_ids.INTEGERS:
            return Scores(output, labels, one_hot=True)
    if "c" not in labels:
        raise _unexpected(index, output, spec, channels)
    return _before_winner(index, Scores(output, labels), spec)


def _labels(index: GraphIndex, tensor: str, spec: Spec, channels: int) -> str:
    shape = index.shape(tensor)
    found = outputs.labels(shape, spec.height, spec.width, channels)
    if not found and len(shape) == 4 and shape[0] == 1 and all(shape) and shape[1] == channels:
        return "11hw" if channels == 1 else "1chw"  # of other proportions than the frame
    return found or outputs.labels(shape, spec.height, spec.width, 1)


def _unexpected(index: GraphIndex, tensor: str, spec: Spec, channels: int) -> OptionError:
    return OptionError(
        f"The model's output {tensor} has shape {index.shape(tensor)}.",
        f"Expected logits [1, {channels}, h, w] for {len(spec.classes)} classes; correct --classes or --output, "
        "or export the model with its logits as output.",
    )


def _argmax_of_ids(index: GraphIndex, ids: class_ids.ClassIds, spec: Spec) -> Scores:
    shape, expected = index.shape(ids.tensor), len(spec.classes)
    if len(shape) != len(ids.labels) or shape[ids.labels.index("c")] != expected:
        raise _unexpected(index, ids.tensor, spec, expected)
    scores = Scores(ids.tensor, ids.labels, ids.removed, ids=ids)
    return scores if ids.nearest else _before_winner(index, scores, spec)


def _one_channel(index: GraphIndex, ids: class_ids.ClassIds | None, output: str, labels: str, spec: Spec) -> Scores:
    """The one channel behind `output`, or behind the comparison that made ids of it."""

    def upsample(node: NodeProto, labels: str) -> str:
        return _bilinear_upsample(index, node, spec) if labels in axes.CHANNELS_FIRST else ""

    compared = ids if ids is not None and ids.border is not None else None
    if compared is not None and compared.border is not None:
        tensor, labels, border, removed = compared.tensor, compared.labels, compared.border, compared.removed
        if compared.nearest:
            return Scores(tensor, labels, removed, border=border, ids=compared)
    elif ids is not None:
        tensor, border, removed = output, 0.5, ()  # ids of an ArgMax: 0 and 1
    else:
        border = threshold.default_border(index, output) if spec.border is None else spec.border
        tensor, removed = output, ()
    found = threshold.cut(index, tensor, labels, border, upsample)
    return Scores(
        found.tensor, found.labels, (*removed, *found.removed), found.upsample, found.border, found.object_channel
    )


def _before_winner(index: GraphIndex, scores: Scores, spec: Spec) -> Scores:
    """Back over what does not change which class wins: axes moved, Softmax, casts, and one bilinear upsampling."""
    tensor, labels, removed, upsample = scores.tensor, scores.labels, list(scores.removed), ""
    while not upsample and (node := index.producer(tensor)) is not None:
        upsample = _bilinear_upsample(index, node, spec) if labels == "1chw" else ""
        softmaxed = _flattened_softmax(index, node)
        inner = labels if upsample or softmaxed or _keeps_winner(index, node, labels) else ""
        inner = inner or axes.before(index, node, labels)
        if not inner:
            break
        removed.append(f"Resize ({upsample})" if upsample else "Softmax" if softmaxed else node.op_type)
        tensor, labels = softmaxed or node.input[0], inner
    return Scores(tensor, labels, tuple(removed), upsample)


def _keeps_winner(index: GraphIndex, node: NodeProto, labels: str) -> bool:
    """Whether the class map is the same without this node, whose axes are `labels`."""
    if node.op_type == "Cast":  # one of floats to integers rounds
        return attribute(node, "to", 0) in FLOATS or index.types.get(node.input[0]) not in FLOATS
    default = -1 if opset(index.model) >= 13 else 1
    return node.op_type in ("Softmax", "LogSoftmax") and axes.is_class_axis(attribute(node, "axis", default), labels)


def _flattened_softmax(index: GraphIndex, node: NodeProto) -> str:
    """The input of a Softmax over all values of a frame, as it was up to opset 12, that ends in `node`; else "".

    Its denominator is the same for every value, so that it does not change which class wins.
    """
    softmax = index.producer(node.input[0], "Softmax", "LogSoftmax") if node.op_type == "Reshape" else None
    flat = index.producer(softmax.input[0], "Flatten", "Reshape") if softmax is not None else None
    if flat is None or index.shape(flat.input[0]) != index.shape(node.output[0]):
        return ""
    rows = index.shape(flat.output[0])
    return str(flat.input[0]) if len(rows) == 2 and rows[0] == 1 else ""


def _bilinear_upsample(index: GraphIndex, node: NodeProto, spec: Spec) -> str:
    """The convention of a bilinear Resize of H and W up to the Spec's size, as mask.UPSAMPLES has it, else ""."""
    if node.op_type != "Resize" or attribute(node, "mode", b"nearest") != b"linear" or attribute(node, "antialias", 0):
        return ""
    before, after = index.shape(node.input[0]), index.shape(node.output[0])
    if len(before) != 4 or len(after) != 4 or before[:2] != after[:2] or after[2:] != [spec.height, spec.width]:
        return ""
    if before[2] > after[2] or before[3] > after[3]:
        return ""
    scales = index.constant_input(node, 2)
    if scales is not None and any(abs(a * s - b) > 1e-3 for a, s, b in zip(before, scales.ravel(), after)):
        return ""  # it samples at 1 / scale, which is not the ratio of its sizes
    return UPSAMPLES.get(attribute(node, "coordinate_transformation_mode", b"half_pixel").decode(), "")


def _set_output(index: GraphIndex, scores: Scores, spec: Spec) -> tuple[int, int]:
    """Make the scores the only output `logits`, as float32 with a channel for each class; (height, width) of it."""
    graph, shape = index.graph, index.shape(scores.tensor)
    height, width = (shape[scores.labels.index(letter)] for letter in "hw")
    channels = shape[scores.labels.index("c")] if "c" in scores.labels else 1
    tensor = axes.channels_first(index, scores.tensor, scores.labels)
    if scores.one_hot:
        tensor = class_ids.one_hot(index, tensor, len(spec.classes))
    nearest = scores.ids is not None and bool(scores.ids.nearest)
    if scores.ids is not None and nearest:
        tensor, (_, _, height, width) = class_ids.repeat_nearest(
            index, tensor, [1, channels, height, width], scores.ids
        )
    if nearest or scores.one_hot:
        tensor, height, width = _nearest_to_spec(index, tensor, height, width, spec)
    if scores.object_channel >= 0:
        _two_logits(index, tensor, scores)
    elif spec.head == "threshold":
        _one_logit(index, tensor, scores, height, width)
    else:
        graph.node.append(helper.make_node("Cast", [tensor], ["logits"], to=TensorProto.FLOAT, name="logits"))
    del graph.output[:]
    shape = [1, len(spec.classes), height, width]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))
    return height, width


def _nearest_to_spec(index: GraphIndex, tensor: str, height: int, width: int, spec: Spec) -> tuple[str, int, int]:
    """Class ids that are smaller than the frame are repeated, not interpolated."""
    if (height, width) == (spec.height, spec.width):
        return tensor, height, width
    scales = index.add_constant("ids_scales", np.array([1, 1, spec.height / height, spec.width / width], np.float32))
    more = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    index.graph.node.append(helper.make_node("Resize", [tensor, "", scales], ["ids_large"], name="ids_large", **more))
    return "ids_large", spec.height, spec.width


def _one_logit(index: GraphIndex, tensor: str, scores: Scores, height: int, width: int) -> None:
    """A background channel, the border, before the one of a threshold."""
    background = np.full([1, 1, height, width], scores.border, np.float32)
    channels = [index.add_constant("background", background), "one_logit"]
    index.graph.node.append(helper.make_node("Cast", [tensor], ["one_logit"], to=TensorProto.FLOAT, name="logits"))
    index.graph.node.append(helper.make_node("Concat", channels, ["logits"], axis=1, name="with_background"))


def _two_logits(index: GraphIndex, tensor: str, scores: Scores) -> None:
    """Two channels, background first, of which the first is raised by the border."""
    if scores.object_channel == 0:
        order = index.add_constant("pair_order", np.array([1, 0]))
        index.graph.node.append(helper.make_node("Gather", [tensor, order], ["pair"], axis=1, name="pair"))
        tensor = "pair"
    if scores.border:
        raised = index.add_constant("pair_border", np.array([scores.border, 0], np.float32).reshape(1, 2, 1, 1))
        index.graph.node.append(helper.make_node("Add", [tensor, raised], ["pair_raised"], name="pair_raised"))
        tensor = "pair_raised"
    index.graph.node.append(helper.make_node("Cast", [tensor], ["logits"], to=TensorProto.FLOAT, name="logits"))


@dataclass(frozen=True)
class OutputKind:
    """What an output holds: scores of `classes`, class ids among `classes` (0 = unknown), or `one_channel` to be
    compared with `border`. `source`: how that was seen."""

    name: str
    classes: int
    source: str
    one_channel: bool = False
    border: float = 0.0


def output_kind(model: ModelProto, height: int, width: int, output: str = "") -> OutputKind:
    """What `output` (or the one of full size) holds; OptionError where it is no map of the frame."""
    static = simplify(model, height, width, output)
    with graph_errors():
        shapes = static_shapes(static)
        index = GraphIndex(static)
        name = static.graph.output[0].name
        shape = shapes.get(name, [])
        labels = outputs.labels(shape, height, width)
        if not labels and len(shape) == 4 and shape[0] == 1 and shape[1] > 1 and all(shape):
            labels = "1chw"
        ids = class_ids.trace(index, name, labels) if labels and "c" not in labels else None
        if ids is not None and ids.border is None:
            classes = (index.shape(ids.tensor) or [0])[ids.labels.index("c")]
            return OutputKind(name, classes, "the channels behind ArgMax")
        if "c" in labels:
            source = "the output's channels" if labels.index("c") == labels.index("h") - 1 else "the output's last axis"
            return OutputKind(name, shape[labels.index("c")], source)
        if labels:
            border = ids.border if ids is not None and ids.border is not None else None
            border = threshold.default_border(index, name) if border is None else border
            integers = index.types.get(name, TensorProto.FLOAT) in class_ids.INTEGERS
            if not integers or ids is not None or border:
                return OutputKind(name, 2, "the output's channels", one_channel=True, border=border)
            return OutputKind(name, 0, "class ids")
    raise OptionError(
        f"The model's output {name} has shape {shapes.get(name) or 'unknown'}.",
        "Expected class scores [1, C, h, w] or [1, h, w, C]; choose another with --output, or give --classes.",
    )
