"""ONNX surgery: any segmentation network -> the deploy graph.

The deploy graph takes a uint8 BGR frame [1, H, W, 3], normalizes inside, has its Conv-BN pairs folded, and ends in
float32 logits [1, C, h, w] at the head's own stride: a trailing bilinear Resize (with Softmax, Sigmoid, ArgMax, Cast,
Squeeze behind it) is recognized and cut off, because mask.class_map does that work exactly and faster.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.files import require_file
from edgeseg.onnx_graph.fold import attribute, drop_unused, element_types, fold, fresh_name, static_shapes
from edgeseg.onnx_graph.rewrite import rewrite
from edgeseg.spec import Spec

MAX_BYTES = 2 << 30
# Operators behind the last Resize, or behind the logits where there is none, that do not change which class wins.
ORDER_KEEPING = {"Softmax", "LogSoftmax", "Identity", "Cast", "Squeeze"}
OUR_NAMES = (
    *("frame", "pre_float", "pre_nchw", "pre_order", "pre_rgb", "pre_Sub", "pre_Sub_value", "pre_Mul", "pre_Mul_value"),
    *("background", "one_logit", "logits"),
)
# What INT8 makes faster, and a quantizer can be told to leave alone: convolutions, matrix products, sums and gates.
LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Add", "Mul")
PAIR = ("QuantizeLinear", "DequantizeLinear")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
MODES = {
    "half_pixel": "half_pixel",
    "pytorch_half_pixel": "half_pixel",
    "align_corners": "align_corners",
    "asymmetric": "asymmetric",
}


@dataclass(frozen=True)
class DeployGraph:
    """The deploy graph, the convention of the Resize that was cut (mask.UPSAMPLES), and what was done."""

    model: ModelProto
    upsample: str
    notes: tuple[str, ...]
    batchnorm_before: int
    batchnorm_after: int


def load(path: Path) -> ModelProto:
    """Read an ONNX file; FileError when it is missing, empty, too large, corrupt or not ONNX."""
    if require_file(path, "ONNX model").stat().st_size > MAX_BYTES:
        raise FileError(f"ONNX model {path} is over {MAX_BYTES >> 30} GiB.", "Edge models are smaller than that.")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, checker and external-data errors share no base class
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise FileError(
            f"ONNX model {path} cannot be read: {reason}.", "It is corrupt, truncated or not ONNX; export it again."
        ) from error
    return model


def image_input(model: ModelProto) -> tuple[str, str, int | None, int | None]:
    """(name, layout, height, width) of the one image input; layout is NCHW or NHWC; a dynamic size is None."""
    weights = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    shapes = {i.name: [d.dim_value or None for d in i.type.tensor_type.shape.dim] for i in inputs}
    if len(inputs) != 1 or len(shapes[inputs[0].name]) != 4:
        raise OptionError(
            f"The model's inputs are {shapes}.",
            "Expected one image input of 4 dimensions, [N, 3, H, W] or [N, H, W, 3].",
        )
    name = inputs[0].name
    _, a, b, c = shapes[name]
    if c == 3 and a != 3:
        return name, "NHWC", a, b
    if a not in (3, None):
        raise OptionError(f"Input {name} has {a} channels.", "Expected 3 (a color image).")
    return name, "NCHW", b, c


def simplify(model: ModelProto, height: int, width: int, output: str = "") -> ModelProto:
    """A copy with a static input of [1, 3, height, width], one output, constants and Conv-BN folded."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    name, layout, *fixed = image_input(model)
    if any(own not in (None, asked) for own, asked in zip(fixed, (height, width))):
        raise OptionError(
            f"The model's input is fixed at {fixed[1]}x{fixed[0]}, not {width}x{height}.",
            f"Use --size {fixed[1]}x{fixed[0]}, or export it with a dynamic size.",
        )
    names = [o.name for o in model.graph.output]
    if output and output not in names:
        raise OptionError(f"The model has no output {output!r}.", f"Its outputs: {', '.join(names)}.")
    if not names:
        raise OptionError("The model has no output.", "Export it again.")
    keep = output or names[0]
    for value in [o for o in model.graph.output if o.name != keep]:
        model.graph.output.remove(value)
    entry = next(i for i in model.graph.input if i.name == name).type.tensor_type.shape
    for dim, value in zip(entry.dim, [1, height, width, 3] if layout == "NHWC" else [1, 3, height, width]):
        dim.dim_value = value
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    with understood():
        fold(model)
    return model


@contextmanager
def understood() -> Iterator[None]:
    """A graph from outside can break any step of the surgery: then it is OptionError, with the first line of why."""
    try:
        yield
    except EdgesegError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise OptionError(
            f"The model's graph is not understood: {reason}.",
            "If it was made for another size, give that: --size WIDTHxHEIGHT. Else export it again.",
        ) from error


