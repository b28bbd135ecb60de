"""The end of a segmentation network: find its logits and cut the upsampling, softmax and argmax behind them.

mask.class_map does that work exactly and faster, so the deploy graph ends in logits at the head's own stride.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgeseg.errors import OptionError
from edgeseg.onnx_graph.index import GraphIndex, attribute, drop_unused, static_shapes
from edgeseg.onnx_graph.loading import graph_errors, simplify
from edgeseg.spec import Spec

# Operators behind the last Resize, or behind the logits where there is none, that do not change which class wins.
ORDER_PRESERVING = {"Softmax", "LogSoftmax", "Identity", "Cast", "Squeeze"}
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
# coordinate_transformation_mode of a Resize -> mask.UPSAMPLES
UPSAMPLES = {
    "half_pixel": "half_pixel",
    "pytorch_half_pixel": "half_pixel",
    "align_corners": "align_corners",
    "asymmetric": "asymmetric",
}


def cut_head(model: ModelProto, spec: Spec) -> tuple[str, list[str]]:
    """Make the last logits the float32 output `logits` [1, classes, h, w], in place.

    Returns how they are to be upsampled (mask.UPSAMPLES, or "none") and notes on what was done. OptionError where the
    model's output does not fit the Spec.
    """
    index = GraphIndex(model)
    logits, removed, upsample = _find_logits(index, spec)
    notes = [f"cut from the end: {', '.join(reversed(removed))}"] if removed else []
    kind = index.types.get(logits, TensorProto.FLOAT)
    if kind not in (*FLOATS, TensorProto.UNDEFINED):
        raise OptionError(
            f"The model's output {logits} is {TensorProto.DataType.Name(kind).lower()}.",
            "Expected logits or probabilities as floats; export the model with its logits as output.",
        )
    height, width = _logits_size(index, logits, spec)
    _set_output(index, logits, spec, height, width)
    drop_unused(model)
    if (height, width) == (spec.height, spec.width):
        return "none", notes
    if not upsample:
        notes.append(f"logits are {width}x{height}: upsampled bilinearly (half-pixel) to {spec.width}x{spec.height}")
    return upsample or "half_pixel", notes


def _find_logits(index: GraphIndex, spec: Spec) -> tuple[str, list[str], str]:
    """(tensor, what follows it and may go, from the output backwards; the convention of the Resize among that)."""
    tensor, removed, upsample = index.graph.output[0].name, [], ""
    while not upsample and (node := index.producer(tensor)) is not None:
        upsample = _bilinear_upsample(index, node, spec)
        if not upsample and not _keeps_winner(index, node, spec):
            break
        removed.append(f"Resize ({upsample})" if upsample else node.op_type)
        tensor = node.input[0]
    return tensor, removed, upsample


def _keeps_winner(index: GraphIndex, node: NodeProto, spec: Spec) -> bool:
    """Whether the class map is the same without this node."""
    if node.op_type == "Cast" and attribute(node, "to", 0) not in FLOATS and index.types.get(node.input[0]) in FLOATS:
        return False  # it rounds
    if node.op_type not in ORDER_PRESERVING | ({"Sigmoid"} if spec.head == "threshold" else {"ArgMax"}):
        return False
    return node.op_type not in ("ArgMax", "Softmax", "LogSoftmax") or _along_classes(index, node)


def _along_classes(index: GraphIndex, node: NodeProto) -> bool:
    """Whether the axis of an ArgMax or Softmax is that of the classes, the third from the end."""
    opset = next((o.version for o in index.model.opset_import if o.domain in ("", "ai.onnx")), 0)
    default = 0 if node.op_type == "ArgMax" else -1 if opset >= 13 else 1
    axis, rank = attribute(node, "axis", default), len(index.shape(node.input[0]))
    return bool(rank and axis % rank == rank - 3)


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


def _logits_size(index: GraphIndex, logits: str, spec: Spec) -> tuple[int, int]:
    """(height, width) of the logits; OptionError where their shape does not fit the Spec."""
    shape = index.shape(logits)
    channels = 1 if spec.head == "threshold" else len(spec.classes)
    if len(shape) != 4 or shape[0] != 1 or shape[1] != channels:
        raise OptionError(
            f"The model's output {logits} has shape {shape}.",
            f"Expected logits [1, {channels}, h, w] for {len(spec.classes)} classes; correct --classes or --output, "
            "or export the model with its logits as output.",
        )
    return shape[2], shape[3]


def _set_output(index: GraphIndex, tensor: str, spec: Spec, height: int, width: int) -> None:
    """Make `tensor` the only output `logits`, as float32, with a background channel before the one of a threshold."""
    graph = index.graph
    if spec.head == "threshold":  # class 0 is what the one logit is compared with
        background = np.full([1, 1, height, width], _threshold(index, tensor), np.float32)
        channels = [index.add_constant("background", background), "one_logit"]
        graph.node.append(helper.make_node("Cast", [tensor], ["one_logit"], to=TensorProto.FLOAT, name="logits"))
        graph.node.append(helper.make_node("Concat", channels, ["logits"], axis=1, name="with_background"))
    else:
        graph.node.append(helper.make_node("Cast", [tensor], ["logits"], to=TensorProto.FLOAT, name="logits"))
    del graph.output[:]
    shape = [1, len(spec.classes), height, width]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))


def _threshold(index: GraphIndex, tensor: str) -> float:
    """Logits of one class are compared with 0, probabilities that were upsampled after their Sigmoid with one half."""
    node = index.producer(tensor)
    while node is not None and node.op_type == "Cast":
        node = index.producer(node.input[0])
    return 0.5 if node is not None and node.op_type == "Sigmoid" else 0.0


def output_channels(model: ModelProto, height: int, width: int, output: str = "") -> tuple[int, str]:
    """How many classes `output` (or the first) has, and how that was seen: its channels, or its ArgMax's."""
    static = simplify(model, height, width, output)
    with graph_errors():
        shapes = static_shapes(static)
    index, source = GraphIndex(static), "the output's channels"
    name = tensor = static.graph.output[0].name
    while (node := index.producer(tensor)) is not None and (
        len(shapes.get(tensor, [])) != 4 or node.op_type in ("ArgMax", "Cast")
    ):
        source = "the channels behind ArgMax" if node.op_type == "ArgMax" else source
        tensor = node.input[0]
    shape = shapes.get(tensor, [])
    if len(shape) != 4 or shape[1] < 1:
        raise OptionError(
            f"The model's output has shape {shapes.get(name)}.",
            "Expected class scores [1, C, h, w]; choose another with --output, or give --classes.",
        )
    return shape[1], source