def deploy_graph(model: ModelProto, spec: Spec, output: str = "") -> DeployGraph:
    """Any float segmentation network -> its deploy graph. OptionError where it is not one."""
    before = count(model)["BatchNormalization"]
    slim = simplify(model, spec.height, spec.width, output)
    notes: list[str] = []
    with understood():
        for taken in OUR_NAMES:
            rename(slim, taken, fresh_name(slim, f"inner_{taken}"))
        upsample = cut_tail(slim, spec, notes)
        if moved := rewrite(slim):
            notes.append(f"1x1 convolutions moved in front of an upsampling: {moved}")
        prepend_preprocessing(slim, spec, notes)
        name_nodes(slim)
        if is_quantized(slim):
            notes.append(f"came quantized: {count(slim)['QuantizeLinear']} Q/DQ pairs")
        slim.graph.name = "edgeseg"
        del slim.metadata_props[:]
        ready = onnx.shape_inference.infer_shapes(slim)
        onnx.checker.check_model(ready)
    return DeployGraph(ready, upsample, tuple(notes), before, count(ready)["BatchNormalization"])


def cut_tail(model: ModelProto, spec: Spec, notes: list[str]) -> str:
    """Cut what follows the last logits in place, name them `logits`, and return the convention of the cut Resize."""
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    shapes, types = static_shapes(model), element_types(model)
    tensor, cut, upsample = graph.output[0].name, [], ""
    removable = ORDER_KEEPING | ({"Sigmoid"} if spec.head == "threshold" else {"ArgMax"})
    while not upsample and (node := made_by.get(tensor)) is not None:
        upsample = bilinear(node, shapes, spec, _constant(model, node, 2))
        to_whole = node.op_type == "Cast" and attribute(node, "to", 0) not in FLOATS
        rounds = to_whole and types.get(node.input[0]) in FLOATS
        harmless = node.op_type in removable and over_classes(model, node, shapes) and not rounds
        if not upsample and not harmless:
            break
        cut.append(f"Resize ({upsample})" if upsample else node.op_type)
        tensor = node.input[0]
    if cut:
        notes.append(f"cut from the end: {', '.join(reversed(cut))}")
    # Probabilities of one class that were upsampled after their Sigmoid are compared with one half, logits with 0.
    maker = made_by.get(tensor)
    while maker is not None and maker.op_type == "Cast":
        maker = made_by.get(maker.input[0])
    border = 0.5 if maker is not None and maker.op_type == "Sigmoid" else 0.0
    kind = types.get(tensor, TensorProto.FLOAT)
    if kind not in (*FLOATS, TensorProto.UNDEFINED):
        raise OptionError(
            f"The model's output {tensor} is {TensorProto.DataType.Name(kind).lower()}.",
            "Expected logits or probabilities as floats; export the model with its logits as output.",
        )
    return finish(model, tensor, spec, shapes, upsample, border, notes)


def over_classes(model: ModelProto, node: NodeProto, shapes: dict[str, list[int]]) -> bool:
    """Whether a node that works along an axis does so over the classes (the third from the end); others always do."""
    if node.op_type not in ("ArgMax", "Softmax", "LogSoftmax"):
        return True
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    default = 0 if node.op_type == "ArgMax" else -1 if opset >= 13 else 1
    axis, rank = attribute(node, "axis", default), len(shapes.get(node.input[0], []))
    return bool(rank and axis % rank == rank - 3)


def _constant(model: ModelProto, node: NodeProto, index: int) -> list[float]:
    """The values of a node's constant input, or nothing."""
    name = node.input[index] if len(node.input) > index else ""
    found = next((i for i in model.graph.initializer if name and i.name == name), None)
    return [] if found is None else [float(v) for v in numpy_helper.to_array(found).ravel()]


def finish(
    model: ModelProto,
    tensor: str,
    spec: Spec,
    shapes: dict[str, list[int]],
    upsample: str,
    border: float,
    notes: list[str],
) -> str:
    """Make `tensor` the float32 output `logits` of [1, classes, h, w]; check it against the Spec."""
    graph = model.graph
    shape = shapes.get(tensor, [])
    channels = 1 if spec.head == "threshold" else len(spec.classes)
    if len(shape) != 4 or shape[0] != 1 or shape[1] != channels:
        raise OptionError(
            f"The model's output {tensor} has shape {shape}.",
            f"Expected logits [1, {channels}, h, w] for {len(spec.classes)} classes; correct --classes or --output, "
            "or export the model with its logits as output.",
        )
    if spec.head == "threshold":  # class 0 is what the one logit is compared with
        graph.initializer.append(numpy_helper.from_array(np.full([1, 1, *shape[2:]], border, np.float32), "background"))
        graph.node.append(helper.make_node("Cast", [tensor], ["one_logit"], to=TensorProto.FLOAT, name="logits"))
        graph.node.append(
            helper.make_node("Concat", ["background", "one_logit"], ["logits"], axis=1, name="with_background")
        )
    else:
        graph.node.append(helper.make_node("Cast", [tensor], ["logits"], to=TensorProto.FLOAT, name="logits"))
    del graph.output[:]
    classes = len(spec.classes)
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes, *shape[2:]]))
    drop_unused(model)
    if shape[2:] == [spec.height, spec.width]:
        return "none"
    if not upsample:
        notes.append(
            f"logits are {shape[3]}x{shape[2]}: upsampled bilinearly (half-pixel) to {spec.width}x{spec.height}"
        )
    return upsample or "half_pixel"


def bilinear(node: NodeProto, shapes: dict[str, list[int]], spec: Spec, scales: list[float]) -> str:
    """The convention of a bilinear Resize of H and W up to the Spec's size, as mask.UPSAMPLES has it, else ""."""
    if node.op_type != "Resize" or attribute(node, "mode", b"nearest") != b"linear" or attribute(node, "antialias", 0):
        return ""
    before, after = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
    if len(before) != 4 or len(after) != 4 or before[:2] != after[:2] or after[2:] != [spec.height, spec.width]:
        return ""
    if before[2] > after[2] or before[3] > after[3]:
        return ""
    if any(abs(size * scale - new) > 1e-3 for size, scale, new in zip(before, scales, after)):
        return ""  # it samples at 1 / scale, which is not the ratio of its sizes
    return MODES.get(attribute(node, "coordinate_transformation_mode", b"half_pixel").decode(), "")


def prepend_preprocessing(model: ModelProto, spec: Spec, notes: list[str]) -> None:
    """Make the graph take `frame`, uint8 BGR [1, H, W, 3], and normalize it inside."""
    graph = model.graph
    old = image_input(model)
    name, layout = old[0], old[1]
    kind = next(i for i in graph.input if i.name == name).type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise OptionError(
            f"Input {name} is {TensorProto.DataType.Name(kind).lower()}.",
            "Expected float32 or float16: a network whose preprocessing is not inside it yet.",
        )
    mean, std = np.array(spec.mean, np.float32) * 255, np.array(spec.std, np.float32) * 255
    swap = spec.color == "RGB"
    if swap and layout == "NCHW" and swap_first_conv(model, name):
        mean, std, swap = mean[::-1], std[::-1], False
        notes.append("BGR -> RGB folded into the first convolution")
    axis = [1, 3, 1, 1] if layout == "NCHW" else [1, 1, 1, 3]
    nodes = [helper.make_node("Cast", ["frame"], ["pre_float"], to=TensorProto.FLOAT, name="pre_float")]
    if layout == "NCHW":
        nodes.append(helper.make_node("Transpose", ["pre_float"], ["pre_nchw"], perm=[0, 3, 1, 2], name="pre_nchw"))
    if swap:
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "pre_order"))
        nodes.append(
            helper.make_node(
                "Gather", [nodes[-1].output[0], "pre_order"], ["pre_rgb"], axis=axis.index(3), name="pre_rgb"
            )
        )
    for op, value in (("Sub", mean), ("Mul", 1 / std)):
        constant = np.ascontiguousarray(value, np.float32).reshape(axis)
        graph.initializer.append(numpy_helper.from_array(constant, f"pre_{op}_value"))
        nodes.append(helper.make_node(op, [nodes[-1].output[0], f"pre_{op}_value"], [f"pre_{op}"], name=f"pre_{op}"))
    nodes.append(helper.make_node("Cast", [nodes[-1].output[0]], [name], to=kind, name="pre_cast"))
    if kind == TensorProto.FLOAT:
        nodes[-2].output[0] = name
        nodes.pop()
    for node in reversed(nodes):
        graph.node.insert(0, node)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, spec.height, spec.width, 3]))


def swap_first_conv(model: ModelProto, name: str) -> bool:
    """Reverse the input channels of the only consumer of `name` if that is an ordinary Conv with constant weights.

    Q/DQ pairs in between do not matter where they treat all input channels alike.
    """
    made_by = {node.output[0]: node for node in model.graph.node}
    scales = {i.name for i in model.graph.initializer if not i.dims or list(i.dims) == [1]}
    users = [n for n in model.graph.node if name in n.input]
    while len(users) == 1 and users[0].op_type in PAIR and users[0].input[1] in scales:
        users = [n for n in model.graph.node if users[0].output[0] in n.input]
    if len(users) != 1 or users[0].op_type != "Conv" or attribute(users[0], "group", 1) != 1:
        return False
    source = users[0].input[1]
    while (node := made_by.get(source)) is not None and node.op_type in PAIR and attribute(node, "axis", 1) == 0:
        source = node.input[0]
    weight = next((i for i in model.graph.initializer if i.name == source), None)
    if weight is None or sum(weight.name in n.input for n in model.graph.node) != 1:
        return False
    values = numpy_helper.to_array(weight)[:, ::-1]
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), weight.name))
    return True


def is_quantized(model: ModelProto) -> bool:
    """Whether it came quantized: with Q/DQ pairs."""
    return any(node.op_type in PAIR for node in model.graph.node)


def is_symmetric(model: ModelProto) -> bool:
    """Whether every Q/DQ pair of a deploy graph is INT8 with zero point 0."""
    zeros = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    found = [zeros.get(n.input[2]) if len(n.input) > 2 else None for n in model.graph.node if n.op_type in PAIR]
    return all(zero is not None and zero.dtype == np.int8 and not zero.any() for zero in found)


def store_whole(model: ModelProto) -> None:
    """Store weights that a QuantizeLinear rounds as the integers it makes of them, in place."""
    known = {i.name: i for i in model.graph.initializer}
    for node in [n for n in model.graph.node if n.op_type == "QuantizeLinear"]:
        if not all(name in known for name in node.input) or len(node.input) < 3:
            continue
        values, scale, zero = (numpy_helper.to_array(known[name]) for name in node.input)
        if scale.ndim:
            shape = [-1 if i == attribute(node, "axis", 1) % values.ndim else 1 for i in range(values.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        ends = np.iinfo(zero.dtype)
        whole = np.clip(np.rint(values / scale) + zero, ends.min, ends.max).astype(zero.dtype)
        model.graph.initializer.append(numpy_helper.from_array(whole, node.output[0]))
        model.graph.node.remove(node)
    drop_unused(model)


def half_weights(model: ModelProto) -> ModelProto:
    """A copy whose float weights of 16 and more values are stored as float16 and cast back when the model loads."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size >= 16:
            small = np.clip(values, -65504, 65504).astype(np.float16)
            stored = fresh_name(model, f"{weight.name}_half")
            casts.append(helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT))
            weight.CopyFrom(numpy_helper.from_array(small, stored))
    for node in casts:
        model.graph.node.insert(0, node)
    return model


def name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own: the one it has where no other has it, else that of its output."""
    taken: set[str] = set()
    for node in sorted(model.graph.node, key=lambda n: n.output[0] not in OUR_NAMES):
        if not node.name or node.name in taken:
            node.name = node.output[0]
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)


def layers(model: ModelProto) -> list[NodeProto]:
    """The nodes of a deploy graph that may be INT8 or stay float, in its order; not the preprocessing."""
    weights = {i.name for i in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in LAYERS
        and not node.name.startswith("pre_")
        and (node.op_type not in ("Add", "Mul") or not weights & set(node.input))
    ]


def require_layers(model: ModelProto, names: Iterable[str]) -> None:
    """OptionError for a name that is no layer of this deploy graph."""
    known = [node.name for node in layers(model)]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
            start = f"Did you mean {close[0]!r}? " if close else ""
            raise OptionError(
                f"The network has no layer {name!r}.",
                f"{start}edgeseg sensitivity MODEL --calibration FRAMES lists its {len(known)} layers.",
            )


def rename(model: ModelProto, old: str, new: str) -> None:
    """Rename a tensor wherever it is named."""
    graph = model.graph
    for node in _all_nodes(graph):
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                if name == old:
                    field[i] = new
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if value.name == old:
            value.name = new


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside them (If, Loop)."""
    for node in graph.node:
        yield node
        for inner in (g for a in node.attribute for g in (a.g, *a.graphs)):
            yield from _all_nodes(inner)


def count(model: ModelProto) -> Counter[str]:
    """Operator -> how many nodes."""
    return Counter(node.op_type for node in model.graph.node)


def output_channels(model: ModelProto, height: int, width: int, output: str = "") -> tuple[int, str]:
    """How many classes `output` (or the first) has, and how that was seen: its channels, or its ArgMax's."""
    slim = simplify(model, height, width, output)
    with understood():
        shapes = static_shapes(slim)
    tensor = slim.graph.output[0].name
    made_by = {name: node for node in slim.graph.node for name in node.output}
    how = "the output's channels"
    while (node := made_by.get(tensor)) is not None and (
        len(shapes.get(tensor, [])) != 4 or node.op_type in ("ArgMax", "Cast")
    ):
        how = "the channels behind ArgMax" if node.op_type == "ArgMax" else how
        tensor = node.input[0]
    shape = shapes.get(tensor, [])
    if len(shape) != 4 or shape[1] < 1:
        raise OptionError(
            f"The model's output has shape {shapes.get(slim.graph.output[0].name)}.",
            "Expected class scores [1, C, h, w]; choose another with --output, or give --classes.",
        )
    return shape[1], how
